"""BSON documents as Python values, without conveniences: whatever MongoDB stores can be shown.

PyMongo's decoder makes a `DBRef` of every document that has `$ref` and `$id`, and refuses a Binary whose length
does not fit its subtype; MongoDB stores both. It is written in C, so it goes first; what it would misread or
refuses is decoded here. Neither way depends on the nesting, nor ends in anything but values or `InvalidBSON`.

Types that Extended JSON has and PyMongo has no value for come as PyMongo gives them: a symbol as text, undefined
as null. Dates are UTC, without a time zone unless one is asked for. Of two fields of one name the last counts.

Source: https://bsonspec.org/spec.html
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import bson
from bson import Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import UUID_SUBTYPE, Binary, UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import InvalidBSON

from livedocs.codec import jsonscalars
from livedocs.codec.bsonwalk import (
    ARRAY,
    CODE_WITH_SCOPE,
    DOCUMENT,
    FIXED_BY_KIND,
    SIZED_BY_KIND,
    SMALLEST_DOCUMENT,
    body,
    most_elements,
    value_end,
)

_Reader = Callable[[bytes, int, int], Any]
_Unfinished = tuple[Any, int, int]

# For encoding what was decoded, and for decoding where every value is known to be an ordinary one.
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    dict,
    tz_aware=True,
    tzinfo=UTC,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)

# Dates as BSON has them, in UTC: giving each its time zone takes as long as all the rest of an event. Dates and
# UUIDs that Python has no values for are an error here.
_PLAIN = CODEC.with_options(tz_aware=False, tzinfo=None, datetime_conversion=DatetimeConversion.DATETIME)
# A Binary is made, and written, three times as fast as a UUID.
_WITHOUT_UUIDS = _PLAIN.with_options(uuid_representation=UuidRepresentation.UNSPECIFIED)

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC, as the dates made from it
_INT32, _UINT32 = struct.Struct("<i").unpack_from, struct.Struct("<I").unpack_from
_INT64 = struct.Struct("<q").unpack_from
_DOUBLE, _TIMESTAMP = struct.Struct("<d").unpack_from, struct.Struct("<II").unpack_from
# PyMongo makes values of these types in Python: Binary, regular expression, DBPointer, code, code with scope,
# timestamp, Decimal128.
_SLOW_TYPES = b"\x05\x0b\x0c\x0d\x0f\x11\x13"
# So many of them, at 5 microseconds each, are as fast as all values of a large document without PyMongo.
_MOST_SLOW = 10_000
# Bytes that are decoded at once of a document with more of these bytes, each the type of a nested one, than that.
_PIECE, _MOST_NESTED = 32 * 1024, 10_000
_TOO_LONG = "a name or a value that is longer than its document"
_REGEX_FLAGS = {"i": 2, "l": 4, "m": 8, "s": 16, "u": 32, "x": 64}


def decode(raw: bytes, *, aware: bool = False) -> dict[str, Any]:
    """The document, whatever a service has put into it.

    Args:
        raw: its BSON.
        aware: whether dates are to have their time zone, for comparing them with others that do.

    Raises:
        InvalidBSON: its structure is broken; MongoDB stores no such thing.
    """
    if _is_nested(raw):
        return _in_pieces(raw, aware=aware)
    return _at_once(raw, aware=aware)


def decode_small(raw: bytes) -> dict[str, Any]:
    """A small document, fast: its UUIDs are `Binary` values, or UUIDs.

    Raises:
        InvalidBSON: its structure is broken.
    """
    if b"$ref" not in raw:
        try:
            decoded: dict[str, Any] = bson.decode(raw, codec_options=_WITHOUT_UUIDS)
        except Exception:  # noqa: BLE001, S110 - shown below; `suppress` would cost as much as reading the event
            pass
        else:
            return decoded
    return decode_slowly(raw)


def _is_nested(raw: bytes) -> bool:
    """Whether PyMongo's decoder may let no other thread run for more than 5 ms, because of nested documents."""
    return len(raw) > _PIECE and raw.count(DOCUMENT) + raw.count(ARRAY) > _MOST_NESTED


def _at_once(raw: bytes, *, aware: bool) -> dict[str, Any]:
    if b"$ref" not in raw:
        try:
            decoded: dict[str, Any] = bson.decode(raw, codec_options=CODEC if aware else _PLAIN)
        except Exception:  # noqa: BLE001, S110 - shown below; `suppress` would cost as much as reading the event
            pass
        else:
            return decoded
    return decode_slowly(raw, aware=aware)


def _in_pieces(raw: bytes, *, aware: bool) -> dict[str, Any]:
    """A document with very many others in it: PyMongo's decoder would not let any other thread run for 60 ms."""
    document: dict[str, Any] = {}
    unfinished: list[tuple[Any, int, int]] = [(document, *body(raw))]
    while unfinished:
        holder, at, last = unfinished.pop()
        begun = at
        while at < last:
            kind = raw[at]
            begin = raw.find(0, at + 1, last) + 1
            if not begin:
                msg = "a name without an end"
                raise InvalidBSON(msg)
            end = value_end(raw, kind, begin, last)
            if kind in {DOCUMENT, ARRAY} and end - begin > _PIECE:
                _fill(holder, raw[begun:at], aware=aware)
                inner: Any = {} if kind == DOCUMENT else []
                if type(holder) is list:
                    holder.append(inner)
                else:
                    holder[_text(raw, at + 1, begin - 1)] = inner
                unfinished.append((inner, *body(raw, begin, end)))
                begun = end
            elif end - begun > _PIECE:
                _fill(holder, raw[begun:end], aware=aware)
                begun = end
            at = end
        _fill(holder, raw[begun:last], aware=aware)
    return document


def _fill(holder: Any, elements: bytes, *, aware: bool) -> None:
    """Decode some elements of a document, or of an array, into it."""
    if not elements:
        return
    piece = (len(elements) + 5).to_bytes(4, "little") + elements + b"\0"
    if type(holder) is list:
        whole = (len(piece) + 7).to_bytes(4, "little") + bytes((ARRAY, 0)) + piece + b"\0"
        holder.extend(_at_once(whole, aware=aware)[""])
    else:
        holder.update(_at_once(piece, aware=aware))


def decode_for_json(raw: bytes) -> dict[str, Any]:
    """The document for `extjson.dumps` alone: what JSON has no values for may be finished text already.

    The text is that of what `decode` returns, but no element takes longer than about two microseconds in all,
    whatever it is. PyMongo's values take up to twenty to be made and written.

    Raises:
        InvalidBSON: its structure is broken.
    """
    if b"$ref" not in raw and _suits_pymongo(raw) and not _is_nested(raw):
        with suppress(Exception):
            decoded: dict[str, Any] = bson.decode(raw, codec_options=_WITHOUT_UUIDS)
            return decoded
    return _FOR_JSON.decode(raw)


def _suits_pymongo(raw: bytes) -> bool:
    """Whether few values can be there that PyMongo makes in Python: each has the byte of its type."""
    size = len(raw)
    return (
        size <= _MOST_SLOW * 2
        or most_elements(raw) <= _MOST_SLOW
        or size - len(raw.translate(None, _SLOW_TYPES)) <= _MOST_SLOW
    )


def decode_slowly(raw: bytes, *, aware: bool = False) -> dict[str, Any]:
    """The same as `decode` without PyMongo's decoder.

    Raises:
        InvalidBSON: its structure is broken.
    """
    return (_AWARE if aware else _NAIVE).decode(raw)


class _Decoder:
    """Reads elements one by one, and fills containers one after another, so that nesting costs no recursion.

    Args:
        scalars: reads a value, by its BSON type, from where it begins to where it ends.
        scoped: makes a code with scope, which is filled later.
    """

    def __init__(self, scalars: Mapping[int, _Reader], scoped: Callable[[str, dict[str, Any]], Any]) -> None:
        self._scalars = [scalars.get(kind, _no_value) for kind in range(256)]
        self._scoped = scoped

    def decode(self, raw: bytes) -> dict[str, Any]:
        """The document.

        Raises:
            InvalidBSON: its structure is broken.
        """
        document: dict[str, Any] = {}
        # What is still to be filled, the place of its first element, and that of its end.
        unfinished: list[_Unfinished] = [(document, *body(raw))]
        readers, index = self._readers(unfinished), raw.index
        try:
            while unfinished:
                holder, at, last = unfinished.pop()
                append = holder.append if type(holder) is list else None
                # Every line from here on is run a hundred thousand times for the worst documents.
                while at < last:
                    kind = raw[at]
                    begin = index(0, at + 1) + 1
                    if (size := FIXED_BY_KIND[kind]) is not None:
                        end = begin + size
                    elif (beside := SIZED_BY_KIND[kind]) is not None:
                        end = begin + beside + _UINT32(raw, begin)[0]
                    else:
                        end = index(0, index(0, begin) + 1) + 1
                    if end > last:
                        raise InvalidBSON(_TOO_LONG)
                    value = readers[kind](raw, begin, end)
                    if append:
                        append(value)
                    else:
                        holder[raw[at + 1 : begin - 1].decode("utf-8", "replace")] = value
                    at = end
        except (struct.error, ValueError) as error:
            raise InvalidBSON(_TOO_LONG) from error
        return document

    def _readers(self, unfinished: list[_Unfinished]) -> list[_Reader]:
        """The readers of all values; those of containers return them empty, and leave them to be filled."""

        def document(_: bytes, begin: int, end: int) -> dict[str, Any]:
            holder: dict[str, Any] = {}
            leave(holder, begin, end)
            return holder

        def array(_: bytes, begin: int, end: int) -> list[Any]:
            holder: list[Any] = []
            leave(holder, begin, end)
            return holder

        def leave(holder: Any, begin: int, end: int) -> None:
            if end - begin > SMALLEST_DOCUMENT:
                unfinished.append((holder, begin + 4, end - 1))
            elif end - begin < SMALLEST_DOCUMENT:
                raise InvalidBSON(_TOO_LONG)

        def code_with_scope(raw: bytes, begin: int, end: int) -> Any:
            at = begin + 8 + _UINT32(raw, begin + 4)[0]
            scope: dict[str, Any] = {}
            if at + 4 > end or at + _UINT32(raw, at)[0] > end:
                raise InvalidBSON(_TOO_LONG)
            leave(scope, at, at + _UINT32(raw, at)[0])
            return self._scoped(_text(raw, begin + 8, at - 1), scope)

        readers = self._scalars.copy()
        readers[DOCUMENT], readers[ARRAY], readers[CODE_WITH_SCOPE] = document, array, code_with_scope
        return readers


def _no_value(raw: bytes, begin: int, _: int) -> Any:
    msg = f"a value of a type that there is not, {len(raw) - begin} bytes before the end"
    raise InvalidBSON(msg)


def _text(raw: bytes, begin: int, end: int) -> str:
    return raw[begin:end].decode("utf-8", "replace")


def _date(raw: bytes, begin: int, _: int) -> datetime | DatetimeMS:
    milliseconds = _INT64(raw, begin)[0]
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return DatetimeMS(milliseconds)


def _aware_date(raw: bytes, begin: int, end: int) -> datetime | DatetimeMS:
    value = _date(raw, begin, end)
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def _binary(raw: bytes, begin: int, end: int) -> bytes | UUID:
    """A Binary of another length than its subtype asks for is shown as it is."""
    subtype, data = raw[begin + 4], raw[begin + 5 : end]
    if subtype == UUID_SUBTYPE and len(data) == 16:
        return UUID(bytes=data)
    if subtype == jsonscalars.OLD_BINARY and len(data) >= 4 and _INT32(data, 0)[0] == len(data) - 4:
        data = data[4:]
    return Binary(data, subtype) if subtype else data


def _regex(raw: bytes, begin: int, end: int) -> Regex[str]:
    middle = raw.index(0, begin, end)
    flags = 0
    for letter in _text(raw, middle + 1, end - 1):
        flags |= _REGEX_FLAGS.get(letter, 0)
    return Regex(_text(raw, begin, middle), flags)


def _pointer(raw: bytes, begin: int, end: int) -> dict[str, Any]:
    """What took a DBRef's place before there were any; PyMongo shows it as one."""
    return {"$ref": _text(raw, begin + 4, end - 13), "$id": ObjectId(raw[end - 12 : end])}


_SCALARS: dict[int, _Reader] = {
    0x01: lambda raw, begin, _: _DOUBLE(raw, begin)[0],
    0x02: jsonscalars.string,
    0x05: _binary,
    0x06: lambda *_: None,
    0x07: lambda raw, begin, end: ObjectId(raw[begin:end]),
    0x08: lambda raw, begin, _: bool(raw[begin]),
    0x09: _date,
    0x0A: lambda *_: None,
    0x0B: _regex,
    0x0C: _pointer,
    0x0D: lambda raw, begin, end: Code(jsonscalars.string(raw, begin, end)),
    0x0E: jsonscalars.string,
    0x10: lambda raw, begin, _: _INT32(raw, begin)[0],
    0x11: lambda raw, begin, _: Timestamp(*_TIMESTAMP(raw, begin)[::-1]),
    0x12: lambda raw, begin, _: Int64(_INT64(raw, begin)[0]),
    0x13: lambda raw, begin, end: Decimal128.from_bid(raw[begin:end]),
    0x7F: lambda *_: MaxKey(),
    0xFF: lambda *_: MinKey(),
}
_NAIVE = _Decoder(_SCALARS, Code)
_AWARE = _Decoder({**_SCALARS, 0x09: _aware_date}, Code)
_FOR_JSON = _Decoder(jsonscalars.SCALARS, lambda text, scope: {"$code": text, "$scope": scope})
