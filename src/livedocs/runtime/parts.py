"""The parts of a process that run for as long as it does. One that dies is started again in place.

A process that ended with one of its parts would end for all tenants, and whatever killed the part once would do so
again after every restart.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from livedocs.runtime import tasks
from livedocs.telemetry import Metrics, get_logger, log_failure

log = get_logger(__name__)

# Seconds until a part is started again: the first time, and at most.
_FIRST, _MOST = 0.1, 10.0
# Seconds after which a part that runs counts as well, and its next death as the first.
_WELL = 60.0


class Parts:
    """Runs them, each in a task of its own.

    Args:
        metrics: counts the restarts.
        sleep: waits before a restart; injected for tests.
    """

    def __init__(self, metrics: Metrics, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._metrics = metrics
        self._sleep = sleep
        self._tasks: list[asyncio.Task[None]] = []
        # The names of those that have died and do not run again yet.
        self._down: set[str] = set()

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run it from now on; `run` is called again whenever it has ended, however that was."""
        self._tasks.append(asyncio.create_task(self._keep(name, run), name=name))

    def running(self) -> bool:
        """Whether all of them do; for readiness."""
        return not self._down

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        deaths, clock = 0, asyncio.get_running_loop().time
        while True:
            begun = clock()
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - whatever it is, the process goes on
                log_failure(log, "part_died", error, part=name)
            else:
                log.error("part_ended", part=name)
            deaths = 1 if clock() - begun > _WELL else deaths + 1
            self._down.add(name)
            self._metrics.part_restarts.labels(name).inc()
            await self._sleep(_delay(deaths))
            self._down.discard(name)

    async def aclose(self) -> None:
        """End them all."""
        await tasks.end(self._tasks)


def _delay(deaths: int) -> float:
    """Seconds until the next start: exponential, with jitter, so that processes do not die in step."""
    most = min(_MOST, _FIRST * 2 ** min(deaths - 1, 10))
    return random.uniform(most / 2, most)  # noqa: S311 - jitter, not a secret
