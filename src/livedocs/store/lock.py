"""A lock between processes: a document with a lease, so that the lock of a dead process ends by itself.

Times are the server's (`$$NOW`), so that the processes' clocks do not matter.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from pymongo.collection import ReturnDocument
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, PyMongoError

from livedocs.store.connection import MongoDocument
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

LOCKS = "locks"


class LockLostError(Exception):
    """The lease ended before the work did: this process was stopped, or cut off, for longer than the lease."""


class Lock:
    """Held for as long as the `with` block runs; a thread renews the lease.

    Args:
        database: where the `locks` collection is.
        name: what is locked.
        lease: seconds after which a lock that is not renewed is anybody's.
        patience: seconds to wait for the present holder.
        poll: seconds between two tries.
    """

    def __init__(
        self,
        database: Database[MongoDocument],
        name: str,
        *,
        lease: float = 30.0,
        patience: float = 600.0,
        poll: float = 0.25,
    ) -> None:
        self._locks = database[LOCKS]
        self._name = name
        self._lease = lease
        self._patience = patience
        self._poll = poll
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4()}"
        # When the lease ends by this process's own clock; counted from before it was asked for, so never late.
        self._until = 0.0
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name=f"lock-{name}", daemon=True)

    def __enter__(self) -> Self:
        give_up = time.monotonic() + self._patience
        told = False
        while not self._take():
            if time.monotonic() > give_up:
                msg = f"another process has held the lock {self._name!r} for {self._patience:.0f} seconds"
                raise TimeoutError(msg)
            if not told:
                _log.info("lock_waiting", name=self._name)
                told = True
            self._stop.wait(self._poll)
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._renewer.join()
        self._locks.delete_one({"_id": self._name, "owner": self._owner})

    def check(self) -> None:
        """Raises LockLostError unless the lock is still held."""
        if time.monotonic() >= self._until:
            msg = f"the lock {self._name!r} was lost"
            raise LockLostError(msg)

    def _take(self) -> bool:
        """Take the lock, or the lease anew; whether it is ours now."""
        asked = time.monotonic()
        until = {"$add": ["$$NOW", int(self._lease * 1000)]}
        # Of a missing field every comparison with a date is "less": a new document is free.
        free: dict[str, Any] = {
            "$or": [{"$lte": ["$expires_at", "$$NOW"]}, {"$eq": ["$owner", {"$literal": self._owner}]}]
        }
        take = {
            "owner": {"$cond": [free, {"$literal": self._owner}, "$owner"]},
            "expires_at": {"$cond": [free, until, "$expires_at"]},
        }
        try:
            lock = self._locks.find_one_and_update(
                {"_id": self._name}, [{"$set": take}], upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:
            return False
        if lock is None or lock["owner"] != self._owner:
            return False
        self._until = asked + self._lease
        return True

    def _renew(self) -> None:
        while not self._stop.wait(self._lease / 3):
            try:
                if not self._take():
                    return
            except PyMongoError:
                # The next turn tries again; `check` fails once the lease has run out.
                _log.warning("lock_renewal_failed", name=self._name)
