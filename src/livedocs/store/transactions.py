"""Transactions over a tenant's database and the control database, on one UUID or some.

A transaction of MongoDB reads a snapshot: two of them that read the same documents and write different ones both
commit. So a write could slip in behind the revoke that forbids it, two callers could both become the first owner
of a UUID, and two owners could each remove the other. Every transaction therefore begins by writing the UUID's
*guard*, a document that exists for nothing else: of two that overlap one is told to try again, and then sees what
the other has done. Guards are removed by a TTL index; only their being written matters.

Source: https://www.mongodb.com/docs/manual/core/transactions-production-consideration/ (write conflicts)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from bson.binary import Binary
from pymongo import AsyncMongoClient, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from livedocs.store.connection import GUARDS, MongoDocument
from livedocs.store.failures import translated

_SECONDS = 10.0

T = TypeVar("T")
Body = Callable[[AsyncClientSession], Awaitable[T]]


class Transactions:
    """Runs bodies, each as a transaction under the guards of the UUIDs it is about."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._client = client
        self._guards = client[control_database][GUARDS]

    async def run(self, tenant: str, uuid: UUID, body: Body[T]) -> T:
        """`run_all` for one UUID."""
        return await self.run_all(tenant, (uuid,), body)

    async def run_all(self, tenant: str, uuids: Collection[UUID], body: Body[T]) -> T:
        """What the body returns, once it is committed; the body may run several times.

        An exception of the body aborts the transaction and is raised.

        Raises:
            Unavailable: no commit within the time; whether one happens later is then unknown.
            Conflict: a unique key is taken.
        """

        async def guarded(session: AsyncClientSession) -> T:
            touch = {"$set": {"at": datetime.now(UTC)}, "$inc": {"writes": 1}}
            keys = [{"tenant": tenant, "uuid": Binary.from_uuid(uuid)} for uuid in sorted(set(uuids))]
            await self._guards.bulk_write(
                [UpdateOne({"_id": key}, touch, upsert=True) for key in keys], session=session
            )
            return await body(session)

        with translated(seconds=_SECONDS):
            async with self._client.start_session() as session:
                return await session.with_transaction(
                    guarded,
                    read_concern=ReadConcern("snapshot"),
                    write_concern=WriteConcern("majority"),
                    read_preference=ReadPreference.PRIMARY,
                )
