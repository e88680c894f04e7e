"""Looks that come together are answered together: a round of reads costs nearly the same for one as for many.

A look is taken into a round that begins after it was asked for, never into one under way. Whatever its caller has
registered before asking is therefore older than the cluster time its answer is of.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextvars import copy_context
from typing import Protocol

from livedocs import tasks
from livedocs.errors import Unavailable
from livedocs.model import Look, Snapshot, Tenant

# Grants that one round asks for at most, unless a single look asks for more.
_MOST_GRANTS = 500
# Rounds of one tenant under way at once.
_MOST_ROUNDS = 16
# Seconds after which whoever waits is not kept waiting any longer by a round that takes long.
_PATIENCE = 0.05


class SnapshotReader(Protocol):
    """What is needed of the store: one round of reads at one cluster time, for however many looks."""

    async def read(self, tenant: Tenant, looks: Sequence[Look]) -> Sequence[Snapshot]:
        """What each of the looks sees, in their order; of nobody else's grants.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """


class _Asked:
    """A look that waits for its answer."""

    __slots__ = ("answer", "context", "look", "round", "tenant")

    def __init__(self, tenant: Tenant, look: Look, answer: asyncio.Future[Snapshot]) -> None:
        self.tenant = tenant
        self.look = look
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
    """One tenant's looks: those that wait, the rounds under way, and what begins the next one."""

    __slots__ = ("flying", "next", "slug", "waiting")

    def __init__(self, slug: str) -> None:
        self.slug = slug
        self.waiting: deque[_Asked] = deque()
        self.flying: set[asyncio.Task[None]] = set()
        self.next: asyncio.Handle | None = None


class Rounds:
    """Gathers the looks of a tenant into rounds.

    What goes wrong with a round goes wrong for those in it. When it is not MongoDB itself, each of them is read
    for alone, so that nobody's documents can keep somebody else out. A caller that gives up takes nothing away
    from the others.
    """

    def __init__(self, reader: SnapshotReader) -> None:
        self._reader = reader
        self._context = copy_context()
        # A tenant is in here only as long as somebody waits.
        self._lanes: dict[str, _Lane] = {}

    async def look(self, tenant: Tenant, look: Look) -> Snapshot:
        """The answer, read after this was called.

        Raises:
            LivedocsError: as the reader raises it.
        """
        lane = self._lanes.get(tenant.slug)
        if lane is None:
            lane = self._lanes[tenant.slug] = _Lane(tenant.slug)
        asked = _Asked(tenant, look, asyncio.get_running_loop().create_future())
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
        while len(lane.flying) < _MOST_ROUNDS and (batch := _next_batch(lane.waiting)):
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

        def ended(task: asyncio.Task[None]) -> None:
            lane.flying.discard(task)
            for asked in batch:
                # Only when the round was stopped: nobody is to wait for ever.
                if not asked.answer.done():
                    asked.answer.set_exception(Unavailable())
            self._begin(lane)

        task.add_done_callback(ended)

    async def _read(self, batch: list[_Asked]) -> None:
        try:
            found = await self._reader.read(batch[0].tenant, [asked.look for asked in batch])
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
        grants += len(asked.look.uuids) * len(asked.look.subjects)
        if batch and (asked.tenant is not batch[0].tenant or grants > _MOST_GRANTS):
            break
        batch.append(waiting.popleft())
    return batch
