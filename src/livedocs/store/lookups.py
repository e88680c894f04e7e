"""From a document's `_id` to its UUID, for change events that carry only the former."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import bson
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from livedocs.model import Tenant
from livedocs.store.connection import MongoDocument
from livedocs.store.failures import SNAPSHOT_GONE


class Lookups:
    """One `find` for all the documents asked for. Satisfies `changes.resolver.Finder`."""

    def __init__(self, client: AsyncMongoClient[MongoDocument]) -> None:
        self._client = client

    async def uuids(
        self, tenant: Tenant, collection: str, ids: Sequence[Any], at: Timestamp
    ) -> Mapping[bytes, UUID]:
        """The UUIDs the documents had at that time, by the BSON of `{"": _id}`, for an `_id` may be a document.

        What the server keeps no history of any more is read as it is now.

        Raises:
            PyMongoError: MongoDB cannot be read now.
        """
        try:
            return await self._found(tenant, collection, ids, {"level": "snapshot", "atClusterTime": at})
        except OperationFailure as error:
            if error.code not in SNAPSHOT_GONE:
                raise
            return await self._found(tenant, collection, ids, {"level": "majority"})

    async def _found(
        self, tenant: Tenant, collection: str, ids: Sequence[Any], concern: Mapping[str, Any]
    ) -> Mapping[bytes, UUID]:
        codec = self._client.codec_options
        cursor = await self._client[tenant.database].cursor_command(
            {
                "find": collection,
                "filter": {"_id": {"$in": list(ids)}},
                "projection": {"uuid": 1},
                "readConcern": concern,
            },
            codec_options=codec,
        )
        async with cursor:
            return {
                bson.encode({"": document["_id"]}, codec_options=codec): document["uuid"]
                async for document in cursor
                if isinstance(document.get("uuid"), UUID)
            }
