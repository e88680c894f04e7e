"""Refresh tokens that are being spent, for all processes: one spends it, the others get what came of that.

The control database holds the SHA-256 of a refresh token and, for a moment, the tokens that it was exchanged for,
sealed with it: whoever reads the database can open none of them. All times are those of the MongoDB server.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from bson.binary import Binary
from pymongo import AsyncMongoClient
from pymongo.collection import ReturnDocument

from livedocs.errors import Conflict
from livedocs.model import Renewal
from livedocs.store.connection import RENEWALS, MongoDocument
from livedocs.store.failures import translated

_SECONDS = 5.0
_MISSING = {"$eq": [{"$type": "$renewed"}, "missing"]}


class SharedRenewals:
    """Those of all processes. Satisfies `access.renewals.Renewals`.

    Args:
        window: how long what came of a refresh is there for the others.
        patience: after so long nothing more will come of a claim: whoever made it has died.
    """

    def __init__(
        self,
        client: AsyncMongoClient[MongoDocument],
        control_database: str,
        *,
        window: timedelta,
        patience: timedelta,
    ) -> None:
        self._renewals = client[control_database][RENEWALS]
        since = {"$cond": [_MISSING, _milliseconds(patience), _milliseconds(window)]}
        past = {"$lt": ["$at", {"$subtract": ["$$NOW", since]}]}
        # Of nobody, or of somebody whose time is up. A session that is over is nobody's any more.
        self._free = {"$and": [{"$ne": ["$over", True]}, {"$or": [{"$eq": [{"$type": "$by"}, "missing"]}, past]}]}

    async def claim(self, token: str, by: str) -> Renewal:
        """See `access.renewals.Renewals`.

        Raises:
            Unavailable: MongoDB cannot be written now.
        """
        claimed = {"_id": "$_id", "by": {"$literal": by}, "at": "$$NOW"}
        return await self._changed({"_id": token}, {"$cond": [self._free, claimed, "$$ROOT"]}, upsert=True)

    async def settle(self, token: str, by: str, renewed: bytes) -> Renewal:
        """See `access.renewals.Renewals`.

        Raises:
            Unavailable: MongoDB cannot be written now.
        """
        settled = {"renewed": {"$literal": Binary(renewed)}, "at": "$$NOW"}
        return await self._changed({"_id": token, "by": by}, {"$mergeObjects": ["$$ROOT", settled]})

    async def give_up(self, token: str, by: str) -> None:
        """See `access.renewals.Renewals`.

        Raises:
            Unavailable: MongoDB cannot be written now.
        """
        with translated(seconds=_SECONDS):
            await self._renewals.update_one({"_id": token, "by": by}, {"$unset": {"by": 1}})

    async def end(self, token: str) -> Renewal:
        """See `access.renewals.Renewals`.

        Raises:
            Unavailable: MongoDB cannot be written now.
        """
        ended = {"over": True, "at": "$$NOW"}
        return await self._changed({"_id": token}, {"$mergeObjects": ["$$ROOT", ended]}, upsert=True)

    async def get(self, token: str) -> Renewal:
        """See `access.renewals.Renewals`.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_SECONDS):
            return _renewal(await self._renewals.find_one({"_id": token}))

    async def _changed(self, query: MongoDocument, to: Any, *, upsert: bool = False) -> Renewal:
        while True:
            try:
                with translated(seconds=_SECONDS):
                    found = await self._renewals.find_one_and_update(
                        query, [{"$replaceWith": to}], upsert=upsert, return_document=ReturnDocument.AFTER
                    )
            except Conflict:
                # Another process has inserted it at the same moment.
                continue
            return _renewal(found)


def _renewal(found: MongoDocument | None) -> Renewal:
    found = found or {}
    renewed = found.get("renewed")
    return Renewal(found.get("by"), bytes(renewed) if renewed is not None else None, bool(found.get("over")))


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
