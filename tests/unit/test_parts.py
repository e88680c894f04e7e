"""A part of the process that dies is started again in place, and readiness says so meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from livedocs.runtime.parts import Parts
from livedocs.telemetry import Metrics


class Waiting:
    """Waits as long as the test says."""

    def __init__(self):
        self.asked = []
        self.go = asyncio.Event()

    async def __call__(self, seconds):
        self.asked.append(seconds)
        await self.go.wait()
        self.go.clear()


async def idle():
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("end", [None, ZeroDivisionError, MemoryError])
async def test_a_part_that_dies_is_started_again_and_counted(end):
    metrics, waiting, runs = Metrics(), Waiting(), []

    async def run():
        runs.append(1)
        if len(runs) == 3:
            await asyncio.Event().wait()
        if end is not None:
            raise end

    parts = Parts(metrics, sleep=waiting)
    parts.start("timers", run)
    for count in (1, 2):
        await idle()
        assert (len(runs), parts.running()) == (count, False)
        waiting.go.set()
    await idle()
    assert (len(runs), parts.running()) == (3, True)
    assert metrics.registry.get_sample_value("livedocs_part_restarts_total", {"part": "timers"}) == 2
    await parts.aclose()


async def test_the_wait_grows_to_a_bound_and_is_never_quite_the_same():
    metrics, waiting = Metrics(), Waiting()

    async def run():
        raise ZeroDivisionError

    parts = Parts(metrics, sleep=waiting)
    parts.start("timers", run)
    for _ in range(20):
        await idle()
        waiting.go.set()
    await idle()
    assert 0.05 <= waiting.asked[0] <= 0.1
    assert all(5 <= seconds <= 10 for seconds in waiting.asked[8:])
    assert len(set(waiting.asked[8:])) > 1
    await parts.aclose()


async def test_one_part_that_is_down_leaves_the_others_alone_and_all_end_when_told():
    metrics, waiting, ended = Metrics(), Waiting(), []

    async def well():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async def ill():
        raise ZeroDivisionError

    parts = Parts(metrics, sleep=waiting)
    parts.start("cluster", well)
    parts.start("journal", ill)
    await idle()
    assert (ended, parts.running()) == ([], False)
    await parts.aclose()
    assert ended == [1]
