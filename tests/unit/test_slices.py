"""A large room is written in slices; whatever else a socket is sent meanwhile stays in its place."""

from __future__ import annotations

import asyncio
import socket

import pytest

from livedocs.changes.event import RoomKey
from livedocs.live import fanout as fanouts
from livedocs.live import frames
from livedocs.live.client import Bounds
from livedocs.live.fanout import Fanout
from livedocs.live.frames import Frame
from livedocs.live.memberships import Memberships
from livedocs.live.outbox import DirectOutbox
from livedocs.live.rooms import Membership, Rooms

SIZE = 100


@pytest.fixture
def room(stage) -> RoomKey:
    return stage.room()


@pytest.fixture
def crowd(stage, room, monkeypatch):
    """A room of many sockets, and a fan-out for which every slice is over as soon as it has begun."""
    monkeypatch.setattr(fanouts, "_SLICE", 0.0)
    memberships = Memberships(Rooms(), metrics=stage.metrics, clock=stage.clock)
    fanout = Fanout(memberships, stage.delivery, stage.resyncs, metrics=stage.metrics)
    fanout.rooms = memberships.rooms
    grant = stage.database.grant(room)
    for _ in range(SIZE):
        membership = Membership(room, stage.client(), frozenset({"user:alice"}))
        fanout.rooms.add(membership)
        membership.activate(membership.subjects, {}, None, "")
        membership.apply(grant)
    return fanout


def clients(fanout, room):
    return [membership.member for membership in fanout.rooms.of_room(room)]


async def released(fanout):
    while fanout._holding:
        await asyncio.sleep(0)


def names(client):
    return [message[0] for message in client.outbox.messages]


async def test_the_loop_gets_its_turn_between_slices_and_everyone_gets_the_event_once(stage, crowd, room):
    crowd.change(stage.database.write(room))
    counts = []
    while not counts or counts[-1] < SIZE:
        counts.append(sum(len(client.outbox.frames) for client in clients(crowd, room)))
        await asyncio.sleep(0)
    assert counts[0] < SIZE
    assert len(counts) > 2
    assert {len(client.outbox.frames) for client in clients(crowd, room)} == {1}


async def test_an_answer_stays_behind_an_event_that_was_due_before_it(stage, crowd, room):
    last = clients(crowd, room)[-1]
    crowd.change(stage.database.write(room))
    assert names(last) == []
    last.send(frames.ack(1, {}))
    assert names(last) == ["notes", "ack"]


async def test_later_events_stay_behind_earlier_ones(stage, crowd, room):
    changes = [stage.database.write(room) for _ in range(5)]
    for change in changes:
        crowd.change(change)
    await released(crowd)
    for client in clients(crowd, room):
        assert [cursor for _, cursor in client.outbox.changes] == [change.token for change in changes]


async def test_a_revoke_comes_behind_what_was_committed_before_it_and_ahead_of_nothing_else(
    stage, crowd, room, settled
):
    everyone = clients(crowd, room)
    crowd.change(stage.database.write(room))
    crowd.change(stage.database.revoke(room))
    crowd.change(stage.database.write(room))
    await settled()
    assert {tuple(names(client)) for client in everyone} == {("notes", "$revoked")}


async def test_what_is_held_counts_against_the_bounds_of_a_slow_socket(stage, crowd, room):
    last = clients(crowd, room)[-1]
    last._bounds = Bounds(1000, 3)
    for _ in range(5):
        crowd.change(stage.database.write(room))
    assert last.cut == {room}
    assert last in stage.delivery.backlogged


async def test_a_socket_that_has_gone_is_not_written_to(stage, crowd, room, settled):
    last = clients(crowd, room)[-1]
    crowd.change(stage.database.write(room))
    last.abort("gone")
    await settled()
    assert last.outbox.frames == []


async def connected():
    """An outbox over a real socket, and the other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    return DirectOutbox(transport), transport, theirs


async def received(peer, size):
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < size:
        data += await asyncio.wait_for(loop.sock_recv(peer, 1 << 16), 5)
    return data


async def test_what_the_socket_does_not_take_at_once_follows_in_order():
    outbox, transport, peer = await connected()
    large, small = Frame(b"x" * 5_000_000), Frame(b"small")
    assert outbox.offer(large) > 0
    assert outbox.backlog()[1] == 1
    assert outbox.offer(small) == -1
    outbox.write(small)
    assert await received(peer, len(large.wire) + len(small.wire)) == large.wire + small.wire
    transport.abort()
    peer.close()


async def test_nothing_is_offered_to_a_transport_that_is_closing():
    outbox, transport, peer = await connected()
    transport.abort()
    assert outbox.offer(Frame(b"late")) == -1
    peer.close()


async def test_a_transport_that_encrypts_is_written_to_and_its_socket_is_not():
    outbox, transport, peer = await connected()
    transport._extra["sslcontext"] = object()
    assert DirectOutbox(transport).offer(Frame(b"secret")) == -1
    assert outbox.offer(Frame(b"plain")) == 0
    transport.abort()
    peer.close()
