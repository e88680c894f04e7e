"""People who come to a group, leave it and come back, over real sockets, with a real OAuth service."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

STAFF = "group:staff"


@pytest.fixture(scope="module")
def watchful(start_server):
    """A server that introspects live tokens every half second."""
    return start_server(introspection_interval=0.5, introspection_cache=0)


@pytest.fixture(scope="module")
def second(start_server):
    """Another process beside it."""
    return start_server(introspection_interval=0.5, introspection_cache=0)


@pytest.fixture
async def put(oauth):
    """`await put("alice", "staff")` has the OAuth service say that she is in that group, and in no other."""
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as provider:

        async def into(user: str, *groups: str) -> None:
            answer = await provider.post(f"/dev/users/{user}", json={"groups": list(groups)})
            assert answer.status_code == 200

        yield into
        await into("alice")
        await into("bob", "staff")


@pytest.fixture
def connect(open_peer, watchful):
    async def connect(user, server=watchful):
        return await open_peer(None, url=server.ws_url, headers={"Authorization": f"Bearer {server.token(user)}"})

    return connect


@pytest.fixture
def room(grant):
    uuid = uuid4()
    grant(uuid, STAFF)
    return uuid


def write(acme, uuid, n):
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": n}}, upsert=True)


async def joined(peer, uuid, **options):
    answer = await peer.call("JoinRoom", [str(uuid)], *([options] if options else []))
    return answer["joined"][str(uuid)], answer["ticket"]


async def told(peer, count):
    return [(await peer.expect("notes"))[0]["n"] for _ in range(count)]


async def newest(peer):
    """The ticket that the next introspection brings."""
    peer.tickets.clear()
    await peer.until(lambda: bool(peer.tickets))
    return peer.tickets[-1]


async def test_a_newcomer_replays_nothing_with_a_colleagues_cursor_and_ticket(connect, put, room, acme):
    await put("bob", "staff")
    await put("alice")
    bob = await connect("bob")
    cursor, ticket = (await joined(bob, room))[0]["cursor"], (await joined(bob, room))[1]
    write(acme, room, "secret")
    assert await told(bob, 1) == ["secret"]
    # She is online all along, and has a ticket of her own that says nothing of the group.
    alice = await connect("alice")
    own = (await alice.call("JoinRoom", [str(room)]))["ticket"]
    await put("alice", "staff")
    for options in ({}, {"ticket": ticket}, {"ticket": await newest(bob)}, {"ticket": own}):
        newcomer = await connect("alice")
        answer, _ = await joined(newcomer, room, since=cursor, **options)
        assert answer["resumed"] == 0
        [body] = await newcomer.expect("$resync")
        # The newest state is hers to see; how it came about is not.
        assert (body["reason"], body["snapshot"]["notes"]) == ("access", [{"uuid": str(room), "n": "secret"}])
        write(acme, room, "secret")
    await newcomer.settled()
    assert [event for event in newcomer.seen if event[0] == "notes"] == []


async def test_a_member_who_returns_replays_everything_again_and_again_at_either_process(
    connect, room, acme, second, watchful
):
    bob = await connect("bob")
    answer, ticket = await joined(bob, room)
    first = answer["cursor"]
    for turn, server in enumerate([second, watchful, second]):
        await bob.close()
        write(acme, room, turn)
        bob = await connect("bob", server)
        answer, ticket = await joined(bob, room, since=first, ticket=ticket)
        assert answer["resumed"] == turn + 1
        assert await told(bob, turn + 1) == list(range(turn + 1))
    assert not [event for event in bob.seen if event[0] == "$resync"]


async def test_a_ticket_comes_with_each_introspection_and_counts(connect, put, room, acme):
    await put("bob", "staff")
    bob = await connect("bob")
    answer, _ = await joined(bob, room)
    later = await newest(bob)
    await bob.close()
    write(acme, room, 1)
    again = await connect("bob")
    answer, _ = await joined(again, room, since=answer["cursor"], ticket=later)
    assert answer["resumed"] == 1


async def test_a_new_token_brings_a_ticket(connect, put, room, server):
    await put("bob", "staff")
    # Here nothing is introspected for half a minute.
    bob = await connect("bob", server)
    await joined(bob, room)
    await bob.call("Reauth", {"token": server.token("bob")})
    assert len(bob.tickets) == 1


async def test_a_group_lost_and_regained_is_not_bridged_by_a_ticket_of_before(connect, put, room, acme):
    await put("bob", "staff")
    bob = await connect("bob")
    answer, old = await joined(bob, room)
    await put("bob")
    await bob.until(lambda: any(event[0] == "$revoked" for event in bob.events), 10)
    write(acme, room, "while he was out")
    await put("bob", "staff")
    between = await newest(bob)
    for ticket in (old, between):
        again = await connect("bob")
        resumed, _ = await joined(again, room, since=answer["cursor"], ticket=ticket)
        assert resumed["resumed"] == 0
        assert (await again.expect("$resync"))[0]["reason"] == "access"


async def test_a_client_that_knows_nothing_of_tickets_gets_the_state_instead(connect, put, grant, room, acme):
    await put("bob", "staff")
    own = uuid4()
    grant(own, "user:bob")
    bob = await connect("bob")
    cursors = {uuid: (await joined(bob, uuid))[0]["cursor"] for uuid in (room, own)}
    await bob.close()
    write(acme, room, 1)
    write(acme, own, 1)
    again = await connect("bob")
    assert (await joined(again, own, since=cursors[own]))[0]["resumed"] == 1
    assert await told(again, 1) == [1]
    assert (await joined(again, room, since=cursors[room]))[0]["resumed"] == 0
    assert (await again.expect("$resync"))[0]["reason"] == "access"
    write(acme, room, 2)
    assert await told(again, 1) == [2]
