"""From the stream's raw batches to the history and on to whoever listens: the one path every change takes.

    stream -> normalise -> resolver -> history -> listener

Reading and resolving may wait, and so may the step from one change to the next. From the history to the listener
there is no `await`: a change is in both or in neither, and everyone sees one order.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from bson.errors import BSONError
from bson.timestamp import Timestamp
from pymongo.errors import PyMongoError

from livedocs import tracing
from livedocs.changes import cursor
from livedocs.changes.event import (
    Change,
    CollectionGone,
    DocumentChange,
    GrantChange,
    InquiryMade,
    RoomChange,
    TenantsChange,
)
from livedocs.changes.history import History
from livedocs.changes.normalise import Registry, Unresolved, read
from livedocs.changes.resolver import Resolver
from livedocs.changes.stream import Batch, Opened, Stream, reason_of
from livedocs.telemetry import EVENTS, Metrics, get_logger

log = get_logger(__name__)

# Seconds of work after which whatever else is waiting gets its turn.
_SLICE = 0.003


class Listener(Protocol):
    """Who is told. Every call is synchronous and must not raise."""

    def change(self, change: RoomChange) -> None:
        """The next change, in stream order."""

    def gone(self, change: CollectionGone) -> None:
        """A collection, a tenant's database or all the grants vanished at once."""

    def gap(self, reason: str) -> None:
        """Changes were lost: what anyone holds may be out of date."""


class Feed:
    """Follows the stream, keeps the history and tells the listener.

    Args:
        tenants_changed: reads the registry again; answers whether anything is different.
        inquired: told what other processes ask; must not raise.
    """

    def __init__(
        self,
        stream: Stream,
        resolver: Resolver,
        history: History,
        listener: Listener,
        *,
        registry: Registry,
        control: str,
        tenants_changed: Callable[[], Awaitable[bool]],
        metrics: Metrics,
        inquired: Callable[[InquiryMade], None] = lambda _: None,
    ) -> None:
        self._stream = stream
        self._resolver = resolver
        self._history = history
        self._listener = listener
        self._registry = registry
        self._control = control
        self._tenants_changed = tenants_changed
        self._inquired = inquired
        self._metrics = metrics
        self._counters = {kind: metrics.events.labels(kind) for kind in EVENTS}
        self._gauge(metrics)
        self._waiters: list[tuple[str, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._opened = asyncio.Event()
        # Set when a grant change has passed; whoever waits for it clears it.
        self.granted = asyncio.Event()

    def _gauge(self, metrics: Metrics) -> None:
        """Have the gauges read when somebody asks: a stream that stands still would not set them any more."""
        history = self._history
        metrics.stream_lag.set_function(self.lag)
        metrics.stream_live.set_function(lambda: self.live)
        metrics.history_events.set_function(lambda: history.count)
        metrics.history_bytes.set_function(lambda: history.bytes)
        metrics.history_seconds.set_function(lambda: history.seconds)

    @property
    def position(self) -> str:
        """How far the stream has been applied."""
        return self._history.position

    @property
    def live(self) -> bool:
        """Whether the stream is open and was heard from since its last error."""
        return self._stream.connected and self._opened.is_set()

    def lag(self) -> float:
        """Age of the position in seconds; infinite before the first opening."""
        if not self._opened.is_set():
            return float("inf")
        return max(0.0, time.time() - cursor.cluster_time(self._history.position).time)

    async def opened(self) -> None:
        """Wait for the first opening."""
        await self._opened.wait()

    async def passed(self, at: Timestamp) -> None:
        """Wait until every change up to and including that cluster time has gone through."""
        if self._history.passed(at):
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (cursor.after(at), next(self._order), future))
        await future

    async def run(self) -> None:
        """Follow the stream until cancelled."""
        async with aclosing(self._stream.batches()) as batches:
            async for batch in batches:
                if isinstance(batch, Opened):
                    self._restart(batch)
                elif batch.events:
                    with tracing.span("change batch", attributes={"livedocs.events": len(batch.events)}):
                        await self._take(batch)
                else:
                    await self._take(batch)

    def _restart(self, opened: Opened) -> None:
        self._history.restart(opened.floor)
        self._resolver.forget()
        self._opened.set()
        if opened.reason != "start":
            log.warning("changes were lost, everyone is sent the newest state", reason=opened.reason)
            self._listener.gap(opened.reason)

    async def _take(self, batch: Batch) -> None:
        position = batch.position
        items, unreadable = self._read(batch.events)
        turn = next((item for item in items if isinstance(item, TenantsChange)), None)
        if turn is None:
            await self._settle(items)
        else:
            place = items.index(turn)
            await self._settle(items[:place])
            # What follows was selected with the old registry: if that changed, it is read once more. It must not
            # have been resolved by then, since the resolver remembers what it has seen.
            if await self._tenants_changed():
                position = turn.token
                self._stream.reopen(position)
            else:
                await self._settle([item for item in items[place:] if not isinstance(item, TenantsChange)])
        self._advance(position)
        if unreadable:
            # Behind the batch, so that neither a cursor nor a join in progress continues across the loss.
            self._history.restart(self._history.position)
            self._listener.gap("event_unreadable")

    async def _settle(self, items: Sequence[Change | Unresolved]) -> None:
        begin = 0
        for end, item in enumerate(items, 1):
            if isinstance(item, CollectionGone):
                # Another collection may stand in its place (`$out`), with other documents of the same `_id`s.
                await self._tell(await self._resolve(items[begin:end]))
                self._resolver.forget(item.tenant)
                begin = end
        if begin < len(items):
            await self._tell(await self._resolve(items[begin:]))

    def _read(self, events: Sequence[bytes]) -> tuple[list[Change | Unresolved], bool]:
        """What the events mean, and whether one of them could not be read."""
        items: list[Change | Unresolved] = []
        unreadable = False
        for raw in events:
            try:
                item = read(raw, self._registry, self._control)
            except (BSONError, LookupError, TypeError, ValueError, AttributeError):
                log.exception("a change event could not be read")
                self._counters["unreadable"].inc()
                unreadable = True
                continue
            if item is not None:
                items.append(item)
        return items, unreadable

    async def _resolve(self, items: Sequence[Change | Unresolved]) -> list[Change]:
        """Resolve, and try again while MongoDB cannot be asked: order is kept by waiting."""
        while True:
            try:
                changes = await self._resolver.resolve(items)
            except PyMongoError as error:
                log.warning("documents could not be looked up", error=reason_of(error))
                await asyncio.sleep(0.5)
            else:
                self._metrics.unresolved.inc(self._resolver.take_dropped())
                return changes

    async def _tell(self, changes: Sequence[Change]) -> None:
        """One change after the other; between two of them, others may run, as between two batches."""
        counts: Counter[str] = Counter()
        deadline = time.perf_counter() + _SLICE
        for change in changes:
            if time.perf_counter() > deadline:
                await asyncio.sleep(0)
                deadline = time.perf_counter() + _SLICE
            if isinstance(change, CollectionGone):
                counts["gone"] += 1
                self._history.break_off(change.token, change.tenant)
                self._listener.gone(change)
            elif isinstance(change, InquiryMade):
                self._inquired(change)
            elif not isinstance(change, TenantsChange):
                counts[change.op if isinstance(change, DocumentChange) else "grant"] += 1
                self._history.append(change)
                self._listener.change(change)
                if isinstance(change, GrantChange):
                    self.granted.set()
        for kind, count in counts.items():
            self._counters[kind].inc(count)

    def _advance(self, position: str) -> None:
        self._history.advance(position)
        while self._waiters and self._waiters[0][0] <= self._history.position:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)
