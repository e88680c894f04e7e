"""Joins, with what can happen in between happening at every place where a join waits."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.joining import Stopped, code, joined, resynced

from livedocs.changes import cursor
from livedocs.changes.event import CollectionGone
from livedocs.live.client import Bounds
from livedocs.model import Role


async def test_a_revoke_during_the_join_is_never_missed(stage, step, stream):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    async with Stopped(stage, step, room, snapshot=True) as stopped:
        stage.database.revoke(room)
        secret = stage.database.write(room, n=666)
        if stream == "stream ahead":
            stage.deliver()
        answer = await stopped.finish()
    stage.deliver()
    outbox = stopped.client.outbox
    assert secret.token not in {token for _, token in outbox.changes}
    assert "666" not in "".join(outbox.texts)
    if step == "after_time" and stream == "stream behind":
        # In when it was asked, and out as soon as the stream brings the end.
        assert joined(answer, room)["role"] == "reader"
        assert [m[1]["reason"] for m in outbox.named("$revoked")] == ["revoked"]
    else:
        assert code(answer, room) == "forbidden"
        assert outbox.named("$revoked") == []
    assert not stage.rooms.of_member(stopped.client)


async def test_a_change_during_the_join_arrives_exactly_once(stage, step, stream):
    room = stage.room()
    stage.database.grant(room)
    stage.database.write(room, op="insert", a=1)
    stage.deliver()
    async with Stopped(stage, step, room, snapshot=True) as stopped:
        during = stage.database.write(room, b=2)
        if stream == "stream ahead":
            stage.deliver()
        answer = await stopped.finish()
    stage.deliver()
    later = stage.database.write(room, c=3)
    stage.deliver()
    (document,) = joined(answer, room)["snapshot"]["notes"]
    tokens = [token for _, token in stopped.client.outbox.changes]
    assert document["a"] == 1
    assert ("b" in document, during.token in tokens) in {(True, False), (False, True)}
    assert ("b" in document) == (step != "after_time")
    assert tokens == [change.token for change in (during, later) if change is later or step == "after_time"]


async def test_the_answer_comes_first_then_the_replay_then_what_is_live(stage, step, stream):
    room = stage.room()
    stage.database.grant(room)
    start = cursor.after(stage.database.at())
    missed = [stage.database.write(room) for _ in range(3)]
    stage.deliver()
    async with Stopped(stage, step, room, since=start) as stopped:
        missed.append(stage.database.write(room))
        if stream == "stream ahead":
            stage.deliver()
        else:
            # What lies up to the snapshot has to come through first.
            asyncio.get_running_loop().call_later(0, stage.deliver)
        answer = await stopped.finish()
    live = stage.database.write(room)
    stage.deliver()
    messages = stopped.client.outbox.messages
    assert messages[0][0] == "ack"
    replayed = joined(answer, room)["resumed"]
    assert [m[2]["id"] for m in messages[1:]] == [change.token for change in (*missed, live)]
    assert replayed == 4 or (step == "after_time" and stream == "stream behind" and replayed == 3)


async def test_a_regrant_during_the_join_never_brings_what_lay_between(stage, step, stream):
    room = stage.room()
    stage.database.grant(room)
    start = cursor.after(stage.database.at())
    stage.deliver()
    async with Stopped(stage, step, room, since=start) as stopped:
        stage.database.revoke(room)
        secret = stage.database.write(room)
        stage.database.grant(room)
        stage.database.write(room)
        if stream == "stream ahead":
            stage.deliver()
        else:
            asyncio.get_running_loop().call_later(0, stage.deliver)
        answer = await stopped.finish()
    stage.deliver()
    tokens = [token for _, token in stopped.client.outbox.changes]
    assert secret.token not in tokens
    if step == "after_time":
        # A grant that ended behind the snapshot ends the join, whatever came after it.
        assert str(room.uuid) in answer["refused"] or stopped.client.outbox.named("$revoked")
        assert tokens == []
    else:
        # What lay between is not replayed, so what came after it has no sure ground: the state follows it.
        assert joined(answer, room)["resumed"] == len(tokens) == 1
        body = await resynced(stopped.client)
        assert (body["reason"], list(body["snapshot"])) == ("access", ["notes"])


async def test_a_grant_during_the_join_counts_if_the_snapshot_holds_it(stage, step):
    room = stage.room()
    stage.deliver()
    async with Stopped(stage, step, room) as stopped:
        stage.database.grant(room)
        answer = await stopped.finish()
    if step == "after_time":
        assert code(answer, room) == "forbidden"
    else:
        assert str(room.uuid) in answer["joined"]
        stage.deliver()
        seen = stage.database.write(room)
        stage.deliver()
        assert stopped.client.outbox.changes == [("notes", seen.token)]


async def test_a_second_grant_during_the_join_keeps_the_membership_after_the_first_has_ended(stage, step, stream):
    room = stage.room()
    stage.database.grant(room, "user:alice")
    stage.deliver()
    async with Stopped(stage, step, room, client=stage.client(groups=["staff"])) as stopped:
        stage.database.grant(room, "group:staff", Role.OWNER)
        stage.database.revoke(room, "user:alice")
        if stream == "stream ahead":
            stage.deliver()
        answer = await stopped.finish()
    stage.deliver()
    assert str(room.uuid) in answer["joined"]
    assert stage.rooms.get(stopped.client, room).role is Role.OWNER
    assert stopped.client.outbox.named("$revoked") == []


async def test_an_expiry_during_the_join_refuses(stage, step):
    room = stage.room()
    stage.database.grant(room, expires_in=5)
    stage.deliver()
    async with Stopped(stage, step, room) as stopped:
        await stage.clock.advance(5)
        answer = await stopped.finish()
    assert code(answer, room) == "forbidden"
    assert not stage.rooms.of_member(stopped.client)


async def test_whoever_leaves_during_the_join_is_not_in_the_room_afterwards(stage, step):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    async with Stopped(stage, step, room) as stopped:
        await stage.leave(stopped.client, room)
        answer = await stopped.finish()
    if step == "lock":
        # Not registered yet: the leave came before the join.
        assert str(room.uuid) in answer["joined"]
    else:
        assert code(answer, room) == "forbidden"
        assert not stage.rooms.of_member(stopped.client)


@pytest.mark.parametrize("step", ["before_time", "after_time"])
async def test_a_socket_that_goes_during_the_join_is_forgotten(stage, step):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    async with Stopped(stage, step, room) as stopped:
        stage.disconnect(stopped.client)
        stopped.stop.go()
        await stopped.task
    assert len(stage.rooms) == 0
    assert not stage.rooms.of_member(stopped.client)


async def test_a_lost_stream_during_the_join_makes_it_look_again(stage, step):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    async with Stopped(stage, step, room, snapshot=True) as stopped:
        stage.database.revoke(room)
        stage.lose_the_stream()
        finish = asyncio.create_task(stopped.finish())
        while not finish.done():
            await stage.clock.advance(0.2)
        answer = await finish
    assert code(answer, room) == "forbidden"


async def test_a_stream_lost_while_a_rejoin_waits_for_it_does_not_hide_a_revoke(stage):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    stage.database.write(room)
    join = stage.start_join(alice, room, collections=["notes"])
    await stage.progress.waited.wait()
    # Behind the snapshot that the join has taken, and never delivered.
    stage.database.revoke(room)
    stage.lose_the_stream()
    stage.deliver()
    while not join.done():
        await stage.clock.advance(0.2)
    assert code(stage.answer(alice), room) == "forbidden"
    assert not stage.rooms.of_member(alice)


async def test_a_join_that_can_never_be_continued_is_refused_in_the_end(stage):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    # As after a restart whose stream is ahead of everything the request can read.
    stage.history.break_off("82" + "F" * 16, None)
    alice = stage.client()
    join = stage.start_join(alice, room)
    for _ in range(10):
        await stage.clock.advance(0.2)
    assert code(stage.answer(alice), room) == "unavailable"
    assert join.done()
    assert not stage.rooms.of_member(alice)


async def test_grants_that_vanish_at_once_during_the_join_make_it_look_again(stage):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    async with Stopped(stage, "after_time", room) as stopped:
        change = stage.database.revoke(room)
        # As the feed does for a dropped collection: no event for each grant.
        stage.delivered += 1
        stage.history.break_off(change.token, None)
        stage.deliver()
        stage.fanout.gone(CollectionGone(change.token, change.at, None, None))
        finish = asyncio.create_task(stopped.finish())
        while not finish.done():
            await stage.clock.advance(0.2)
        answer = await finish
    assert code(answer, room) == "forbidden"


async def test_events_of_one_transaction_stay_together_and_on_one_side_of_the_snapshot(stage, stream):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    async with Stopped(stage, "before_time", room, snapshot=True) as stopped:
        first = stage.database.write(room, "notes", a=1)
        stage.database.write(room, "tasks", txn_with=first, b=2)
        if stream == "stream ahead":
            stage.deliver()
        answer = await stopped.finish()
    stage.deliver()
    assert set(joined(answer, room)["snapshot"]) == {"notes", "tasks"}
    assert stopped.client.outbox.changes == []


async def test_joining_again_neither_loses_nor_doubles(stage, step, stream):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    writes = [stage.database.write(room)]
    stage.deliver()
    async with Stopped(stage, step, room, client=alice) as stopped:
        writes.append(stage.database.write(room))
        if stream == "stream ahead":
            stage.deliver()
        else:
            asyncio.get_running_loop().call_later(0, stage.deliver)
        await stopped.finish()
    writes.append(stage.database.write(room))
    stage.deliver()
    assert [token for _, token in alice.outbox.changes] == [write.token for write in writes]


async def test_joining_again_past_the_window_is_told_as_a_resync(stage):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    stop = stage.stop_reader("after_time")
    join = stage.start_join(alice, room)
    await stop.reached.wait()
    stage.database.write(room, op="insert", n=1)
    stage.deliver()
    await stage.clock.advance(5)
    # The window has moved past where the former membership had got to, and past the request as well.
    stage.history.break_off(cursor.after(stage.database.at()), None)
    stop.go()
    while not join.done():
        await stage.clock.advance(0.2)
    answer = joined(stage.answer(alice), room)
    assert answer["resync"] == "window"
    assert answer["snapshot"]["notes"][0]["n"] == 1


async def test_joining_again_does_not_forgive_what_a_slow_socket_is_owed(stage):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    alice = stage.client(bounds=Bounds(100, 10))
    await stage.join(alice, room)
    alice.outbox.waiting = (10_000, 5)
    for _ in range(2):
        stage.database.write(room)
        stage.deliver()
    assert alice.cut == {room}
    await stage.join(alice, room)
    assert alice.cut == {room}
