"""Many writes of one request in few transactions, each item decided and answered by itself.

A transaction takes up to `MOST` items. What one item's rule refuses is that item's result and the others go on;
what MongoDB refuses aborts the whole transaction, so that it is run again in halves until the one item is found.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Protocol, TypeVar
from uuid import UUID

from bson.binary import Binary
from pymongo import AsyncMongoClient, DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from livedocs.errors import LivedocsError, Unavailable
from livedocs.model import Grant, GrantKey, Role, Tenant, grant_document, grant_id, parse_grant
from livedocs.store.audit import Actor, Audit, Entry
from livedocs.store.connection import ACL, MongoDocument
from livedocs.store.documents import (
    DocumentState,
    Insert,
    Outcome,
    Place,
    Replace,
    Update,
    document_entry,
    new_document,
    replacement,
    update_of,
)
from livedocs.store.grants import GrantState, grant_removed, grant_set
from livedocs.store.transactions import Transactions

MOST = 100
"""Items of one transaction."""

_AclWrite = ReplaceOne[MongoDocument] | DeleteOne
_DocumentWrite = InsertOne[MongoDocument] | ReplaceOne[MongoDocument] | UpdateOne


class _OnUuid(Protocol):
    @property
    def uuid(self) -> UUID:
        """What the item is about."""


Item = TypeVar("Item", bound=_OnUuid)
Result = TypeVar("Result")
Run = Callable[[Sequence[Item]], Awaitable[list[Result | LivedocsError]]]


@dataclass(frozen=True, slots=True)
class UpsertState:
    """What an item is decided by: as for a single write, and every grant of the UUID for those it brings."""

    document: DocumentState
    grants: GrantState


@dataclass(frozen=True, slots=True)
class Changes:
    """What an item writes: its document, and then grants of its UUID in that order."""

    decision: Insert | Replace | Update
    grants: Sequence[Grant] = ()


@dataclass(frozen=True, slots=True)
class Upsert:
    """One item: a document of that UUID. `decide` may be called several times; what it raises is the result."""

    uuid: UUID
    decide: Callable[[UpsertState], Changes]


@dataclass(frozen=True, slots=True)
class GrantChange:
    """One item: a grant. `decide` returns the one to put into force, or None to take it away."""

    key: GrantKey
    decide: Callable[[GrantState], Grant | None]

    @property
    def uuid(self) -> UUID:
        """What it is a grant on."""
        return self.key.uuid


@dataclass(frozen=True, slots=True)
class Granted:
    """The grant that is now in force, None when it was taken away; and whether there was none before."""

    grant: Grant | None
    created: bool = False


class Batches:
    """Writes of many items for one caller."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._client = client
        self._acl = client[control_database][ACL]
        self._transactions = Transactions(client, control_database)
        self._audit = Audit(client, control_database)

    async def upsert(
        self, tenant: Tenant, collection: str, subjects: Sequence[str], actor: Actor, items: Sequence[Upsert]
    ) -> list[Outcome | LivedocsError]:
        """Write documents with their grants. A result for each item, in order; an error's item wrote nothing."""

        async def run(batch: Sequence[Upsert]) -> list[Outcome | LivedocsError]:
            async def body(session: AsyncClientSession) -> list[Outcome | LivedocsError]:
                work = _Upserts(self._client, tenant, collection, frozenset(subjects))
                await work.read(await self._held(tenant.slug, batch, session), batch, session)
                results = work.decide(batch, actor)
                await work.write(session)
                await self._write_grants(work.acl, session)
                await self._audit.record(session, actor, *work.entries)
                return results

            return await self._transactions.run_all(tenant.slug, [item.uuid for item in batch], body)

        return await _settled(_apart(items), run)

    async def change_grants(
        self, tenant: str, actor: Actor, items: Sequence[GrantChange]
    ) -> list[Granted | LivedocsError]:
        """Put grants into force or take them away, each decided by what the ones before it have left."""

        async def run(batch: Sequence[GrantChange]) -> list[Granted | LivedocsError]:
            async def body(session: AsyncClientSession) -> list[Granted | LivedocsError]:
                held = await self._held(tenant, batch, session)
                acl: list[_AclWrite] = []
                entries: list[Entry] = []
                results: list[Granted | LivedocsError] = []
                for item in batch:
                    state = GrantState(held.get(item.uuid, []), datetime.now(UTC))
                    try:
                        grant = item.decide(state)
                    except LivedocsError as refused:
                        results.append(refused)
                        continue
                    others = [other for other in state.grants if other.key != item.key]
                    held[item.uuid] = others if grant is None else [*others, grant]
                    acl.append(_acl_write(item.key, grant))
                    entries.append(grant_removed(item.key) if grant is None else grant_set(grant))
                    results.append(Granted(grant, len(others) == len(state.grants)))
                await self._write_grants(acl, session)
                await self._audit.record(session, actor, *entries)
                return results

            return await self._transactions.run_all(tenant, [item.uuid for item in batch], body)

        return await _settled(_slices(items), run)

    async def _held(
        self, tenant: str, items: Iterable[_OnUuid], session: AsyncClientSession
    ) -> dict[UUID, list[Grant]]:
        """Every grant on the items' UUIDs."""
        uuids = [Binary.from_uuid(item.uuid) for item in items]
        query = {"_id.tenant": {"$eq": tenant}, "_id.uuid": {"$in": uuids}}
        found = await self._acl.find(query, session=session).sort("_id.uuid").to_list()
        grants = [grant for document in found if (grant := parse_grant(document)) is not None]
        return {uuid: list(group) for uuid, group in groupby(grants, lambda grant: grant.key.uuid)}

    async def _write_grants(self, writes: Sequence[_AclWrite], session: AsyncClientSession) -> None:
        if writes:
            await self._acl.bulk_write(list(writes), session=session)


class _Upserts:
    """One transaction's documents: what was read, and what is to be written."""

    def __init__(
        self,
        client: AsyncMongoClient[MongoDocument],
        tenant: Tenant,
        collection: str,
        subjects: frozenset[str],
    ) -> None:
        self._database = client[tenant.database]
        self._tenant = tenant
        self._collection = collection
        self._subjects = subjects
        self._held: dict[UUID, list[Grant]] = {}
        self._found: dict[UUID, list[MongoDocument]] = {}
        # UUIDs without a grant or a document here that have a document in another registered collection.
        self._elsewhere: set[UUID] = set()
        self._writes: list[_DocumentWrite] = []
        # The results whose documents MongoDB, not this process, puts together: their `_id` by their place.
        self._awaited: dict[int, Any] = {}
        self._results: list[Outcome | LivedocsError] = []
        self.acl: list[_AclWrite] = []
        self.entries: list[Entry] = []

    async def read(
        self, held: dict[UUID, list[Grant]], items: Sequence[Upsert], session: AsyncClientSession
    ) -> None:
        """What the decisions need."""
        self._held = held
        uuids = {item.uuid for item in items}
        key = self._tenant.collections[self._collection]
        async for document in self._database[self._collection].find(
            self._filter(self._collection, uuids), session=session
        ):
            self._found.setdefault(document[key], []).append(document)
        unknown = uuids - self._found.keys() - held.keys()
        for name, other in self._tenant.collections.items():
            if unknown and name != self._collection:
                query = self._filter(name, unknown)
                found = self._database[name].find(query, {other: 1}, session=session)
                self._elsewhere |= {document[other] async for document in found}

    def _filter(self, collection: str, uuids: Iterable[UUID]) -> dict[str, Any]:
        key = self._tenant.collections[collection]
        # An array that holds the UUID would match as well, but is no key.
        array = {} if key == "_id" else {"uuid.0": {"$exists": False}}
        return {key: {"$in": [Binary.from_uuid(uuid) for uuid in uuids]}, **array}

    def decide(self, items: Sequence[Upsert], actor: Actor) -> list[Outcome | LivedocsError]:
        """Let each item decide. The list is complete once `write` has returned."""
        now = datetime.now(UTC)
        for item in items:
            state = self._state(item.uuid, now)
            try:
                changes = item.decide(state)
            except LivedocsError as refused:
                self._results.append(refused)
            else:
                self._take(Place(self._tenant, self._collection, item.uuid), state, changes, actor)
        return self._results

    def _state(self, uuid: UUID, now: datetime) -> UpsertState:
        held, found = self._held.get(uuid, []), self._found.get(uuid, [])
        own = [grant for grant in held if grant.key.subject in self._subjects]
        known = bool(held or found) or uuid in self._elsewhere
        first = found[0] if found else None
        document = DocumentState(own, first, known, now, several=len(found) > 1)
        return UpsertState(document, GrantState(held, now))

    def _take(self, place: Place, state: UpsertState, changes: Changes, actor: Actor) -> None:
        present = state.document.document
        match changes.decision, present:
            case Insert(fields, owner), None:
                document = new_document(place, fields)
                self._writes.append(InsertOne(document))
                self._results.append(Outcome(document, created=True))
                self.entries.append(document_entry("document.create", place, owner))
                if owner is not None:
                    key = GrantKey(place.tenant.slug, place.uuid, owner)
                    grant = Grant(key, Role.OWNER, None, actor.subject, state.document.now)
                    self.acl.append(_acl_write(key, grant))
            case Replace(fields), dict(document):
                self._await(document)
                self._writes.append(ReplaceOne(_is(document), replacement(place, document, fields)))
            case Update(merged), dict(document) if merged.changes:
                self._await(document)
                self._writes.append(UpdateOne(_is(document), update_of(merged)))
            case Update(), dict(document):
                self._results.append(Outcome(document))
            case decision, _:
                msg = f"{type(decision).__name__} does not fit what was read"
                raise AssertionError(msg)
        for grant in changes.grants:
            self.acl.append(_acl_write(grant.key, grant))
            self.entries.append(grant_set(grant))

    def _await(self, document: MongoDocument) -> None:
        self._awaited[len(self._results)] = document["_id"]
        self._results.append(Outcome(document))

    async def write(self, session: AsyncClientSession) -> None:
        """Write the documents, and read back those that MongoDB has put together."""
        collection = self._database[self._collection]
        if self._writes:
            await collection.bulk_write(self._writes, session=session)
        if self._awaited:
            query = {"_id": {"$in": list(self._awaited.values())}}
            after = {_hashable(found["_id"]): found async for found in collection.find(query, session=session)}
            for place, identifier in self._awaited.items():
                self._results[place] = Outcome(after[_hashable(identifier)])


def _is(document: MongoDocument) -> dict[str, Any]:
    return {"_id": {"$eq": document["_id"]}}


def _hashable(identifier: Any) -> str:
    # The `_id` of a collection that another program filled may be a document.
    return repr(identifier)


def _acl_write(key: GrantKey, grant: Grant | None) -> _AclWrite:
    # Always a replacement: an update event of the change stream would say only which fields differ.
    if grant is None:
        return DeleteOne({"_id": grant_id(key)})
    return ReplaceOne({"_id": grant_id(key)}, grant_document(grant), upsert=True)


def _slices(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), MOST):
        yield items[start : start + MOST]


def _apart(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in order, in batches that name no UUID twice: a later item has to find what an earlier one did."""
    batch: list[Item] = []
    seen: set[UUID] = set()
    for item in items:
        if len(batch) == MOST or item.uuid in seen:
            yield batch
            batch, seen = [], set()
        batch.append(item)
        seen.add(item.uuid)
    if batch:
        yield batch


async def _settled(batches: Iterator[Sequence[Item]], run: Run[Item, Result]) -> list[Result | LivedocsError]:
    """A result for each item. Once MongoDB is out of reach, it is not tried for the rest."""
    results: list[Result | LivedocsError] = []
    gone: Unavailable | None = None
    for batch in batches:
        if gone is None:
            results += await _halved(batch, run)
            gone = next((result for result in results if isinstance(result, Unavailable)), None)
        else:
            results += [gone] * len(batch)
    return results


async def _halved(batch: Sequence[Item], run: Run[Item, Result]) -> list[Result | LivedocsError]:
    try:
        return await run(batch)
    except Unavailable as error:
        return [error] * len(batch)
    except LivedocsError as error:
        if len(batch) == 1:
            return [error]
    half = len(batch) // 2
    return [*await _halved(batch[:half], run), *await _halved(batch[half:], run)]
