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
from bson.objectid import ObjectId
from bson.timestamp import Timestamp

from livedocs.changes.event import Change, DocumentChange
from livedocs.changes.normalise import CODEC, Unresolved, place
from livedocs.model import Tenant

_DocumentKey = tuple[str, str, bytes]


class Finder(Protocol):
    """What the resolver asks of the store."""

    async def uuids(
        self, tenant: Tenant, collection: str, ids: Sequence[Any], at: Timestamp
    ) -> Mapping[bytes, UUID]:
        """The UUIDs of the documents that had one at that cluster time, by `identity(_id)`.

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

    def forget(self, tenant: str | None = None) -> None:
        """Events were missed, of that tenant or of all: nothing remembered of it can be trusted."""
        if tenant is None:
            self._known.clear()
        else:
            self._known = OrderedDict((key, uuid) for key, uuid in self._known.items() if key[0] != tenant)

    def take_dropped(self) -> int:
        """How many changes were dropped since the last call because no UUID could be found."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    async def resolve(self, batch: Sequence[Change | Unresolved]) -> list[Change]:
        """The batch with every document change in its room, in the same order."""
        keys = [_key(item) if isinstance(item, Unresolved) else None for item in batch]
        found = await self._find(batch, keys)
        changes: list[Change] = []
        for item, key in zip(batch, keys, strict=True):
            if isinstance(item, Unresolved):
                changes.extend(self._settle(item, key, found))
            else:
                changes.append(item)
        # Only now: what the batch relies on must last to its end.
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return changes

    async def _find(
        self, batch: Sequence[Change | Unresolved], keys: Sequence[_DocumentKey | None]
    ) -> dict[_DocumentKey, UUID]:
        """Look up together what neither the events nor the memory say."""
        wanted: dict[tuple[str, str], tuple[Unresolved, dict[_DocumentKey, Any]]] = {}
        named: set[_DocumentKey] = set()
        for item, key in zip(batch, keys, strict=True):
            if key is None or not isinstance(item, Unresolved):
                continue
            if item.uuid is None and item.uuid_before is None and not item.settled:
                if key not in self._known and key not in named and item.op != "delete":
                    _, ids = wanted.setdefault(key[:2], (item, {}))
                    ids[key] = item.document_id
            else:
                named.add(key)
        found: dict[_DocumentKey, UUID] = {}
        for (_, collection), (first, ids) in wanted.items():
            # As of the first of them: a document that has moved to another UUID since was not there yet, and one
            # that moves later in the batch says so itself.
            at = first.change["clusterTime"]
            uuids = await self._finder.uuids(first.tenant, collection, list(ids.values()), at)
            for key, document_id in ids.items():
                uuid = uuids.get(identity(document_id))
                if uuid is not None:
                    found[key] = uuid
        return found

    def _settle(
        self, item: Unresolved, key: _DocumentKey | None, found: Mapping[_DocumentKey, UUID]
    ) -> list[DocumentChange]:
        if key is None:
            if item.uuid is None:
                self._dropped += 1
                return []
            return place(item, item.uuid, item.uuid)
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

    def _remember(self, key: _DocumentKey, uuid: UUID | None) -> None:
        self._known[key] = uuid
        self._known.move_to_end(key)


def _key(item: Unresolved) -> _DocumentKey | None:
    """What a document is remembered by; None for one whose `_id` is its UUID."""
    if item.tenant.collections[item.collection] == "_id":
        return None
    document_id = item.document_id
    # Nearly every `_id` is one of these, whose bytes never equal a BSON document's.
    own = b"\x07" + document_id.binary if type(document_id) is ObjectId else identity(document_id)
    return item.tenant.slug, item.collection, own
