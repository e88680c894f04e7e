"""From a document's `_id` to its UUID, for change events that carry only the former."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import bson
from pymongo import AsyncMongoClient

from livedocs.model import Tenant
from livedocs.store.connection import MongoDocument


class Lookups:
    """One `find` for all the documents asked for. Satisfies `changes.resolver.Finder`."""

    def __init__(self, client: AsyncMongoClient[MongoDocument]) -> None:
        self._client = client

    async def uuids(self, tenant: Tenant, collection: str, ids: Sequence[Any]) -> Mapping[bytes, UUID]:
        """The UUIDs of the documents that have one, by the BSON of `{"": _id}`, for an `_id` may be a document.

        Raises:
            PyMongoError: MongoDB cannot be read now.
        """
        codec = self._client.codec_options
        cursor = self._client[tenant.database][collection].find({"_id": {"$in": list(ids)}}, {"uuid": 1})
        return {
            bson.encode({"": document["_id"]}, codec_options=codec): document["uuid"]
            async for document in cursor
            if isinstance(document.get("uuid"), UUID)
        }
