"""Long work on the event loop: everybody else has their turn, and several works take turns."""

from __future__ import annotations

import asyncio
from time import perf_counter

from livedocs.runtime import slices


def busy(seconds: float, result: str = "done"):
    """Steps of 1 ms."""
    for _ in range(int(seconds * 1000)):
        until = perf_counter() + 0.001
        while perf_counter() < until:
            pass
        yield
    return result


async def test_others_have_their_turn_while_it_goes_on():
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    going_on = asyncio.create_task(others())
    assert await slices.run(busy(0.1), 10**6) == "done"
    going_on.cancel()
    assert turns >= 20


async def test_a_short_work_does_not_wait_for_the_end_of_a_long_one():
    ended = []

    async def work(seconds, name):
        ended.append(await slices.run(busy(seconds, name), 10**6))

    await asyncio.gather(work(0.2, "long"), work(0.2, "long"), work(0.005, "short"))
    assert ended == ["short", "long", "long"]


async def test_what_is_small_is_done_at_once():
    waiting = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(waiting.set_result, None)
    assert await slices.run(busy(0.002), 100) == "done"
    assert not waiting.done()


async def test_an_error_is_that_of_the_work():
    def bad():
        yield
        msg = "bad"
        raise ValueError(msg)

    for size in (1, 10**6):
        try:
            await slices.run(bad(), size)
        except ValueError as error:
            assert str(error) == "bad"  # noqa: PT017 - twice
        else:
            raise AssertionError
    # And the lane is free again.
    assert await slices.run(busy(0.002), 10**6) == "done"
