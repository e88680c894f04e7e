"""What has to end does, though a library swallows the first cancellation."""

from __future__ import annotations

import asyncio

import pytest

from livedocs.runtime import tasks


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(tasks, "_PATIENCE", 0.01)


async def begun(coroutine):
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


async def test_a_task_that_swallows_cancellations_is_cancelled_until_it_has_ended():
    swallowed = []

    async def deaf():
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if len(swallowed) == 2:
                    raise
                swallowed.append(1)

    task = await begun(deaf())
    async with asyncio.timeout(5):
        await tasks.end([task])
    assert task.cancelled()
    assert len(swallowed) == 2


async def test_what_wait_for_swallows_does_not_keep_a_task_alive():
    """As PyMongo sends: what it waits for is done in the turn of the loop in which the cancellation comes."""
    sending = asyncio.Event()

    async def send():
        sending.set()

    async def works_until_cancelled():
        while True:
            await asyncio.wait_for(send(), 5)
            await asyncio.Event().wait()

    task = asyncio.create_task(works_until_cancelled())
    await sending.wait()
    async with asyncio.timeout(5):
        await tasks.end([task])
    assert task.cancelled()


async def test_every_task_is_waited_for_whatever_its_end():
    order = []

    async def slow():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            order.append("slow")

    async def fails():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError from None

    async def ends():
        order.append("ended")

    every = [await begun(slow()), await begun(fails()), await begun(ends())]
    await tasks.end(every)
    assert all(task.done() for task in every)
    assert order == ["ended", "slow"]
    await tasks.end([])


async def test_what_runs_is_told_by_name_and_place():
    async def stuck():
        await asyncio.Event().wait()

    task = await begun(stuck())
    task.set_name("the one")
    (told,) = tasks.running()
    assert told.startswith("the one at test_what_runs_is_told_by_name_and_place.<locals>.stuck:")
    await tasks.end([task])
    assert tasks.running() == []
