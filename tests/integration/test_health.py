"""`/healthz` and `/readyz`: what is known, asked in the background."""

from __future__ import annotations

import asyncio

import pytest

from livedocs.access import limits
from livedocs.http import probes
from livedocs.http.probes import Probes


class World:
    """What is asked about, and a clock."""

    def __init__(self):
        self.good = {"mongodb": True, "introspection": True}
        self.stream, self.now, self.asked = True, 100.0, 0
        self.probes = Probes(
            {name: self._question(name) for name in self.good}, {"stream": lambda: self.stream}, clock=self._clock
        )

    def _clock(self):
        return self.now

    def _question(self, name):
        async def ask():
            self.asked += 1
            if self.good[name] is None:
                raise RuntimeError
            return self.good[name]

        return ask


@pytest.fixture
def world():
    return World()


@pytest.fixture
async def anybody(start_api, world):
    return (await start_api(services={"probes": world.probes})).anybody()


async def test_the_answer_is_what_was_found_out_last_and_how_long_ago(anybody, world):
    assert (await anybody.get("/healthz")).json == {"status": "ok"}
    await world.probes.ask()
    world.now += 1.5
    ready = await anybody.get("/readyz")
    checks = {"mongodb": True, "introspection": True, "stream": True}
    assert (ready.status, ready.json) == (200, {"ready": True, "checks": checks, "age": 1.5})
    for value in (False, None):
        world.good["mongodb"] = value
        assert (await anybody.get("/readyz")).status == 200
        await world.probes.ask()
        answer = await anybody.get("/readyz")
        assert (answer.status, answer.code) == (503, "unavailable")
        assert answer.json["checks"] == {**checks, "mongodb": False}
        assert "mongodb" in answer.json["detail"]
        world.good["mongodb"] = True
        await world.probes.ask()


async def test_what_is_known_at_once_counts_at_once(anybody, world):
    await world.probes.ask()
    world.stream = False
    answer = await anybody.get("/readyz")
    assert (answer.status, answer.json["detail"]) == (503, "Not ready: stream.")


async def test_asking_for_readiness_asks_nobody(anybody, world):
    await world.probes.ask()
    asked = world.asked
    for _ in range(50):
        await anybody.get("/readyz")
    assert world.asked == asked


async def test_whoever_has_not_been_asked_or_not_for_long_is_not_ready(anybody, world):
    answer = await anybody.get("/readyz")
    assert (answer.status, answer.json["age"]) == (503, None)
    await world.probes.ask()
    world.now += probes.STALE
    assert (await anybody.get("/readyz")).status == 200
    world.now += 1
    answer = await anybody.get("/readyz")
    assert (answer.status, answer.json["age"]) == (503, probes.STALE + 1)
    assert "too long" in answer.json["detail"]


async def test_a_probe_that_hangs_is_a_no_and_is_asked_again(monkeypatch):
    monkeypatch.setattr(probes, "PATIENCE", 0.05)
    monkeypatch.setattr(probes, "INTERVAL", 0.01)
    open_, asked = asyncio.Event(), asyncio.Semaphore(0)

    async def hang():
        asked.release()
        await open_.wait()
        return True

    made = Probes({"oauth": hang}, {}, clock=lambda: 0.0)
    asking = asyncio.create_task(made.run())
    async with asyncio.timeout(10):
        await asked.acquire()
        await asked.acquire()
        assert made.state().checks == {"oauth": False}
        assert not made.state().ready
        open_.set()
        while not made.state().ready:
            await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])


async def test_probes_have_a_limit_of_their_own(start_api, world, monkeypatch):
    monkeypatch.setattr(limits, "PROBES", limits.Rate(per_second=0.001, burst=3))
    await world.probes.ask()
    api = await start_api(services={"probes": world.probes}, limit_requests_per_address=1, limit_burst=1)
    anybody = api.anybody()
    statuses = [(await anybody.get("/nowhere")).status for _ in range(3)]
    assert statuses[-1] == 429
    # A flood of requests does not have the server taken for dead; one of probes is refused.
    assert (await anybody.get("/readyz")).status == 200
    answers = [await anybody.get("/healthz") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[-1].json["limit"] == "probes per address"
