"""Grants and documents as they were together at one cluster time: what a join is decided by and starts from.

The grants are read with read concern `snapshot` first; the cluster time that reply names (`cursor.atClusterTime`)
is then asked for in each read of the documents. The reply's `operationTime` would not do: it may be later than the
data read, and what lies between would be lost to the joining socket.

Source: https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from bson.binary import Binary, UuidRepresentation
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import OperationFailure

from livedocs.model import CollectionKey, Grant, GrantKey, Look, Snapshot, Tenant, grant_id, parse_grant
from livedocs.store.connection import ACL, MongoDocument
from livedocs.store.failures import SNAPSHOT_GONE, translated

_SECONDS = 10.0
_ATTEMPTS = 3
# Everything in the first reply, whatever its number; 16 MB are the bound, and getMore takes it from there.
_BATCH = 2**31 - 1


class Snapshots:
    """Reads rounds of grants and documents. Satisfies `access.rounds.SnapshotReader`."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._client = client
        self._control_database = control_database

    async def read(self, tenant: Tenant, looks: Sequence[Look]) -> list[Snapshot]:
        """One round: a read of the grants and, at the same cluster time, one of each registered collection.

        Args:
            tenant: whose grants and documents.
            looks: what is looked at; documents are read of the UUIDs that one of them wants them of and holds a
                grant on.

        Returns:
            What each look sees: grants of its own subjects, and documents only where it holds one.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_SECONDS):
            for _ in range(_ATTEMPTS - 1):
                try:
                    return await self._round(tenant, looks)
                except OperationFailure as error:
                    # A collection was created after the first read, or the time has left the history that the
                    # server keeps. A new round at a new time is the answer to both.
                    if error.code not in SNAPSHOT_GONE:
                        raise
            return await self._round(tenant, looks)

    async def _round(self, tenant: Tenant, looks: Sequence[Look]) -> list[Snapshot]:
        """One try at it; the reads of the documents fail together when T is out of reach."""
        at, grants = await self._grants(tenant.slug, looks)
        held = [_held(look, grants) for look in looks]
        wanted = list(
            dict.fromkeys(uuid for look, mine in zip(looks, held, strict=True) for uuid in _due(look, mine))
        )
        documents = await self._all_documents(tenant, wanted, at) if wanted else {}
        shared: dict[Any, Any] = {}
        return [
            Snapshot(at, mine, {uuid: documents[uuid] for uuid in _due(look, mine)}, shared)
            for look, mine in zip(looks, held, strict=True)
        ]

    async def _all_documents(
        self, tenant: Tenant, uuids: Sequence[UUID], at: Timestamp
    ) -> dict[UUID, dict[str, list[MongoDocument]]]:
        documents: dict[UUID, dict[str, list[MongoDocument]]] = {uuid: {} for uuid in uuids}
        # All of them are awaited even when one fails: no read is left running behind the caller's back.
        replies = await asyncio.gather(
            *(self._documents(tenant.database, name, key, uuids, at) for name, key in tenant.collections.items()),
            return_exceptions=True,
        )
        for (name, key), reply in zip(tenant.collections.items(), replies, strict=True):
            if isinstance(reply, BaseException):
                raise reply
            for document in reply:
                # An array that holds the UUID matches the query too, but is no key.
                if isinstance(document[key], UUID):
                    documents[document[key]].setdefault(name, []).append(document)
        return documents

    async def _grants(self, tenant: str, looks: Sequence[Look]) -> tuple[Timestamp, dict[UUID, list[Grant]]]:
        """Every grant of those asked for, by UUID: whose is for the caller to tell apart."""
        keys = dict.fromkeys((uuid, subject) for look in looks for uuid in look.uuids for subject in look.subjects)
        grants: dict[UUID, list[Grant]] = {}
        # Causal consistency would add an afterClusterTime of its own.
        async with self._client.start_session(causal_consistency=False) as session:
            reply = await self._client[self._control_database].command(
                {
                    "find": ACL,
                    "filter": {"_id": {"$in": [grant_id(GrantKey(tenant, *key)) for key in keys]}},
                    "batchSize": _BATCH,
                    "readConcern": {"level": "snapshot"},
                },
                session=session,
                codec_options=self._client.codec_options,
            )
            async for document in self._all(reply["cursor"], session):
                grant = parse_grant(document)
                if grant is not None:
                    grants.setdefault(grant.key.uuid, []).append(grant)
        at: Timestamp = reply["cursor"]["atClusterTime"]
        return at, grants

    async def _all(self, cursor: Mapping[str, Any], session: AsyncClientSession) -> AsyncIterator[MongoDocument]:
        """The documents of a command's first reply and of those that follow it."""
        batch = cursor["firstBatch"]
        while True:
            for document in batch:
                yield document
            if not cursor["id"]:
                return
            reply = await self._client[self._control_database].command(
                {"getMore": cursor["id"], "collection": ACL},
                session=session,
                codec_options=self._client.codec_options,
            )
            cursor = reply["cursor"]
            batch = cursor["nextBatch"]

    async def _documents(
        self, database: str, collection: str, key: CollectionKey, uuids: Sequence[UUID], at: Timestamp
    ) -> list[MongoDocument]:
        command = {
            "find": collection,
            "filter": {key: {"$in": [Binary.from_uuid(uuid) for uuid in uuids]}},
            "sort": {"_id": 1},
            "readConcern": {"level": "snapshot", "atClusterTime": at},
        }
        options = self._client.codec_options
        try:
            return await self._found(database, command, options)
        except InvalidBSON:
            # A Binary of subtype 4 that is not 16 bytes long, which MongoDB stores: it is no UUID, and no reason
            # to keep the room's other documents back.
            lenient = options.with_options(uuid_representation=UuidRepresentation.UNSPECIFIED)
            found = await self._found(database, command, lenient)
        for document in found:
            if isinstance(document[key], Binary):
                document[key] = document[key].as_uuid()
        return found

    async def _found(
        self, database: str, command: dict[str, Any], options: CodecOptions[MongoDocument]
    ) -> list[MongoDocument]:
        cursor = await self._client[database].cursor_command(command, codec_options=options)
        async with cursor:
            return await cursor.to_list()


def _held(look: Look, grants: Mapping[UUID, Sequence[Grant]]) -> dict[UUID, list[Grant]]:
    """Of the grants that a round has read the look's own: others may have asked for the same UUID."""
    return {
        uuid: [grant for grant in grants.get(uuid, ()) if grant.key.subject in look.subjects]
        for uuid in look.uuids
    }


def _due(look: Look, held: Mapping[UUID, Sequence[Grant]]) -> list[UUID]:
    """The UUIDs whose documents the look is to see: wanted, and not without a grant of its own."""
    return [uuid for uuid in look.with_documents if held.get(uuid)]
