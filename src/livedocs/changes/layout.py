"""Where the parts of a change event lie, found without decoding it.

This is done for every event, so it is fast and checks little. Only what MongoDB has made itself is walked
here, never what a document holds.

Source: https://www.mongodb.com/docs/v6.0/reference/change-events/
"""

from __future__ import annotations

import re
from struct import Struct

from livedocs.codec.bsonwalk import DOCUMENT, FIXED_BY_KIND, SIZED

_INT32 = Struct("<i").unpack_from
# What nearly every event begins with. One match takes half as long as a step for each element.
_HEAD = re.compile(
    rb"(?:\x12txnNumber\0.{8}\x03lsid\0\x48\0\0\0.{68})?"
    rb"\x03_id\0.{4}\x02_data\0.{4}[0-9A-F]+\0\0"
    rb"\x02operationType\0.{4}[A-Za-z]+\0"
    rb"\x11clusterTime\0.{8}"
    rb"(?:\x05collectionUUID\0.{21})?"
    rb"(?:\x09wallTime\0.{8})?",
    re.DOTALL,
)
_FULL_DOCUMENT, _NS, _IMAGE = b"\x03fullDocument\0", b"\x03ns\0", b"\x03fullDocumentBeforeChange\0"
# What lies between the head of an event and its pre-image, each a document.
_AHEAD_OF_IMAGE = tuple(
    (lead, len(lead)) for lead in (_FULL_DOCUMENT, _NS, b"\x03documentKey\0", b"\x03updateDescription\0")
)


def namespace(raw: bytes) -> bytes:
    """The event's `ns` as it is, with its type and its name.

    Raises:
        LookupError, ValueError, struct.error: the event is broken, or has none.
    """
    head = _HEAD.match(raw, 4)
    if head is not None:
        at = head.end()
        if raw.startswith(_FULL_DOCUMENT, at):
            at += len(_FULL_DOCUMENT) + _INT32(raw, at + len(_FULL_DOCUMENT))[0]
        if raw.startswith(_NS, at):
            return raw[at : at + len(_NS) + _INT32(raw, at + len(_NS))[0]]
    place = find_document(raw, b"ns")
    if place is None:
        msg = "an event without a namespace"
        raise LookupError(msg)
    return raw[slice(*place)]


def pre_image(raw: bytes) -> tuple[int, int, int] | None:
    """Where the event's pre-image lies: the first byte of its element, that of the document, the byte behind both.

    Raises:
        LookupError, ValueError, struct.error: the event is broken before it.
    """
    if _IMAGE not in raw:
        return None
    head = _HEAD.match(raw, 4)
    if head is not None:
        at = head.end()
        for lead, length in _AHEAD_OF_IMAGE:
            if raw.startswith(lead, at):
                at += length + _INT32(raw, at + length)[0]
        if raw.startswith(_IMAGE, at):
            begin = at + len(_IMAGE)
            return at, begin, begin + _INT32(raw, begin)[0]
    place = find_document(raw, _IMAGE[1:-1])
    return None if place is None else (place[0], place[0] + len(_IMAGE), place[1])


def find_document(raw: bytes, name: bytes) -> tuple[int, int] | None:
    """The first byte of the event's first field of that name that holds a document, and the byte behind it.

    Raises:
        LookupError, ValueError, struct.error: the event is broken before it.
    """
    head = _HEAD.match(raw, 4)
    at, last = head.end() if head is not None else 4, len(raw) - 1
    fixed, sized, size, index = FIXED_BY_KIND, SIZED, _INT32, raw.index
    while at < last:
        kind = raw[at]
        begin = index(0, at + 1) + 1
        if (known := fixed[kind]) is not None:
            at = begin + known
            continue
        end = begin + size(raw, begin)[0] + sized[kind]
        if kind == DOCUMENT and raw[at + 1 : begin - 1] == name:
            return at, end
        if end <= at:
            msg = "a value of a negative length"
            raise ValueError(msg)
        at = end
    return None
