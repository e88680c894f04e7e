from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
from bson.timestamp import Timestamp

from livedocs.access.snapshot_batcher import SnapshotBatcher
from livedocs.errors import InvalidDocument, Unavailable
from livedocs.model import Snapshot, SnapshotRequest, Tenant

ACME, GLOBEX = (Tenant(slug, slug, {"notes": "_id"}) for slug in ("acme", "globex"))


class Reader:
    """Rounds as they are begun; each ends when the test says so, or at once."""

    def __init__(self):
        self.rounds = []
        self.held = []
        self.holds = False
        self.stopped = 0
        # What reading goes wrong with, by the subject that is looked for.
        self.trouble = {}

    async def read(self, tenant, requests):
        number = len(self.rounds)
        self.rounds.append((tenant, list(requests)))
        if self.holds:
            self.held.append(asyncio.Event())
            try:
                await self.held[-1].wait()
            except asyncio.CancelledError:
                self.stopped += 1
                raise
        for request in requests:
            if request.subjects[0] in self.trouble:
                raise self.trouble[request.subjects[0]]
        return [Snapshot(Timestamp(1, number), {request.subjects[0]: []}, {}) for request in requests]

    @property
    def names(self):
        return [[request.subjects[0] for request in requests] for _, requests in self.rounds]


def request(name, uuids=1, subjects=1):
    return SnapshotRequest(
        tuple(UUID(int=number) for number in range(uuids)),
        (name, *(f"group:{number}" for number in range(subjects - 1))),
    )


class Asking:
    """A batcher over such a reader, and the callers' tasks."""

    def __init__(self):
        self.reader = Reader()
        self.batcher = SnapshotBatcher(self.reader)

    def ask(self, name, tenant=ACME, **size):
        return asyncio.create_task(self.batcher.read(tenant, request(name, **size)))


@pytest.fixture
async def asking():
    asking = Asking()
    yield asking
    await asking.batcher.aclose()
    # Every task has an owner that awaits it, and nothing is kept of tenants for which nobody waits.
    assert [task for task in asyncio.all_tasks() if task.get_name() == "snapshot round"] == []
    assert asking.batcher._lanes == {}


async def answers(*tasks):
    async with asyncio.timeout(5):
        return [(list(snapshot.grants), snapshot.at.inc) for snapshot in await asyncio.gather(*tasks)]


async def test_whoever_asks_in_one_turn_of_the_loop_is_in_one_round(asking):
    names = [f"user:{number}" for number in range(100)]
    found = await answers(*(asking.ask(name) for name in names))
    assert asking.reader.names == [names]
    assert found == [([name], 0) for name in names]


async def test_a_look_is_never_answered_by_a_round_that_began_before_it(asking, settled):
    asking.reader.holds = True
    early = asking.ask("early")
    await settled()
    late = [asking.ask(f"late {number}") for number in range(20)]
    await settled()
    assert asking.reader.names == [["early"]]
    asking.reader.holds = False
    asking.reader.held[0].set()
    assert await answers(early) == [(["early"], 0)]
    # All of those who have come meanwhile are together in the next.
    assert await answers(*late) == [([f"late {number}"], 1) for number in range(20)]
    assert len(asking.reader.rounds) == 2


async def test_a_round_that_takes_long_keeps_the_next_ones_waiting_for_a_moment_only(asking, clock, settled):
    asking.reader.holds = True
    slow = asking.ask("slow")
    await settled()
    others = [asking.ask("one"), asking.ask("other")]
    await settled()
    await clock.advance(0.04)
    assert asking.reader.names == [["slow"]]
    await clock.advance(0.02)
    assert asking.reader.names == [["slow"], ["one", "other"]]
    asking.reader.held[1].set()
    assert await answers(*others) == [(["one"], 1), (["other"], 1)]
    assert not slow.done()
    asking.reader.held[0].set()
    assert await answers(slow) == [(["slow"], 0)]


async def test_rounds_of_one_tenant_are_bounded(asking, clock, settled):
    asking.reader.holds = True
    tasks = []
    for number in range(20):
        tasks.append(asking.ask(f"user:{number}"))
        await settled()
        await clock.advance(0.06)
    assert len(asking.reader.rounds) == 16
    asking.reader.held[5].set()
    await clock.advance(0)
    assert asking.reader.names[16:] == [["user:16", "user:17", "user:18", "user:19"]]
    for held in asking.reader.held:
        held.set()
    await answers(*tasks)


async def test_tenants_are_never_in_one_round_and_do_not_wait_for_each_other(asking, settled):
    asking.reader.holds = True
    ours = asking.ask("ours")
    await settled()
    theirs = asking.ask("theirs", GLOBEX)
    await settled()
    assert [(tenant.slug, len(requests)) for tenant, requests in asking.reader.rounds] == [
        ("acme", 1),
        ("globex", 1),
    ]
    asking.reader.held[1].set()
    await answers(theirs)
    asking.reader.held[0].set()
    await answers(ours)


async def test_a_round_is_of_one_state_of_the_tenant(asking):
    wider = replace(ACME, collections={**ACME.collections, "tasks": "_id"})
    tasks = [asking.ask("before"), asking.ask("after", wider), asking.ask("later", wider)]
    await answers(*tasks)
    assert [(tenant, [one.subjects[0] for one in requests]) for tenant, requests in asking.reader.rounds] == [
        (ACME, ["before"]),
        (wider, ["after", "later"]),
    ]


async def test_a_round_is_bounded_by_the_grants_it_asks_for(asking):
    tasks = [asking.ask("large", uuids=100, subjects=30)]
    tasks += [asking.ask(f"user:{number}", uuids=10, subjects=10) for number in range(7)]
    await answers(*tasks)
    assert [len(requests) for requests in asking.reader.names] == [1, 5, 2]


async def test_without_mongodb_those_of_the_round_are_refused_and_the_next_round_is_another(asking, settled):
    asking.reader.holds = True
    asking.reader.trouble["broken"] = Unavailable()
    failing = [asking.ask("broken"), asking.ask("beside it")]
    await settled()
    later = asking.ask("later")
    asking.reader.holds = False
    asking.reader.held[0].set()
    outcomes = await asyncio.gather(*failing, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert await answers(later) == [(["later"], 1)]
    assert len(asking.reader.rounds) == 2


@pytest.mark.parametrize("trouble", [InvalidDocument("odd"), ValueError("odd")], ids=["refusal", "bug"])
async def test_what_only_one_look_fails_with_keeps_nobody_else_out(asking, trouble):
    asking.reader.trouble["odd"] = trouble
    before, odd, behind = (asking.ask(name) for name in ("before", "odd", "behind"))
    assert await answers(before, behind) == [(["before"], 1), (["behind"], 3)]
    with pytest.raises(type(trouble)):
        await odd


async def test_a_caller_that_gives_up_takes_nothing_away_from_the_others(asking, settled):
    asking.reader.holds = True
    stays, goes = asking.ask("stays"), asking.ask("goes")
    await settled()
    waits, leaves = asking.ask("waits"), asking.ask("leaves")
    await settled()
    for task in (goes, leaves):
        task.cancel()
    await settled()
    assert goes.cancelled()
    assert leaves.cancelled()
    assert asking.reader.stopped == 0
    asking.reader.holds = False
    asking.reader.held[0].set()
    assert await answers(stays, waits) == [(["stays"], 0), (["waits"], 1)]
    assert asking.reader.names == [["stays", "goes"], ["waits"]]


async def test_a_round_that_nobody_waits_for_any_more_is_given_up(asking, settled):
    asking.reader.holds = True
    tasks = [asking.ask("one"), asking.ask("other")]
    await settled()
    for task in tasks:
        task.cancel()
    await settled()
    assert asking.reader.stopped == 1
    asking.reader.holds = False
    assert await answers(asking.ask("next")) == [(["next"], 1)]


async def test_at_the_end_nobody_is_left_waiting(asking, settled):
    asking.reader.holds = True
    flying = asking.ask("flying")
    await settled()
    waiting = asking.ask("waiting")
    await settled()
    await asking.batcher.aclose()
    outcomes = await asyncio.gather(flying, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert asking.reader.stopped == 1
