"""From a document's `_id` to its UUID, for events that do not carry it.

In this order: the event's own document or changed fields, what earlier events said (a bounded LRU), the pre-image,
one `find` for everything of a batch that is still open. What remains is counted and dropped, never guessed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

import bson

from livedocs.changes.event import Change, DocumentChange
from livedocs.changes.normalise import CODEC, Unresolved, place
from livedocs.model import Tenant

_DocumentKey = tuple[str, str, bytes]


class Finder(Protocol):
    """What the resolver asks of the store."""

    async def uuids(self, tenant: Tenant, collection: str, ids: Sequence[Any]) -> Mapping[bytes, UUID]:
        """The UUIDs of the documents that have one, by `identity(_id)`.

        Raises:
            PyMongoError: the batch is not resolved; ask again.
        """


def identity(document_id: Any) -> bytes:
    """A hashable form of any `_id`: BSON's own, since `_id` may be a document."""
    return bson.encode({"": document_id}, codec_options=CODEC)


class Resolver:
    """Turns a batch of events into changes with rooms, keeping their order.

    Args:
        finder: looks up what no event says.
        capacity: documents remembered.
    """

    def __init__(self, finder: Finder, *, capacity: int = 100_000) -> None:
        self._finder = finder
        self._capacity = capacity
        # Invariant: an entry is the document's UUID as of the last event seen; forgotten when events were missed.
        self._known: OrderedDict[_DocumentKey, UUID | None] = OrderedDict()
        self._dropped = 0

    def forget(self) -> None:
        """Events were missed: nothing remembered can be trusted."""
        self._known.clear()

    def take_dropped(self) -> int:
        """How many changes were dropped since the last call because no UUID could be found."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    async def resolve(self, batch: Sequence[Change | Unresolved]) -> list[Change]:
        """The batch with every document change in its room, in the same order."""
        found = await self._find(batch)
        changes: list[Change] = []
        for item in batch:
            if isinstance(item, Unresolved):
                changes.extend(self._settle(item, found))
            else:
                changes.append(item)
        # Only now: what the batch relies on must last to its end.
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return changes

    async def _find(self, batch: Sequence[Change | Unresolved]) -> dict[_DocumentKey, UUID]:
        """Look up together what neither the events nor the memory say."""
        wanted: dict[tuple[str, str], tuple[Tenant, dict[bytes, Any]]] = {}
        named: set[_DocumentKey] = set()
        for item in batch:
            if not isinstance(item, Unresolved) or item.tenant.collections[item.collection] == "_id":
                continue
            key = self._key(item)
            if item.uuid is None and item.uuid_before is None and not item.settled:
                if item.op != "delete" and key not in self._known and key not in named:
                    _, ids = wanted.setdefault((item.tenant.slug, item.collection), (item.tenant, {}))
                    ids[key[2]] = item.document_id
            else:
                named.add(key)
        found: dict[_DocumentKey, UUID] = {}
        for (slug, collection), (tenant, ids) in wanted.items():
            uuids = await self._finder.uuids(tenant, collection, list(ids.values()))
            found.update({(slug, collection, key): uuid for key, uuid in uuids.items()})
        return found

    def _settle(self, item: Unresolved, found: Mapping[_DocumentKey, UUID]) -> list[DocumentChange]:
        if item.tenant.collections[item.collection] == "_id":
            if item.uuid is None:
                self._dropped += 1
                return []
            return place(item, item.uuid, item.uuid)
        key = self._key(item)
        before = item.uuid_before or self._known.get(key)
        after = item.uuid if item.settled else before or found.get(key)
        if item.op == "delete":
            self._known.pop(key, None)
        else:
            self._remember(key, after)
        changes = place(item, after, before if item.settled or item.op == "delete" else after)
        if not changes:
            self._dropped += 1
        return changes

    def _key(self, item: Unresolved) -> _DocumentKey:
        return item.tenant.slug, item.collection, identity(item.document_id)

    def _remember(self, key: _DocumentKey, uuid: UUID | None) -> None:
        self._known[key] = uuid
        self._known.move_to_end(key)
