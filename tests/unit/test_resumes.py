"""Resuming in a room that is entered through a group: what was written before one came to it is not replayed."""

from __future__ import annotations

import asyncio

from bson.timestamp import Timestamp

from livedocs.changes import cursor
from livedocs.live.protocol import Call

STAFF = "group:staff"


async def opened(stage, subject, *, groups=("staff",)):
    client = stage.client(subject, groups=groups)
    stage.tickets.seen(client, client.principal)
    return client


async def resynced(client):
    while not client.outbox.named("$resync"):
        await asyncio.sleep(0)
    return client.outbox.named("$resync")[-1][1]


def at(stage):
    return cursor.after(stage.database.at())


async def test_a_newcomer_to_a_group_does_not_replay_its_past_with_a_colleagues_cursor(stage):
    room = stage.room()
    stage.database.grant(room, STAFF)
    stage.deliver()
    bob = await opened(stage, "user:bob")
    answer = await stage.join(bob, room)
    since = answer["joined"][str(room.uuid)]["cursor"]
    secret = stage.database.write(room)
    stage.deliver()
    assert [token for _, token in bob.outbox.changes] == [secret.token]
    for ticket in (None, answer["ticket"], bob.outbox.named("ack")[-1][2]["ticket"]):
        alice = await opened(stage, "user:alice")
        asked = {"since": since} | ({} if ticket is None else {"ticket": ticket})
        joined = (await stage.join(alice, room, **asked))["joined"][str(room.uuid)]
        assert joined["resumed"] == 0
        told = await resynced(alice)
        assert (told["reason"], told["cursor"]) == ("access", at(stage))
        assert alice.outbox.changes == []


async def test_a_member_who_returns_with_a_ticket_replays_everything(stage):
    room = stage.room()
    stage.database.grant(room, STAFF)
    stage.deliver()
    first = await opened(stage, "user:alice")
    answer = await stage.join(first, room)
    stage.disconnect(first)
    missed = [stage.database.write(room) for _ in range(3)]
    stage.deliver()
    again = await opened(stage, "user:alice")
    since = answer["joined"][str(room.uuid)]["cursor"]
    joined = await stage.join(again, room, since=since, ticket=answer["ticket"])
    assert joined["joined"][str(room.uuid)]["resumed"] == 3
    assert [token for _, token in again.outbox.changes] == [change.token for change in missed]
    assert again.outbox.named("$resync") == []


async def test_what_was_written_before_the_first_look_stays_out_even_with_a_ticket(stage):
    room = stage.room()
    stage.database.grant(room, STAFF)
    before = stage.database.write(room)
    stage.deliver()
    first = await opened(stage, "user:alice")
    ticket = (await stage.join(first, stage.room(2)))["ticket"]
    after = stage.database.write(room)
    stage.deliver()
    again = await opened(stage, "user:alice")
    since = cursor.before(before.at)
    joined = await stage.join(again, room, since=since, ticket=ticket)
    assert joined["joined"][str(room.uuid)]["resumed"] == 1
    assert [token for _, token in again.outbox.changes] == [after.token]
    assert (await resynced(again))["reason"] == "access"


async def test_a_grant_to_the_caller_itself_needs_no_ticket(stage):
    room = stage.room()
    stage.database.grant(room, "user:alice")
    stage.database.grant(room, STAFF)
    stage.deliver()
    since = at(stage)
    stage.database.write(room)
    stage.deliver()
    alice = await opened(stage, "user:alice")
    assert (await stage.join(alice, room, since=since))["joined"][str(room.uuid)]["resumed"] == 1


async def test_nothing_missed_is_no_resync(stage):
    room = stage.room()
    stage.database.grant(room, STAFF)
    stage.deliver()
    alice = await opened(stage, "user:alice")
    answer = await stage.join(alice, room, since=at(stage))
    assert answer["joined"][str(room.uuid)]["resumed"] == 0
    await asyncio.sleep(0)
    assert alice.outbox.named("$resync") == []


async def test_a_group_that_comes_with_an_introspection_counts_from_the_look_at_the_rooms(stage):
    room = stage.room()
    stage.database.grant(room, "user:alice")
    stage.database.grant(room, STAFF)
    stage.deliver()
    alice = await opened(stage, "user:alice", groups=())
    answer = await stage.join(alice, room)
    before = stage.database.write(room)
    stage.deliver()
    principal = stage.principal(groups=["staff"])
    stage.tickets.seen(alice, principal)
    await stage.joins.reauthorize(alice, principal)
    assert alice.standing.since(STAFF) == stage.database.at()
    stage.tickets.renew(alice)
    ticket = alice.outbox.named("$ticket")[-1][1]["ticket"]
    stage.database.revoke(room, "user:alice")
    after = stage.database.write(room)
    stage.deliver()
    again = await opened(stage, "user:alice")
    joined = await stage.join(again, room, since=cursor.before(before.at), ticket=ticket)
    assert joined["joined"][str(room.uuid)]["resumed"] == 1
    assert again.outbox.changes == [("notes", after.token)]
    assert answer["ticket"] != ticket


async def test_a_room_joined_again_on_the_same_socket_goes_on_without_a_ticket(stage):
    room = stage.room()
    stage.database.grant(room, STAFF)
    stage.deliver()
    alice = await opened(stage, "user:alice")
    await stage.join(alice, room)
    stop = stage.stop_reader("after_time")
    joining = stage.start_join(alice, room)
    await stop.reached.wait()
    change = stage.database.write(room)
    stage.deliver()
    stop.go()
    await joining
    assert alice.outbox.changes == [("notes", change.token)]


async def test_a_forged_ticket_does_not_cost_the_join(stage):
    room = stage.room()
    stage.database.grant(room, "user:alice")
    stage.deliver()
    for ticket in ("", "forged", "t" + "A" * 400, "t" * 60_000, None):
        alice = await opened(stage, "user:alice")
        answer = await stage.join(alice, room, ticket=ticket)
        assert answer["joined"][str(room.uuid)]["role"] == "reader"
        assert answer["ticket"]


async def test_a_join_that_could_not_be_carried_out_takes_no_ticket_away(stage):
    room = stage.room()
    stage.database.grant(room, STAFF)
    stage.deliver()
    ticket = (await stage.join(await opened(stage, "user:alice"), room))["ticket"]
    alice = await opened(stage, "user:alice")
    stage.progress.live = False
    answer = await stage.join(alice, room, ticket=ticket)
    assert answer == {"joined": {}, "refused": {str(room.uuid): {"code": "unavailable"}}}
    stage.tickets.renew(alice)
    assert alice.outbox.named("$ticket") == []


async def test_a_ticket_that_is_no_text_is_a_bad_request(stage):
    for ticket in (5, {}, [], True):
        alice = await opened(stage, "user:alice")
        answer = await stage.join(alice, stage.room(), ticket=ticket)
        assert (answer["code"], answer["joined"], answer["refused"]) == ("bad_request", {}, {})


async def test_who_wants_no_answer_is_sent_no_ticket(stage):
    room = stage.room()
    stage.database.grant(room, "user:alice")
    stage.deliver()
    alice = await opened(stage, "user:alice")
    await stage.calls.answer(alice, Call("JoinRoom", ([str(room.uuid)],), None))
    stage.tickets.seen(alice, alice.principal)
    stage.tickets.renew(alice)
    assert alice.outbox.messages == []
    assert alice.standing.since("group:staff") >= Timestamp(0, 0)
