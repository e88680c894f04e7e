"""Questions about sockets, when there are too many: whose turn it is, and what is not held up by them."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from livedocs.cluster import sessions as cluster_sessions
from livedocs.cluster.sessions import ClusterSessions
from livedocs.errors import RateLimited, Unavailable
from livedocs.store.inquiries import Answer, Disconnection, Holders, Listing
from livedocs.telemetry import Metrics

from .test_cluster import LISTING, ME, YOU, LocalSessions, Store, inquiry

DISCONNECTION = {"kind": "disconnection", "tenant": "acme", "sid": None, "subject": "user:bob"}
EXPLAINED = Holders("acme", UUID(int=1), "user:bob")


class Held(Store):
    """Other processes that answer a disconnection at once, and nothing else until `go_on` is set."""

    def __init__(self, *live):
        super().__init__(*live)
        self.go_on, self.kinds = asyncio.Event(), {}

    async def ask(self, process_id, question):
        made = await super().ask(process_id, question)
        self.kinds[made] = type(question)
        return made

    async def answers(self, inquiry, known):
        return {"you": Answer()} if self.kinds[inquiry] is Disconnection or self.go_on.is_set() else {}


class Stage:
    def __init__(self, store, sessions=None):
        self.store, self.metrics = store, Metrics()
        self.cluster = ClusterSessions(
            ME, sessions or LocalSessions(), store, store, log_out=lambda _: None, metrics=self.metrics
        )
        self.tasks = []

    def ask(self, question, by):
        task = asyncio.create_task(self.cluster.ask(question, by=by))
        self.tasks.append(task)
        return task

    def result(self, name):
        return self.metrics.registry.get_sample_value("livedocs_inquiries_total", {"result": name})


@pytest.fixture
async def stage(monkeypatch):
    monkeypatch.setattr(cluster_sessions, "_PATIENCE", 60)
    made = Stage(Held(ME, YOU))
    await made.cluster.begin()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_a_flood_of_explanations_does_not_delay_a_disconnection(stage):
    # Of several, so that all turns for such questions are taken.
    flood = [stage.ask(EXPLAINED, f"user:{number % 8}") for number in range(400)]
    await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    async with asyncio.timeout(5):
        answers, silent = await stage.ask(Disconnection("acme", subject="user:bob"), "user:ada")
    assert ([process for process, _ in answers], silent) == ([ME, YOU], [])
    assert len(stage.store.asked) < 10


async def test_whoever_asks_too_much_is_refused_and_others_are_not(stage):
    flood = [stage.ask(EXPLAINED, "user:alice") for _ in range(50)]
    done, waiting = await asyncio.wait(flood, timeout=0.5)
    assert {type(task.exception()) for task in done} == {RateLimited}
    assert len(waiting) == cluster_sessions._ASKED_PER_CALLER + cluster_sessions._WAITING_PER_CALLER
    other = stage.ask(Listing("acme"), "user:ada")
    stage.store.go_on.set()
    async with asyncio.timeout(10):
        assert (await other)[1] == []
    hit = {"kind": "session queries", "scope": "user"}
    assert stage.metrics.registry.get_sample_value("livedocs_limits_hit_total", hit) == len(done)


async def test_a_subject_of_another_tenant_with_the_same_name_has_turns_of_its_own(stage):
    mine = [stage.ask(EXPLAINED, "user:alice") for _ in range(5)]
    theirs = stage.ask(Holders("globex", UUID(int=1), "user:bob"), "user:alice")
    async with asyncio.timeout(5):
        while {question.tenant for _, question in stage.store.asked} != {"acme", "globex"}:
            await asyncio.sleep(0)
    assert not any(task.done() for task in [*mine, theirs])


async def test_whoever_has_no_turn_in_time_is_told_to_come_back(stage, monkeypatch):
    for number in range(4):
        stage.ask(EXPLAINED, f"user:{number // 2}")
    async with asyncio.timeout(5):
        while len(stage.store.asked) < 4:
            await asyncio.sleep(0)
    monkeypatch.setattr(cluster_sessions, "_PATIENCE", 0.05)
    with pytest.raises(Unavailable) as caught:
        await stage.ask(Listing("acme"), "user:ada")
    assert caught.value.retry_after is not None


class Broken(LocalSessions):
    """Cannot answer what is asked about globex."""

    async def answer(self, question):
        if question.tenant == "globex":
            raise RuntimeError
        return await super().answer(question)


async def test_a_question_that_cannot_be_answered_keeps_no_later_one_from_being():
    stage = Stage(Store(ME, YOU), Broken())
    await stage.cluster.begin()
    running = asyncio.create_task(stage.cluster.run())
    stage.cluster.made(inquiry({**LISTING, "tenant": "globex"}))
    stage.cluster.made(inquiry({**DISCONNECTION, "tenant": "globex"}))
    stage.cluster.made(inquiry(LISTING))
    stage.cluster.made(inquiry(DISCONNECTION))
    async with asyncio.timeout(5):
        while len(stage.store.given) < 2:
            stage.store.answered.clear()
            await stage.store.answered.wait()
    assert (stage.result("failed"), stage.result("answered")) == (2, 2)
    running.cancel()
    await asyncio.wait([running])


class Stuck(LocalSessions):
    """Is busy with a list, as one of very many sockets."""

    async def answer(self, question):
        if isinstance(question, Listing):
            await asyncio.Event().wait()
        return await super().answer(question)


async def test_a_disconnection_in_the_stream_does_not_wait_for_the_lists_before_it():
    stage = Stage(Store(ME, YOU), Stuck())
    await stage.cluster.begin()
    running = asyncio.create_task(stage.cluster.run())
    for _ in range(1500):
        stage.cluster.made(inquiry(LISTING))
    stage.cluster.made(inquiry(DISCONNECTION))
    async with asyncio.timeout(5):
        await stage.store.answered.wait()
    assert [type(question) for question in stage.cluster._local.asked] == [Disconnection]
    assert stage.result("dropped") > 0
    running.cancel()
    await asyncio.wait([running])


async def test_lists_that_nobody_waits_for_any_more_are_not_made_and_disconnections_are(monkeypatch):
    stage = Stage(Store(ME, YOU))
    await stage.cluster.begin()
    stage.cluster.made(inquiry(LISTING))
    stage.cluster.made(inquiry(DISCONNECTION))
    monkeypatch.setattr(cluster_sessions, "_PATIENCE", -1)
    running = asyncio.create_task(stage.cluster.run())
    async with asyncio.timeout(5):
        await stage.store.answered.wait()
        while not stage.result("dropped"):
            await asyncio.sleep(0)
    assert [type(question) for question in stage.cluster._local.asked] == [Disconnection]
    running.cancel()
    await asyncio.wait([running])
