from __future__ import annotations

import pytest

from livedocs.live.client import FINAL, Bounds
from livedocs.live.frames import Frame

BOUNDS = Bounds(bytes=100, messages=5)


@pytest.fixture
async def client(stage):
    return stage.client(bounds=BOUNDS)


def frame(size=10):
    return Frame(b"4" * size)


async def test_a_socket_that_keeps_up_gets_everything(client, stage):
    assert [client.deliver(frame(), stage.room()) for _ in range(20)] == ["sent"] * 20
    assert len(client.outbox.frames) == 20


@pytest.mark.parametrize("waiting", [(101, 1), (10, 5)])
async def test_past_a_bound_nothing_of_any_room_is_added(client, stage, waiting):
    client.outbox.waiting = waiting
    assert client.deliver(frame(), stage.room(1)) == "cut"
    client.outbox.waiting = (0, 0)
    assert client.deliver(frame(), stage.room(2)) == "dropped"
    assert client.cut == {stage.room(1), stage.room(2)}
    assert client.outbox.frames == []


async def test_at_its_bounds_it_still_counts_as_keeping_up(client, stage):
    client.outbox.waiting = (100, 4)
    assert client.deliver(frame(), stage.room()) == "sent"


async def test_one_message_larger_than_the_bound_is_no_sign_of_a_slow_peer(client, stage):
    assert client.deliver(frame(5000), stage.room()) == "sent"
    client.outbox.waiting = (4900, 1)
    assert client.deliver(frame(), stage.room()) == "sent"
    client.outbox.waiting = (0, 0)
    client.deliver(frame(), stage.room())
    client.outbox.waiting = (101, 2)
    assert client.deliver(frame(), stage.room()) == "cut"


@pytest.mark.parametrize("waiting", [(501, 1), (10, 21)])
async def test_answers_are_never_dropped_the_socket_is(client, waiting):
    client.outbox.waiting = (500, 20)
    client.send(frame())
    assert len(client.outbox.frames) == 1
    client.outbox.waiting = waiting
    client.send(frame())
    assert client.outbox.aborted
    assert client.closed == "slow"
    assert len(client.outbox.frames) == 1


@pytest.mark.parametrize("reason", ["shutdown", *sorted(FINAL)])
async def test_whoever_is_closed_is_told_why_and_the_final_ones_not_to_come_back(client, reason):
    client.close(reason)
    assert client.outbox.messages == [["$goaway", {"reason": reason, "within_ms": 0}]]
    assert ("41" in client.outbox.texts) == (reason in FINAL)
    assert client.outbox.closed == (1008 if reason in FINAL else 1001)
    assert client.closed == reason


async def test_the_first_end_counts_and_nothing_is_sent_after_it(client):
    client.close("expired")
    said = client.outbox.texts
    client.close("shutdown")
    client.abort("slow")
    client.send(frame())
    assert client.closed == "expired"
    assert client.outbox.texts == said
    assert not client.outbox.aborted


async def test_a_peer_that_does_not_listen_is_cut_off_without_a_word(client):
    client.abort("slow")
    assert client.outbox.aborted
    assert client.outbox.frames == []
