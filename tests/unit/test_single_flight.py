from __future__ import annotations

import asyncio
import gc

import pytest

from livedocs.access.single_flight import SingleFlight


class Call:
    """A call that ends when it is told to."""

    def __init__(self):
        self.started = 0
        self.begun = asyncio.Event()
        self.end = asyncio.Event()

    async def __call__(self):
        self.started += 1
        self.begun.set()
        await self.end.wait()
        return self.started


async def begin(flights, key, call, callers=1):
    tasks = [asyncio.create_task(flights.share(key, call)) for _ in range(callers)]
    await asyncio.wait_for(call.begun.wait(), 5)
    return tasks


async def test_callers_of_one_key_share_a_call_and_the_next_one_starts_anew():
    flights, call = SingleFlight(), Call()
    tasks = await begin(flights, "a", call, callers=5)
    call.end.set()
    assert await asyncio.gather(*tasks) == [1] * 5
    assert await flights.share("a", call) == 2


async def test_after_a_detach_the_next_caller_starts_a_second_call_beside_the_first():
    flights, first, second = SingleFlight(), Call(), Call()
    (before,) = await begin(flights, "a", first)
    flights.detach("a")
    (after,) = await begin(flights, "a", second)
    first.end.set()
    await before
    # The end of the first has not made the second unjoinable.
    second.end.set()
    assert await asyncio.wait_for(flights.share("a", Call()), 5) == 1
    await after


async def test_a_failure_that_nobody_waits_for_any_more_is_no_stray_error(recwarn):
    flights, begun, end = SingleFlight(), asyncio.Event(), asyncio.Event()
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

    async def fail():
        begun.set()
        await end.wait()
        raise ValueError

    caller = asyncio.create_task(flights.share("a", fail))
    await asyncio.wait_for(begun.wait(), 5)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    (call,) = flights._tasks
    end.set()
    await asyncio.wait([call], timeout=5)
    del call
    gc.collect()
    assert not reported
    assert not recwarn


async def test_closing_cancels_detached_calls_too():
    flights, call = SingleFlight(), Call()
    (task,) = await begin(flights, "a", call)
    flights.detach("a")
    await flights.aclose()
    with pytest.raises(asyncio.CancelledError):
        await task
