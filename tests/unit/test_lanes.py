"""Whose changes wait for whose, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from livedocs.changes.lanes import Lanes, Portion


class Progress:
    """How far each tenant is, as lanes tell it."""

    def __init__(self):
        self.applied, self.moves = {}, 0

    def waits(self, tenant, applied):
        self.applied[tenant] = applied

    def told(self, tenant, position, *, all_of_it):
        self.moves += 1
        if all_of_it:
            del self.applied[tenant]
        else:
            self.applied[tenant] = position

    def give_up(self):
        self.applied = {}


class Taken:
    """Lanes whose portions are taken when the test says so; `heard` has what was taken."""

    def __init__(self, most_bytes=1000):
        self.heard, self.failures = [], []
        self.progress = Progress()
        self.gates = {}
        self.lanes = Lanes(self.take, failed=self.fail, progress=self.progress, most_bytes=most_bytes)
        self.broken = False

    async def take(self, portion):
        name = portion.events[0][:1].decode()
        await self.gates.setdefault(name, asyncio.Event()).wait()
        if b"!" in portion.events[0]:
            raise ValueError(name)
        self.heard += portion.events

    def fail(self, tenant, position, error):
        if self.broken:
            raise error
        self.failures.append((tenant, position, str(error)))

    def open(self, name):
        self.gates.setdefault(name, asyncio.Event()).set()

    async def put(self, tenant, *events, position, applied="0"):
        await self.lanes.put(tenant, Portion(events, position), applied)


@pytest.fixture
async def taken():
    taken = Taken()
    yield taken
    await taken.lanes.aclose()


async def idle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_tenant_that_takes_long_holds_up_nobody_else_and_keeps_its_order(taken):
    await taken.put("acme", b"a1", b"a2", position="1")
    await taken.put("acme", b"a3", position="2", applied="1")
    taken.open("g")
    await taken.put("globex", b"g1", position="2", applied="1")
    await idle()
    assert taken.heard == [b"g1"]
    assert taken.progress.applied == {"acme": "0"}
    assert ("acme" in taken.lanes, "globex" in taken.lanes) == (True, False)
    taken.open("a")
    await taken.lanes.drained()
    assert taken.heard == [b"g1", b"a1", b"a2", b"a3"]
    assert (taken.progress.applied, taken.progress.moves) == ({}, 3)


async def test_a_lane_says_how_far_it_is(taken):
    await taken.put("acme", b"a1", position="1")
    await taken.put("acme", b"b2", position="2", applied="1")
    taken.open("a")
    await idle()
    assert taken.progress.applied == {"acme": "1"}


async def test_what_fails_is_told_with_its_tenant_and_the_next_is_taken(taken):
    taken.open("a")
    await taken.put("acme", b"a!", position="1")
    await taken.put("acme", b"a2", position="2")
    await taken.lanes.drained()
    assert taken.failures == [("acme", "1", "a")]
    assert taken.heard == [b"a2"]


async def test_what_cannot_be_contained_is_raised_where_it_is_checked(taken):
    taken.broken = True
    taken.open("a")
    await taken.put("acme", b"a!", position="1")
    with pytest.raises(ValueError, match="a"):
        await taken.lanes.drained()
    with pytest.raises(ValueError, match="a"):
        taken.lanes.check()
    await taken.lanes.aclose()
    taken.lanes.check()


async def test_past_so_many_bytes_nothing_more_is_put():
    taken = Taken(most_bytes=4)
    await taken.put("acme", b"a12345", position="1")
    putting = asyncio.create_task(taken.put("globex", b"g1", position="2"))
    await idle()
    assert not putting.done()
    taken.open("a")
    taken.open("g")
    await putting
    await taken.lanes.drained()
    assert taken.heard == [b"a12345", b"g1"]


async def test_what_is_given_up_is_not_taken(taken):
    await taken.put("acme", b"a1", position="1")
    await taken.lanes.aclose()
    taken.open("a")
    await idle()
    assert taken.heard == []
    await taken.lanes.drained()
