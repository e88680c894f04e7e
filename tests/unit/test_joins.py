"""What a join answers, and when it is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import bson
import orjson
import pytest
from bson.timestamp import Timestamp
from tests.unit.joining import code, joined, resynced

from livedocs.changes import cursor
from livedocs.codec import extjson
from livedocs.errors import Unavailable
from livedocs.live.joins import MOST_PER_CALL, Wish
from livedocs.live.preparation import documents_of
from livedocs.model import Role, Snapshot, Tenant


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
