"""What has been read of the stream and not been told yet, with a lane for each tenant.

MongoDB has one order for everybody, and a client needs that of its own tenant. So what one tenant's flood takes to
be decoded and written holds up that tenant and, beyond the sharing of the processor, nobody else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from livedocs.changes.progress import Progress
from livedocs.runtime import tasks


class Portion(NamedTuple):
    """A tenant's events of one batch, as raw BSON, and the stream's position behind the batch."""

    events: Sequence[bytes]
    position: str


class _Lane:
    """One tenant's."""

    __slots__ = ("portions", "task")

    def __init__(self) -> None:
        self.portions: deque[Portion] = deque()
        self.task: asyncio.Task[None] | None = None


class Lanes:
    """Takes each tenant's portions in their order, and different tenants' side by side.

    Args:
        take: tells the events of a portion; what it raises is that tenant's trouble alone.
        failed: told of the tenant, the portion's position, and what `take` has raised.
        progress: told how far each tenant is.
        most_bytes: of events that may wait; past that `put` waits as well.
    """

    def __init__(
        self,
        take: Callable[[Portion], Awaitable[None]],
        *,
        failed: Callable[[str, str, Exception], None],
        progress: Progress,
        most_bytes: int,
    ) -> None:
        self._take = take
        self._failed = failed
        self._progress = progress
        self._most_bytes = most_bytes
        # A lane is in here only as long as something waits in it.
        self._lanes: dict[str, _Lane] = {}
        self._bytes = 0
        self._fatal: Exception | None = None
        # Set whenever a portion has been taken; whoever waits clears it.
        self._taken = asyncio.Event()

    async def put(self, tenant: str, portion: Portion, applied: str) -> None:
        """Have a portion taken behind the tenant's earlier ones.

        Args:
            tenant: whose.
            portion: its events.
            applied: the position ahead of the batch.
        """
        while self._bytes > self._most_bytes:
            await self._wait()
        lane = self._lanes.get(tenant)
        if lane is None:
            lane = self._lanes[tenant] = _Lane()
            self._progress.waits(tenant, applied)
        lane.portions.append(portion)
        self._bytes += _size(portion)
        if lane.task is None:
            lane.task = asyncio.create_task(self._work(tenant, lane), name=f"changes of {tenant}")

    def check(self) -> None:
        """Raise what `failed` has raised: then nothing that waits is taken any more."""
        if self._fatal is not None:
            raise self._fatal

    async def _work(self, tenant: str, lane: _Lane) -> None:
        while lane.portions:
            portion = lane.portions[0]
            try:
                await self._take(portion)
            except Exception as error:  # noqa: BLE001 - one tenant's, whatever it is
                try:
                    self._failed(tenant, portion.position, error)
                except Exception as fatal:  # noqa: BLE001 - it is for whoever checks
                    self._fatal = fatal
                    self._taken.set()
                    return
            lane.portions.popleft()
            self._bytes -= _size(portion)
            if not lane.portions:
                del self._lanes[tenant]
            self._progress.told(tenant, portion.position, all_of_it=not lane.portions)
            self._taken.set()

    def __contains__(self, tenant: str) -> bool:
        """Whether anything of the tenant waits."""
        return tenant in self._lanes

    async def drained(self) -> None:
        """Wait until nothing waits any more."""
        while self._lanes:
            await self._wait()

    async def _wait(self) -> None:
        self._taken.clear()
        await self._taken.wait()
        self.check()

    async def aclose(self) -> None:
        """Give up everything that waits."""
        lanes, self._lanes, self._bytes, self._fatal = self._lanes, {}, 0, None
        self._progress.give_up()
        await tasks.end(lane.task for lane in lanes.values() if lane.task is not None)


def _size(portion: Portion) -> int:
    return sum(map(len, portion.events))
