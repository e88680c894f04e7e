"""What is wrong with one event, change, collection or socket is nobody else's problem."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import bson
import pytest
from bson import ObjectId
from pymongo.errors import OperationFailure
from tests.unit.test_feed import ACME, OTHER, ROOM, Fed, at, event, insert, token

from livedocs.changes.event import CollectionGone, Lost, RoomKey
from livedocs.changes.feed import Guard
from livedocs.changes.normalise import read
from livedocs.changes.resolver import Resolver
from livedocs.live.activation import Activation
from livedocs.live.timers import TimerWheel
from livedocs.model import Tenant

GLOBEX = Tenant("globex", "globex_db", {"notes": "_id"})


@pytest.fixture
async def fed(in_time):
    fed = Fed()
    fed.registry.tenants = (ACME, GLOBEX)
    task = asyncio.create_task(fed.feed.run())
    await fed.open()
    yield fed
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def fail(*_, **__):
    raise ZeroDivisionError


def unreadable(fed):
    return fed.metrics.registry.get_sample_value("livedocs_events_total", {"op": "unreadable"})


@pytest.fixture
def broken(monkeypatch):
    """Have the reading of an event fail for a reason that nobody foresaw, when its document says so."""
    real = bson.decode

    def decode(raw):
        if b"POISON" in raw:
            raise ZeroDivisionError
        return real(raw)

    monkeypatch.setattr("livedocs.changes.normalise.decode_small", decode)
    return {"poison": "POISON"}


async def test_an_unreadable_event_breaks_off_its_room_and_no_other(fed, broken):
    await fed.give(insert(1), insert(2, **broken), insert(3, OTHER))
    assert fed.seen == [token(1), token(2), token(3)]
    lost = fed.listener.heard[1]
    assert (lost.room, lost.withheld, lost.raw) == (RoomKey("acme", ROOM), "event_unreadable", b"")
    assert fed.history.covers(token(1), "acme")
    assert unreadable(fed) == 1


async def test_where_the_room_cannot_be_told_the_tenant_begins_anew_and_no_other(fed, broken):
    odd = event(2, collection="test", documentKey={"_id": 1}, fullDocument={"_id": 1, "uuid": ROOM, **broken})
    await fed.give(insert(1), odd, insert(3))
    assert fed.seen == [token(1), ("event_unreadable", "acme"), token(3)]
    assert not fed.history.covers(token(1), "acme")
    assert fed.history.covers(token(2), "acme")
    assert fed.history.covers(token(1), "globex")


async def test_where_nothing_can_be_told_everybody_begins_anew(fed):
    await fed.give(insert(1))
    fed.stream.queue.put_nowait(SimpleNamespace(events=(b"no BSON at all",), position=token(2)))
    await fed.taken()
    assert fed.seen == [token(1), "event_unreadable"]
    assert not fed.history.covers(token(1), "globex")


@pytest.mark.parametrize("place", [{"collection": "unregistered"}, {"database": "nobodys_db"}])
async def test_an_unreadable_event_of_what_nobody_follows_concerns_nobody(fed, broken, place):
    odd = event(2, documentKey={"_id": ROOM}, fullDocument=broken, **place)
    await fed.give(insert(1), odd, insert(3))
    assert fed.seen == [token(1), token(3)]
    assert fed.history.covers(token(1), "acme")


async def test_an_unreadable_grant_breaks_off_its_tenant(fed, broken):
    key = {"tenant": "globex", "uuid": ROOM, "subject": "user:alice"}
    await fed.give(event(1, collection="acl", database="control", documentKey={"_id": key}, fullDocument=broken))
    assert fed.seen == [("event_unreadable", "globex")]


@pytest.mark.parametrize("collection", ["inquiries", "audit"])
async def test_nonsense_elsewhere_in_the_control_database_concerns_nobody(fed, broken, collection):
    odd = event(1, collection=collection, database="control", documentKey={"_id": 1}, fullDocument=broken)
    await fed.give(odd, insert(2))
    assert fed.seen == [token(2)]


async def test_an_inquiry_that_cannot_be_answered_stops_nothing(fed, monkeypatch):
    monkeypatch.setattr(fed.feed, "_inquired", fail)
    made = event(1, collection="inquiries", database="control", documentKey={"_id": 1}, fullDocument={"_id": 1})
    await fed.give(made, insert(2))
    assert fed.seen == [token(2)]
    assert fed.metrics.registry.get_sample_value("livedocs_contained_errors_total", {"what": "inquiry"}) == 1


async def test_a_listener_that_fails_at_one_change_is_told_the_others(fed, monkeypatch):
    tell = fed.listener.change

    def change(change):
        if change.token == token(2):
            raise ZeroDivisionError
        tell(change)

    monkeypatch.setattr(fed.listener, "change", change)
    await fed.give(insert(1), insert(2), insert(3))
    assert fed.seen == [token(1), ("unreadable", RoomKey("acme", ROOM)), token(3)]


async def test_a_listener_that_fails_at_a_drop_has_the_tenant_begin_anew(fed, monkeypatch):
    def gone(_):
        raise ZeroDivisionError

    monkeypatch.setattr(fed.listener, "gone", gone)
    await fed.give(event(1, "drop"), insert(2))
    assert fed.seen == [("event_unreadable", "acme"), token(2)]


async def test_a_collection_that_mongodb_refuses_to_read_does_not_hold_up_the_others(fed, clock, monkeypatch):
    """It has become a view since, say: asked again and again, it would hold up everybody for ever."""
    asked = []

    async def uuids(*args):
        asked.append(args)
        msg = "no"
        raise OperationFailure(msg, 166)

    monkeypatch.setattr(fed.finder, "uuids", uuids)
    update = {"updatedFields": {"a": 1}, "removedFields": [], "truncatedArrays": []}
    await fed.give(
        insert(1), event(2, "update", "test", documentKey={"_id": ObjectId()}, updateDescription=update), insert(3)
    )
    for _ in range(3):
        await clock.advance(0.5)
    assert fed.seen == [token(1), ("event_unreadable", "acme"), token(3)]
    assert len(asked) == 3


async def test_a_change_that_cannot_be_placed_is_lost_alone(monkeypatch):
    def place(*_):
        raise ZeroDivisionError

    fed = Fed()
    raw = event(1, collection="test", documentKey={"_id": 1}, fullDocument={"_id": 1, "uuid": ROOM})
    item = read(raw, fed.registry, "control")
    monkeypatch.setattr("livedocs.changes.resolver.place", place)
    gone = CollectionGone(token(2), at(2), "acme", "x")
    assert await Resolver(fed.finder).resolve([item, gone]) == [Lost(token(1), at(1), "acme"), gone]


async def test_a_feed_that_has_died_begins_anew_for_everybody():
    fed = Fed()
    begun = []
    fed.stream.begin_anew = lambda: begun.append(True)
    task = asyncio.create_task(fed.feed.run())
    await fed.open()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert begun == []
    again = asyncio.create_task(fed.feed.run())
    await fed.open("history_lost", 5)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    assert begun == [True]
    assert fed.seen == ["history_lost"]


def test_a_timer_that_fails_keeps_no_other_from_its_turn_and_is_tried_again():
    now = [100.0]
    failures = []
    wheel = TimerWheel(resolution=0.25, clock=lambda: now[0], failed=lambda: failures.append(1))

    class Thing:
        ticks = 0

        def tick(self):
            self.ticks += 1
            if self is bad:
                raise ZeroDivisionError

    bad, good = Thing(), Thing()
    wheel.put(bad, 1)
    wheel.put(good, 1)
    for _ in range(5):
        now[0] += 0.25
        wheel.turn()
    assert (bad.ticks, good.ticks, len(failures)) == (1, 1, 1)
    for _ in range(4):
        now[0] += 0.25
        wheel.turn()
    assert (bad.ticks, good.ticks) == (2, 1)


# -- sockets --


async def enter(stage, number=1, subject="user:alice", **options):
    room = stage.room(number)
    stage.database.grant(room, subject)
    stage.deliver()
    client = stage.client(subject)
    await stage.join(client, room, **options)
    return client, room


def contained(stage, what):
    return stage.metrics.registry.get_sample_value("livedocs_contained_errors_total", {"what": what})


async def test_a_socket_that_cannot_be_written_to_keeps_nobody_from_the_event(stage, monkeypatch):
    broken, room = await enter(stage, subject="user:bob")
    others = [(await enter(stage, subject=f"user:{n}"))[0] for n in range(3)]
    monkeypatch.setattr(broken.outbox, "offer", fail, raising=False)
    change = stage.database.write(room)
    stage.deliver()
    assert all(client.outbox.changes == [("notes", change.token)] for client in others)
    assert contained(stage, "socket") == 1


async def test_a_change_that_cannot_be_encoded_is_made_up_for_by_the_newest_state(stage, monkeypatch):
    alice, room = await enter(stage)
    bob, other = await enter(stage, 2, "user:bob")
    poison = stage.database.write(room, "notes", op="insert", n=1)
    real = stage.delivery.prepared.frame
    monkeypatch.setattr(
        stage.delivery.prepared, "frame", lambda change: fail() if change.token == poison.token else real(change)
    )
    # What the guard between the feed and its listener does.
    guard = Guard(stage.fanout, stage.metrics)
    neighbour = stage.database.write(other)
    for change in stage.database.log[stage.delivered :]:
        stage.history.append(change)
        guard.change(change)
    stage.delivered = len(stage.database.log)
    stage.deliver()
    assert bob.outbox.changes == [("notes", neighbour.token)]
    async with asyncio.timeout(5):
        while not alice.outbox.named("$resync"):
            await asyncio.sleep(0)
    (message,) = alice.outbox.named("$resync")
    assert message[1]["reason"] == "event_unreadable"
    assert message[1]["snapshot"] == {"notes": [{"uuid": str(room.uuid), "n": 1}]}


async def test_a_room_whose_resync_fails_is_left_and_the_sockets_other_rooms_go_on(stage, monkeypatch):
    alice, room = await enter(stage)
    other = stage.room(2)
    stage.database.grant(other)
    stage.deliver()
    await stage.join(alice, other)
    real = Activation.activate

    def activate(self, membership, *args):
        return fail() if membership.room == room else real(self, membership, *args)

    monkeypatch.setattr(Activation, "activate", activate)
    stage.fanout.gap("history_lost")
    async with asyncio.timeout(5):
        while not alice.outbox.named("$resync"):
            await asyncio.sleep(0)
    assert [message[1]["uuid"] for message in alice.outbox.named("$resync")] == [str(other.uuid)]
    assert alice.outbox.named("$revoked") == [["$revoked", {"uuid": str(room.uuid), "reason": "unavailable"}]]
    assert contained(stage, "resync") == 1


async def test_where_not_even_a_resync_can_be_asked_for_the_member_is_out(stage, monkeypatch):
    alice, room = await enter(stage)
    monkeypatch.setattr(stage.resyncs, "resync", fail)
    stage.fanout.unreadable(room)
    assert alice.outbox.named("$revoked") == [["$revoked", {"uuid": str(room.uuid), "reason": "unavailable"}]]
    assert not list(stage.rooms.of_room(room))


async def test_a_grant_whose_end_cannot_be_applied_ends_the_socket(stage, monkeypatch):
    room = stage.room()
    stage.database.grant(room, expires_in=10)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    monkeypatch.setattr(stage.memberships, "settle", fail)
    await stage.clock.advance(10)
    assert alice.closed == "error"
    assert not list(stage.rooms.of_room(room))


# -- what takes long --


async def test_nobody_waits_for_a_large_change_for_ever(fed, monkeypatch):
    """It is encoded beside the loop, ahead of its turn; past a bound its room is sent the newest state instead."""
    ready, asked = asyncio.Event(), []

    async def prepare(change):
        asked.append(change.token)
        await ready.wait()

    monkeypatch.setattr(fed.listener, "unprepared", lambda change: not ready.is_set())
    monkeypatch.setattr(fed.listener, "prepare", prepare, raising=False)
    monkeypatch.setattr("livedocs.changes.normalise.is_heavy", lambda raw: b"large" in raw)
    monkeypatch.setattr("livedocs.changes.feed._FEW", 0)  # so few bytes are not heavy

    async def heard(count):
        async with asyncio.timeout(5):
            while len(fed.listener.heard) < count:
                await asyncio.sleep(0.01)

    await fed.give(insert(1), insert(2, large=1), insert(3))
    await heard(3)
    assert [change.withheld for change in fed.listener.heard] == [None, "document_too_large", None]
    assert [change.raw for change in fed.history.since(RoomKey("acme", ROOM), "")][1] == b""
    # The time is used up, and comes back slowly: the next one is not waited for as long.
    begun = time.perf_counter()
    await fed.give(insert(4, large=1))
    await heard(4)
    assert time.perf_counter() - begun < 0.1
    assert fed.listener.heard[-1].withheld == "document_too_large"
    ready.set()
    await fed.give(insert(5, large=1))
    await heard(5)
    assert (fed.listener.heard[-1].withheld, fed.listener.heard[-1].heavy) == (None, True)
