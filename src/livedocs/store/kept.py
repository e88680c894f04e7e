"""What a client has sent back as it was shown stays as it is stored, byte for byte. Pure.

JSON says less than BSON: 5 may be an Int64 or a double, "a" a symbol, null what was undefined. A client that sends
such a value back has not changed it, and whoever has written it must find it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument

from livedocs.codec.bsonwalk import ARRAY, DOCUMENT, Element, elements
from livedocs.store.merge import same
from livedocs.store.validation import CODEC


class Kept(RawBSONDocument):
    """A document as its bytes. PyMongo asks whether one is empty, and would decode it for that, which may fail."""

    def __bool__(self) -> bool:
        return True


def keeping(raw: bytes, current: Mapping[str, Any], fields: Mapping[str, Any]) -> Kept | None:
    """The fields as a document; None where they are the document's already, in whatever order.

    Each value is looked at once, however deep it is in others.

    Args:
        raw: the present document.
        current: the same, decoded.
        fields: what is to be in its place.
    """
    made, is_same = _document(raw, 0, current, fields)
    return None if is_same else Kept(made)


# A value's BSON, and whether it is what is stored there already.
_Made = tuple[bytes, bool]


def _document(raw: bytes, at: int, current: Mapping[str, Any], fields: Mapping[str, Any]) -> _Made:
    stored = dict(elements(raw, at))
    made = [
        _element(raw, stored.get(name.encode()), name, current.get(name), value) for name, value in fields.items()
    ]
    return _enclosed(made, len(current) == len(fields))


def _array(raw: bytes, at: int, current: Sequence[Any], items: Sequence[Any]) -> _Made:
    stored = [element for _, element in elements(raw, at)]
    places = [*stored[: len(items)], *[None] * (len(items) - len(stored))]
    present = [*current[: len(items)], *[None] * (len(items) - len(current))]
    made = [
        _element(raw, place, str(number), before, item)
        for number, (place, before, item) in enumerate(zip(places, present, items, strict=True))
    ]
    return _enclosed(made, len(current) == len(items))


def _element(raw: bytes, place: Element | None, name: str, current: Any, value: Any) -> _Made:
    if place is None:
        return _encoded(name, value), False
    made: bytes | None = None
    if place.kind == DOCUMENT and isinstance(current, dict) and isinstance(value, dict):
        made, is_same = _document(raw, place.begin, current, value)
    elif place.kind == ARRAY and isinstance(current, list) and isinstance(value, list):
        made, is_same = _array(raw, place.begin, current, value)
    else:
        is_same = same(current, value)
    if is_same:
        return _named(place.kind, name, raw[place.begin : place.end]), True
    return (_encoded(name, value) if made is None else _named(place.kind, name, made)), False


def _encoded(name: str, value: Any) -> bytes:
    return bson.encode({name: value}, codec_options=CODEC)[4:-1]


def _named(kind: int, name: str, value: bytes) -> bytes:
    return bytes((kind,)) + name.encode() + b"\0" + value


def _enclosed(members: Sequence[_Made], is_whole: bool) -> _Made:  # noqa: FBT001 - one half of the answer
    body = b"".join(made for made, _ in members)
    whole = (len(body) + 5).to_bytes(4, "little") + body + b"\0"
    return whole, is_whole and all(is_same for _, is_same in members)
