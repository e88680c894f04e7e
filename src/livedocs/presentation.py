"""How a stored document looks to those who may see it: the same over HTTP and on the socket. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from livedocs.model import CollectionKey


def present(document: Mapping[str, Any], key: CollectionKey, uuid: UUID) -> dict[str, Any]:
    """The document with its UUID first, as a plain string.

    A document keyed by `_id` is shown without `_id`, which is the same UUID; one keyed by `uuid` keeps its own.
    """
    hidden = {"uuid", "_id"} if key == "_id" else {"uuid"}
    return {"uuid": str(uuid), **{name: value for name, value in document.items() if name not in hidden}}


def present_all(
    documents: Mapping[str, Sequence[Mapping[str, Any]]],
    registered: Mapping[str, CollectionKey],
    wanted: frozenset[str] | None,
    uuid: UUID,
) -> dict[str, list[dict[str, Any]]]:
    """The documents that share a UUID, by collection; of the registered and wanted ones, None for all."""
    return {
        name: [present(document, registered[name], uuid) for document in found]
        for name, found in documents.items()
        if name in registered and (wanted is None or name in wanted)
    }
