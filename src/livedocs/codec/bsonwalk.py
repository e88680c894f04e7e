"""Where the values of a BSON document lie, and how many there are, without decoding any. Pure.

Every size is checked against the bytes at hand, nothing recurses, and a walk can be told when to stop: what is
walked here may have been written to cost as much as possible.

Source: https://bsonspec.org/spec.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from bson.errors import InvalidBSON

_INT32, _UINT32 = struct.Struct("<i").unpack_from, struct.Struct("<I").unpack_from

STRING, DOCUMENT, ARRAY, BINARY, OBJECTID, REGEX, CODE_WITH_SCOPE = 0x02, 0x03, 0x04, 0x05, 0x07, 0x0B, 0x0F
# Bytes of a value by its BSON type.
FIXED = {
    0x01: 8,
    0x06: 0,
    OBJECTID: 12,
    0x08: 1,
    0x09: 8,
    0x0A: 0,
    0x10: 4,
    0x11: 8,
    0x12: 8,
    0x13: 16,
    0x7F: 0,
    0xFF: 0,
}
# Of those whose value begins with its size: how many bytes that is short of.
SIZED = {STRING: 4, DOCUMENT: 0, ARRAY: 0, BINARY: 5, 0x0C: 16, 0x0D: 4, 0x0E: 4, CODE_WITH_SCOPE: 0}
# Both by type, which is faster; None for the other types.
FIXED_BY_KIND, SIZED_BY_KIND = ([sizes.get(kind) for kind in range(256)] for sizes in (FIXED, SIZED))
SMALLEST_DOCUMENT = 5
_CONTAINERS = frozenset({DOCUMENT, ARRAY, CODE_WITH_SCOPE})
_TOO_LONG = "a name or a value that is longer than its document"
# A Binary of 16 bytes: its length, its subtype, and those.
_UUID_SIZE, _UUID_SUBTYPE = 21, 4


class Element(NamedTuple):
    """Where a value lies: its BSON type, its first byte, the byte behind its last."""

    kind: int
    begin: int
    end: int


def body(raw: bytes, at: int = 0, limit: int | None = None) -> tuple[int, int]:
    """The first byte of the first element of the document that begins there, and the place of its final NUL.

    Raises:
        InvalidBSON: it is longer than what is there.
    """
    limit = len(raw) if limit is None else limit
    if limit - at < SMALLEST_DOCUMENT:
        msg = "a document that is cut off"
        raise InvalidBSON(msg)
    size = _INT32(raw, at)[0]
    if not SMALLEST_DOCUMENT <= size <= limit - at:
        msg = f"a document of {size} bytes in {limit - at}"
        raise InvalidBSON(msg)
    return at + 4, at + size - 1


def value_end(raw: bytes, kind: int, begin: int, last: int) -> int:
    """The byte behind a value of that type that begins there, in a document that ends at `last`.

    Raises:
        InvalidBSON: no such type, or the value is longer than the document.
    """
    fixed = FIXED.get(kind)
    if fixed is not None:
        end = begin + fixed
    elif kind in SIZED:
        size = _INT32(raw, begin)[0] if begin + 4 <= last else -1
        end = begin + size + SIZED[kind] if size >= 0 else -1
    elif kind == REGEX:
        end = raw.find(0, raw.find(0, begin, last) + 1 or last, last) + 1
    else:
        msg = f"a value of type {kind}"
        raise InvalidBSON(msg)
    if not begin <= end <= last:
        msg = "a value that is longer than its document"
        raise InvalidBSON(msg)
    return end


def elements(raw: bytes, at: int = 0) -> Iterator[tuple[bytes, Element]]:
    """The fields of the document that begins there, in order, each with its name.

    Raises:
        InvalidBSON: the document is broken there.
    """
    at, last = body(raw, at)
    while at < last:
        kind = raw[at]
        begin = raw.find(0, at + 1, last) + 1
        if not begin:
            msg = "a name without an end"
            raise InvalidBSON(msg)
        end = value_end(raw, kind, begin, last)
        yield raw[at + 1 : begin - 1], Element(kind, begin, end)
        at = end


def find(raw: bytes, name: bytes, at: int = 0, *, most: int | None = None) -> Element | None:
    """The first field of that name; None when there is none among the first `most`.

    Raises:
        InvalidBSON: the document is broken before it.
    """
    for number, (own, element) in enumerate(elements(raw, at)):
        if own == name:
            return element
        if number == most:
            break
    return None


def uuid_at(raw: bytes, place: Element | None) -> UUID | None:
    """The UUID that a field holds; None for anything but a Binary of subtype 4 that is one."""
    if place is None or place.kind != BINARY or place.end - place.begin != _UUID_SIZE:
        return None
    return UUID(bytes=raw[place.begin + 5 : place.end]) if raw[place.begin + 4] == _UUID_SUBTYPE else None


def most_elements(raw: bytes) -> int:
    """No fewer than the fields and array items in all; found at the speed of C.

    An element takes two bytes at least, and its name ends with a NUL.
    """
    return min(len(raw) // 2, raw.count(0))


def has_more_elements(raw: bytes, most: int) -> bool:
    """Whether there are more fields and array items in all than that; takes up to 0.4 microseconds for each.

    Raises:
        InvalidBSON: the document is broken.
    """
    count = 0
    open_documents = [body(raw)]
    index = raw.index
    try:
        while open_documents:
            at, last = open_documents.pop()
            # Every line from here on is run a hundred thousand times for the worst documents.
            while at < last:
                kind = raw[at]
                begin = index(0, at + 1) + 1
                if (size := FIXED_BY_KIND[kind]) is not None:
                    at = begin + size
                elif (beside := SIZED_BY_KIND[kind]) is not None:
                    at = begin + beside + _UINT32(raw, begin)[0]
                    if kind in _CONTAINERS and (at - begin != SMALLEST_DOCUMENT or at > last):
                        inner = begin if kind != CODE_WITH_SCOPE else scope_at(raw, begin, at)
                        open_documents.append(body(raw, inner, at))
                elif kind == REGEX:
                    at = index(0, index(0, begin) + 1) + 1
                else:
                    at = value_end(raw, kind, begin, last)
                count += 1
                if count > most:
                    return True
            if at != last:
                raise InvalidBSON(_TOO_LONG)
    except (struct.error, ValueError) as error:
        raise InvalidBSON(_TOO_LONG) from error
    return False


def scope_at(raw: bytes, begin: int, end: int) -> int:
    """Where the scope of a code with scope begins.

    Raises:
        InvalidBSON: the code is longer than the value.
    """
    return value_end(raw, STRING, begin + 4, end)
