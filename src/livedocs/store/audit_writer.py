"""Audit entries of what happens outside a transaction: noted at once, written in batches by one task.

What was refused and who was disconnected cannot wait for the database, nor be undone when it is out of reach.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from datetime import UTC, datetime

from pymongo import AsyncMongoClient

from livedocs.errors import LivedocsError, Unavailable
from livedocs.store.audit import SYSTEM, Actor, Audit, Entry, Noted
from livedocs.store.connection import MongoDocument
from livedocs.store.failures import translated
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

_SECONDS = 10.0
_BATCH = 500
_RETRY = 1.0
# What may wait while MongoDB is out of reach. Past it entries are counted and no longer kept.
_MOST = 10_000
# Of these, a tenant's: one whose callers are refused over and over pushes no other tenant's entries out.
_SHARE = 4


class AuditWriter:
    """Entries on their way into the log."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._audit = Audit(client, control_database)
        self._waiting: deque[Noted] = deque()
        # Of each tenant, how many of those there are. No count is kept at zero.
        self._held: Counter[str] = Counter()
        self._lost = 0
        self._noted = asyncio.Event()

    def note(self, actor: Actor, entry: Entry) -> None:
        """Have an entry written, with this moment as its time. Never fails."""
        if len(self._waiting) >= _MOST or self._held[entry.tenant] >= _MOST // _SHARE:
            self._lost += 1
        else:
            self._held[entry.tenant] += 1
            self._waiting.append(Noted(actor, entry, datetime.now(UTC)))
        self._noted.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._noted.wait()
            try:
                await self.flush()
            except Unavailable:
                _log.warning("audit_delayed", waiting=len(self._waiting), lost=self._lost)
                await asyncio.sleep(_RETRY)

    async def flush(self) -> None:
        """Write everything that waits.

        Raises:
            Unavailable: MongoDB cannot be written now; what was not written still waits.
        """
        while self._waiting or self._lost:
            batch = [self._waiting[place] for place in range(min(_BATCH, len(self._waiting)))]
            lost = self._lost
            told = (
                [Noted(SYSTEM, Entry("audit.lost", "", detail={"count": lost}), datetime.now(UTC))] if lost else []
            )
            self._lost += await self._write([*batch, *told])
            for noted in batch:
                self._waiting.popleft()
                self._held[noted.entry.tenant] -= 1
            self._held = +self._held
            self._lost -= lost
        self._noted.clear()

    async def _write(self, entries: list[Noted]) -> int:
        """Write the entries, one by one if together they are refused. Returns how many cannot be written."""
        try:
            with translated(seconds=_SECONDS):
                await self._audit.write(*entries)
        except Unavailable:
            raise
        except LivedocsError as error:
            # One that MongoDB does not take must not hold up all that come behind it for ever.
            if len(entries) == 1:
                _log.error("audit_lost", count=1, action=entries[0].entry.action, error=error.code)
                return 1
            return sum([await self._write([entry]) for entry in entries])
        return 0

    async def aclose(self) -> None:
        """Write what still waits, if that works now."""
        try:
            await self.flush()
        except Unavailable:
            _log.error("audit_lost", count=len(self._waiting) + self._lost)
