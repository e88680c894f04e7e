"""Documents in the tenants' databases. What is written is decided by the caller's function.

A write reads what the decision needs, lets it decide and does what it says, all in one transaction over the
tenant's database and the control database. A read takes grants and document as of one time.

The grants come first, and the document is read only where they allow it. So for a UUID that does not exist and for
one that is somebody else's the same questions are asked, and the size of a stranger's document is not seen in the
time they take. Whether anybody has the UUID is asked only where a document could be created, and then everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from bson.binary import Binary
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.collection import ReturnDocument

from livedocs.codec.bsondecode import decode
from livedocs.model import (
    CollectionKey,
    Grant,
    GrantKey,
    Role,
    ShownBounds,
    Tenant,
    grant_document,
    grant_id,
    parse_grant,
)
from livedocs.store.audit import Action, Actor, Audit, Entry
from livedocs.store.connection import ACL, RAW, MongoDocument, plain
from livedocs.store.failures import translated
from livedocs.store.idempotency import IdempotencyKeys, Once
from livedocs.store.kept import keeping
from livedocs.store.merge import Merged
from livedocs.store.one_time import at_one_time
from livedocs.store.replaced import Question, Registered
from livedocs.store.shown import ShownDocument, decoded, find_shown
from livedocs.store.transactions import Transactions

_SECONDS = 10.0


ANY: Any = object()
"""In place of an `_id`: whichever."""


@dataclass(frozen=True, slots=True)
class Place:
    """A UUID in a registered collection of a tenant; with `id`, the one of its documents that has that `_id`."""

    tenant: Tenant
    collection: str
    uuid: UUID
    id: Any = ANY

    @property
    def key(self) -> CollectionKey:
        """The field that holds the UUID."""
        return self.tenant.collections[self.collection]

    @property
    def filter(self) -> dict[str, Any]:
        """The filter that finds its documents; of a client there is the UUID in it, and an `_id` behind `$eq`."""
        # An array that holds the UUID would match as well, but is no key.
        array = {} if self.key == "_id" else {"uuid.0": {"$exists": False}}
        one = {} if self.id is ANY else {"_id": {"$eq": self.id}}
        return {self.key: Binary.from_uuid(self.uuid), **array, **one}


@dataclass(frozen=True, slots=True)
class Access:
    """Who wants what of a UUID, for the reads that the decision takes.

    Attributes:
        subjects: the caller's.
        allowed: whether these grants, its own on the UUID, let the caller have it at that moment.
        creates: whether the request makes a document where the UUID is nobody's.
    """

    subjects: Sequence[str]
    allowed: Callable[[Sequence[Grant], datetime], bool]
    creates: bool = False


@dataclass(frozen=True, slots=True)
class DocumentState:
    """What a request is decided by.

    Attributes:
        grants: those of the caller's subjects on the UUID, in force or not.
        document: the document of that UUID in that collection, or None; None too for whom it is not.
        known: whether the UUID has any grant, or a document in any registered collection, as far as that counts.
        now: the moment, aware UTC.
        several: whether further documents of the collection share the UUID; `document` is the first of them.
    """

    grants: Sequence[Grant]
    document: ShownDocument | None
    known: bool
    now: datetime
    several: bool = False


@dataclass(frozen=True, slots=True)
class Insert:
    """Create the document of these fields; with `owner`, that subject becomes the UUID's owner."""

    fields: Mapping[str, Any]
    owner: str | None


@dataclass(frozen=True, slots=True)
class Replace:
    """Put these fields in place of the document's present ones."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Update:
    """Write what a patch changes."""

    merged: Merged


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the document; its grants stay, since other collections may share the UUID."""


Decision = Insert | Replace | Update | Delete

State = TypeVar("State")
Decided = TypeVar("Decided")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The document afterwards (None when deleted), whether it is new, and whether an earlier request made it."""

    document: MongoDocument | None
    created: bool = False
    replayed: bool = False


class Documents:
    """The documents of every tenant."""

    def __init__(
        self,
        client: AsyncMongoClient[MongoDocument],
        control_database: str,
        bounds: ShownBounds = ShownBounds(),  # noqa: B008 - frozen
    ) -> None:
        self._client = client
        self._bounds = bounds
        self._acl = client[control_database][ACL]
        self._transactions = Transactions(client, control_database)
        self._audit = Audit(client, control_database)
        self._idempotency = IdempotencyKeys(client, control_database)

    async def read(self, place: Place, access: Access) -> DocumentState:
        """What a read is decided by; `known` says only what was seen on the way.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """

        async def read(session: AsyncClientSession) -> DocumentState:
            grants, now = await self._grants(place, access.subjects, session), datetime.now(UTC)
            found: list[ShownDocument] = []
            if access.allowed(grants, now):
                async with self._registered(place.tenant).using(place.collection):
                    found = await self._shown(place, 2, session)
            known, several = bool(grants or found), len(found) > 1
            return DocumentState(grants, found[0] if found else None, known, now, several=several)

        with translated(seconds=_SECONDS):
            return await at_one_time(self._client, read)

    async def change(
        self, place: Place, access: Access, actor: Actor, decide: Callable[[DocumentState], Decision]
    ) -> Outcome:
        """Read, let `decide` say what is to be done, do it; all in one transaction.

        `decide` may be called several times, each time with what is true then. What it raises is raised, and
        nothing is written.

        Raises:
            Conflict: a unique key is taken.
            DocumentTooLarge, InvalidDocument: MongoDB, or the collection's validator, refuses the document.
            Unavailable: MongoDB cannot be written now.
        """
        registered = self._registered(place.tenant)

        async def body(session: AsyncClientSession) -> Outcome:
            state = await self._state(place, access, registered, session)
            decision = await unhurried(decide, state, state.document)
            async with registered.using(place.collection):
                return await self._write(place, actor, state, decision, session)

        return await self._transactions.run(place.tenant.slug, place.uuid, body)

    async def create_once(
        self,
        place: Place,
        access: Access,
        actor: Actor,
        decide: Callable[[DocumentState], Insert],
        once: Once,
    ) -> Outcome:
        """`change` for a new document, unless this very request has made one: then that one, as it was made.

        Raises:
            Conflict: the key was used for another request, or a unique key is taken.
            DocumentTooLarge, InvalidDocument: MongoDB, or the collection's validator, refuses the document.
            Unavailable: MongoDB cannot be written now.
        """
        tenant = place.tenant.slug
        registered = self._registered(place.tenant)

        async def body(session: AsyncClientSession) -> Outcome:
            made = await self._idempotency.find(session, tenant, once)
            if made is not None:
                # The request is the same one, so its fields are those that the document was made of.
                insert = decide(DocumentState((), None, known=False, now=datetime.now(UTC)))
                return Outcome({**made, **insert.fields}, created=True, replayed=True)
            state = await self._state(place, access, registered, session)
            decision = await unhurried(decide, state, state.document)
            async with registered.using(place.collection):
                outcome = await self._write(place, actor, state, decision, session)
            document = outcome.document or {}
            keys: MongoDocument = {name: document[name] for name in ("_id", place.key)}
            await self._idempotency.keep(session, tenant, once, keys)
            return outcome

        return await self._transactions.run(tenant, place.uuid, body)

    async def having(self, tenant: Tenant, collection: str, uuids: Iterable[UUID]) -> frozenset[UUID]:
        """Those of the UUIDs that have a document in the collection.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        key = tenant.collections[collection]
        query = {key: {"$in": [Binary.from_uuid(uuid) for uuid in uuids]}}

        async def question(
            asked: AsyncCollection[MongoDocument], session: AsyncClientSession | None
        ) -> list[MongoDocument]:
            return await asked.find(query, {key: 1}, session=session).to_list()

        with translated(seconds=_SECONDS):
            found = await self._registered(tenant).ask_outside(collection, question)
        return frozenset(document[key] for document in found or () if isinstance(document[key], UUID))

    async def _state(
        self, place: Place, access: Access, registered: Registered, session: AsyncClientSession
    ) -> DocumentState:
        grants, now = await self._grants(place, access.subjects, session), datetime.now(UTC)
        found: list[ShownDocument] = []
        if access.allowed(grants, now):
            async with registered.using(place.collection):
                found = await self._shown(place, 2, session)
        known = bool(grants or found)
        if access.creates and not known:
            known = await self._known(place, registered, session)
        return DocumentState(grants, found[0] if found else None, known, now, several=len(found) > 1)

    async def _shown(self, place: Place, most: int, session: AsyncClientSession | None) -> list[ShownDocument]:
        collection = self._collection(place)
        return await find_shown(collection, place.filter, self._bounds, most=most, session=session)

    async def _known(self, place: Place, registered: Registered, session: AsyncClientSession) -> bool:
        """Whether anybody has a grant on the UUID, or any registered collection a document of it.

        All of them are asked whatever the first says: how many questions it takes must not tell where it is.
        """
        query = {"_id.tenant": {"$eq": place.tenant.slug}, "_id.uuid": Binary.from_uuid(place.uuid)}
        found = [await self._acl.find_one(query, {"_id": 1}, session=session)]
        for name in place.tenant.collections:
            query = replace(place, collection=name).filter
            found.append(await registered.ask(name, _first_of(query), session))
        return any(one is not None for one in found)

    async def _grants(
        self, place: Place, subjects: Sequence[str], session: AsyncClientSession | None
    ) -> list[Grant]:
        ids = [grant_id(GrantKey(place.tenant.slug, place.uuid, subject)) for subject in subjects]
        found = (
            await self._acl.with_options(codec_options=RAW).find({"_id": {"$in": ids}}, session=session).to_list()
        )
        decoded = (decode(bytes(document.raw), aware=True) for document in found)
        return [grant for document in decoded if (grant := parse_grant(document)) is not None]

    async def _write(
        self, place: Place, actor: Actor, state: DocumentState, decision: Decision, session: AsyncClientSession
    ) -> Outcome:
        match decision, state.document:
            case Insert() as insert, None:
                return Outcome(await self._insert(place, actor, insert, state.now, session), created=True)
            case Replace(fields), ShownDocument() as document:
                return Outcome(await self._replace(place, document, fields, session))
            case Update(merged), dict(document):
                return Outcome(await self._update(place, document, merged, session))
            case Delete(), dict(document):
                await self._collection(place).delete_one({"_id": {"$eq": document["_id"]}}, session=session)
                await self._audit.record(session, actor, document_entry("document.delete", place))
                return Outcome(None)
        msg = f"{type(decision).__name__} does not fit what was read"
        raise AssertionError(msg)

    async def _insert(
        self, place: Place, actor: Actor, insert: Insert, now: datetime, session: AsyncClientSession
    ) -> MongoDocument:
        document = new_document(place, insert.fields)
        await self._collection(place).insert_one(document, session=session)
        if insert.owner is not None:
            key = GrantKey(place.tenant.slug, place.uuid, insert.owner)
            grant = Grant(key, Role.OWNER, None, actor.subject, now)
            await self._acl.insert_one(grant_document(grant), session=session)
        await self._audit.record(session, actor, document_entry("document.create", place, insert.owner))
        return document

    async def _replace(
        self, place: Place, document: ShownDocument, fields: Mapping[str, Any], session: AsyncClientSession
    ) -> MongoDocument | None:
        replaced = await replacement(place, document, fields)
        if replaced is None:
            return document
        after = await self._raw(place).find_one_and_replace(
            {"_id": {"$eq": document["_id"]}}, replaced, return_document=ReturnDocument.AFTER, session=session
        )
        return await _decoded(after)

    async def _update(
        self, place: Place, document: MongoDocument, merged: Merged, session: AsyncClientSession
    ) -> MongoDocument | None:
        if not merged.changes:
            return document
        after = await self._raw(place).find_one_and_update(
            {"_id": {"$eq": document["_id"]}},
            update_of(merged),
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        # What the patch has left alone may be anything.
        return await _decoded(after)

    def _registered(self, tenant: Tenant) -> Registered:
        return Registered(plain(self._client[tenant.database]), tenant)

    def _collection(self, place: Place) -> AsyncCollection[MongoDocument]:
        return plain(self._client[place.tenant.database])[place.collection]

    def _raw(self, place: Place) -> AsyncCollection[RawBSONDocument]:
        return self._collection(place).with_options(codec_options=RAW)


def _first_of(query: Mapping[str, Any]) -> Question[MongoDocument | None]:
    """The question for a document that the query finds."""

    async def ask(
        collection: AsyncCollection[MongoDocument], session: AsyncClientSession | None
    ) -> MongoDocument | None:
        return await collection.find_one(query, {"_id": 1}, session=session)

    return ask


async def _decoded(after: RawBSONDocument | None) -> MongoDocument | None:
    return await decoded(bytes(after.raw)) if after is not None else None


async def unhurried(decide: Callable[[State], Decided], state: State, document: ShownDocument | None) -> Decided:
    """The decision; off the event loop where the document is one that it takes long to compare or to measure."""
    if document is not None and document.heavy:
        return await asyncio.to_thread(decide, state)
    return decide(state)


def new_document(place: Place, fields: Mapping[str, Any]) -> MongoDocument:
    """A document of those fields, with the keys of a new one."""
    keys = {"_id": place.uuid} if place.key == "_id" else {"_id": ObjectId(), "uuid": place.uuid}
    return {**keys, **fields}


async def replacement(place: Place, document: ShownDocument, fields: Mapping[str, Any]) -> Any:
    """What takes the place of the document, with its keys; None where it has these fields already.

    What is in it already, as far as a client can see, stays as it is stored. Of a document that is withheld nobody
    has seen anything.
    """
    keys: MongoDocument = {"_id": document["_id"], place.key: place.uuid}
    whole = {**keys, **fields}
    if document.withheld is not None:
        return whole
    if document.heavy:
        return await asyncio.to_thread(keeping, document.raw, document, whole)
    return keeping(document.raw, document, whole)


def update_of(merged: Merged) -> dict[str, Any]:
    """The update that does what the patch says; only for one that changes something."""
    operators = (("$set", merged.set), ("$unset", dict.fromkeys(merged.unset, "")))
    return {operator: fields for operator, fields in operators if fields}


def document_entry(action: Action, place: Place, owner: str | None = None) -> Entry:
    """What the audit says of a document created or deleted."""
    return Entry(action, place.tenant.slug, place.uuid, owner, {"collection": place.collection})
