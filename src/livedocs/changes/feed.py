"""From the stream's raw batches to the history and on to whoever listens: the one path every change takes.

    stream -> its tenant's lane -> normalise -> resolver -> history -> listener

A few changes at a time go without the lane, if nothing of their tenant waits there and none has to be waited for.
Reading and resolving may wait, and so may the step from one change to the next. From the history to the listener
there is no `await`: a change is in both or in neither, and everyone of a tenant sees one order.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

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
    Lost,
    TenantsChange,
)
from livedocs.changes.history import History
from livedocs.changes.lanes import Lanes, Portion
from livedocs.changes.listener import Guard, Listener
from livedocs.changes.normalise import Registry, Unresolved, read
from livedocs.changes.owner import Owner, Owners
from livedocs.changes.progress import Progress
from livedocs.changes.resolver import Resolver
from livedocs.changes.stream import Batch, Opened, Stream, reason_of
from livedocs.changes.unreadable import stand_in
from livedocs.model import ShownBounds
from livedocs.presentation import is_heavy
from livedocs.telemetry import EVENTS, Metrics, get_logger, log_failure

log = get_logger(__name__)

# Seconds of work after which whatever else is waiting gets its turn; events after which the clock is looked at
# where each is no work.
_SLICE, _STEP = 0.001, 16
# Events of a batch, and their bytes, up to which they are told at once. So few bytes are never heavy.
_FEW, _FEW_BYTES = 4, 8_000
# Bytes of events that may wait in the tenants' lanes; then nothing more is read.
_MOST_WAITING = 32 * 2**20
# Times that a collection which MongoDB refuses to read is asked for.
_ATTEMPTS = 3


class Feed:
    """Follows the stream, keeps the history and tells the listener.

    Args:
        progress: is moved on as changes are told.
        tenants_changed: reads the registry again; answers whether anything is different.
        cover: waits until the keys are known that cursors up to that cluster time are sealed with.
        inquired: told what other processes ask.
        bounds: beyond which a document is not shown.
    """

    def __init__(
        self,
        stream: Stream,
        resolver: Resolver,
        history: History,
        listener: Listener,
        *,
        progress: Progress,
        registry: Registry,
        control: str,
        tenants_changed: Callable[[], Awaitable[bool]],
        cover: Callable[[Timestamp], Awaitable[None]],
        metrics: Metrics,
        inquired: Callable[[InquiryMade], None] = lambda _: None,
        bounds: ShownBounds = ShownBounds(),  # noqa: B008 - frozen
    ) -> None:
        self._stream = stream
        self._resolver = resolver
        self._history = history
        self._listener = listener
        self._guard = Guard(listener, metrics)
        self._bounds = bounds
        self._registry = registry
        self._control = control
        self._tenants_changed = tenants_changed
        self._cover = cover
        self._inquired = inquired
        self._metrics = metrics
        self._counters = {kind: metrics.events.labels(kind) for kind in EVENTS}
        self._progress = progress
        self._lanes = Lanes(self._take, failed=self._lose, progress=progress, most_bytes=_MOST_WAITING)

    async def run(self) -> None:
        """Follow the stream until cancelled. Called again after it has died, it begins anew for everybody."""
        if self._progress.has_opened:
            # Nobody knows how much of the last batch was told.
            self._stream.begin_anew()
        try:
            async with aclosing(self._stream.batches()) as batches:
                async for batch in batches:
                    self._lanes.check()
                    if isinstance(batch, Opened):
                        await self._lanes.aclose()
                        self._restart(batch)
                    elif batch.events:
                        with tracing.span("change batch", attributes={"livedocs.events": len(batch.events)}):
                            await self._cover(cursor.cluster_time(batch.position))
                            if self._told_at_once(batch):
                                self._progress.read(batch.position)
                            else:
                                await self._hand_out(batch)
                    else:
                        await self._cover(cursor.cluster_time(batch.position))
                        self._progress.read(batch.position)
        finally:
            await self._lanes.aclose()

    def _restart(self, opened: Opened) -> None:
        self._history.restart(opened.floor)
        self._resolver.forget()
        self._progress.restart(opened.floor)
        if opened.reason != "start":
            log.warning("changes_lost", reason=opened.reason)
            self._listener.gap(opened.reason)

    async def _hand_out(self, batch: Batch) -> None:
        """Give each tenant's events to its lane. What is everybody's waits until all lanes are empty."""
        own: dict[str, list[bytes]] = {}
        known = False
        owners = Owners(self._registry, self._control)
        deadline = time.perf_counter() + _SLICE
        for number, raw in enumerate(batch.events):
            if not number % _STEP and time.perf_counter() > deadline:
                await asyncio.sleep(0)
                deadline = time.perf_counter() + _SLICE
            owner = owners.of(raw)
            if isinstance(owner, str):
                own.setdefault(owner, []).append(raw)
            elif owner is Owner.PROCESSES:
                await self._take(Portion([raw], batch.position))
            elif owner is Owner.EVERYBODY:
                await self._fill_lanes(own, batch.position)
                await self._lanes.drained()
                own = {}
                for item in await self._read([raw], batch.position):
                    if not isinstance(item, TenantsChange):
                        await self._settle([item])
                    elif not known:
                        if await self._tenants_changed():
                            # What follows was selected with the old registry: it is read once more.
                            self._stream.reopen(item.token)
                            self._progress.read(item.token)
                            return
                        # As of the whole batch.
                        known = True
        await self._fill_lanes(own, batch.position)
        self._progress.read(batch.position)

    async def _fill_lanes(self, own: Mapping[str, list[bytes]], position: str) -> None:
        for tenant, events in own.items():
            await self._lanes.put(tenant, Portion(events, position), self._progress.read_to)

    def _told_at_once(self, batch: Batch) -> bool:
        """Tell a batch of a few events without lanes, if none has to be waited for; whether that has been done.

        While little happens, a lane's task costs more than the event.
        """
        items = self._read_at_once(batch.events)
        try:
            changes = self._resolver.resolve_known(items) if items is not None else None
        except Exception:  # noqa: BLE001 - the lane does the same again, and what it raises is its tenant's
            return False
        if changes is None:
            return False
        self._metrics.unresolved.inc(self._resolver.take_dropped())
        counts: Counter[str] = Counter()
        lost: set[str] = set()
        for change in changes:
            tenant = _tenant_of(change)
            if tenant in lost:
                continue
            try:
                self._tell_one(change)
            except Exception as error:  # noqa: BLE001 - one tenant's, whatever it is
                lost.add(tenant)
                self._lose(tenant, batch.position, error)
            else:
                counts[_kind(change)] += 1
        self._count(counts)
        return True

    def _read_at_once(self, events: Sequence[bytes]) -> list[Unresolved | GrantChange] | None:
        """What a few events mean; None if they are many, or one is not for its room alone or behind others."""
        if len(events) > _FEW or sum(map(len, events)) > _FEW_BYTES:
            return None
        items = []
        for raw in events:
            try:
                item = read(raw, self._registry, self._control, self._bounds)
            except Exception:  # noqa: BLE001 - the lane does the same again, and says so
                return None
            if item is None:
                continue
            if not isinstance(item, Unresolved | GrantChange) or _tenant_of(item) in self._lanes:
                return None
            items.append(item)
        return items

    async def _take(self, portion: Portion) -> None:
        await self._settle(await self._read(portion.events, portion.position))

    def _lose(self, tenant: str, position: str, error: Exception) -> None:
        """Nobody knows how much of a portion has been told: the tenant begins anew."""
        self._metrics.contained.labels("change").inc()
        log_failure(log, "changes_untold", error, tenant=tenant)
        self._history.break_off(position, tenant)
        self._resolver.forget(tenant)
        self._listener.gap("event_unreadable", tenant)

    async def _settle(self, items: Sequence[Change | Unresolved]) -> None:
        begin = 0
        for end, item in enumerate(items, 1):
            if isinstance(item, CollectionGone | Lost):
                # Another collection may stand in its place (`$out`), with other documents of the same `_id`s.
                await self._tell(await self._resolve(items[begin:end]))
                self._resolver.forget(item.tenant)
                begin = end
        if begin < len(items):
            await self._tell(await self._resolve(items[begin:]))

    async def _read(self, events: Sequence[bytes], position: str) -> list[Change | Unresolved]:
        """What the events mean; in place of one that could not be read, what is told of it."""
        items: list[Change | Unresolved] = []
        deadline = time.perf_counter() + _SLICE
        for raw in events:
            if time.perf_counter() > deadline:
                await asyncio.sleep(0)
                deadline = time.perf_counter() + _SLICE
            item: Change | Unresolved | None
            try:
                if is_heavy(raw):
                    item = await asyncio.to_thread(read, raw, self._registry, self._control, self._bounds)
                else:
                    item = read(raw, self._registry, self._control, self._bounds)
            except Exception as error:  # noqa: BLE001 - one event's, whatever it is
                item = stand_in(raw, self._registry, self._control, position)
                log_failure(log, "event_unreadable", error, **_subject(item))
            if item is not None:
                items.append(item)
        return items

    async def _resolve(self, items: Sequence[Change | Unresolved]) -> list[Change]:
        """Resolve, and try again while MongoDB cannot be asked: order is kept by waiting."""
        for attempt in itertools.count(1):
            try:
                changes = await self._resolver.resolve(items, patient=attempt < _ATTEMPTS)
            except PyMongoError as error:
                log.warning("lookup_failed", error=reason_of(error))
                await asyncio.sleep(0.5)
            else:
                self._metrics.unresolved.inc(self._resolver.take_dropped())
                return changes
        raise AssertionError

    async def _tell(self, changes: Sequence[Change]) -> None:
        """One change after the other; between two of them, others may run, as between two batches."""
        counts: Counter[str] = Counter()
        deadline = time.perf_counter() + _SLICE
        for change in changes:
            if time.perf_counter() > deadline:
                await asyncio.sleep(0)
                deadline = time.perf_counter() + _SLICE
            counts[_kind(change)] += 1
            if isinstance(change, DocumentChange) and change.heavy:
                change = self._in_order(change)  # noqa: PLW2901 - as it is told from here on
                if change.heavy:
                    change = await self._guard.prepared(change)  # noqa: PLW2901 - as above
            self._tell_one(change)
        self._count(counts)

    def _tell_one(self, change: Change) -> None:
        """Tell a change. No await: it is in both the history and the rooms, or in neither."""
        if isinstance(change, DocumentChange):
            change = self._in_order(change)
            self._history.append(change)
            self._guard.change(change)
        elif isinstance(change, GrantChange):
            self._history.append(change)
            self._guard.change(change)
            self._progress.granted(change.at)
        elif isinstance(change, CollectionGone):
            self._history.break_off(change.token, change.tenant)
            self._guard.gone(change)
        elif isinstance(change, Lost):
            self._history.break_off(change.token, change.tenant)
            self._listener.gap("event_unreadable", change.tenant)
        elif isinstance(change, InquiryMade):
            self._inquire(change)

    def _count(self, counts: Counter[str]) -> None:
        for kind, count in counts.items():
            if kind in self._counters:
                self._counters[kind].inc(count)

    def _in_order(self, change: DocumentChange) -> DocumentChange:
        """The change; withheld if a client could take its cursor for one from before that of the room's last."""
        if not self._history.has_reached(change.room.tenant, change.token):
            return change
        last = self._history.last(change.room)
        if last is None or last.at != change.at or not cursor.tied(last.token, change.token):
            return change
        # Two shards of a cluster: one order in the stream, but none that their cursors show.
        return change._replace(withheld="ambiguous_order", raw=b"", whole=None, heavy=False)

    def _inquire(self, inquiry: InquiryMade) -> None:
        try:
            self._inquired(inquiry)
        except Exception as error:  # noqa: BLE001 - it may be anything, written by hand
            self._metrics.contained.labels("inquiry").inc()
            log_failure(log, "inquiry_unreadable", error)


def _kind(change: Change) -> str:
    """What a change counts as in `livedocs_events_total`; that of an inquiry is not among those counted."""
    match change:
        case DocumentChange(withheld="event_unreadable") | Lost():
            return "unreadable"
        case DocumentChange():
            return change.op
        case GrantChange():
            return "grant"
        case CollectionGone():
            return "gone"
    return "inquiry"


def _tenant_of(item: Unresolved | Change) -> str:
    """Whose an event is that is of a room; of a room that could not be told as well."""
    if isinstance(item, DocumentChange | GrantChange):
        return item.room.tenant
    if isinstance(item, Unresolved):
        return item.tenant.slug
    return (item.tenant if isinstance(item, Lost | CollectionGone) else None) or ""


def _subject(item: Change | None) -> dict[str, Any]:
    """Whose an event was, for the log."""
    if isinstance(item, DocumentChange):
        return {"tenant": item.room.tenant, "room": str(item.room.uuid), "collection": item.collection}
    return {"tenant": item.tenant} if isinstance(item, Lost) else {"tenant": "nobody's"}
