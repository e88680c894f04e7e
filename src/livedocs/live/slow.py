"""Sockets for which something waits: watched until they have taken it, or cut off when they make no progress.

A pong is no progress: a peer that reads nothing can make one up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from livedocs.live.client import Client
from livedocs.live.resyncs import Resyncs

_INTERVAL = 0.1


class SlowSockets:
    """Ends sockets that take nothing, and brings those that fell behind back once they have drained.

    Args:
        backlogged: every socket for which something waits; those that have drained are taken out here.
        resyncs: brings a socket's rooms up to date.
        stall_timeout: seconds without a byte taken after which a socket is disconnected.
        clock: monotonic seconds; injected for tests.
    """

    def __init__(
        self,
        backlogged: set[Client],
        resyncs: Resyncs,
        *,
        stall_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._backlogged = backlogged
        self._resyncs = resyncs
        self._stall_timeout = stall_timeout
        self._clock = clock
        # Per socket: what it had taken when that last grew, and when that was seen.
        self._progress: dict[Client, tuple[int, float]] = {}

    def check(self) -> None:
        """Look at every socket for which something waits once."""
        now = self._clock()
        for client in tuple(self._backlogged):
            waiting, _ = client.outbox.backlog()
            client.settle_unread()
            if client.closed is not None:
                self._forget(client)
            elif waiting == 0:
                self._forget(client)
                self._resyncs.resync(client, client.take_owed(), "slow")
            else:
                self._watch(client, now)

    def _watch(self, client: Client, now: float) -> None:
        taken = client.outbox.taken
        before, since = self._progress.get(client, (-1, now))
        if taken > before:
            self._progress[client] = (taken, now)
        elif now - since > self._stall_timeout:
            self._forget(client)
            client.abort("slow")

    def _forget(self, client: Client) -> None:
        self._backlogged.discard(client)
        self._progress.pop(client, None)

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            self.check()
