"""Who has a turn next, when many want one."""

from __future__ import annotations

import asyncio

import pytest

from livedocs.access.turns import NoTurn, Turns

LONG = 60.0


class Stage:
    """Turns, and those who have and want them; `served` is the order in which they had one."""

    def __init__(self, total=4, per_key=2, most_waiting=10):
        self.turns = Turns(total, per_key=per_key, most_waiting=most_waiting)
        self.served, self.ends, self.tasks = [], {}, {}

    async def want(self, *names, within=LONG):
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._have(name, within))
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def _have(self, name, within):
        async with self.turns.turn(name[0], within=within):
            self.served.append(name)
            await self.ends[name].wait()

    async def end(self, *names):
        for name in names:
            self.ends[name].set()
            await self.tasks[name]
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def end_all(self):
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


@pytest.fixture
async def stage():
    made = Stage()
    yield made
    await made.end_all()


async def test_one_key_has_no_more_than_its_part_even_when_nobody_else_wants_any(stage):
    await stage.want("a1", "a2", "a3", "b1", "b2", "b3", "c1")
    assert stage.served == ["a1", "a2", "b1", "b2"]


async def test_a_newcomer_has_a_turn_at_once_while_another_floods(stage):
    await stage.want(*(f"a{n}" for n in range(8)), "b1")
    assert stage.served == ["a0", "a1", "b1"]


async def test_keys_that_wait_are_served_in_turn_and_within_a_key_in_order(stage):
    await stage.want("a1", "a2", "b1", "b2", "a3", "a4", "c1", "c2", "d1")
    assert stage.served == ["a1", "a2", "b1", "b2"]
    await stage.end("b1", "b2", "a1", "c1", "d1")
    assert stage.served[4:] == ["c1", "d1", "a3", "c2"]
    await stage.end("a2")
    assert stage.served[8:] == ["a4"]


async def test_whoever_gives_up_leaves_their_place_to_the_next(stage):
    await stage.want("a1", "a2", "a3", "a4")
    stage.tasks["a3"].cancel()
    await asyncio.wait([stage.tasks["a3"]])
    await stage.end("a1")
    assert stage.served == ["a1", "a2", "a4"]


async def test_a_turn_that_comes_when_its_taker_has_just_given_up_goes_on_to_the_next(stage):
    await stage.want("a1", "a2", "a3", "a4")
    stage.ends["a1"].set()
    await stage.tasks["a1"]
    stage.tasks["a3"].cancel()
    await asyncio.wait([stage.tasks["a3"]])
    await asyncio.sleep(0)
    assert stage.served[:2] == ["a1", "a2"]
    assert "a4" in stage.served


async def test_nobody_waits_for_longer_than_they_said(stage):
    await stage.want("a1", "a2")
    await stage.want("a3", within=0.01)
    with pytest.raises(NoTurn) as caught:
        await stage.tasks["a3"]
    assert not caught.value.crowded


async def test_more_than_may_wait_are_sent_away_at_once():
    stage = Stage(most_waiting=1)
    await stage.want("a1", "a2", "a3", "a4", "b1")
    with pytest.raises(NoTurn) as caught:
        await stage.tasks["a4"]
    assert caught.value.crowded
    assert stage.served == ["a1", "a2", "b1"]
    await stage.end_all()


async def test_nothing_is_left_when_all_have_gone(stage):
    await stage.want(*(f"{key}{n}" for key in "abcdef" for n in range(3)))
    await stage.end_all()
    assert (stage.turns._free, stage.turns._taken, stage.turns._waiting) == (4, {}, {})
