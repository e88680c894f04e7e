"""Joins that go on from a cursor: what is replayed, and when a resync comes in its place."""

from __future__ import annotations

from tests.unit.joining import joined, resynced

from livedocs.changes import cursor
from livedocs.model import Role


async def test_a_cursor_brings_everything_since_and_nothing_twice(stage):
    room, other = stage.room(1), stage.room(2)
    stage.database.grant(room)
    writes = [stage.database.write(room if number % 2 else other) for number in range(10)]
    stage.deliver()
    alice = stage.client()
    answer = await stage.join(alice, room, since=writes[3].token)
    expected = [write.token for write in writes[4:] if write.room == room]
    assert [token for _, token in alice.outbox.changes] == expected
    assert joined(answer, room)["resumed"] == len(expected)


async def test_what_is_replayed_for_several_rooms_is_in_stream_order(stage):
    rooms = [stage.room(1), stage.room(2)]
    for room in rooms:
        stage.database.grant(room)
    start = cursor.after(stage.database.at())
    writes = [stage.database.write(rooms[number % 2]) for number in range(6)]
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, *reversed(rooms), since=start)
    assert [token for _, token in alice.outbox.changes] == [write.token for write in writes]


async def test_the_cursor_of_an_answer_leads_through_the_replay_again_until_it_has_arrived(stage):
    room = stage.room()
    stage.database.grant(room)
    start = cursor.after(stage.database.at())
    stage.deliver()
    empty = joined(await stage.join(stage.client(), room, since=start), room)
    assert empty["cursor"] == cursor.after(stage.database.at())
    stage.database.write(room)
    stage.deliver()
    assert joined(await stage.join(stage.client(), room, since=start), room)["cursor"] == start


async def test_a_cursor_from_before_the_grant_in_force_brings_a_resync_where_something_was_missed(stage):
    missed, new = stage.room(1), stage.room(2)
    start = cursor.after(stage.database.at())
    stage.database.write(missed, op="insert", n=1)
    for room in (missed, new):
        stage.database.grant(room)
    after = [stage.database.write(room, n=2) for room in (missed, new)]
    stage.deliver()
    alice = stage.client()
    answer = await stage.join(alice, missed, new, since=start)
    assert joined(answer, missed)["resumed"] == joined(answer, new)["resumed"] == 1
    assert [token for _, token in alice.outbox.changes] == [write.token for write in after]
    body = await resynced(alice)
    assert (body["uuid"], body["reason"], body["snapshot"]["notes"][0]["n"]) == (str(missed.uuid), "access", 2)


async def test_a_cursor_from_before_a_break_in_the_access_brings_a_resync(stage):
    room = stage.room()
    stage.database.grant(room)
    start = cursor.after(stage.database.at())
    stage.database.revoke(room)
    stage.database.write(room)
    stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    assert "resync" not in joined(await stage.join(alice, room, since=start), room)
    assert (await resynced(alice))["reason"] == "access"


async def test_a_changed_role_is_no_break_in_the_access(stage):
    room = stage.room()
    stage.database.grant(room, role=Role.READER)
    start = cursor.after(stage.database.at())
    writes = [stage.database.write(room)]
    stage.database.grant(room, role=Role.OWNER)
    writes.append(stage.database.write(room))
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room, since=start)
    assert [token for _, token in alice.outbox.changes] == [write.token for write in writes]


async def test_a_grant_extended_after_its_end_begins_anew(stage):
    room = stage.room()
    stage.database.grant(room, expires_in=5)
    start = cursor.after(stage.database.at())
    await stage.clock.advance(6)
    stage.database.write(room)
    stage.database.grant(room, expires_in=60)
    stage.deliver()
    alice = stage.client()
    assert "resync" not in joined(await stage.join(alice, room, since=start), room)
    assert (await resynced(alice))["reason"] == "access"


async def test_a_grant_extended_before_its_end_goes_on(stage):
    room = stage.room()
    stage.database.grant(room, expires_in=5)
    start = cursor.after(stage.database.at())
    stage.database.write(room)
    await stage.clock.advance(4)
    stage.database.grant(room, expires_in=60)
    stage.deliver()
    assert joined(await stage.join(stage.client(), room, since=start), room)["resumed"] == 1


async def test_a_cursor_older_than_the_window_brings_a_resync_with_a_snapshot(stage):
    room = stage.room()
    stage.database.grant(room)
    old = stage.database.write(room, op="insert", n=1).token
    stage.database.write(room, n=2)
    stage.deliver()
    await stage.clock.advance(1000)
    stage.database.write(room, n=3)
    stage.deliver()
    alice = stage.client()
    answer = joined(await stage.join(alice, room, since=old), room)
    assert answer["resync"] == "window"
    assert answer["snapshot"]["notes"][0]["n"] == 3
    assert "resumed" not in answer
    assert alice.outbox.changes == []


async def test_a_cursor_from_another_future_brings_a_resync_with_a_snapshot(stage):
    room = stage.room()
    stage.database.grant(room)
    stage.database.write(room, op="insert", n=1)
    stage.deliver()
    answer = joined(await stage.join(stage.client(), room, since="82" + "F" * 16), room)
    assert answer["resync"] == "window"
    assert answer["snapshot"]["notes"][0]["n"] == 1


async def test_a_cursor_ahead_of_this_process_is_waited_for(stage):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    ahead = stage.database.write(room)
    behind = stage.database.write(room)
    alice = stage.client()
    join = stage.start_join(alice, room, since=ahead.token)
    await stage.progress.waited.wait()
    assert not join.done()
    stage.deliver()
    await join
    assert [token for _, token in alice.outbox.changes] == [behind.token]


async def test_a_drop_is_not_resumed_across(stage):
    room, elsewhere = stage.room(), stage.room(1, "globex")
    for place in (room, elsewhere):
        stage.database.grant(place, "tenant:*")
    start = cursor.after(stage.database.at())
    stage.deliver()
    dropped = stage.database.write(room, op="delete")
    stage.delivered += 1
    stage.history.break_off(dropped.token, "acme")
    stage.deliver()
    assert joined(await stage.join(stage.client(), room, since=start), room)["resync"] == "window"
    other = stage.client("user:carol", tenant="globex")
    assert "resync" not in joined(await stage.join(other, elsewhere, since=start), elsewhere)


async def test_without_an_ack_a_resync_and_a_snapshot_come_as_events(stage):
    room, closed = stage.room(1), stage.room(2)
    stage.database.grant(room)
    stage.database.write(room, op="insert", n=1)
    stage.deliver()
    alice = stage.client()
    await stage.start_join(alice, room, closed, ack=False, snapshot=True)
    assert [m[0] for m in alice.outbox.messages] == ["$refused", "$resync"]
    assert alice.outbox.messages[0][1] == {"uuid": str(closed.uuid), "code": "forbidden"}
    assert alice.outbox.messages[1][1]["reason"] == "snapshot"
    assert alice.outbox.messages[1][1]["snapshot"]["notes"][0]["n"] == 1
