"""A caller whose groups have changed: what is taken away at once, and what is added."""

from __future__ import annotations

import asyncio

from tests.unit.joining import resynced

from livedocs.errors import Unavailable
from livedocs.model import Role


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
