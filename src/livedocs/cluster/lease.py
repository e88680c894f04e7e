"""Tells everyone how far this process has come, so that a revocation can be acknowledged.

The position is written as soon as a grant change has passed, and as a heartbeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from livedocs.changes.progress import Progress
from livedocs.errors import Unavailable
from livedocs.telemetry import get_logger

log = get_logger(__name__)

_HEARTBEAT = 2.0


class Lease:
    """Writes how far the stream has been told, for as long as the process has sockets to answer for.

    Args:
        write: stores a position under this process's name; raises Unavailable.
        end: gives the name up; raises Unavailable.
    """

    def __init__(
        self,
        progress: Progress,
        write: Callable[[str], Awaitable[None]],
        end: Callable[[], Awaitable[None]],
    ) -> None:
        self._progress = progress
        self._write = write
        self._end = end

    async def take(self) -> None:
        """Write for the first time; nobody may be let in before, or a receipt would leave this process out."""
        while True:
            if await self._renew():
                return
            await asyncio.sleep(_HEARTBEAT)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._next()
            await self._renew()

    async def _renew(self) -> bool:
        try:
            await self._write(self._progress.position)
        except Unavailable as error:
            log.warning("lease_not_renewed", detail=error.detail)
            return False
        return True

    async def _next(self) -> None:
        """Wait for a grant change, or for the time of the next heartbeat."""
        try:
            async with asyncio.timeout(_HEARTBEAT):
                await self._progress.grants_passed()
        except TimeoutError:
            return

    async def end(self) -> None:
        """Give the lease up."""
        try:
            await self._end()
        except Unavailable:
            log.warning("lease_not_given_up")
