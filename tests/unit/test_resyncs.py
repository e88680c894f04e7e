"""Rooms that are brought up to date after something was missed."""

from __future__ import annotations

import pytest

from livedocs.errors import Unavailable
from livedocs.model import Role


async def test_a_gap_brings_one_resync_per_room_and_nothing_of_the_room_before_it(stage, settled):
    rooms = [stage.room(1), stage.room(2)]
    for room in rooms:
        stage.database.grant(room)
        stage.database.write(room, op="insert", n=0)
    stage.deliver()
    alice, bob = stage.client(), stage.client("user:bob")
    await stage.join(alice, *rooms)
    await stage.join(bob, rooms[0])
    stop = stage.stop_reader("after_time")
    stage.lose_the_stream()
    await stop.reached.wait()
    late, late_uuid = stage.database.write(rooms[0], n=5), str(rooms[0].uuid)
    stage.deliver()
    assert alice.outbox.changes == []
    stop.go()
    await settled()
    resyncs = [message[1] for message in alice.outbox.named("$resync")]
    assert {message["uuid"] for message in resyncs} == {str(room.uuid) for room in rooms}
    assert {message["reason"] for message in resyncs} == {"history_lost"}
    assert alice.outbox.changes == [("notes", late.token)]
    names = [(m[0], m[1]["uuid"]) for m in alice.outbox.messages[1:]]
    assert names.index(("$resync", late_uuid)) < names.index(("notes", late_uuid))
    assert bob.outbox.named("$resync") == []


async def test_from_a_gap_on_nothing_of_the_room_is_written_though_the_socket_is_busy(stage, settled):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    async with alice.busy:
        stage.lose_the_stream()
        stage.database.write(room, n=5)
        stage.deliver()
        await settled()
        assert alice.outbox.changes == []
    await settled()
    assert [message[1]["reason"] for message in alice.outbox.named("$resync")] == ["history_lost"]


async def test_whoever_lost_the_grant_during_a_gap_is_evicted_instead(stage, settled):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    stage.database.revoke(room)
    stage.lose_the_stream()
    await settled()
    assert [m[0] for m in alice.outbox.messages] == ["ack", "$revoked"]
    assert not stage.rooms.of_member(alice)


@pytest.mark.parametrize("event", ["revoke", "leave", "disconnect"])
@pytest.mark.parametrize("step", ["before_time", "after_time"])
async def test_what_ends_a_membership_during_a_resync_ends_it(stage, settled, step, event):
    room = stage.room()
    stage.database.grant(room)
    stage.database.write(room, op="insert", n=1)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    stop = stage.stop_reader(step)
    stage.fanout.gap("history_lost")
    await stop.reached.wait()
    if event == "revoke":
        stage.database.revoke(room)
        stage.deliver()
    elif event == "leave":
        await stage.leave(alice, room)
    else:
        stage.disconnect(alice)
    stop.go()
    await settled()
    stage.database.write(room, n=666)
    stage.deliver()
    await settled()
    assert alice.outbox.named("$resync") == []
    assert alice.outbox.changes == []
    assert len(alice.outbox.named("$revoked")) == (event == "revoke")
    assert not stage.rooms.of_member(alice)


async def test_a_resync_is_tried_until_the_grants_can_be_read(stage, settled):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    works = stage.reader.after_time

    async def fail():
        raise Unavailable

    stage.reader.after_time = fail
    stage.fanout.gap("history_lost")
    for _ in range(100):
        await stage.clock.advance(0.2)
    reads = len(stage.reader.rounds)
    # Again and again, but ever more seldom: what cannot be read now must not keep everybody busy.
    assert 5 <= reads <= 15
    assert alice.outbox.named("$resync") == []
    stage.reader.after_time = works
    await stage.clock.advance(5)
    assert len(alice.outbox.named("$resync")) == 1
    await stage.clock.advance(10)
    assert len(stage.reader.rounds) == reads + 1


async def test_a_resync_that_has_to_be_repeated_at_once_is(stage, settled):
    room = stage.room()
    stage.database.grant(room)
    stage.database.write(room, op="insert", n=1)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    stop = stage.stop_reader("after_time")
    stage.fanout.gap("history_lost")
    await stop.reached.wait()
    # Nobody could put this one on top of what the resync is about to send.
    stage.database.write(room, n=2)
    stage.database.log[-1] = stage.database.log[-1]._replace(withheld="ambiguous_path")
    stage.deliver()
    stop.go()
    await settled()
    resyncs = [message[1] for message in alice.outbox.named("$resync")]
    assert [resync["reason"] for resync in resyncs] == ["history_lost", "ambiguous_path"]
    assert resyncs[-1]["snapshot"]["notes"][0]["n"] == 2
    live = stage.database.write(room, n=3)
    stage.deliver()
    assert alice.outbox.changes == [("notes", live.token)]


async def test_a_client_that_is_owed_no_room_is_not_kept(stage, settled):
    alice = stage.client()
    stage.resyncs.resync(alice, [], "slow")
    await settled()
    assert stage.resyncs._stale == {}


async def test_after_a_resync_nothing_of_the_client_is_kept(stage, settled):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    stage.fanout.gap("history_lost")
    await settled()
    assert stage.resyncs._stale == {}
    assert not stage.resyncs._tasks


async def test_a_resync_counts_the_groups_of_now(stage, settled):
    room = stage.room()
    for subject in ("user:alice", "group:staff"):
        stage.database.grant(room, subject)
    stage.deliver()
    alice = stage.client(groups=["staff"])
    await stage.join(alice, room)
    stage.fanout.gap("history_lost")
    # The resync is under way when the group is taken away.
    await stage.joins.reauthorize(alice, stage.principal(groups=["guests"]))
    await settled()
    stage.database.grant(room, "group:staff", Role.OWNER)
    stage.database.revoke(room, "user:alice")
    stage.database.write(room, n=666)
    stage.deliver()
    assert alice.outbox.changes == []
    assert not stage.rooms.of_member(alice)
