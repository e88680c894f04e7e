"""Snapshots of grants and documents, as of one cluster time, that the stream can be continued from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol
from uuid import UUID

from bson.timestamp import Timestamp

from livedocs.access.principal import Principal
from livedocs.access.snapshot_batcher import SnapshotBatcher
from livedocs.changes import cursor
from livedocs.changes.event import RoomKey
from livedocs.changes.history import History
from livedocs.errors import Unavailable
from livedocs.model import Snapshot, SnapshotRequest, Tenant

_ATTEMPTS = 5
_RETRY = 0.2
# Of a room, what is replayed at most: more is written in one go than the loop can be kept for.
_MOST_REPLAYED = 2000


class Progress(Protocol):
    """What a join needs to know of the feed."""

    @property
    def live(self) -> bool:
        """Whether the stream is open and was heard from since its last error."""

    def lag(self, tenant: str | None = None) -> float:
        """How many seconds the stream is behind, or that tenant's changes are."""

    async def passed(self, at: Timestamp, tenant: str | None = None) -> None:
        """Wait until every change of the tenant, or of all, up to and including that cluster time has passed."""


class JoinSnapshots:
    """Reads what a join rests on, and sees to it that the snapshot and the history meet.

    Args:
        batcher: reads snapshots; nothing but what they say lets anybody into a room.
        lag_bound: seconds of lag past which nobody is let in.
        most_bytes: that are replayed of a room; whoever has missed more gets its newest state.
        cover: waits until the keys are known that cursors up to that cluster time are sealed with.
    """

    def __init__(
        self,
        batcher: SnapshotBatcher,
        history: History,
        progress: Progress,
        *,
        lag_bound: float,
        most_bytes: int,
        cover: Callable[[Timestamp], Awaitable[None]],
    ) -> None:
        self._batcher = batcher
        self._history = history
        self._progress = progress
        self._lag_bound = lag_bound
        self._most_bytes = most_bytes
        self._cover = cover

    def check_stream(self, tenant: str) -> None:
        """Let nobody in while the stream is behind.

        Raises:
            Unavailable: it is not open, or its position is older than the bound.
        """
        if not self._progress.live or self._progress.lag(tenant) > self._lag_bound:
            detail = "The change stream is behind; nobody is let in until it has caught up."
            raise Unavailable(detail)

    async def read(
        self,
        who: Principal,
        tenant: Tenant,
        uuids: list[UUID],
        begins: Collection[tuple[RoomKey, str]] | None,
        *,
        documents: bool,
    ) -> Snapshot:
        """The snapshot a join rests on: never older than what the history can continue.

        `begins` are rooms with the cursors to go on from. One that cannot be continued has the documents read,
        asked for or not. With None, what lies up to the snapshot need not have gone through.

        Raises:
            Unavailable: MongoDB cannot be read, or its answers stay older than the history.
        """
        for _ in range(_ATTEMPTS):
            with_documents = frozenset(uuids) if documents else frozenset()
            request = SnapshotRequest(tuple(uuids), who.subjects, with_documents)
            snapshot = await self._batcher.read(tenant, request)
            await self._cover(snapshot.at)
            if begins is not None:
                # A cursor may be ahead of this process; what lies between must be here to be told apart.
                await self._progress.passed(snapshot.at, tenant.slug)
            if not documents and not all(self.resumable(room, begin, snapshot) for room, begin in begins or ()):
                documents = True
                continue
            # Asked after the last await: a restart may have taken a revoke behind the snapshot with it.
            if self.continues(snapshot, tenant):
                return snapshot
            await asyncio.sleep(_RETRY)
        raise Unavailable

    def continues(self, snapshot: Snapshot, tenant: Tenant) -> bool:
        """Whether everything behind the snapshot is in the history; to be asked again after each await."""
        return self._history.covers(cursor.after(snapshot.at), tenant.slug)

    def resumable(self, room: RoomKey, since: str, snapshot: Snapshot) -> bool:
        """Whether everything after that cursor is in the history, no more than is replayed, and of this future."""
        if not self._history.covers(since, room.tenant) or since > cursor.after(snapshot.at):
            return False
        changes = self._history.since(room, since)
        return len(changes) <= _MOST_REPLAYED and sum(change.size for change in changes) <= self._most_bytes

    async def aclose(self) -> None:
        """End what is under way."""
        await self._batcher.aclose()
