"""One timer for many sockets: pings and time-outs that need no precision, without a task or a handle each."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

from livedocs.telemetry import get_logger, log_failure

log = get_logger(__name__)

# Seconds after which a timer that failed is tried again.
_AGAIN = 1.0


class Timed(Protocol):
    """What a wheel turns for."""

    def tick(self) -> float | None:
        """Do what is due. Returns the seconds until next time, or None for never again."""


class TimerWheel:
    """Calls `tick` of many objects, each when it is due, to the nearest `resolution`.

    One that raises is ticked again a second later: a socket's timer is what ends it in time.

    Args:
        resolution: seconds between turns.
        clock: monotonic seconds; injected for tests.
        failed: told of each tick that raised.
    """

    def __init__(
        self,
        *,
        resolution: float = 0.25,
        clock: Callable[[], float] | None = None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._failed = failed
        self._resolution = resolution
        self._clock = clock or asyncio.get_running_loop().time
        self._slots: dict[int, set[Timed]] = defaultdict(set)
        # Invariant: an object is in the slot `_due` names, and in no other.
        self._due: dict[Timed, int] = {}
        self._turned = self._slot(0.0)

    def _slot(self, delay: float) -> int:
        return int((self._clock() + delay) / self._resolution)

    def put(self, timed: Timed, delay: float) -> None:
        """Have it ticked in `delay` seconds instead of whenever it was due before."""
        self.take(timed)
        slot = max(self._slot(delay), self._turned + 1)
        self._slots[slot].add(timed)
        self._due[timed] = slot

    def take(self, timed: Timed) -> None:
        """Never tick it again."""
        slot = self._due.pop(timed, None)
        if slot in self._slots:
            self._slots[slot].discard(timed)

    def turn(self) -> None:
        """Tick everything that is due."""
        now = self._slot(0.0)
        while self._turned < now:
            self._turned += 1
            for timed in self._slots.pop(self._turned, ()):
                # An earlier one of this slot may have taken it away, or put it off.
                if self._due.get(timed) != self._turned:
                    continue
                del self._due[timed]
                delay = self._tick(timed)
                if delay is not None:
                    self.put(timed, delay)

    def _tick(self, timed: Timed) -> float | None:
        try:
            return timed.tick()
        except Exception as error:  # noqa: BLE001 - one timer's, whatever it is
            self._failed()
            log_failure(log, "timer_failed", error, timer=type(timed).__name__)
            return _AGAIN

    async def run(self) -> None:
        """Turn until cancelled."""
        while True:
            await asyncio.sleep(self._resolution)
            self.turn()
