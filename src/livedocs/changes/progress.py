"""How far the stream has been read and told, for each tenant and for all, and who waits for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol

from bson.timestamp import Timestamp

from livedocs.changes import cursor
from livedocs.changes.history import History
from livedocs.telemetry import Metrics


class Connection(Protocol):
    """What is needed of the stream."""

    @property
    def connected(self) -> bool:
        """Whether it was heard from since its last error."""


class Progress:
    """The feed moves it; joins, leases and readiness go by it.

    Args:
        history: knows up to where everything has been told.
        stream: the stream that the feed reads.
        metrics: the gauges of the stream and of the history, read when somebody asks: a stream that stands still
            would not set them any more.
    """

    def __init__(self, history: History, stream: Connection, metrics: Metrics) -> None:
        self._history = history
        self._stream = stream
        # Up to where the stream has been read: what comes before it has been told, or is in its tenant's lane.
        self._read_to = history.position
        # By tenant, for those with anything in their lane: up to where everything of it has been told.
        self._applied: dict[str, str] = {}
        self._moving = False
        # Who waits for everything of a tenant, or of all (None), to have been told up to a position.
        self._waiters: dict[str | None, list[tuple[str, int, asyncio.Future[None]]]] = {}
        self._order = itertools.count()
        self._opened = asyncio.Event()
        # The cluster time of the newest grant change that has passed; set since somebody has last waited for one.
        self._granted_at = Timestamp(0, 0)
        self._granted = asyncio.Event()
        metrics.stream_lag.set_function(self.lag)
        metrics.stream_live.set_function(lambda: self.live)
        metrics.history_events.set_function(lambda: history.count)
        metrics.history_bytes.set_function(lambda: history.bytes)
        metrics.history_seconds.set_function(lambda: history.seconds)
        metrics.history_shortest.set_function(lambda: history.shortest)
        metrics.history_shortened.set_function(lambda: history.shortened)

    @property
    def position(self) -> str:
        """How far the stream has been told, for every tenant."""
        return self._history.position

    @property
    def read_to(self) -> str:
        """How far the stream has been read."""
        return self._read_to

    @property
    def live(self) -> bool:
        """Whether the stream is open and was heard from since its last error."""
        return self._stream.connected and self._opened.is_set()

    @property
    def has_opened(self) -> bool:
        """Whether the stream has ever been open."""
        return self._opened.is_set()

    def lag(self, tenant: str | None = None) -> float:
        """How many seconds the stream is behind, or a tenant's changes; infinite before the first opening."""
        if not self._opened.is_set():
            return float("inf")
        applied = self._applied.get(tenant, self._read_to) if tenant is not None else self._read_to
        return max(0.0, time.time() - cursor.cluster_time(applied).time)

    async def opened(self) -> None:
        """Wait for the first opening."""
        await self._opened.wait()

    async def passed(self, at: Timestamp, tenant: str | None = None) -> None:
        """Wait until every change of the tenant, or of all, up to and including that cluster time has passed."""
        after = cursor.after(at)
        if self._told(tenant) >= after:
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters.setdefault(tenant, []), (after, next(self._order), future))
        await future

    async def grants_passed(self) -> None:
        """Wait until further changes of grants have passed, with all of their transactions."""
        await self._granted.wait()
        self._granted.clear()
        # Its whole transaction has passed once nothing of its cluster time can follow.
        await self.passed(self._granted_at)

    def _told(self, tenant: str | None) -> str:
        return self._history.position if tenant is None else self._applied.get(tenant, self._read_to)

    # -- for the feed and its lanes --

    def restart(self, floor: str) -> None:
        """The stream is open, from that position on."""
        self._read_to = floor
        self._opened.set()

    def read(self, position: str) -> None:
        """The stream has been read up to there."""
        self._read_to = position
        self._move()

    def waits(self, tenant: str, applied: str) -> None:
        """Something of a tenant waits in its lane; what comes before that position has been told."""
        self._applied[tenant] = applied

    def told(self, tenant: str, position: str, *, all_of_it: bool) -> None:
        """Everything of a tenant up to there has been told; `all_of_it`: nothing of it waits any more."""
        if all_of_it:
            self._applied.pop(tenant, None)
        else:
            self._applied[tenant] = position
        # Once in a turn of the loop is enough, however many have moved on.
        if not self._moving:
            self._moving = True
            asyncio.get_running_loop().call_soon(self._move)

    def granted(self, at: Timestamp) -> None:
        """A change of a grant has been told."""
        self._granted_at = max(self._granted_at, at)
        self._granted.set()

    def give_up(self) -> None:
        """Nothing that waited will be told."""
        self._applied.clear()

    def _move(self) -> None:
        """Note how far everything has been told, and tell those who wait for it."""
        self._moving = False
        self._history.advance(min(self._applied.values(), default=self._read_to))
        for tenant, waiting in tuple(self._waiters.items()):
            told = self._told(tenant)
            while waiting and waiting[0][0] <= told:
                future = heapq.heappop(waiting)[2]
                if not future.done():
                    future.set_result(None)
            if not waiting:
                del self._waiters[tenant]
