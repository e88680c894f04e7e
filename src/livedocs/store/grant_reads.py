"""Which grants a decision about grants takes, read in a number of questions that is known beforehand.

The caller's own grants come first. What else a decision takes is read only where they allow it. So for a UUID that
does not exist and for one that is somebody else's the same questions are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from bson.binary import Binary
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.cursor import AsyncCursor

from livedocs.errors import LivedocsError
from livedocs.model import Grant, GrantKey, Role, grant_id, parse_grant
from livedocs.store.connection import MongoDocument
from livedocs.store.grant_book import GrantBook

# A reply of MongoDB's at a time is decoded on the event loop: of so many grants in well under 5 ms.
_REPLY = 200
# Grants that are counted for all UUIDs of a transaction together, before each is counted for itself.
_COUNTED = 20_000
# What a decision asks about a grant.
_TERMS = {"role": 1, "expires_at": 1}


@dataclass(frozen=True, slots=True)
class Manager:
    """Who wants to see or change grants.

    Attributes:
        subjects: the caller's.
        require: raises a LivedocsError for a UUID whose grants are not the caller's to manage. Asked with a book
            that has the caller's own grants and, with `counts`, the number of all.
        counts: whether `require` asks for that number.
        most: grants that a UUID may have.
    """

    subjects: Sequence[str]
    require: Callable[[GrantBook], None]
    counts: bool
    most: int

    def manages(self, book: GrantBook) -> bool:
        """Whether the grants are the caller's to manage."""
        try:
            self.require(book)
        except LivedocsError:
            return False
        return True


class GrantReads:
    """Reads of the `acl` collection."""

    def __init__(self, acl: AsyncCollection[MongoDocument]) -> None:
        self._acl = acl

    async def own(
        self, tenant: str, uuids: Collection[UUID], subjects: Sequence[str], session: AsyncClientSession | None
    ) -> dict[UUID, list[Grant]]:
        """The grants of those subjects on each of the UUIDs; one question."""
        query = {**_on(tenant, uuids), "_id.subject": {"$in": list(subjects)}}
        found: dict[UUID, list[Grant]] = {uuid: [] for uuid in uuids}
        for grant in await self._grants(self._acl.find(query, _TERMS, session=session)):
            found[grant.key.uuid].append(grant)
        return found

    async def granted(self, tenant: str, uuids: Collection[UUID], session: AsyncClientSession) -> set[UUID]:
        """Those of the UUIDs on which anybody has a grant; one question, an index entry for each UUID."""
        pipeline = [{"$match": _on(tenant, uuids)}, {"$sort": {"_id.uuid": 1}}, {"$group": {"_id": "$_id.uuid"}}]
        return {found["_id"] async for found in await self._acl.aggregate(pipeline, session=session)}

    async def books(
        self,
        tenant: str,
        wanted: Mapping[UUID, Collection[str]],
        manager: Manager,
        session: AsyncClientSession,
    ) -> dict[UUID, GrantBook]:
        """What a change of the grants of those subjects, by UUID, is decided by."""
        own = await self.own(tenant, wanted, manager.subjects, session)
        totals = await self._totals(tenant, wanted, manager.most, session) if manager.counts else {}
        now = datetime.now(UTC)
        books = {
            uuid: GrantBook(
                uuid, own[uuid], subjects=manager.subjects, most=manager.most, now=now, total=totals.get(uuid)
            )
            for uuid in wanted
        }
        managed = {uuid: subjects for uuid, subjects in wanted.items() if manager.manages(books[uuid])}
        await self.complete(tenant, books, managed, manager.most, session)
        return books

    async def complete(
        self,
        tenant: str,
        books: Mapping[UUID, GrantBook],
        wanted: Mapping[UUID, Collection[str]],
        most: int,
        session: AsyncClientSession,
    ) -> None:
        """Read what the books of those UUIDs lack for a change of the grants of those subjects.

        Of the owners, as many as subjects that may cease to be one, and one more: whoever is left then is as good
        an owner as any that was not read.
        """
        keys = [GrantKey(tenant, uuid, subject) for uuid, subjects in wanted.items() for subject in subjects]
        if not keys:
            return
        query = {"_id": {"$in": [grant_id(key) for key in keys]}}
        for grant in await self._grants(self._acl.find(query, _TERMS, session=session)):
            books[grant.key.uuid].learn(grant)
        added = {key.uuid for key in keys if books[key.uuid].get(key.subject) is None}
        uncounted = {uuid for uuid in added if books[uuid].total is None}
        for uuid, total in (await self._totals(tenant, uncounted, most, session)).items():
            books[uuid].total = total
        for uuid, subjects in wanted.items():
            if any(_owner(books[uuid].get(subject)) for subject in subjects):
                for grant in await self._owners(tenant, uuid, len(set(subjects)) + 1, books[uuid].now, session):
                    books[uuid].learn(grant)

    async def page(
        self, tenant: str, uuid: UUID, session: AsyncClientSession | None, *, after: str | None, limit: int
    ) -> list[Grant]:
        """Grants of the UUID in the order of their subjects, from behind that one."""
        query: dict[str, Any] = _on(tenant, [uuid])
        if after is not None:
            query["_id.subject"] = {"$gt": after}
        return await self._grants(self._acl.find(query, session=session).sort("_id.subject").limit(limit))

    async def of(
        self, tenant: str, uuid: UUID, subjects: Collection[str], session: AsyncClientSession
    ) -> list[Grant]:
        """The grants of those subjects on the UUID, in their order."""
        query = {**_on(tenant, [uuid]), "_id.subject": {"$in": list(subjects)}}
        return await self._grants(self._acl.find(query, session=session).sort("_id.subject"))

    async def of_groups(self, tenant: str, uuid: UUID, limit: int, session: AsyncClientSession) -> list[Grant]:
        """The first of the grants on the UUID that are for groups."""
        query = {**_on(tenant, [uuid]), "_id.subject": {"$gte": "group:", "$lt": "group;"}}
        return await self._grants(self._acl.find(query, session=session).sort("_id.subject").limit(limit))

    async def _totals(
        self, tenant: str, uuids: Collection[UUID], most: int, session: AsyncClientSession
    ) -> dict[UUID, int]:
        """How many grants each of the UUIDs has, counted to past `most` at least."""
        if not uuids:
            return {}
        pipeline: list[dict[str, Any]] = [
            {"$match": _on(tenant, uuids)},
            {"$sort": {"_id.uuid": 1}},
            {"$limit": _COUNTED},
            {"$group": {"_id": "$_id.uuid", "grants": {"$sum": 1}}},
        ]
        found = {
            one["_id"]: int(one["grants"]) async for one in await self._acl.aggregate(pipeline, session=session)
        }
        if sum(found.values()) >= _COUNTED:
            # Somebody wrote very many directly, and the count has not got to every UUID.
            found = {
                uuid: await self._acl.count_documents(_on(tenant, [uuid]), limit=most + 1, session=session)
                for uuid in uuids
            }
        return {uuid: found.get(uuid, 0) for uuid in uuids}

    async def _owners(
        self, tenant: str, uuid: UUID, limit: int, now: datetime, session: AsyncClientSession
    ) -> list[Grant]:
        """Owners in force, those without an end first (in BSON's order what is absent comes before a date)."""
        query = {**_on(tenant, [uuid]), "role": Role.OWNER.label, "expires_at": {"$not": {"$lte": now}}}
        cursor = self._acl.find(query, _TERMS, session=session).sort("expires_at").limit(limit)
        return await self._grants(cursor)

    async def _grants(self, cursor: AsyncCursor[MongoDocument]) -> list[Grant]:
        found = cursor.batch_size(_REPLY)
        return [grant async for document in found if (grant := parse_grant(document)) is not None]


def _on(tenant: str, uuids: Iterable[UUID]) -> dict[str, Any]:
    """The filter of every grant on those UUIDs."""
    return {"_id.tenant": {"$eq": tenant}, "_id.uuid": {"$in": [Binary.from_uuid(uuid) for uuid in uuids]}}


def _owner(grant: Grant | None) -> bool:
    return grant is not None and grant.role is Role.OWNER
