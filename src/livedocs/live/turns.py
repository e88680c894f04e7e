"""So many at a time for each of many: whoever else of the same key comes waits for a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class Turns:
    """A semaphore per key, which is there only as long as somebody holds it or waits for it.

    Args:
        most: at a time, of one key.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # By key: the semaphore, and how many hold it or wait for it.
        self._held: dict[Hashable, tuple[asyncio.Semaphore, int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    @asynccontextmanager
    async def of(self, key: Hashable) -> AsyncIterator[None]:
        """Wait for a turn of that key, and hold it."""
        semaphore, users = self._held.get(key) or (asyncio.Semaphore(self._most), 0)
        self._held[key] = semaphore, users + 1
        try:
            async with semaphore:
                yield
        finally:
            _, users = self._held[key]
            if users == 1:
                del self._held[key]
            else:
                self._held[key] = semaphore, users - 1
