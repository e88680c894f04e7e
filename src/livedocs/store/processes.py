"""Which server processes live, and how far each has followed the stream.

A lease is written and judged by MongoDB's own clock (`$$NOW`), so that the clocks of the processes do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient

from livedocs.store.connection import ACL, PROCESSES, MongoDocument
from livedocs.store.failures import translated

LEASE_SECONDS = 10.0
_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Process:
    """A server process with a lease.

    Attributes:
        id: unique among all that ever ran.
        position: everything at or before this position of the stream has been applied there.
    """

    id: str
    host: str
    pid: int
    position: str


class Processes:
    """The leases, in the control database."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._processes = client[control_database][PROCESSES]
        self._acl = client[control_database][ACL]

    async def beat(self, process: Process) -> None:
        """Renew the process's lease, with its position.

        Raises:
            Unavailable: MongoDB cannot be written now.
        """
        lease = {"$add": ["$$NOW", int(LEASE_SECONDS * 1000)]}
        fields: Mapping[str, Any] = {
            "host": {"$literal": process.host},
            "pid": process.pid,
            "position": {"$literal": process.position},
            "beat_at": "$$NOW",
            "expires_at": lease,
        }
        with translated(seconds=_SECONDS):
            await self._processes.update_one({"_id": process.id}, [{"$set": fields}], upsert=True)

    async def end(self, process_id: str) -> None:
        """Give the lease up: the process has no socket any more.

        Raises:
            Unavailable: MongoDB cannot be written now; the lease runs out by itself.
        """
        with translated(seconds=_SECONDS):
            await self._processes.delete_one({"_id": process_id})

    async def live(self) -> list[Process]:
        """Every process whose lease has not run out.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_SECONDS):
            found = await self._processes.find({"$expr": {"$gt": ["$expires_at", "$$NOW"]}}).to_list()
        return [Process(one["_id"], one["host"], one["pid"], one["position"]) for one in found]

    async def committed(self) -> Timestamp:
        """A cluster time not before any write that this caller was told is committed.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_SECONDS):
            reply = await self._acl.database.command(
                {
                    "find": self._acl.name,
                    "limit": 1,
                    "projection": {"_id": 1},
                    "readConcern": {"level": "snapshot"},
                }
            )
        at: Timestamp = reply["cursor"].get("atClusterTime") or reply["operationTime"]
        return at
