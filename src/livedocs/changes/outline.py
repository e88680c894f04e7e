"""Events too large to be decoded as a whole: only what tells the room, and no more work than that. Pure.

What is decoded of such an event is bounded, and so are the looks for a field in a document: whoever writes to a
tenant's database may write what costs most. `read_outline` may still take long, and belongs into a thread where
`presentation.is_heavy` says so of the event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

import bson

from livedocs.changes.layout import pre_image
from livedocs.changes.updates import ambiguous, names_a_nested_field, updated
from livedocs.codec.bsondecode import CODEC, decode
from livedocs.codec.bsonwalk import ARRAY, DOCUMENT, Element, elements, find, uuid_at
from livedocs.model import ShownBounds
from livedocs.presentation import is_too_large

# Fields of a document among which its UUID is looked for; a hundred thousand take about 50 ms.
_MOST_FIELDS = 200_000
# Bytes of an `_id` that may be a UUID, or anything that is worth decoding.
_SMALL = 4096
# Bytes of a grant or an inquiry; one that is larger is none of ours.
OWN_DOCUMENT = 64 * 1024
# What an event says of itself.
_OWN = ("_id", "operationType", "clusterTime", "wallTime", "ns", "to", "txnNumber", "lsid")


class Outline(NamedTuple):
    """What an event tells.

    Attributes:
        event: as if it had been decoded, without most of its documents' fields.
        withheld: why nobody is sent the change itself; None when it can be shown.
        whole: where an update changed the document's UUID, the document as the update left it, if that is known.
    """

    event: Mapping[str, Any]
    withheld: str | None = None
    whole: bytes | None = None


def whereabouts(raw: bytes) -> dict[str, Any]:
    """What the event says of itself: its kind, its place in the stream, its collection. Fast for any event.

    Raises:
        InvalidBSON, LookupError: it cannot be read.
    """
    return _own(raw, _places(raw))


def control_event(raw: bytes) -> dict[str, Any]:
    """An event of the control database with such documents as could be the server's own; those are small.

    Raises:
        InvalidBSON, LookupError: it cannot be read.
    """
    places = _places(raw)
    event = _own(raw, places)
    for name in ("documentKey", "fullDocument", "updateDescription"):
        if name in places and places[name].end - places[name].begin <= OWN_DOCUMENT:
            event[name] = _only(raw, places[name])
    return event


def _places(raw: bytes) -> dict[str, Element]:
    return {name.decode(errors="replace"): place for name, place in elements(raw)}


def _own(raw: bytes, places: Mapping[str, Element]) -> dict[str, Any]:
    return {name: _only(raw, places[name]) for name in _OWN if name in places}


def read_outline(raw: bytes, image: bytes | None, bounds: ShownBounds) -> Outline:
    """What the event of a document tells.

    Args:
        raw: the event without its pre-image.
        image: the pre-image.
        bounds: beyond which nothing is shown.

    Raises:
        InvalidBSON, LookupError: it cannot be read, or its document hides where it belongs.
    """
    places = _places(raw)
    event = _own(raw, places)
    event["documentKey"] = document_key(raw)
    whole, description = places.get("fullDocument"), places.get("updateDescription")
    if whole is not None and whole.kind == DOCUMENT:
        event["fullDocument"] = _uuid_of(raw, whole)
    if whole is not None and _too_large(raw, whole, bounds):
        return Outline(event, "document_too_large")
    if description is None:
        return Outline(event)
    if _too_large(raw, description, bounds):
        event["updateDescription"] = _changed_uuid(raw, description)
        return Outline(event, "document_too_large")
    event["updateDescription"] = decode(raw[description.begin : description.end])
    return judged(event, image, bounds)


def judged(event: Mapping[str, Any], image: bytes | None, bounds: ShownBounds | None = None) -> Outline:
    """Whether an update can be shown as it is, seen from the document before it, and what it made of that.

    Without bounds all of it is small: what it leads to is within them. The image is decoded only for updates that
    cannot be understood without.
    """
    changes = event["updateDescription"]
    moved = "uuid" in changes["updatedFields"]
    if not moved and not names_a_nested_field(changes):
        return Outline(event)
    if image is not None and bounds is not None and is_too_large(image, bounds):
        return Outline(event, "document_too_large" if moved else "ambiguous_path")
    before = decode(image) if image is not None else None
    withheld = "ambiguous_path" if ambiguous(changes, before) else None
    if not before or not moved:
        return Outline(event, withheld)
    after = bson.encode(updated(before, changes), codec_options=CODEC)
    if bounds is not None and is_too_large(after, bounds):
        return Outline(event, "document_too_large")
    return Outline(event, withheld, after)


def _too_large(raw: bytes, place: Element, bounds: ShownBounds) -> bool:
    return place.end - place.begin > bounds.bytes or is_too_large(raw[place.begin : place.end], bounds)


def _only(raw: bytes, place: Element) -> Any:
    """The value of one field."""
    return decode(_document(raw, place))[""]


def _document(raw: bytes, place: Element) -> bytes:
    """A document of one field without a name."""
    size = 4 + 2 + place.end - place.begin + 1
    return size.to_bytes(4, "little") + bytes((place.kind, 0)) + raw[place.begin : place.end] + b"\0"


def document_key(raw: bytes) -> dict[str, Any]:
    """The event's `documentKey`; with None in place of an `_id` that is too large to be decoded, and no UUID.

    Raises:
        InvalidBSON, LookupError: the event has none.
    """
    place = _document_id(raw)
    return {"_id": _only(raw, place) if place.end - place.begin <= _SMALL else None}


def document_key_at(raw: bytes) -> bytes:
    """The event's `documentKey` as it is; empty where it has none."""
    place = find(raw, b"documentKey")
    return raw[place.begin : place.end] if place is not None else b""


def _document_id(raw: bytes) -> Element:
    key = find(raw, b"documentKey")
    place = find(raw, b"_id", key.begin) if key is not None else None
    if place is None:
        msg = "an event without the _id of its document"
        raise LookupError(msg)
    return place


def uuid_of(document: bytes) -> UUID | None:
    """The UUID in the field `uuid` of a document.

    Raises:
        InvalidBSON, LookupError: the document is broken, or has more fields than can be looked at.
    """
    return uuid_at(document, _uuid_field(document, 0, len(document)))


def uuid_alone(document: bytes) -> bytes:
    """The document with none of its fields but `uuid`.

    Raises:
        InvalidBSON, LookupError: the document is broken, or has more fields than can be looked at.
    """
    uuid = uuid_of(document)
    return bson.encode({} if uuid is None else {"uuid": uuid}, codec_options=CODEC)


def _uuid_of(raw: bytes, document: Element) -> dict[str, Any]:
    """The field `uuid` of a document, where it has one.

    Raises:
        LookupError: it has more fields than can be looked at.
    """
    place = _uuid_field(raw, document.begin, document.end)
    if place is None:
        return {}
    return {"uuid": _only(raw, place) if place.end - place.begin <= _SMALL else None}


def _uuid_field(raw: bytes, begin: int, end: int) -> Element | None:
    # At the speed of C: nearly every document that is large has none, or has it among its first fields.
    if raw.find(b"uuid\0", begin, end) < 0:
        return None
    for number, (name, place) in enumerate(elements(raw, begin)):
        if name == b"uuid":
            return place
        if number > _MOST_FIELDS:
            msg = "a document with too many fields to find its UUID"
            raise LookupError(msg)
    return None


def _changed_uuid(raw: bytes, description: Element) -> dict[str, Any]:
    """What an update does to the field `uuid`, whatever else it does."""
    places = dict(elements(raw, description.begin))
    updates, removed = places.get(b"updatedFields"), places.get(b"removedFields")
    fields = _uuid_of(raw, updates) if updates is not None and updates.kind == DOCUMENT else {}
    # A text of four letters; no path holds a NUL, so this is in no other.
    is_removed = (
        removed is not None
        and removed.kind == ARRAY
        and raw.find(b"\x05\0\0\0uuid\0", removed.begin, removed.end) >= 0
    )
    return {"updatedFields": fields, "removedFields": ["uuid"] if is_removed else []}


def without_image(raw: bytes) -> tuple[bytes, bytes | None]:
    """The event without its pre-image, which few changes need and none for long; and the pre-image.

    Raises:
        LookupError, ValueError, struct.error: it cannot be read.
    """
    place = pre_image(raw)
    if place is None:
        return raw, None
    at, begin, end = place
    return (len(raw) - end + at).to_bytes(4, "little") + raw[4:at] + raw[end:], raw[begin:end]


def has_field(raw: bytes, name: str) -> bool:
    """Whether the event has a field of that name."""
    return find(raw, name.encode()) is not None


def document_id(raw: bytes) -> bytes:
    """The `_id` of the event's document as BSON: its type and its value, one for each `_id` there can be.

    Raises:
        InvalidBSON, LookupError: the event names none.
    """
    place = _document_id(raw)
    return bytes((place.kind,)) + raw[place.begin : place.end]
