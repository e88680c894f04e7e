"""Sockets that fell behind: watched until they have drained, or cut off when they make no progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from livedocs.live.client import Client
from livedocs.live.fanout import Resyncs

_INTERVAL = 0.1


class SlowSockets:
    """Brings slow sockets back to the newest state once they have taken what was waiting for them.

    Args:
        stall_timeout: seconds without a byte taken after which a socket is disconnected.
        clock: monotonic seconds; injected for tests.
    """

    def __init__(
        self,
        slow: set[Client],
        resyncs: Resyncs,
        *,
        stall_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._slow = slow
        self._resyncs = resyncs
        self._stall_timeout = stall_timeout
        self._clock = clock
        # Per socket: the least that was waiting so far, and when that was seen.
        self._progress: dict[Client, tuple[int, float]] = {}

    def check(self) -> None:
        """Look at every slow socket once."""
        now = self._clock()
        for client in tuple(self._slow):
            waiting, _ = client.outbox.backlog()
            if client.closed is not None or client.cut is None:
                self._forget(client)
            elif waiting == 0:
                self._forget(client)
                rooms, client.cut = client.cut, None
                self._resyncs.resync(client, rooms, "slow")
            else:
                self._watch(client, waiting, now)

    def _watch(self, client: Client, waiting: int, now: float) -> None:
        least, since = self._progress.get(client, (waiting + 1, now))
        if waiting < least:
            self._progress[client] = (waiting, now)
        elif now - since > self._stall_timeout:
            self._forget(client)
            client.abort("slow")

    def _forget(self, client: Client) -> None:
        self._slow.discard(client)
        self._progress.pop(client, None)

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            self.check()
