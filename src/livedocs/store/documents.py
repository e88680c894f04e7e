"""Documents in the tenants' databases. What is written is decided by the caller's function.

A write reads what the decision needs, lets it decide and does what it says, all in one transaction over the
tenant's database and the control database. A read takes the document first and the grants after it, so that
whoever is allowed is allowed at a moment when the document was no newer: a revoke in between hides it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from bson.binary import Binary
from bson.objectid import ObjectId
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.collection import ReturnDocument

from livedocs.model import CollectionKey, Grant, GrantKey, Role, Tenant, grant_document, grant_id, parse_grant
from livedocs.store.audit import Action, Actor, Audit, Entry
from livedocs.store.connection import ACL, MongoDocument
from livedocs.store.failures import translated
from livedocs.store.merge import Merged
from livedocs.store.replays import Once, Replays
from livedocs.store.transactions import Transactions

_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """A UUID in a registered collection of a tenant."""

    tenant: Tenant
    collection: str
    uuid: UUID

    @property
    def key(self) -> CollectionKey:
        """The field that holds the UUID."""
        return self.tenant.collections[self.collection]

    @property
    def filter(self) -> dict[str, Any]:
        """The filter that finds its documents; nothing in it comes from a client but the UUID."""
        # An array that holds the UUID would match as well, but is no key.
        array = {} if self.key == "_id" else {"uuid.0": {"$exists": False}}
        return {self.key: Binary.from_uuid(self.uuid), **array}


@dataclass(frozen=True, slots=True)
class DocumentState:
    """What a request is decided by.

    Attributes:
        grants: those of the caller's subjects on the UUID, in force or not.
        document: the document of that UUID in that collection, or None.
        known: whether the UUID has any grant, or a document in any registered collection.
        now: the moment, aware UTC.
        several: whether further documents of the collection share the UUID; `document` is the first of them.
    """

    grants: Sequence[Grant]
    document: MongoDocument | None
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """The document afterwards (None when deleted), whether it is new, and whether an earlier request made it."""

    document: MongoDocument | None
    created: bool = False
    replayed: bool = False


class Documents:
    """The documents of every tenant."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._client = client
        self._acl = client[control_database][ACL]
        self._transactions = Transactions(client, control_database)
        self._audit = Audit(client, control_database)
        self._replays = Replays(client, control_database)

    async def read(self, place: Place, subjects: Sequence[str]) -> DocumentState:
        """What a read is decided by; `known` says only what was seen on the way.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_SECONDS):
            # Not the other way round: what is written behind a revoke must not be read with a grant from before.
            document = await self._collection(place).find_one(place.filter, sort=[("_id", 1)])
            grants = await self._grants(place, subjects, None)
        return DocumentState(grants, document, document is not None or bool(grants), datetime.now(UTC))

    async def change(
        self, place: Place, subjects: Sequence[str], actor: Actor, decide: Callable[[DocumentState], Decision]
    ) -> Outcome:
        """Read, let `decide` say what is to be done, do it; all in one transaction.

        `decide` may be called several times, each time with what is true then. What it raises is raised, and
        nothing is written.

        Raises:
            Conflict: a unique key is taken.
            DocumentTooLarge, InvalidDocument: MongoDB, or the collection's validator, refuses the document.
            Unavailable: MongoDB cannot be written now.
        """

        async def body(session: AsyncClientSession) -> Outcome:
            state = await self._state(place, subjects, session)
            return await self._write(place, actor, state, decide(state), session)

        return await self._transactions.run(place.tenant.slug, place.uuid, body)

    async def create_once(
        self,
        place: Place,
        subjects: Sequence[str],
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

        async def body(session: AsyncClientSession) -> Outcome:
            made = await self._replays.find(session, tenant, once)
            if made is not None:
                # The request is the same one, so its fields are those that the document was made of.
                insert = decide(DocumentState((), None, known=False, now=datetime.now(UTC)))
                return Outcome({**made, **insert.fields}, created=True, replayed=True)
            state = await self._state(place, subjects, session)
            outcome = await self._write(place, actor, state, decide(state), session)
            document = outcome.document or {}
            keys: MongoDocument = {name: document[name] for name in ("_id", place.key)}
            await self._replays.keep(session, tenant, once, keys)
            return outcome

        return await self._transactions.run(tenant, place.uuid, body)

    async def having(self, tenant: Tenant, collection: str, uuids: Iterable[UUID]) -> frozenset[UUID]:
        """Those of the UUIDs that have a document in the collection.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        key = tenant.collections[collection]
        query = {key: {"$in": [Binary.from_uuid(uuid) for uuid in uuids]}}
        with translated(seconds=_SECONDS):
            found = await self._client[tenant.database][collection].find(query, {key: 1}).to_list()
        return frozenset(document[key] for document in found if isinstance(document[key], UUID))

    async def _state(self, place: Place, subjects: Sequence[str], session: AsyncClientSession) -> DocumentState:
        grants = await self._grants(place, subjects, session)
        found = await self._collection(place).find(place.filter, session=session).limit(2).to_list()
        document = found[0] if found else None
        known = bool(grants) or document is not None or await self._known(place, session)
        return DocumentState(grants, document, known, datetime.now(UTC), several=len(found) > 1)

    async def _known(self, place: Place, session: AsyncClientSession) -> bool:
        """Whether anybody has a grant on the UUID, or any registered collection a document of it."""
        query = {"_id.tenant": {"$eq": place.tenant.slug}, "_id.uuid": Binary.from_uuid(place.uuid)}
        if await self._acl.find_one(query, {"_id": 1}, session=session) is not None:
            return True
        for name in place.tenant.collections:
            other = replace(place, collection=name)
            if await self._collection(other).find_one(other.filter, {"_id": 1}, session=session) is not None:
                return True
        return False

    async def _grants(
        self, place: Place, subjects: Sequence[str], session: AsyncClientSession | None
    ) -> list[Grant]:
        ids = [grant_id(GrantKey(place.tenant.slug, place.uuid, subject)) for subject in subjects]
        found = await self._acl.find({"_id": {"$in": ids}}, session=session).to_list()
        return [grant for document in found if (grant := parse_grant(document)) is not None]

    async def _write(
        self, place: Place, actor: Actor, state: DocumentState, decision: Decision, session: AsyncClientSession
    ) -> Outcome:
        match decision, state.document:
            case Insert() as insert, None:
                return Outcome(await self._insert(place, actor, insert, state.now, session), created=True)
            case Replace(fields), dict(document):
                after = await self._collection(place).find_one_and_replace(
                    {"_id": {"$eq": document["_id"]}},
                    replacement(place, document, fields),
                    return_document=ReturnDocument.AFTER,
                    session=session,
                )
                return Outcome(after)
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

    async def _update(
        self, place: Place, document: MongoDocument, merged: Merged, session: AsyncClientSession
    ) -> MongoDocument | None:
        if not merged.changes:
            return document
        return await self._collection(place).find_one_and_update(
            {"_id": {"$eq": document["_id"]}},
            update_of(merged),
            return_document=ReturnDocument.AFTER,
            session=session,
        )

    def _collection(self, place: Place) -> AsyncCollection[MongoDocument]:
        return self._client[place.tenant.database][place.collection]


def new_document(place: Place, fields: Mapping[str, Any]) -> MongoDocument:
    """A document of those fields, with the keys of a new one."""
    keys = {"_id": place.uuid} if place.key == "_id" else {"_id": ObjectId(), "uuid": place.uuid}
    return {**keys, **fields}


def replacement(place: Place, document: Mapping[str, Any], fields: Mapping[str, Any]) -> MongoDocument:
    """The fields with the keys of the document whose place they take."""
    keys: MongoDocument = {"_id": document["_id"], place.key: place.uuid}
    return {**keys, **fields}


def update_of(merged: Merged) -> dict[str, Any]:
    """The update that does what the patch says; only for one that changes something."""
    operators = (("$set", merged.set), ("$unset", dict.fromkeys(merged.unset, "")))
    return {operator: fields for operator, fields in operators if fields}


def document_entry(action: Action, place: Place, owner: str | None = None) -> Entry:
    """What the audit says of a document created or deleted."""
    return Entry(action, place.tenant.slug, place.uuid, owner, {"collection": place.collection})
