from __future__ import annotations

import pytest

from livedocs.live.client import Bounds
from livedocs.live.frames import Frame
from livedocs.live.slow import SlowSockets


class Resyncs:
    def __init__(self):
        self.asked = []

    def resync(self, client, rooms, reason):
        if rooms:
            self.asked.append((client, set(rooms), reason))


class Watch:
    """Slow sockets and a clock; `fall_behind` makes one of a client."""

    def __init__(self, stage):
        self.slow, self.resyncs, self.now = stage.delivery.backlogged, Resyncs(), 0.0
        self.sockets = SlowSockets(self.slow, self.resyncs, stall_timeout=30, clock=lambda: self.now)
        self.stage = stage

    def fall_behind(self, waiting=1000):
        client = self.stage.client(bounds=Bounds(100, 5))
        client.outbox.waiting = (waiting, 3)
        client.cut = {self.stage.room()}
        self.slow.add(client)
        return client

    def check(self, at):
        self.now = at
        self.sockets.check()


@pytest.fixture
async def watch(stage):
    return Watch(stage)


async def test_a_socket_that_has_drained_is_resynced_in_the_rooms_it_missed(watch):
    client = watch.fall_behind()
    watch.check(0)
    assert watch.resyncs.asked == []
    client.outbox.waiting = (0, 0)
    watch.check(1)
    assert watch.resyncs.asked == [(client, {watch.stage.room()}, "slow")]
    assert client.cut is None
    assert watch.slow == set()
    watch.check(2)
    assert len(watch.resyncs.asked) == 1


async def test_a_socket_that_takes_nothing_is_cut_off_in_time(watch):
    client = watch.fall_behind()
    watch.check(0)
    watch.check(30)
    assert client.closed is None
    watch.check(30.1)
    assert client.outbox.aborted
    assert client.closed == "slow"
    assert watch.slow == set()
    assert watch.sockets._progress == {}


async def test_progress_however_small_keeps_it_whatever_is_added_meanwhile(watch):
    client = watch.fall_behind(1000)
    for second in range(0, 200, 20):
        client.outbox.waiting = (1000 + second, 3)
        client.outbox.taken += 1
        watch.check(second)
    assert client.closed is None


async def test_what_is_added_is_no_progress(watch):
    client = watch.fall_behind(1000)
    for second in range(0, 60, 10):
        client.outbox.waiting = (1000 + second % 20, 3)
        watch.check(second)
    assert client.closed == "slow"


async def test_a_socket_that_keeps_up_with_events_but_takes_no_answer_is_cut_off_too(watch):
    client = watch.stage.client()
    client.outbox.waiting = (0, 0)
    client.send(Frame(b"answer"))
    client.outbox.waiting = (10, 1)
    watch.check(0)
    watch.check(30.1)
    assert client.closed == "slow"


async def test_bytes_in_flight_are_given_back_as_the_peer_takes_them(watch):
    client = watch.fall_behind(1000)
    client.unread.grow(5000)
    watch.check(0)
    assert client.unread.bytes == 1000
    client.outbox.waiting = (0, 0)
    watch.check(1)
    assert client.unread.bytes == 0


async def test_a_socket_that_has_gone_is_forgotten(watch):
    client = watch.fall_behind()
    watch.check(0)
    client.closed = "gone"
    watch.check(1)
    assert watch.slow == set()
    assert watch.sockets._progress == {}
    assert watch.resyncs.asked == []
