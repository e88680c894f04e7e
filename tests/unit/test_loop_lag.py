from __future__ import annotations

import asyncio
import time

import pytest

from livedocs.runtime import tasks
from livedocs.runtime.loop_lag import LoopLag
from livedocs.telemetry import Metrics


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def worst(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("livedocs_loop_lag_worst_seconds")


def test_the_worst_of_the_last_minute_stays_for_a_minute(metrics):
    clock = Clock()
    lag = LoopLag(metrics, clock=clock)
    lag.observe(0.5)
    clock.now += 30
    lag.observe(0.2)
    assert worst(metrics) == 0.5
    clock.now += 29
    lag.observe(0.1)
    assert worst(metrics) == 0.5
    clock.now += 2
    lag.observe(0.01)
    assert worst(metrics) == 0.2
    clock.now += 60
    lag.observe(0.0)
    assert worst(metrics) == 0


def test_what_is_remembered_does_not_grow_while_lags_rise(metrics):
    clock = Clock()
    lag = LoopLag(metrics, clock=clock)
    for number in range(1000):
        clock.now += 0.05
        lag.observe(number / 1000)
    assert len(lag._worst) == 1


async def test_a_loop_that_is_held_up_is_seen(metrics):
    lag = LoopLag(metrics)
    watching = asyncio.create_task(lag.run())
    seen = metrics.registry.get_sample_value
    while not seen("livedocs_loop_lag_seconds_count"):
        await asyncio.sleep(0)
    # A request that computes for long: nothing else runs meanwhile.
    time.sleep(0.3)  # noqa: ASYNC251 - on purpose
    before = seen("livedocs_loop_lag_seconds_count")
    while seen("livedocs_loop_lag_seconds_count") == before:
        await asyncio.sleep(0)
    await tasks.end([watching])
    assert (worst(metrics) or 0) >= 0.2
    assert (seen("livedocs_loop_lag_seconds_sum") or 0) >= 0.2
