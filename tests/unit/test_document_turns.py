"""Requests for documents take turns: a caller has a few at a time, and never those of others."""

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest

from livedocs.errors import RateLimited, Unavailable
from livedocs.http.document_turns import AT_ONCE, AT_ONCE_PER_CALLER, WAITING_PER_CALLER, DocumentTurns
from livedocs.telemetry import Metrics


def caller(subject, tenant="acme"):
    return SimpleNamespace(tenant=SimpleNamespace(slug=tenant), principal=SimpleNamespace(subject=subject))


@pytest.fixture
def metrics():
    return Metrics()


async def test_a_caller_has_no_more_than_its_part_and_the_same_name_elsewhere_has_its_own(metrics):
    turns = DocumentTurns(metrics, patience=0.05)
    async with AsyncExitStack() as held:
        for _ in range(AT_ONCE_PER_CALLER):
            await held.enter_async_context(turns.turn(caller("user:alice")))
        with pytest.raises(Unavailable) as refused:
            await held.enter_async_context(turns.turn(caller("user:alice")))
        assert refused.value.retry_after == 1
        await held.enter_async_context(turns.turn(caller("user:bob")))
        await held.enter_async_context(turns.turn(caller("user:alice", "globex")))


async def test_all_together_have_no_more_than_there_are(metrics):
    turns = DocumentTurns(metrics, patience=0.05)
    async with AsyncExitStack() as held:
        for number in range(AT_ONCE):
            await held.enter_async_context(turns.turn(caller(f"user:{number}")))
        with pytest.raises(Unavailable):
            await held.enter_async_context(turns.turn(caller("user:alice")))
    async with turns.turn(caller("user:alice")):
        pass


async def test_whoever_has_too_many_waiting_is_refused_at_once(metrics):
    turns = DocumentTurns(metrics, patience=60)
    end = asyncio.Event()

    async def take():
        async with turns.turn(caller("user:alice")):
            await end.wait()

    tasks = [asyncio.create_task(take()) for _ in range(AT_ONCE_PER_CALLER + WAITING_PER_CALLER)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited) as refused:
        await take()
    assert refused.value.data["limit"] == "waiting documents per user"
    labels = {"kind": "waiting documents", "scope": "user"}
    assert metrics.registry.get_sample_value("livedocs_limits_hit_total", labels) == 1
    end.set()
    await asyncio.gather(*tasks)
