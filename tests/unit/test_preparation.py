"""The making of answers, which leaves others their turn."""

from __future__ import annotations

import asyncio

from livedocs.live import preparation
from livedocs.live.preparation import Space


async def turns_taken(space):
    """How often others get their turn while an answer breathes once."""
    taken = []
    asyncio.get_running_loop().call_soon(taken.append, 1)
    await space.breathe()
    return len(taken)


async def test_an_answer_that_takes_long_leaves_others_their_turn_and_a_short_one_takes_none(stage, monkeypatch):
    unread = stage.budgets.hold(stage.principal())
    assert await turns_taken(Space(1000, unread)) == 0
    monkeypatch.setattr(preparation, "_SLICE", -1.0)
    long = Space(1000, unread)
    assert [await turns_taken(long), await turns_taken(long)] == [1, 1]
