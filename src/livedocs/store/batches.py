"""Many writes of one request in few transactions, each item decided and answered by itself.

A transaction takes up to `MOST` items, `MOST_GRANTS` grants and `MOST_BYTES` of documents, and fewer items of a
caller with many groups, so that its work is bounded before it starts. What one item's rule refuses is that item's
result and the others go on; what MongoDB refuses aborts the whole transaction, so that it is run again in halves
until the one item is found.

That costs at most 2n - 1 transactions for the n items of one, all of them bad, and writes no item more than
log2(n) + 2 times: a request of 1,000 items takes fewer than 2,000 transactions and 8,000 writes of items.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from bson.binary import Binary
from pymongo import AsyncMongoClient, DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from livedocs.codec.bsonwalk import find, uuid_at
from livedocs.errors import LivedocsError, Unavailable
from livedocs.model import Grant, GrantKey, Role, ShownBounds, Tenant, grant_document, grant_id
from livedocs.store.audit import Actor, Audit, Entry
from livedocs.store.connection import ACL, RAW, MongoDocument, plain
from livedocs.store.documents import (
    Access,
    DocumentState,
    Insert,
    Place,
    Replace,
    Update,
    document_entry,
    new_document,
    replacement,
    unhurried,
    update_of,
)
from livedocs.store.grant_book import GrantBook
from livedocs.store.grant_reads import GrantReads, Manager
from livedocs.store.grants import grant_removed, grant_set
from livedocs.store.replaced import Registered
from livedocs.store.shown import ShownDocument, decoded, find_shown, shown, up_to, version
from livedocs.store.transactions import Transactions

MOST = 100
"""Items of one transaction."""

MOST_GRANTS = 500
"""Grants of one transaction; an item has at most 100."""

MOST_BYTES = 4 * 2**20
"""Bytes of documents of one transaction, as BSON; a single one may have more."""

# Stored documents of up to so many bytes are read with all others; of larger ones the size first.
_SMALL = 2**15
# The caller's own grants that are read in one transaction: items times subjects.
_MOST_OWN = 5000

_AclWrite = ReplaceOne[MongoDocument] | DeleteOne
_DocumentWrite = InsertOne[MongoDocument] | ReplaceOne[MongoDocument] | UpdateOne


class _OnUuid(Protocol):
    @property
    def uuid(self) -> UUID:
        """What the item is about."""


Item = TypeVar("Item", bound=_OnUuid)
Result = TypeVar("Result")
Run = Callable[[Sequence[Item]], Awaitable[list[Result | LivedocsError]]]


class _TooMuchError(LivedocsError):
    """The items of a batch need more stored documents than are read at once: halves of it need fewer."""


@dataclass(frozen=True, slots=True)
class UpsertState:
    """What an item is decided by: as for a single write, and the grants of the UUID, if it brings some."""

    document: DocumentState
    grants: GrantBook | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What an item writes: its document, and then grants of its UUID in that order."""

    decision: Insert | Replace | Update
    grants: Sequence[Grant] = ()


@dataclass(frozen=True, slots=True)
class Upsert:
    """One item: a document of that UUID.

    Attributes:
        uuid: which.
        decide: may be called several times; what it raises is the result.
        creates: whether it makes a document where the UUID is nobody's.
        subjects: of the grants it brings.
        bytes: of its document as BSON.
    """

    uuid: UUID
    decide: Callable[[UpsertState], Changes]
    creates: bool = True
    subjects: Sequence[str] = ()
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Upserted:
    """What an item has led to: the document's version (`shown.version`), and whether the document is new."""

    version: str
    created: bool = False


@dataclass(frozen=True, slots=True)
class GrantChange:
    """One item: a grant. `decide` returns the one to put into force, or None to take it away."""

    key: GrantKey
    decide: Callable[[GrantBook], Grant | None]

    @property
    def uuid(self) -> UUID:
        """What it is a grant on."""
        return self.key.uuid


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes many documents.

    Attributes:
        access: what it needs for each document; whether one is created says the item.
        manager: as who it sets the grants that items bring.
        actor: as whom the audit names it.
    """

    access: Access
    manager: Manager
    actor: Actor


@dataclass(frozen=True, slots=True)
class Granted:
    """The grant that is now in force, None when it was taken away; and whether there was none before."""

    grant: Grant | None
    created: bool = False


class Batches:
    """Writes of many items for one caller."""

    def __init__(
        self,
        client: AsyncMongoClient[MongoDocument],
        control_database: str,
        bounds: ShownBounds = ShownBounds(),  # noqa: B008 - frozen
    ) -> None:
        self._client = client
        self._bounds = bounds
        self._acl = client[control_database][ACL]
        self._reads = GrantReads(self._acl)
        self._transactions = Transactions(client, control_database)
        self._audit = Audit(client, control_database)

    async def upsert(
        self,
        tenant: Tenant,
        collection: str,
        writer: Writer,
        items: Sequence[Upsert],
    ) -> list[Upserted | LivedocsError]:
        """Write documents with their grants. A result for each item, in order; an error's item wrote nothing.

        Args:
            tenant: whose documents.
            collection: in which of its collections.
            writer: the caller.
            items: in the order in which they are applied.
        """
        registered = Registered(plain(self._client[tenant.database]), tenant)

        async def run(batch: Sequence[Upsert]) -> list[Upserted | LivedocsError]:
            async def body(session: AsyncClientSession) -> list[Upserted | LivedocsError]:
                work = _Upserts(self._client, self._reads, registered, tenant, collection, writer, self._bounds)
                await work.read(batch, session)
                results = await work.decide(batch)
                await work.write(session)
                await self._write_grants(work.acl, session)
                await self._audit.record(session, writer.actor, *work.entries)
                return results

            return await self._transactions.run_all(tenant.slug, [item.uuid for item in batch], body)

        return await _settled(_apart(items, _most(writer.access.subjects)), run)

    async def change_grants(
        self, tenant: str, manager: Manager, actor: Actor, items: Sequence[GrantChange]
    ) -> list[Granted | LivedocsError]:
        """Put grants into force or take them away, each decided by what the ones before it have left."""

        async def run(batch: Sequence[GrantChange]) -> list[Granted | LivedocsError]:
            async def body(session: AsyncClientSession) -> list[Granted | LivedocsError]:
                wanted: dict[UUID, set[str]] = {}
                for item in batch:
                    wanted.setdefault(item.uuid, set()).add(item.key.subject)
                books = await self._reads.books(tenant, wanted, manager, session)
                acl: list[_AclWrite] = []
                entries: list[Entry] = []
                results: list[Granted | LivedocsError] = []
                for item in batch:
                    book = books[item.uuid]
                    try:
                        grant = item.decide(book)
                    except LivedocsError as refused:
                        results.append(refused)
                        continue
                    created = False
                    if grant is None:
                        book.remove(item.key.subject)
                    else:
                        created = book.put(grant)
                    acl.append(_acl_write(item.key, grant))
                    entries.append(grant_removed(item.key) if grant is None else grant_set(grant))
                    results.append(Granted(grant, created))
                await self._write_grants(acl, session)
                await self._audit.record(session, actor, *entries)
                return results

            return await self._transactions.run_all(tenant, [item.uuid for item in batch], body)

        return await _settled(_slices(items, _most(manager.subjects)), run)

    async def _write_grants(self, writes: Sequence[_AclWrite], session: AsyncClientSession) -> None:
        if writes:
            await self._acl.bulk_write(list(writes), session=session)


class _Upserts:
    """One transaction's documents: what was read, and what is to be written."""

    def __init__(  # noqa: PLR0917 - of `Batches.upsert`
        self,
        client: AsyncMongoClient[MongoDocument],
        reads: GrantReads,
        registered: Registered,
        tenant: Tenant,
        collection: str,
        writer: Writer,
        bounds: ShownBounds,
    ) -> None:
        self._database = plain(client[tenant.database])
        self._bounds = bounds
        self._reads = reads
        self._registered = registered
        self._tenant = tenant
        self._collection = collection
        self._access = writer.access
        self._manager = writer.manager
        self._actor = writer.actor
        self._now = datetime.now(UTC)
        # By UUID: the grants of the caller's subjects, and the documents, of those that are the caller's to write.
        self._own: dict[UUID, list[Grant]] = {}
        self._found: dict[UUID, list[ShownDocument]] = {}
        # UUIDs on which somebody has a grant, or of which a registered collection has a document.
        self._known: set[UUID] = set()
        self._books: dict[UUID, GrantBook] = {}
        self._writes: list[_DocumentWrite] = []
        # The documents that are to be replaced, each with the place of its result.
        self._replacements: list[tuple[int, Place, ShownDocument, Mapping[str, Any]]] = []
        # The results whose documents MongoDB, not this process, puts together: their places and the `_id`.
        self._awaited: dict[str, list[tuple[int, Any]]] = {}
        self._results: list[Upserted | LivedocsError] = []
        self.acl: list[_AclWrite] = []
        self.entries: list[Entry] = []

    async def read(self, items: Sequence[Upsert], session: AsyncClientSession) -> None:
        """What the decisions need: the same questions for UUIDs that do not exist and for other people's."""
        slug = self._tenant.slug
        self._own = await self._reads.own(slug, [item.uuid for item in items], self._access.subjects, session)
        allowed = {uuid for uuid, own in self._own.items() if self._access.allowed(own, self._now)}
        if allowed:
            async with self._registered.using(self._collection):
                await self._read_documents(items, allowed, session)
        self._known = self._found.keys() | {uuid for uuid, own in self._own.items() if own}
        unknown = {item.uuid for item in items if item.creates} - self._known
        if unknown:
            self._known |= await self._reads.granted(slug, unknown, session)
            for name in self._tenant.collections:
                self._known |= await self._held(name, unknown, session)
        await self._read_grants([item for item in items if item.subjects], session)

    async def _held(self, name: str, uuids: Collection[UUID], session: AsyncClientSession) -> set[UUID]:
        """Those of the UUIDs that a registered collection has a document of."""
        key = self._tenant.collections[name]

        async def question(
            collection: AsyncCollection[MongoDocument], inside: AsyncClientSession | None
        ) -> set[UUID]:
            found = collection.find(self._filter(name, uuids), {key: 1}, session=inside)
            return {document[key] async for document in found}

        return await self._registered.ask(name, question, session) or set()

    async def _read_documents(
        self, items: Sequence[Upsert], allowed: Collection[UUID], session: AsyncClientSession
    ) -> None:
        """The present documents, each as far as it is shown.

        Raises:
            _TooMuchError: they are too large to be read together.
        """
        collection = self._database[self._collection]
        key = self._tenant.collections[self._collection]
        large: list[tuple[list[ShownDocument], int]] = []
        size = 0
        projection = {"key": f"${key}", **up_to(min(_SMALL, self._bounds.bytes))}
        query = self._filter(self._collection, allowed)
        async for answer in collection.with_options(codec_options=RAW).find(query, projection, session=session):
            raw = bytes(answer.raw)
            uuid = uuid_at(raw, find(raw, b"key"))
            if uuid is None:
                continue
            document = await shown(raw, self._bounds)
            same = self._found.setdefault(uuid, [])
            same.append(document)
            # Of several of one UUID none is written.
            if document.withheld is not None and document.size <= self._bounds.bytes:
                large.append((same, len(same) - 1))
            # Of one beyond the bounds nothing is read.
            size += document.size if document.size <= self._bounds.bytes else 0
        if len(items) > 1 and size > MOST_BYTES:
            raise _TooMuchError
        for same, place in large:
            [same[place]] = await find_shown(collection, _is(same[place]), self._bounds, most=1, session=session)

    async def _read_grants(self, items: Sequence[Upsert], session: AsyncClientSession) -> None:
        """What the items that bring grants need beyond that."""
        slug, most = self._tenant.slug, self._manager.most
        wanted = {item.uuid: item.subjects for item in items if item.uuid in self._known}
        books = await self._reads.books(slug, wanted, self._manager, session) if wanted else {}
        # On what is nobody's there are none.
        new = {item.uuid for item in items} - wanted.keys()
        subjects = self._manager.subjects
        self._books = books | {
            uuid: GrantBook(uuid, subjects=subjects, most=most, now=self._now, total=0) for uuid in new
        }

    def _filter(self, collection: str, uuids: Iterable[UUID]) -> dict[str, Any]:
        key = self._tenant.collections[collection]
        # An array that holds the UUID would match as well, but is no key.
        array = {} if key == "_id" else {"uuid.0": {"$exists": False}}
        return {key: {"$in": [Binary.from_uuid(uuid) for uuid in uuids]}, **array}

    async def decide(self, items: Sequence[Upsert]) -> list[Upserted | LivedocsError]:
        """Let each item decide. The list is complete once `write` has returned."""
        for item in items:
            state = self._state(item.uuid)
            try:
                changes = await unhurried(item.decide, state, state.document.document)
            except LivedocsError as refused:
                self._results.append(refused)
            else:
                self._take(Place(self._tenant, self._collection, item.uuid), state, changes)
        return self._results

    def _state(self, uuid: UUID) -> UpsertState:
        found = self._found.get(uuid, [])
        first = found[0] if found else None
        document = DocumentState(self._own[uuid], first, uuid in self._known, self._now, several=len(found) > 1)
        return UpsertState(document, self._books.get(uuid))

    def _take(self, place: Place, state: UpsertState, changes: Changes) -> None:
        present = state.document.document
        match changes.decision, present:
            case Insert(fields, owner), None:
                document = new_document(place, fields)
                self._writes.append(InsertOne(document))
                self._results.append(Upserted(version(document), created=True))
                self.entries.append(document_entry("document.create", place, owner))
                if owner is not None:
                    key = GrantKey(place.tenant.slug, place.uuid, owner)
                    grant = Grant(key, Role.OWNER, None, self._actor.subject, state.document.now)
                    self.acl.append(_acl_write(key, grant))
            case Replace(fields), ShownDocument() as document:
                self._replacements.append((len(self._results), place, document, fields))
                self._results.append(Upserted(""))
            case Update(merged), dict(document) if merged.changes:
                self._await(document)
                self._writes.append(UpdateOne(_is(document), update_of(merged)))
            case Update(), dict(document):
                self._results.append(Upserted(version(document)))
            case decision, _:
                msg = f"{type(decision).__name__} does not fit what was read"
                raise AssertionError(msg)
        for grant in changes.grants:
            self.acl.append(_acl_write(grant.key, grant))
            self.entries.append(grant_set(grant))

    def _await(self, document: MongoDocument) -> None:
        self._await_at(len(self._results), document)
        self._results.append(Upserted(""))

    def _await_at(self, place: int, document: MongoDocument) -> None:
        self._awaited.setdefault(_hashable(document["_id"]), []).append((place, document["_id"]))

    async def write(self, session: AsyncClientSession) -> None:
        """Write the documents, and see what has become of those that MongoDB has put together."""
        collection = self._database[self._collection]
        for result, place, document, fields in self._replacements:
            replaced = await replacement(place, document, fields)
            if replaced is None:
                self._results[result] = Upserted(version(document))
            else:
                self._await_at(result, document)
                self._writes.append(ReplaceOne(_is(document), replaced))
        if self._writes:
            async with self._registered.using(self._collection):
                await collection.bulk_write(self._writes, session=session)
        if self._awaited:
            query = {"_id": {"$in": [places[0][1] for places in self._awaited.values()]}}
            raw = collection.with_options(codec_options=RAW)
            async for found in raw.find(query, session=session):
                written = await decoded(bytes(found.raw))
                for result, _ in self._awaited[_hashable(written["_id"])]:
                    self._results[result] = Upserted(version(written))


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


def _most(subjects: Sequence[str]) -> int:
    """Items of one transaction of a caller with those subjects."""
    return max(1, min(MOST, _MOST_OWN // max(1, len(subjects))))


def _slices(items: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]


def _apart(items: Sequence[Upsert], most: int) -> Iterator[Sequence[Upsert]]:
    """The items in order, in batches that name no UUID twice: a later item has to find what an earlier one did."""
    batch: list[Upsert] = []
    seen: set[UUID] = set()
    grants = size = 0
    for item in items:
        full = len(batch) == most or grants + len(item.subjects) > MOST_GRANTS or size + item.bytes > MOST_BYTES
        if batch and (full or item.uuid in seen):
            yield batch
            batch, seen, grants, size = [], set(), 0, 0
        batch.append(item)
        seen.add(item.uuid)
        grants += len(item.subjects)
        size += item.bytes
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
