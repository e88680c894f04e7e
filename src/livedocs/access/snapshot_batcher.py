"""Requests that come together are answered together: a round of reads costs little more for many.

A request is taken into a round that begins after it came, never into one under way. Whatever its caller has
registered before asking is therefore older than the cluster time its answer is of.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextvars import copy_context
from typing import Protocol

from livedocs.errors import Unavailable
from livedocs.model import Snapshot, SnapshotRequest, Tenant
from livedocs.runtime import tasks

# Grants that one round asks for at most, unless a single request asks for more.
_MOST_GRANTS = 500
# Rounds of one tenant under way at once, and of all tenants: each takes a connection to MongoDB for every
# collection, and a tenant whose rounds take long must leave some to the others.
_MOST_ROUNDS = 16
_MOST_IN_ALL = 48
# Seconds after which whoever waits is not kept waiting any longer by a round that takes long.
_PATIENCE = 0.05


class SnapshotReader(Protocol):
    """What is needed of the store: one round of reads at one cluster time, for however many requests."""

    async def read(self, tenant: Tenant, requests: Sequence[SnapshotRequest]) -> Sequence[Snapshot]:
        """What each of the requests sees, in their order; of nobody else's grants.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """


class _Asked:
    """A request that waits for its answer."""

    __slots__ = ("answer", "context", "request", "round", "tenant")

    def __init__(self, tenant: Tenant, request: SnapshotRequest, answer: asyncio.Future[Snapshot]) -> None:
        self.tenant = tenant
        self.request = request
        self.answer = answer
        # Its logs and traces are those of whoever asked, as long as it is in a round by itself.
        self.context = copy_context()
        self.round: _Round | None = None


class _Round:
    """A round under way. `left` are those that still wait for it; without any it is given up."""

    __slots__ = ("left", "task")

    def __init__(self, left: int) -> None:
        self.left = left
        self.task: asyncio.Task[None] | None = None


class _Lane:
    """One tenant's requests: those that wait, the rounds under way, and what begins the next one."""

    __slots__ = ("flying", "next", "slug", "waiting")

    def __init__(self, slug: str) -> None:
        self.slug = slug
        self.waiting: deque[_Asked] = deque()
        self.flying: set[asyncio.Task[None]] = set()
        self.next: asyncio.Handle | None = None


class SnapshotBatcher:
    """Gathers the requests of a tenant into rounds.

    What goes wrong with a round goes wrong for those in it. When it is not MongoDB itself, each of them is read
    for alone, so that nobody's documents can keep somebody else out. A caller that gives up takes nothing away
    from the others.
    """

    def __init__(self, reader: SnapshotReader) -> None:
        self._reader = reader
        self._context = copy_context()
        # A tenant is in here only as long as somebody waits.
        self._lanes: dict[str, _Lane] = {}
        # Rounds of all tenants under way, and the tenants that wait for one to end, each once and in turn.
        self._flying = 0
        self._queue: deque[_Lane] = deque()

    async def read(self, tenant: Tenant, request: SnapshotRequest) -> Snapshot:
        """The answer, read after this was called.

        Raises:
            LivedocsError: as the reader raises it.
        """
        lane = self._lanes.get(tenant.slug)
        if lane is None:
            lane = self._lanes[tenant.slug] = _Lane(tenant.slug)
        asked = _Asked(tenant, request, asyncio.get_running_loop().create_future())
        lane.waiting.append(asked)
        self._arrange(lane)
        try:
            return await asked.answer
        except asyncio.CancelledError:
            self._leave(asked)
            raise

    def _arrange(self, lane: _Lane) -> None:
        if lane.next is not None or len(lane.flying) >= _MOST_ROUNDS:
            return
        loop = asyncio.get_running_loop()
        if lane.flying:
            lane.next = loop.call_later(_PATIENCE, self._begin, lane)
        else:
            # Not at once: whoever asks in this turn of the loop comes along.
            lane.next = loop.call_soon(self._begin, lane)

    def _begin(self, lane: _Lane) -> None:
        """Begin rounds for all who wait, as far as there may be more."""
        if lane.next is not None:
            lane.next.cancel()
            lane.next = None
        while lane.waiting and len(lane.flying) < _MOST_ROUNDS:
            if self._flying >= _MOST_IN_ALL:
                if lane not in self._queue:
                    self._queue.append(lane)
                return
            batch = _next_batch(lane.waiting)
            if batch:
                self._start(lane, batch)
        if not lane.flying and not lane.waiting and self._lanes.get(lane.slug) is lane:
            del self._lanes[lane.slug]

    def _start(self, lane: _Lane, batch: list[_Asked]) -> None:
        under_way = _Round(len(batch))
        for asked in batch:
            asked.round = under_way
        context = batch[0].context if len(batch) == 1 else self._context.copy()
        task = asyncio.get_running_loop().create_task(self._read(batch), name="snapshot round", context=context)
        under_way.task = task
        lane.flying.add(task)
        self._flying += 1

        def ended(task: asyncio.Task[None]) -> None:
            lane.flying.discard(task)
            self._flying -= 1
            for asked in batch:
                # Only when the round was stopped: nobody is to wait for ever.
                if not asked.answer.done():
                    asked.answer.set_exception(Unavailable())
            # The tenants that have waited longest are first, whoever's round has ended.
            while self._queue and self._flying < _MOST_IN_ALL:
                self._begin(self._queue.popleft())
            self._begin(lane)

        task.add_done_callback(ended)

    async def _read(self, batch: list[_Asked]) -> None:
        try:
            found = await self._reader.read(batch[0].tenant, [asked.request for asked in batch])
        except Exception as error:  # noqa: BLE001 - it is for those who wait, whatever it is
            if len(batch) == 1 or isinstance(error, Unavailable):
                for asked in batch:
                    if not asked.answer.done():
                        asked.answer.set_exception(error)
                return
            for asked in batch:
                if not asked.answer.done():
                    await self._read([asked])
            return
        for asked, snapshot in zip(batch, found, strict=True):
            if not asked.answer.done():
                asked.answer.set_result(snapshot)

    def _leave(self, asked: _Asked) -> None:
        """Its caller has given up."""
        if asked.round is None:
            return
        asked.round.left -= 1
        if not asked.round.left and asked.round.task is not None:
            asked.round.task.cancel()

    async def aclose(self) -> None:
        """End what is under way."""
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            if lane.next is not None:
                lane.next.cancel()
                lane.next = None
            while lane.waiting:
                asked = lane.waiting.popleft()
                if not asked.answer.done():
                    asked.answer.set_exception(Unavailable())
        await tasks.end(task for lane in lanes.values() for task in lane.flying)


def _next_batch(waiting: deque[_Asked]) -> list[_Asked]:
    """Those who are in the next round: of one state of the tenant, and no more than a round holds."""
    batch: list[_Asked] = []
    grants = 0
    while waiting:
        asked = waiting[0]
        if asked.answer.done():
            waiting.popleft()
            continue
        grants += len(asked.request.uuids) * len(asked.request.subjects)
        if batch and (asked.tenant is not batch[0].tenant or grants > _MOST_GRANTS):
            break
        batch.append(waiting.popleft())
    return batch
