"""From a document's `_id` to its UUID, for events that do not carry it.

In this order: the event's own document or changed fields, what earlier events said (a bounded LRU), the pre-image,
one `find` for everything of a batch that is still open, as of that time. What is then without a UUID is counted
and dropped. Where MongoDB no longer knows what was then, the tenant is to begin anew: nothing is guessed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Protocol
from uuid import UUID

from bson.objectid import ObjectId
from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from livedocs.changes.event import Change, DocumentChange, Lost
from livedocs.changes.normalise import Unresolved, place
from livedocs.changes.outline import document_id
from livedocs.model import Tenant
from livedocs.telemetry import get_logger, log_failure

log = get_logger(__name__)

# Bytes of an `_id` that is remembered as it is.
_LONGEST = 64

_DocumentKey = tuple[str, str, bytes]
# By tenant and collection: the first event that asks, and the `_id`s asked for.
_Wanted = dict[tuple[str, str], tuple[Unresolved, dict[_DocumentKey, bytes]]]


class Finder(Protocol):
    """What the resolver asks of the store."""

    async def uuids(
        self, tenant: Tenant, collection: str, ids: Sequence[bytes], at: Timestamp
    ) -> Mapping[bytes, UUID] | None:
        """The UUIDs of the documents that had one at that cluster time, by `_id`: its BSON type and value.

        None where nobody knows any more what was then.

        Raises:
            PyMongoError: the batch is not resolved; ask again.
        """


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
        # Collections whose deletes lack pre-images, by tenant and name: reported once, not with every delete.
        self._reported: set[tuple[str, str]] = set()

    def forget(self, tenant: str | None = None) -> None:
        """Events were missed, of that tenant or of all: nothing remembered of it can be trusted."""
        if tenant is None:
            self._known.clear()
            self._reported.clear()
        else:
            # A collection may have been made anew.
            self._reported = {place for place in self._reported if place[0] != tenant}
            self._known = OrderedDict((key, uuid) for key, uuid in self._known.items() if key[0] != tenant)

    def take_dropped(self) -> int:
        """How many changes were dropped since the last call because no UUID could be found."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    async def resolve(self, batch: Sequence[Change | Unresolved], *, patient: bool = True) -> list[Change]:
        """The batch with every document change in its room, in the same order.

        A change that cannot be told a room for its own sake stands as `Lost`: its tenant is to begin anew.

        Args:
            batch: what was read.
            patient: whether a collection that MongoDB refuses to read is worth another try.

        Raises:
            PyMongoError: MongoDB cannot be asked now; nothing has been remembered of the batch.
        """
        keys = _keys(batch)
        relied_on = {key: self._known[key] for key in keys if key is not None and key in self._known}
        found, failed = await self._find(self._wanted(batch, keys), patient=patient)
        # Another tenant's batch may have pushed something out meanwhile. What the tenant's own events change of it
        # is in this batch.
        for known, uuid in relied_on.items():
            self._known.setdefault(known, uuid)
        return self._place(batch, keys, found, failed)

    def resolve_known(self, batch: Sequence[Change | Unresolved]) -> list[Change] | None:
        """The same, if nothing has to be looked up; None otherwise, and nothing has been remembered."""
        keys = _keys(batch)
        return None if self._wanted(batch, keys) else self._place(batch, keys, {}, frozenset())

    def _place(
        self,
        batch: Sequence[Change | Unresolved],
        keys: Sequence[_DocumentKey | None],
        found: Mapping[_DocumentKey, UUID],
        failed: Collection[tuple[str, str]],
    ) -> list[Change]:
        changes: list[Change] = []
        # Tenants of which something was lost. What was known of them has been forgotten, which is not "none".
        lost: set[str] = set()
        for item, key in zip(batch, keys, strict=True):
            if not isinstance(item, Unresolved):
                changes.append(item)
                continue
            tenant = item.tenant.slug
            try:
                doubtful = tenant in lost or (key is not None and key[:2] in failed)
                if doubtful and self._is_untold(item, key, found):
                    told: list[Change] = [self._lose(item)]
                else:
                    told = [*self._settle(item, key, found)]
            except Exception as error:  # noqa: BLE001 - one event's, whatever it is
                log_failure(log, "event_unreadable", error, tenant=tenant, collection=item.collection)
                told = [self._lose(item)]
            if told and isinstance(told[0], Lost):
                lost.add(tenant)
            changes += told
        # Only now: what the batch relies on must last to its end.
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return changes

    def _is_untold(self, item: Unresolved, key: _DocumentKey | None, found: Mapping[_DocumentKey, UUID]) -> bool:
        """Whether neither the event nor the memory nor MongoDB says anything of its document."""
        return key is not None and key not in self._known and key not in found and _is_open(item)

    def _lose(self, item: Unresolved) -> Lost:
        self.forget(item.tenant.slug)
        return Lost(item.change["_id"]["_data"], item.change["clusterTime"], item.tenant.slug)

    def _wanted(self, batch: Sequence[Change | Unresolved], keys: Sequence[_DocumentKey | None]) -> _Wanted:
        """What neither the events nor the memory say."""
        wanted: _Wanted = {}
        named: set[_DocumentKey] = set()
        for item, key in zip(batch, keys, strict=True):
            if key is None or not isinstance(item, Unresolved) or key in self._known:
                continue
            # One whose pre-image is broken is not asked for: it is lost, by itself, in its place.
            try:
                is_open = _is_open(item)
            except Exception:  # noqa: BLE001, S112 - `_place` comes upon it again, and says so
                continue
            if not is_open:
                named.add(key)
            elif key not in named and item.op != "delete":
                _, ids = wanted.setdefault(key[:2], (item, {}))
                ids[key] = document_id(item.raw)
        return wanted

    async def _find(
        self, wanted: _Wanted, *, patient: bool
    ) -> tuple[dict[_DocumentKey, UUID], set[tuple[str, str]]]:
        """Look it up together. Also: the collections that refuse."""
        found: dict[_DocumentKey, UUID] = {}
        failed: set[tuple[str, str]] = set()
        for where, (first, ids) in wanted.items():
            # As of the first of them: a document that has moved to another UUID since was not there yet, and one
            # that moves later in the batch says so itself.
            at = first.change["clusterTime"]
            try:
                uuids = await self._finder.uuids(first.tenant, where[1], list(ids.values()), at)
            except Exception as error:
                # One collection's refusal must not hold up everybody's events for ever.
                if isinstance(error, PyMongoError) and (patient or not isinstance(error, OperationFailure)):
                    raise
                log_failure(log, "collection_unreadable", error, tenant=where[0], collection=where[1])
                failed.add(where)
            else:
                if uuids is None:
                    log.warning("snapshot_gone", tenant=where[0], collection=where[1], events=len(ids))
                    failed.add(where)
                    continue
                found.update((key, uuids[own]) for key, own in ids.items() if own in uuids)
        return found, failed

    def _settle(
        self, item: Unresolved, key: _DocumentKey | None, found: Mapping[_DocumentKey, UUID]
    ) -> list[DocumentChange]:
        if key is None:
            if item.uuid is None:
                self._dropped += 1
                return []
            return place(item, item.uuid, item.uuid)
        # The pre-image first: a database that was not followed for a while is remembered as it was before.
        before = item.uuid_before or self._known.get(key)
        if item.op == "delete" and before is None and key not in self._known:
            self._report(item)
        after = item.uuid if item.settled else before or found.get(key)
        if item.op == "delete":
            self._known.pop(key, None)
        else:
            self._remember(key, after)
        changes = place(item, after, before if item.settled or item.op == "delete" else after)
        if not changes:
            self._dropped += 1
        return changes

    def _report(self, item: Unresolved) -> None:
        """Log that a collection lacks pre-images: neither an event nor one of those tells the room of a delete."""
        place = item.tenant.slug, item.collection
        if item.image is None and place not in self._reported:
            self._reported.add(place)
            log.warning("delete_without_pre_image", tenant=item.tenant.slug, collection=item.collection)

    def _remember(self, key: _DocumentKey, uuid: UUID | None) -> None:
        self._known[key] = uuid
        self._known.move_to_end(key)


def _keys(batch: Sequence[Change | Unresolved]) -> list[_DocumentKey | None]:
    return [_key(item) if isinstance(item, Unresolved) else None for item in batch]


def _is_open(item: Unresolved) -> bool:
    """Whether the event names no UUID, and may have one."""
    return item.uuid is None and item.uuid_before is None and not item.settled


def _key(item: Unresolved) -> _DocumentKey | None:
    """What a document is remembered by; None for one whose `_id` is its UUID."""
    if item.tenant.collections[item.collection] == "_id":
        return None
    # Nearly every `_id` is one of these.
    known = item.document_id
    own = b"\x07" + known.binary if type(known) is ObjectId else document_id(item.raw)
    if len(own) > _LONGEST:
        # An `_id` may be a document of megabytes: a hundred thousand of them are not kept.
        own = b"#" + sha256(own).digest()
    return item.tenant.slug, item.collection, own
