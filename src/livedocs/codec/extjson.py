"""BSON values as relaxed Extended JSON v2, and back.

One codec for the socket and for HTTP. Encoding is orjson with the mapping as its default hook, so that plain
values never leave C. Differences from `bson.json_util`: integers past 2^53 are `$numberLong`, because a browser's
numbers end there; NaN and infinities are `$numberDouble`, because JSON has none (orjson would write `null`).

Source: https://github.com/mongodb/specifications/blob/master/source/extended-json/extended-json.md
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
    json_util,
)
from bson.binary import UUID_SUBTYPE
from bson.errors import BSONError

from livedocs.codec import jsonscalars
from livedocs.codec.jsonscalars import MILLISECOND, SAFE
from livedocs.errors import InvalidJson
from livedocs.runtime.slices import Steps, at_once, pieces

# What a 64-bit integer cannot be: orjson makes a double of a longer one, and its last digits are gone.
_WIDE = float(2**63)
# Values that are looked at, and special ones that are decoded, between two moments in which others may go on.
_STEP = 1_000
_SPECIAL_STEP = 100
_AS_THEY_ARE = frozenset({str, bool, type(None)})
_NUMBERS = frozenset({int, float, Int64})
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC, as the dates it is taken from
_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_NON_STR_KEYS
_REGEX_FLAGS = tuple(
    (int(flag), ord(letter))
    for flag, letter in (
        (re.IGNORECASE, "i"),
        (re.LOCALE, "l"),
        (re.MULTILINE, "m"),
        (re.DOTALL, "s"),
        (re.UNICODE, "u"),
        (re.VERBOSE, "x"),
    )
)


def dumps(value: Any) -> bytes:
    """The value as JSON text, UTF-8, without spaces; of whatever `bsondecode` returns, however deep."""
    try:
        # orjson alone would write NaN as null and 2**60 as a number: look first whether any is there.
        return orjson.dumps(_exact(value), _default, _OPTIONS)
    except (orjson.JSONEncodeError, RecursionError) as error:
        try:
            # orjson ends at 254 levels; a code with scope that holds another, and so on, has two for each.
            return b"".join(_deep(value))
        except orjson.JSONEncodeError:
            raise TypeError(str(error)) from error


class _Text(bytes):
    """JSON text that stands in a list of values to be written."""


def _deep(value: Any) -> Iterator[bytes]:
    """The pieces of a value's JSON text, made without recursion."""
    # What is still to be written, the next at the end.
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Code) and item.scope is not None:
            item = {"$code": str(item), "$scope": item.scope}
        if type(item) is _Text:
            yield item
        elif isinstance(item, Mapping):
            waiting += reversed(list(_members(item)))
        elif type(item) is list:
            waiting += reversed(list(_items(item)))
        else:
            yield orjson.dumps(_exact(item), _default, _OPTIONS)


def _members(mapping: Mapping[str, Any]) -> Iterator[Any]:
    separator = b"{"
    for name, value in mapping.items():
        yield _Text(separator + orjson.dumps(name) + b":")
        yield value
        separator = b","
    yield _Text(b"}" if mapping else b"{}")


def _items(values: list[Any]) -> Iterator[Any]:
    separator = b"["
    for value in values:
        yield _Text(separator)
        yield value
        separator = b","
    yield _Text(b"]" if values else b"[]")


def dumping(value: dict[str, Any] | list[Any]) -> Steps[bytes]:
    """`dumps` in steps, for a large value. It is used up: its parts become those of its JSON form."""
    waiting: list[Any] = [value]
    seen = 0
    while waiting:
        container = waiting.pop()
        for piece in pieces(container):
            for name, item in piece:
                kind = type(item)
                if kind is dict or kind is list:
                    waiting.append(item)
                elif kind not in _AS_THEY_ARE:
                    encode = None if kind in _NUMBERS else _ENCODERS.get(kind)
                    container[name] = _exact(item) if encode is None else encode(item)
            seen += min(len(container), _STEP) + 1
            if seen > _STEP:
                seen = 0
                yield
    yield
    try:
        return orjson.dumps(value, _default, _OPTIONS)
    except orjson.JSONEncodeError:
        return dumps(value)


def _none(_: Any) -> Iterable[Any]:
    return ()


def loads(text: bytes | str) -> Any:
    """The BSON values of a JSON text. An integer too long for BSON stays one, for the validator to refuse.

    Raises:
        InvalidJson: not JSON, or a `$`-typed value that names no BSON value.
    """
    return at_once(loading(text))


def loading(
    text: bytes | bytearray | str, *, aware: bool = True, documents: Callable[[Any], Iterable[Any]] = _none
) -> Steps[Any]:
    """`loads` in steps, for a text whose elements have been counted.

    Args:
        text: UTF-8.
        aware: whether times say that they are in UTC; to encode those takes three times as long.
        documents: what in the JSON is a document whatever its names are: one may have a single field, `$uuid`.

    Raises:
        InvalidJson: not JSON, or a `$`-typed value that names no BSON value.
    """
    options = _DECODE if aware else _DECODE_PLAIN
    try:
        value = orjson.loads(text)
        yield
        try:
            return (yield from _typed(value, _WIDE, options, documents(value)))
        except _WideError:
            # Slower, but it tells 18446744073709551616 from 1.8446744073709552e19.
            value = json.loads(text)
            yield
            return (yield from _typed(value, math.inf, options, documents(value)))
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"Not valid JSON: {error.msg} at position {error.pos}.") from None
    except RecursionError:
        raise InvalidJson("Nested too deeply.") from None


def _exact(value: Any) -> Any:
    """The value with what orjson would write otherwise replaced; the same object when there is nothing."""
    kind = type(value)
    if kind is dict:
        changed: dict[str, Any] | None = None
        for name, item in value.items():
            # What nearly every value is needs no call.
            kind = type(item)
            if kind in _AS_IT_IS or (kind is int and -SAFE <= item <= SAFE):
                continue
            new = _exact(item)
            if new is not item:
                changed = changed or {}
                changed[name] = new
        return {**value, **changed} if changed else value
    if kind is list:
        return _exact_items(value)
    if kind is int:
        return value if -SAFE <= value <= SAFE else jsonscalars.number_long(value)
    if kind is float:
        return value if value - value == 0 else jsonscalars.inexact(value)
    # orjson would write a UUID as a bare string, which reads back as one.
    return jsonscalars.binary(value.bytes, UUID_SUBTYPE) if kind is UUID else value


def _exact_items(items: list[Any]) -> list[Any]:
    changed: list[Any] | None = None
    for place, item in enumerate(items):
        kind = type(item)
        if kind in _AS_IT_IS or (kind is int and -SAFE <= item <= SAFE):
            continue
        new = _exact(item)
        if new is not item:
            changed = changed or items.copy()
            changed[place] = new
    return changed or items


def _default(value: Any) -> Any:
    encode = _ENCODERS.get(type(value))
    if encode is not None:
        return encode(value)
    if isinstance(value, Mapping):
        return _exact(dict(value))
    for kind, encode in _ENCODERS.items():
        if isinstance(value, kind):
            return encode(value)
    msg = f"no Extended JSON for {type(value).__name__}"
    raise TypeError(msg)


def _int64(value: int) -> Any:
    return int(value) if -SAFE <= value <= SAFE else jsonscalars.number_long(value)


def _date(value: datetime) -> orjson.Fragment:
    # Without a time zone it is UTC, as BSON has it.
    at = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    if at.year < 1970:
        return jsonscalars.date_number((at - _EPOCH) // MILLISECOND)
    # orjson takes no subclass of it.
    return jsonscalars.date_text(at if type(at) is datetime else datetime.combine(at.date(), at.time()))


def _binary(value: bytes) -> orjson.Fragment:
    return jsonscalars.binary(value, value.subtype if isinstance(value, Binary) else 0)


def _regex(pattern: str | bytes, flags: int) -> orjson.Fragment:
    text = pattern.decode() if isinstance(pattern, bytes) else pattern
    return jsonscalars.regular_expression(text, bytes(letter for flag, letter in _REGEX_FLAGS if flags & flag))


def _code(value: Code) -> Any:
    if value.scope is None:
        return jsonscalars.code(str(value))
    return {"$code": str(value), "$scope": _exact(dict(value.scope))}


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    ObjectId: lambda value: jsonscalars.object_id(value.binary, 0, 12),
    datetime: _date,
    DatetimeMS: lambda value: jsonscalars.date_number(int(value)),
    Decimal128: lambda value: jsonscalars.decimal(value.bid, 0, 16),
    Int64: _int64,
    Binary: _binary,
    bytes: _binary,
    Timestamp: lambda value: {"$timestamp": {"t": value.time, "i": value.inc}},
    Regex: lambda value: _regex(value.pattern, value.flags),
    re.Pattern: lambda value: _regex(value.pattern, value.flags),
    Code: _code,
    DBRef: lambda value: _exact(dict(value.as_doc())),
    MinKey: lambda _: {"$minKey": 1},
    MaxKey: lambda _: {"$maxKey": 1},
    str: str.__str__,
    int: int,
    float: float,
}
# What is written as it is by orjson, or by its hook. Invariant: nothing that `_exact` replaces or looks into.
_AS_IT_IS = frozenset({str, bool, type(None), orjson.Fragment, *_ENCODERS} - {int, float})

_DECODE = json_util.JSONOptions(
    json_mode=json_util.JSONMode.RELAXED, tz_aware=True, tzinfo=UTC, uuid_representation=4
)


_DECODE_PLAIN = json_util.JSONOptions(json_mode=json_util.JSONMode.RELAXED, tz_aware=False, uuid_representation=4)


class _WideError(Exception):
    """A number that may have been an integer too long for orjson."""


def _typed(value: Any, doubtful: float, options: json_util.JSONOptions, documents: Iterable[Any]) -> Steps[Any]:
    """Plain JSON with its `$`-typed objects turned into BSON values, the innermost first; in place.

    Raises:
        _WideError: a double that is as large as `doubtful`: it may have been an integer.
    """
    root = [value]
    plain = {id(document) for document in documents}
    waiting: list[Any] = [root]
    # With where they stand. Whatever is inside of one comes after it.
    special: list[tuple[Any, Any, dict[str, Any]]] = []
    seen = 0
    while waiting:
        container = waiting.pop()
        for piece in pieces(container):
            for name, item in piece:
                kind = type(item)
                if kind is dict or kind is list:
                    waiting.append(item)
                    if kind is dict and "$" in "".join(item) and id(item) not in plain:
                        special.append((container, name, item))
                elif kind is float and not -doubtful < item < doubtful:
                    raise _WideError
            seen += min(len(container), _STEP) + 1
            if seen > _STEP:
                seen = 0
                yield
    yield from _replaced(special, options)
    return root[0]


def _replaced(special: list[tuple[Any, Any, dict[str, Any]]], options: json_util.JSONOptions) -> Steps[None]:
    """Put the BSON value of each of these objects in its place, the last first."""
    for number, (container, name, item) in enumerate(reversed(special)):
        container[name] = _special(item, options)
        if number % _SPECIAL_STEP == _SPECIAL_STEP - 1:
            yield


_TYPES = frozenset(
    (
        *("$oid", "$date", "$numberDecimal", "$numberLong", "$numberInt", "$numberDouble", "$binary", "$uuid"),
        *("$timestamp", "$regularExpression", "$code", "$scope", "$minKey", "$maxKey", "$undefined", "$symbol"),
        "$dbPointer",
    )
)


# json_util takes whatever Python's `int` does: 1.5, true, "1_000".
_WHOLE = re.compile(r"-?[0-9]{1,400}\Z")
_SUBTYPE = re.compile(r"[0-9A-Fa-f]{1,2}\Z")


def _special(value: dict[str, Any], options: json_util.JSONOptions) -> Any:
    """The BSON value of a `$`-typed object; an object with other `$` names stays for the validator to refuse."""
    if not value.keys() <= _TYPES:
        return value
    for name in ("$numberLong", "$numberInt"):
        if name in value and not _whole(value[name]):
            raise InvalidJson(f"Not a value of Extended JSON: {sorted(value)}.")
    try:
        match value:
            case {"$binary": {"base64": str() as text, "subType": str() as subtype, **rest}} if not rest:
                return _read_binary(text, subtype)
            case {"$date": int() as since, **rest} if not rest:
                return _read_date(since, options)
        result = json_util.object_hook(value, options)
    except (BSONError, ValueError, TypeError, KeyError, OverflowError, ArithmeticError) as error:
        raise InvalidJson(f"Not a value of Extended JSON: {sorted(value)}.") from error
    return result


def _read_binary(text: str, subtype: str) -> Any:
    """Any Binary that MongoDB stores; json_util makes a UUID, and with that a subtype 4, of a subtype 3."""
    if not _SUBTYPE.match(subtype):
        raise ValueError(subtype)
    data, kind = binascii.a2b_base64(text, strict_mode=True), int(subtype, 16)
    if kind == UUID_SUBTYPE and len(data) == 16:
        return UUID(bytes=data)
    return Binary(data, kind) if kind else data


def _read_date(since: int, options: json_util.JSONOptions) -> Any:
    """A date of any 64 bits; those of the years 1 to 9999 as a `datetime`."""
    if type(since) is bool or not -(2**63) <= since < 2**63:
        raise ValueError(since)
    try:
        at = _EPOCH + timedelta(milliseconds=since)
    except OverflowError:
        return DatetimeMS(int(since))
    return at.replace(tzinfo=UTC) if options.tz_aware else at


def _whole(number: Any) -> bool:
    return bool(_WHOLE.match(number)) if isinstance(number, str) else type(number) is int
