"""Joins, with what can happen in between happening at every place where a join waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import bson
import orjson
import pytest
from bson.timestamp import Timestamp

from livedocs.changes import cursor
from livedocs.changes.event import CollectionGone
from livedocs.codec import extjson
from livedocs.errors import Unavailable
from livedocs.live.client import Bounds
from livedocs.live.joins import MOST_PER_CALL, Wish
from livedocs.live.preparation import documents_of
from livedocs.model import Role, Snapshot, Tenant


def code(answer, room):
    return answer["refused"][str(room.uuid)]["code"]


async def resynced(client):
    """The body of the one `$resync` that is under way."""
    async with asyncio.timeout(5):
        while not client.outbox.named("$resync"):
            await asyncio.sleep(0)
    (message,) = client.outbox.named("$resync")
    return message[1]


def joined(answer, room):
    return answer["joined"][str(room.uuid)]


# -- what an answer says --


async def test_without_a_grant_a_room_is_refused_as_one_that_does_not_exist(stage):
    granted, alone, unknown = stage.room(1), stage.room(2), stage.room(3)
    stage.database.grant(granted)
    stage.database.write(alone, op="insert", n=1)
    stage.deliver()
    alice = stage.client()
    answer = await stage.join(alice, granted, alone, unknown)
    assert list(answer["joined"]) == [str(granted.uuid)]
    assert code(answer, alone) == code(answer, unknown) == "forbidden"
    assert [m.room for m in stage.rooms.of_member(alice).values()] == [granted]


@pytest.mark.parametrize("subject", ["user:alice", "group:staff", "tenant:*"])
async def test_a_grant_to_any_of_the_callers_subjects_opens_the_room(stage, subject):
    room = stage.room()
    stage.database.grant(room, subject, Role.WRITER)
    stage.deliver()
    answer = await stage.join(stage.client(groups=["staff"]), room)
    assert joined(answer, room)["role"] == "writer"


@pytest.mark.parametrize("subject", ["user:bob", "group:other", "client:alice"])
async def test_a_grant_to_somebody_else_opens_nothing(stage, subject):
    room = stage.room()
    stage.database.grant(room, subject)
    stage.deliver()
    answer = await stage.join(stage.client(groups=["staff"]), room)
    assert code(answer, room) == "forbidden"


async def test_the_same_uuid_of_another_tenant_is_another_room(stage):
    ours, theirs = stage.room(1, "acme"), stage.room(1, "globex")
    stage.database.grant(ours, "tenant:*")
    stage.deliver()
    alice, carol = stage.client(), stage.client("user:carol", tenant="globex")
    assert str(ours.uuid) in (await stage.join(alice, ours))["joined"]
    assert code(await stage.join(carol, theirs), theirs) == "forbidden"
    stage.database.write(theirs)
    stage.deliver()
    assert alice.outbox.changes == []


async def test_an_expired_grant_opens_nothing(stage):
    room = stage.room()
    stage.database.grant(room, expires_in=10)
    stage.deliver()
    await stage.clock.advance(10)
    assert code(await stage.join(stage.client(), room), room) == "forbidden"


async def test_a_snapshot_comes_only_when_asked_for_and_holds_the_wanted_collections(stage):
    room = stage.room()
    stage.database.grant(room)
    stage.database.write(room, "notes", op="insert", n=1)
    stage.database.write(room, "tasks", op="insert", n=2)
    stage.deliver()
    uuid = str(room.uuid)
    assert "snapshot" not in joined(await stage.join(stage.client(), room), room)
    everything = joined(await stage.join(stage.client(), room, snapshot=True), room)
    assert everything["snapshot"] == {"notes": [{"uuid": uuid, "n": 1}], "tasks": [{"uuid": uuid, "n": 2}]}
    some = joined(await stage.join(stage.client(), room, snapshot=True, collections=["tasks"]), room)
    assert some["snapshot"] == {"tasks": [{"uuid": uuid, "n": 2}]}


async def test_only_the_wanted_collections_are_followed_and_replayed(stage):
    room = stage.room()
    stage.database.grant(room)
    start = cursor.after(stage.database.at())
    old = [stage.database.write(room, name) for name in ("notes", "tasks")]
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room, since=start, collections=["tasks"])
    live = [stage.database.write(room, name) for name in ("notes", "tasks")]
    stage.deliver()
    assert alice.outbox.changes == [("tasks", old[1].token), ("tasks", live[1].token)]


async def test_documents_are_read_only_for_a_join_that_needs_them(stage):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    await stage.join(stage.client(), room)
    await stage.join(stage.client(), room, since=stage.history.position)
    await stage.join(stage.client(), room, snapshot=True)
    assert [request.with_documents for request in stage.reader.requests] == [frozenset(), frozenset(), {room.uuid}]


async def test_one_call_is_one_round_of_reads_however_many_rooms(stage):
    rooms = [stage.room(number) for number in range(MOST_PER_CALL)]
    for room in rooms:
        stage.database.grant(room)
    stage.deliver()
    answer = await stage.join(stage.client(), *rooms, rooms[0])
    assert len(answer["joined"]) == MOST_PER_CALL
    assert len(stage.reader.rounds) == 1


async def test_however_many_sockets_join_together_there_are_two_rounds_of_reads_at_most(stage):
    rooms = [stage.room(number) for number in range(10)]
    for room in rooms:
        stage.database.grant(room, "group:staff")
    stage.deliver()
    clients = [stage.client(f"user:{number}", groups=["staff"]) for number in range(200)]
    stop = stage.stop_reader("before_time")
    joins = [stage.start_join(clients[0], rooms[0], snapshot=True)]
    await stop.reached.wait()
    joins += [stage.start_join(client, rooms[n % 10], snapshot=True) for n, client in enumerate(clients[1:], 1)]
    stop.go()
    await asyncio.wait_for(asyncio.gather(*joins), 5)
    assert all(len(stage.answer(client)["joined"]) == 1 for client in clients)
    assert [len(requests) for _, requests in stage.reader.rounds] == [1, 166, 33]


async def test_of_joins_that_are_looked_at_together_each_is_decided_by_its_own_grants(stage):
    room = stage.room()
    stage.database.grant(room, "group:writers", Role.WRITER)
    stage.database.grant(room, "group:readers")
    stage.database.write(room, op="insert", n=666)
    stage.deliver()
    writer, reader, nobody = (
        stage.client("user:w", groups=["writers"]),
        stage.client("user:r", groups=["readers"]),
        stage.client("user:n"),
    )
    joins = [stage.start_join(client, room, snapshot=True) for client in (writer, reader, nobody)]
    await asyncio.wait_for(asyncio.gather(*joins), 5)
    assert len(stage.reader.rounds) == 1
    assert joined(stage.answer(writer), room)["role"] == "writer"
    assert joined(stage.answer(reader), room)["role"] == "reader"
    assert joined(stage.answer(reader), room)["snapshot"] == joined(stage.answer(writer), room)["snapshot"]
    assert code(stage.answer(nobody), room) == "forbidden"
    assert "666" not in "".join(nobody.outbox.texts)
    stage.database.revoke(room, "group:readers")
    stage.deliver()
    assert [m.member for m in stage.rooms.of_room(room)] == [writer]


async def test_a_documents_text_is_made_once_for_those_who_are_looked_at_together(stage):
    room = stage.room()
    stage.database.grant(room, "tenant:*")
    stage.database.write(room, "notes", op="insert", n=1)
    stage.database.write(room, "tasks", op="insert", n=2)
    stage.deliver()
    everything, some = Wish(snapshot=True), Wish(snapshot=True, collections=frozenset({"tasks"}))
    outcomes = await asyncio.gather(
        *(
            stage.joins.join(stage.client(f"user:{number}"), [room.uuid], wish)
            for number, wish in enumerate([everything, everything, some])
        )
    )
    one, same, other = (outcome.joined[str(room.uuid)]["snapshot"] for outcome in outcomes)
    assert one is same
    assert extjson.loads(extjson.dumps(one)).keys() == {"notes", "tasks"}
    assert extjson.loads(extjson.dumps(other)).keys() == {"tasks"}


async def test_a_call_for_too_many_rooms_is_refused_whole_and_reads_nothing(stage):
    rooms = [stage.room(number) for number in range(MOST_PER_CALL + 1)]
    alice = stage.client()
    answer = await stage.join(alice, *rooms)
    assert {refusal["code"] for refusal in answer["refused"].values()} == {"too_many_rooms"}
    assert len(answer["refused"]) == len(rooms)
    assert stage.reader.rounds == []
    assert not stage.rooms.of_member(alice)


async def test_past_a_sockets_rooms_only_new_ones_are_refused(staged):
    stage = staged(most_rooms=2)
    rooms = [stage.room(number) for number in range(3)]
    for room in rooms:
        stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, rooms[0])
    answer = await stage.join(alice, *rooms)
    assert list(answer["joined"]) == [str(room.uuid) for room in rooms[:2]]
    assert code(answer, rooms[2]) == "too_many_rooms"
    await stage.aclose()


@pytest.mark.parametrize("trouble", ["lag", "dead"])
async def test_nobody_is_let_in_while_the_stream_is_behind(stage, trouble):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    if trouble == "lag":
        stage.progress.behind = 15.1
    else:
        stage.progress.live = False
    alice = stage.client()
    assert code(await stage.join(alice, room), room) == "unavailable"
    assert not stage.rooms.of_member(alice)


async def test_nobody_is_let_in_while_the_grants_cannot_be_read(stage):
    async def fail():
        raise Unavailable

    stage.reader.after_time = fail
    stage.deliver()
    alice, room = stage.client(), stage.room()
    assert code(await stage.join(alice, room), room) == "unavailable"
    assert not stage.rooms.of_member(alice)


async def test_a_look_that_takes_too_long_is_refused_and_leaves_nothing_behind(stage, settled):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    stop = stage.stop_reader("before_time")
    alice = stage.client()
    join = stage.start_join(alice, room)
    await stop.reached.wait()
    await stage.clock.advance(9.9)
    assert not join.done()
    await stage.clock.advance(0.2)
    assert join.done()
    assert code(stage.answer(alice), room) == "unavailable"
    assert not stage.rooms.of_member(alice)


async def test_a_join_that_is_cancelled_leaves_nothing_behind(stage):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    stop = stage.stop_reader("after_time")
    alice = stage.client()
    join = stage.start_join(alice, room)
    await stop.reached.wait()
    join.cancel()
    with pytest.raises(asyncio.CancelledError):
        await join
    assert not stage.rooms.of_member(alice)
    assert not alice.busy.locked()


# -- the join's gap, at every place where it waits --
#
# `before_time`: registered, the snapshot's time not fixed yet. `after_time`: fixed, the reply under way.
# `lock`: the socket is busy with another request. In each of them the stream may be behind the snapshot or ahead.

STEPS = ["lock", "before_time", "after_time"]


class Stopped:
    """A join that stands at one of its awaits. `finish` lets it go on and gives its answer."""

    def __init__(self, stage, step, *rooms, client=None, **options):
        self.stage, self.step = stage, step
        self.client = client or stage.client()
        self.rooms, self.options = rooms, options

    async def __aenter__(self):
        if self.step == "lock":
            await self.client.busy.acquire()
            self.task = self.stage.start_join(self.client, *self.rooms, **self.options)
            await asyncio.sleep(0)
        else:
            self.stop = self.stage.stop_reader(self.step)
            self.task = self.stage.start_join(self.client, *self.rooms, **self.options)
            await self.stop.reached.wait()
        assert not self.task.done()
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.wait([self.task])

    async def finish(self):
        if self.step == "lock":
            self.client.busy.release()
        else:
            self.stop.go()
        await asyncio.wait_for(self.task, 5)
        return self.stage.answer(self.client)


@pytest.fixture(params=STEPS)
def step(request):
    return request.param


@pytest.fixture(params=["stream behind", "stream ahead"])
def stream(request):
    return request.param


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


# -- resuming --


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


# -- joining again --


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


# -- resync --


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


# -- a caller whose groups have changed --


async def test_new_groups_take_away_and_add_without_losing_an_event(stage):
    mine, staff, both = (stage.room(number) for number in (1, 2, 3))
    stage.database.grant(mine, "user:alice")
    stage.database.grant(staff, "group:staff", Role.OWNER)
    stage.database.grant(both, "user:alice")
    stage.database.grant(both, "group:staff", Role.OWNER)
    stage.deliver()
    alice = stage.client(groups=["staff"])
    await stage.join(alice, mine, staff, both)
    principal = stage.principal(groups=["guests"], known_as="new")
    await stage.joins.reauthorize(alice, principal)
    assert [m[1]["uuid"] for m in alice.outbox.named("$revoked")] == [str(staff.uuid)]
    assert stage.rooms.get(alice, both).role is Role.READER
    assert alice.principal is principal
    writes = [stage.database.write(room) for room in (mine, staff, both)]
    stage.deliver()
    assert [token for _, token in alice.outbox.changes] == [writes[0].token, writes[2].token]
    # From now on it is the new groups' grants that count.
    stage.database.revoke(mine, "user:alice")
    stage.database.grant(both, "group:guests", Role.WRITER)
    stage.deliver()
    assert list(stage.rooms.of_member(alice)) == [both]
    assert stage.rooms.get(alice, both).role is Role.WRITER


async def test_a_revoke_while_the_new_groups_are_applied_is_not_undone(stage, stream):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    stop = stage.stop_reader("after_time")
    work = asyncio.create_task(stage.joins.reauthorize(alice, stage.principal(groups=["guests"])))
    await stop.reached.wait()
    stage.database.revoke(room)
    if stream == "stream ahead":
        stage.deliver()
    stop.go()
    await work
    stage.deliver()
    stage.database.write(room)
    stage.deliver()
    assert alice.outbox.changes == []
    assert len(alice.outbox.named("$revoked")) == 1


async def test_a_group_that_was_lost_counts_at_once_even_if_nothing_can_be_read(stage, settled):
    mine, staff = stage.room(1), stage.room(2)
    stage.database.grant(mine)
    stage.database.grant(staff, "group:staff")
    stage.deliver()
    alice = stage.client(groups=["staff"])
    await stage.join(alice, mine, staff)

    async def fail():
        raise OverflowError

    stage.reader.before_time = fail
    reads = len(stage.reader.rounds)
    await stage.joins.reauthorize(alice, stage.principal())
    assert [m[1] for m in alice.outbox.named("$revoked")] == [{"uuid": str(staff.uuid), "reason": "revoked"}]
    assert len(stage.reader.rounds) == reads
    stage.database.write(mine, n=1)
    stage.database.write(staff, n=666)
    stage.deliver()
    assert [m[1]["uuid"] for m in alice.outbox.messages if m[0] == "notes"] == [str(mine.uuid)]


async def test_a_room_whose_new_groups_cannot_be_looked_up_gives_nothing_until_they_are(stage, settled):
    staff = stage.room()
    for group in ("staff", "guests"):
        stage.database.grant(staff, f"group:{group}")
    stage.deliver()
    alice = stage.client(groups=["staff"])
    await stage.join(alice, staff)
    works = stage.reader.before_time

    async def fail():
        raise Unavailable

    stage.reader.before_time = fail
    await stage.joins.reauthorize(alice, stage.principal(groups=["guests"]))
    write = stage.database.write(staff, n=1)
    stage.deliver()
    assert alice.outbox.changes == []
    assert alice.outbox.named("$revoked") == []
    stage.reader.before_time = works
    await stage.clock.advance(10)
    assert (await resynced(alice))["reason"] == "access"
    assert stage.rooms.get(alice, staff).active
    assert write.token not in [token for _, token in alice.outbox.changes]


async def test_a_room_that_cannot_be_decided_is_left_and_the_others_are_not(stage, settled):
    rooms = [stage.room(number) for number in range(5)]
    for room in rooms:
        stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, *rooms)

    async def poison(tenant, requests, read=stage.reader.read):
        if any(rooms[2].uuid in request.uuids for request in requests):
            raise OverflowError
        return await read(tenant, requests)

    stage.reader.read = poison
    stage.fanout.gap("history_lost")
    for _ in range(20):
        await stage.clock.advance(5)
    left = [m[1] for m in alice.outbox.named("$revoked")]
    assert left == [{"uuid": str(rooms[2].uuid), "reason": "unavailable"}]
    assert {m[1]["uuid"] for m in alice.outbox.named("$resync")} == {
        str(room.uuid) for room in rooms if room is not rooms[2]
    }


async def test_new_groups_that_cannot_be_applied_for_the_stream_are_not_waited_for_for_ever(stage):
    room = stage.room()
    stage.database.grant(room)
    stage.deliver()
    alice = stage.client()
    await stage.join(alice, room)
    stage.database.write(room)
    work = asyncio.create_task(stage.joins.reauthorize(alice, stage.principal(groups=["guests"])))
    await stage.progress.waited.wait()
    await stage.clock.advance(11)
    await work
    # Its newest state is read without waiting for the stream.
    assert (await resynced(alice))["reason"] == "access"


# -- pure edges --


async def test_a_grant_that_ends_between_the_decision_and_the_answer_still_answers_first(stage):
    room = stage.room()
    stage.database.grant(room, expires_in=10)
    stage.deliver()
    readings = iter([stage.clock.now])

    def clock():
        # The first reading is the decision's; by the second the grant is over.
        return next(readings, stage.clock.now + 10 * stage.clock.second)

    stage.memberships.clock = clock
    alice = stage.client()
    outcome = await stage.joins.join(alice, [room.uuid], Wish())
    assert list(outcome.joined) == [str(room.uuid)]
    assert alice.outbox.messages == []
    await stage.clock.advance(0)
    assert [m[0] for m in alice.outbox.messages] == ["$revoked"]


async def test_a_pre_image_that_is_missing_counts_as_a_new_grant(stage):
    room = stage.room()
    stage.database.grant(room)
    start = cursor.after(stage.database.at())
    stage.database.write(room)
    stage.database.grant(room, role=Role.OWNER)
    stage.database.log[-1] = replace(stage.database.log[-1], before=None)
    stage.deliver()
    alice = stage.client()
    assert "resync" not in joined(await stage.join(alice, room, since=start), room)
    assert (await resynced(alice))["reason"] == "access"


def test_what_was_encoded_for_one_state_of_a_tenant_is_not_shown_to_who_is_under_another():
    uuid = UUID(int=1)
    stored = [bson.encode({"n": 1})]
    snapshot = Snapshot(Timestamp(1, 1), {uuid: []}, {uuid: {"notes": stored, "test": stored}})
    both = Tenant("acme", "acme_db", {"notes": "_id", "test": "uuid"})
    shown = [
        set(orjson.loads(orjson.dumps(documents_of(snapshot, uuid, None, tenant))))
        for tenant in (both, replace(both, collections={"notes": "_id"}))
    ]
    assert shown == [{"notes", "test"}, {"notes"}]
