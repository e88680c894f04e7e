"""Turns at something scarce, shared fairly by whoever wants them: round robin, and nobody has more than a part."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NoTurn(Exception):
    """There was no turn.

    Attributes:
        crowded: whether too many of the same key were waiting already; else none came in time.
    """

    def __init__(self, *, crowded: bool) -> None:
        self.crowded = crowded
        super().__init__("crowded" if crowded else "late")


class Turns:
    """So many turns at a time. Whoever waits is served in the order of their coming, one of each key in turn.

    Args:
        total: turns at a time.
        per_key: those of one key. What it leaves is there for the others at once, however long a turn lasts.
        most_waiting: of one key; more of them are sent away.
    """

    def __init__(self, total: int, *, per_key: int, most_waiting: int) -> None:
        self._free = total
        self._per_key = per_key
        self._most_waiting = most_waiting
        # Turns taken. No count is kept at zero.
        self._taken: Counter[str] = Counter()
        # Who waits, by key, the key that is next first; no queue is empty. Invariant: while a turn is free, nobody
        # waits but those whose key has all that it may have. At most `total / per_key` keys have that.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, key: str, *, within: float) -> AsyncIterator[None]:
        """Have a turn for as long as the block lasts.

        Args:
            key: whose turn it is.
            within: seconds to wait for it at most.

        Raises:
            NoTurn: none came in time, or too many of that key wait already.
        """
        try:
            async with asyncio.timeout(within):
                await self._take(key)
        except TimeoutError:
            raise NoTurn(crowded=False) from None
        try:
            yield
        finally:
            self._give_back(key)

    async def _take(self, key: str) -> None:
        if self._free and self._taken[key] < self._per_key:
            self._grant(key)
            return
        queue = self._waiting.get(key)
        if queue is not None and len(queue) >= self._most_waiting:
            raise NoTurn(crowded=True)
        if queue is None:
            queue = self._waiting[key] = deque()
        granted = asyncio.get_running_loop().create_future()
        queue.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._leave(key, granted)
            else:
                # It came at the moment at which nobody waited for it any more.
                self._give_back(key)
            raise

    def _leave(self, key: str, granted: asyncio.Future[None]) -> None:
        queue = self._waiting.get(key)
        if queue is not None and granted in queue:
            queue.remove(granted)
            if not queue:
                del self._waiting[key]

    def _grant(self, key: str) -> None:
        self._free -= 1
        self._taken[key] += 1

    def _give_back(self, key: str) -> None:
        self._free += 1
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]
        while self._free and (following := self._next()) is not None:
            self._serve(following)

    def _next(self) -> str | None:
        return next((key for key in self._waiting if self._taken[key] < self._per_key), None)

    def _serve(self, key: str) -> None:
        queue = self._waiting[key]
        granted = queue.popleft()
        if not queue:
            del self._waiting[key]
        if granted.done():
            # Given up, though whoever did has not run since.
            return
        if queue:
            self._waiting.move_to_end(key)
        self._grant(key)
        granted.set_result(None)
