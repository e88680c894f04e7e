"""How late the event loop wakes: the metric in which a stall that delays everybody shows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from livedocs.telemetry import Metrics

# Twenty wake-ups a second cost about 0.1 % of a core. A stall is seen from the next one that was due on, so up
# to this much of it is missed.
_INTERVAL = 0.05
_WINDOW = 60.0


class LoopLag:
    """Sleeps for a short while, again and again, and observes by how much each sleep was too long.

    Args:
        clock: monotonic seconds; injected for tests.
    """

    def __init__(self, metrics: Metrics, *, clock: Callable[[], float] | None = None) -> None:
        self._metrics = metrics
        self._clock = clock or asyncio.get_running_loop().time
        # The worst of the last minute is in front. Invariant: older and smaller ones are gone, so that what
        # follows is newer and smaller.
        self._worst: deque[tuple[float, float]] = deque()

    def observe(self, lag: float) -> None:
        """Count one wake-up that came `lag` seconds after it was due."""
        now = self._clock()
        self._metrics.loop_lag.observe(lag)
        while self._worst and self._worst[-1][1] <= lag:
            self._worst.pop()
        self._worst.append((now, lag))
        while self._worst[0][0] <= now - _WINDOW:
            self._worst.popleft()
        self._metrics.loop_lag_worst.set(self._worst[0][1])

    async def run(self) -> None:
        """Observe until cancelled."""
        while True:
            due = self._clock() + _INTERVAL
            await asyncio.sleep(_INTERVAL)
            self.observe(max(0.0, self._clock() - due))
