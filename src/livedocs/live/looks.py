"""One look at grants and documents at one cluster time, that the stream can be continued from."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol
from uuid import UUID

from bson.timestamp import Timestamp

from livedocs.access.gate import Gate
from livedocs.access.principal import Principal
from livedocs.changes import cursor
from livedocs.changes.history import History
from livedocs.errors import Unavailable
from livedocs.model import Snapshot, Tenant

_ATTEMPTS = 5
_RETRY = 0.2


class Progress(Protocol):
    """What a join needs to know of the feed."""

    @property
    def live(self) -> bool:
        """Whether the stream is open and was heard from since its last error."""

    def lag(self) -> float:
        """Age of the stream's position, seconds."""

    async def passed(self, at: Timestamp) -> None:
        """Wait until every change up to and including that cluster time has gone through."""


class Looks:
    """Looks through the gate, and sees to it that the look and the history meet.

    Args:
        lag_bound: seconds of lag past which nobody is let in.
    """

    def __init__(self, gate: Gate, history: History, progress: Progress, *, lag_bound: float) -> None:
        self._gate = gate
        self._history = history
        self._progress = progress
        self._lag_bound = lag_bound

    def check_stream(self) -> None:
        """Let nobody in while the stream is behind.

        Raises:
            Unavailable: it is not open, or its position is older than the bound.
        """
        if not self._progress.live or self._progress.lag() > self._lag_bound:
            detail = "The change stream is behind; nobody is let in until it has caught up."
            raise Unavailable(detail)

    async def look(
        self,
        who: Principal,
        tenant: Tenant,
        uuids: list[UUID],
        begins: Collection[str] | None,
        *,
        documents: bool,
    ) -> Snapshot:
        """The snapshot a join rests on: never older than what the history can continue.

        `begins` are cursors to go on from. One that cannot be continued has the documents read, asked for or not.
        With None, what lies up to the snapshot need not have gone through.

        Raises:
            Unavailable: MongoDB cannot be read, or its answers stay older than the history.
        """
        for _ in range(_ATTEMPTS):
            with_documents = frozenset(uuids) if documents else frozenset()
            snapshot = await self._gate.look(who, tenant, uuids, with_documents)
            if begins is not None:
                # A cursor may be ahead of this process; what lies between must be here to be told apart.
                await self._progress.passed(snapshot.at)
            if not documents and not all(self.resumable(begin, snapshot, tenant) for begin in begins or ()):
                documents = True
                continue
            # Asked after the last await: a restart may have taken a revoke behind the snapshot with it.
            if self._history.covers(cursor.after(snapshot.at), tenant.slug):
                return snapshot
            await asyncio.sleep(_RETRY)
        raise Unavailable

    def resumable(self, since: str, snapshot: Snapshot, tenant: Tenant) -> bool:
        """Whether everything after that cursor is in the history, and the cursor is not from another future."""
        return self._history.covers(since, tenant.slug) and since <= cursor.after(snapshot.at)

    async def aclose(self) -> None:
        """End what is under way."""
        await self._gate.aclose()
