"""The keys that cursors and tickets are sealed with, in the control database.

A key is written once and never changed. Its number is its `_id`: of two processes that make the next key at once,
one makes it and the other finds it. MongoDB reckons its beginning from its own cluster time, so that the clocks of
the processes do not matter.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bson.binary import Binary
from pymongo import AsyncMongoClient

from livedocs.errors import Conflict, Unavailable
from livedocs.model import KEY_LEAD, SealingKey, SealingKeys
from livedocs.store.connection import KEYS, MongoDocument
from livedocs.store.failures import translated
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

PERIOD = 7 * 86_400
"""Seconds after which a key is followed by the next one, by itself."""

# A key that no cursor within any history window can need: the window is at most a day.
_KEPT = 2 * 86_400
# Much less than the lead: a write that takes longer is given up, so that a key is committed well before it begins.
_SECONDS = 5.0
_NOW = {"$tsSecond": "$$CLUSTER_TIME"}
_ATTEMPTS = 20
_PAUSE = 0.1


class Keys:
    """The sealing keys."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._keys = client[control_database][KEYS]

    async def read(self) -> SealingKeys:
        """Every key there is, as of a cluster time.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_SECONDS):
            # A snapshot says which cluster time it is of; keys that are not committed by a majority are not in it.
            reply = await self._keys.database.command(
                {
                    "find": KEYS,
                    "sort": {"_id": 1},
                    "batchSize": 1000,
                    "singleBatch": True,
                    "readConcern": {"level": "snapshot"},
                }
            )
        found = reply["cursor"]
        at = found.get("atClusterTime") or reply["operationTime"]
        return SealingKeys([parse_key(one) for one in found["firstBatch"]], at)

    async def current(self) -> SealingKeys:
        """The same; makes the first key where there is none, and the next one when it is time for it.

        Raises:
            Unavailable: MongoDB cannot be read or written now.
        """
        for _ in range(_ATTEMPTS):
            read = await self.read()
            if not read.keys:
                await self._make(0, Binary(secrets.token_bytes(32)), begins=0)
            elif read.at.time - read.keys[-1].made > PERIOD:
                await self.rotate(read)
            else:
                return read
            # Another process may have made it so lately that a majority does not show it yet.
            await asyncio.sleep(_PAUSE)
        raise Unavailable

    async def rotate(self, read: SealingKeys) -> SealingKey:
        """Make the key behind those that were read, and delete those that nothing can need any more.

        Returns:
            The key, or the one that another process has made in its place.

        Raises:
            Unavailable: MongoDB cannot be written now.
        """
        last = read.keys[-1]
        # Twice the lead: the cluster time is that of the write's beginning, the lead counts from its commit.
        earliest = {"$add": [_NOW, 2 * KEY_LEAD]}
        made = await self._make(
            last.number + 1,
            Binary(secrets.token_bytes(32)),
            begins={"$max": [earliest, last.begins + 1]},
        )
        _log.info("sealing_key_made", number=made.number, begins=made.begins)
        over = [key.number for key, following in _pairs(read) if following.begins < read.at.time - _KEPT]
        if over:
            with translated(seconds=_SECONDS):
                await self._keys.delete_many({"_id": {"$in": over}})
        return made

    async def _make(self, number: int, secret: Binary, *, begins: int | Mapping[str, Any]) -> SealingKey:
        """Write a key unless there is one of that number; the one there is then."""
        made = {"_id": number, "begins": {"$toLong": begins}, "made": {"$toLong": _NOW}, "secret": secret}
        unless = {"$cond": [{"$eq": [{"$type": "$secret"}, "missing"]}, made, "$$ROOT"]}
        # Of two that insert at once, MongoDB refuses one: the other's is as good.
        with suppress(Conflict), translated(seconds=_SECONDS):
            await self._keys.update_one({"_id": number}, [{"$replaceWith": unless}], upsert=True)
        with translated(seconds=_SECONDS):
            stored = await self._keys.find_one({"_id": number})
        if stored is None:
            raise Unavailable
        return parse_key(stored)


def parse_key(document: Mapping[str, Any]) -> SealingKey:
    """A stored key."""
    return SealingKey(document["_id"], document["begins"], document["made"], bytes(document["secret"]))


def _pairs(read: SealingKeys) -> list[tuple[SealingKey, SealingKey]]:
    """Each key with the one behind it."""
    return list(zip(read.keys, read.keys[1:], strict=False))
