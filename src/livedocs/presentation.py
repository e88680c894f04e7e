"""How a stored document looks to those who may see it: the same over HTTP and on the socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from livedocs.codec import extjson
from livedocs.codec.bsondecode import decode_for_json
from livedocs.codec.bsonwalk import has_more_elements, most_elements
from livedocs.model import CollectionKey, ShownBounds, Stored, TooLarge, Unreadable
from livedocs.telemetry import get_logger

log = get_logger(__name__)

OWN_UUID = "$uuid"
"""What clients call a field `uuid` that is not the collection's key."""

# What is decoded, presented and encoded within 5 ms.
_HEAVY_BYTES, _HEAVY_ELEMENTS = 2**18, 4_000


def present(document: Mapping[str, Any], key: CollectionKey, uuid: UUID) -> dict[str, Any]:
    """The document with its UUID first, as a plain string.

    A document keyed by `_id` is shown without `_id`, which is the same UUID, and with a field `uuid` of its own as
    `$uuid`; one keyed by `uuid` keeps its `_id`.
    """
    if key == "uuid":
        return {"uuid": str(uuid), **{name: value for name, value in document.items() if name != "uuid"}}
    own = {OWN_UUID: document["uuid"]} if "uuid" in document else {}
    return {
        "uuid": str(uuid),
        **{name: value for name, value in document.items() if name not in {"uuid", "_id"}},
        **own,
    }


def shown_path(path: str, key: CollectionKey) -> str:
    """What clients call a field, by its dotted path."""
    return "$" + path if key == "_id" and (path == "uuid" or path.startswith("uuid.")) else path


def present_changes(fields: Mapping[str, Any], key: CollectionKey, uuid: UUID) -> dict[str, Any]:
    """The fields that an update has set, by their paths, behind the UUID."""
    hidden = "uuid" if key == "uuid" else "_id"
    shown = {shown_path(path, key): value for path, value in fields.items() if path != hidden}
    return {"uuid": str(uuid), **shown}


def encoded(stored: Stored, key: CollectionKey, uuid: UUID) -> bytes:
    """One stored document as JSON text, UTF-8. Never raises: what cannot be shown says so in its place.

    Takes up to 150 ms for the largest that is shown: `is_heavy` says when it must not be done on the event loop.
    """
    if isinstance(stored, TooLarge):
        return _placeholder(uuid, {"$too_large": stored.size})
    if isinstance(stored, Unreadable):
        return _placeholder(uuid, {"$unreadable": True})
    try:
        return extjson.dumps(present(decode_for_json(stored), key, uuid))
    except Exception as error:  # noqa: BLE001 - one document must not keep the others back
        log.error("document_unreadable", error=type(error).__name__, bytes=len(stored))  # noqa: TRY400 - no contents
        return _placeholder(uuid, {"$unreadable": True})


def _placeholder(uuid: UUID, why: Mapping[str, Any]) -> bytes:
    return extjson.dumps({"uuid": str(uuid), **why})


def is_too_large(raw: bytes, bounds: ShownBounds) -> bool:
    """Whether a document is beyond what is shown. Takes up to 50 ms unless `is_clearly_shown`.

    Raises:
        InvalidBSON: its structure is broken.
    """
    return len(raw) > bounds.bytes or (
        most_elements(raw) > bounds.elements and has_more_elements(raw, bounds.elements)
    )


def is_clearly_shown(raw: bytes, bounds: ShownBounds) -> bool:
    """Whether it can be told fast that a document is within the bounds."""
    size = len(raw)
    return size <= bounds.bytes and (size <= bounds.elements * 2 or most_elements(raw) <= bounds.elements)


def is_heavy(raw: bytes) -> bool:
    """Whether decoding and encoding a document may take more than 5 ms. Itself fast."""
    size = len(raw)
    return size > _HEAVY_ELEMENTS * 2 and (size > _HEAVY_BYTES or most_elements(raw) > _HEAVY_ELEMENTS)


def encoded_all(
    documents: Mapping[str, Sequence[Stored]],
    registered: Mapping[str, CollectionKey],
    wanted: frozenset[str] | None,
    uuid: UUID,
) -> bytes:
    """The documents that share a UUID, by collection, as JSON text; of the registered and wanted, None for all."""
    members = [
        extjson.dumps(name) + b":[" + b",".join(encoded(one, registered[name], uuid) for one in found) + b"]"
        for name, found in documents.items()
        if name in registered and (wanted is None or name in wanted)
    ]
    return b"{" + b",".join(members) + b"}"
