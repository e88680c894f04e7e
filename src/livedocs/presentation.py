"""How a stored document looks to those who may see it: the same over HTTP and on the socket. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from livedocs.model import CollectionKey


def present(document: Mapping[str, Any], key: CollectionKey, uuid: UUID) -> dict[str, Any]:
    """The document with its UUID first, as a plain string.

    A document keyed by `_id` is shown without `_id`, which is the same UUID; one keyed by `uuid` keeps its own.
    """
    hidden = {"uuid", "_id"} if key == "_id" else {"uuid"}
    return {"uuid": str(uuid), **{name: value for name, value in document.items() if name not in hidden}}
