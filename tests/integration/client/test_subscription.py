"""Following documents through the client, over links and with tokens that end."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from livedocs.client import Change, Client, Refused, Retries, Revoked, Snapshot
from livedocs.errors import Disconnected, Forbidden, ServerUnreachable, TenantSuspended, Unauthenticated

QUICK = Retries(first=0.02)
WITHIN = 15.0


@pytest.fixture
async def note(docs):
    """A document that alice may read."""
    uuid = uuid4()
    await docs.documents.upsert("notes", uuid, {"n": 0}, grants={"user:alice": "reader"})
    return uuid


@pytest.fixture
async def alice(livedocs_server, link):
    async with Client(link.url, livedocs_server.oauth.token("alice"), retries=QUICK) as client:
        yield client


async def following(events, count):
    """The next events."""
    found = []
    async with asyncio.timeout(WITHIN):
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_a_snapshot_comes_first_and_then_each_change(docs, alice, note):
    async with alice.subscribe([note]) as events:
        (snapshot,) = await following(events, 1)
        assert isinstance(snapshot, Snapshot)
        assert (snapshot.uuid, snapshot.reason) == (note, "joined")
        assert snapshot.documents == {"notes": [{"uuid": str(note), "n": 0}]}
        await docs.documents.merge("notes", note, {"n": 1, "tags": ["a"]})
        await docs.documents.merge("notes", note, {"tags": None})
        await docs.documents.delete("notes", note)
        changes = await following(events, 3)
    assert [(change.collection, change.op) for change in changes] == [
        ("notes", "update"),
        ("notes", "update"),
        ("notes", "delete"),
    ]
    assert changes[0].fields == {"uuid": str(note), "n": 1, "tags": ["a"]}
    assert changes[1].removed == ("tags",)
    assert changes[0].at.tzinfo is not None


async def test_each_change_comes_once_and_in_order_however_often_the_link_is_cut(docs, alice, note, link):
    async def write():
        for number in range(1, 61):
            await docs.documents.merge("notes", note, {"n": number})
            if number % 12 == 0:
                link.cut()

    async with alice.subscribe([note]) as events:
        await following(events, 1)
        writing = asyncio.create_task(write())
        changes = await following(events, 60)
        await writing
    assert all(isinstance(change, Change) for change in changes)
    assert [change.fields["n"] for change in changes] == list(range(1, 61))
    assert link.opened > 3


async def test_another_subscription_goes_on_from_a_cursor(docs, alice, note):
    async with alice.subscribe([note]) as events:
        (snapshot,) = await following(events, 1)
    await docs.documents.merge("notes", note, {"n": 1})
    await docs.documents.merge("notes", note, {"n": 2})
    async with alice.subscribe([note], since={note: snapshot.cursor}) as events:
        changes = await following(events, 2)
        assert [change.fields["n"] for change in changes] == [1, 2]
        cursors = events.cursors
    async with alice.subscribe([note], since=cursors) as events:
        await docs.documents.merge("notes", note, {"n": 3})
        assert [change.fields["n"] for change in await following(events, 1)] == [3]


async def test_what_the_caller_has_not_been_given_is_behind_the_cursor(docs, alice, note, livedocs_sockets):
    async with alice.subscribe([note]) as events:
        await following(events, 1)
        for number in range(1, 6):
            await docs.documents.merge("notes", note, {"n": number})
        # The rest waits in the buffer by the time that the second one is taken.
        witness = await livedocs_sockets.connect("alice")
        await witness.expect_nothing()
        await following(events, 2)
        cursors = events.cursors
    async with alice.subscribe([note], since=cursors) as events:
        changes = await following(events, 3)
    assert [change.fields["n"] for change in changes] == [3, 4, 5]


async def test_a_cursor_that_is_none_is_made_up_for_by_a_snapshot(alice, note):
    async with alice.subscribe([note], since={note: "not a cursor"}) as events:
        (snapshot,) = await following(events, 1)
    assert isinstance(snapshot, Snapshot)


async def test_only_the_collections_asked_for_are_followed(docs, alice, note, livedocs_server):
    async with alice.subscribe([note], collections=[]) as events:
        (snapshot,) = await following(events, 1)
        assert snapshot.documents == {}


async def test_it_ends_when_the_last_document_may_not_be_seen_any_more(docs, admin, alice, note):
    other = uuid4()
    async with alice.subscribe([note, other]) as events:
        first, second = sorted(await following(events, 2), key=lambda event: event.uuid == note)
        assert isinstance(first, Refused)
        assert isinstance(first.error, Forbidden)
        assert isinstance(second, Snapshot)
        await admin.grants.delete(note, "user:alice")
        await docs.documents.merge("notes", note, {"n": 1})
        async with asyncio.timeout(WITHIN):
            assert [event async for event in events] == [Revoked(note, "revoked")]


async def test_a_new_token_is_given_before_the_old_one_ends(docs, livedocs_server, note, link):
    given = []

    def token():
        given.append(livedocs_server.oauth.token("alice", ttl=3))
        return given[-1]

    async with Client(link.url, token, retries=QUICK) as client, client.subscribe([note]) as events:
        await following(events, 1)
        async with asyncio.timeout(WITHIN):
            while len(given) < 3:
                await asyncio.sleep(0.05)
        await docs.documents.merge("notes", note, {"n": 1})
        (change,) = await following(events, 1)
    assert change.fields["n"] == 1
    assert link.opened == 1


async def test_a_revoked_token_is_replaced_and_nothing_is_missed(docs, livedocs_server, note, link):
    given = [livedocs_server.oauth.token("alice")]

    class Kept:
        """The same token until it is refused."""

        async def token(self, *, refused=None):
            if refused == given[-1]:
                given.append(livedocs_server.oauth.token("alice"))
            return given[-1]

    async with Client(link.url, Kept(), retries=QUICK) as client, client.subscribe([note]) as events:
        await following(events, 1)
        livedocs_server.oauth.revoke(given[-1])
        for number in range(1, 6):
            await docs.documents.merge("notes", note, {"n": number})
            await asyncio.sleep(0.1)
        changes = await following(events, 5)
        async with asyncio.timeout(WITHIN):
            while link.opened < 2:
                await asyncio.sleep(0.05)
    assert [change.fields["n"] for change in changes] == [1, 2, 3, 4, 5]


async def test_without_another_token_the_end_of_the_first_is_an_error(livedocs_server, note, link):
    token = livedocs_server.oauth.token("alice")
    async with Client(link.url, token, retries=QUICK) as client, client.subscribe([note]) as events:
        await following(events, 1)
        livedocs_server.oauth.revoke(token)
        with pytest.raises(Unauthenticated):
            await following(events, 1)
        with pytest.raises(Unauthenticated):
            await anext(events)


async def test_who_is_refused_is_told_at_once(livedocs_server, link, note):
    async with Client(link.url, "not-a-token", retries=QUICK) as client:
        with pytest.raises(Unauthenticated):
            async with client.subscribe([note]):
                pytest.fail("it was let in")
    # Another try with the same token would only be refused again.
    assert link.opened == 1
    await link.stop()
    async with Client(link.url, "not-a-token", retries=Retries(attempts=2, first=0.01)) as client:
        with pytest.raises(ServerUnreachable):
            async with client.subscribe([note]):
                pytest.fail("there is no server")


async def test_whom_an_administrator_sends_away_stays_away(livedocs_server, alice, note):
    ada = livedocs_server.http(livedocs_server.oauth.person("ada", scopes=["livedocs:admin"]))
    async with alice.subscribe([note]) as events:
        await following(events, 1)
        (session,) = ada.get("/v1/admin/sessions", params={"subject": "user:alice"}).json()["sessions"]
        ada.delete(f"/v1/admin/sessions/{session['sid']}").raise_for_status()
        with pytest.raises(Disconnected):
            await following(events, 1)


async def test_a_suspended_tenant_is_an_error(livedocs_server, docs, note, link):
    carol = livedocs_server.oauth.person("carol", tenant="globex")
    platform = livedocs_server.oauth.person("op", scopes=["livedocs:platform"])
    async with livedocs_server.client(livedocs_server.oauth.service("s", tenant="globex")) as service:
        await service.documents.upsert("notes", note, {"n": 0}, grants={"user:carol": "reader"})
    http = livedocs_server.http(platform)
    try:
        token = livedocs_server.oauth.token(carol)
        async with Client(link.url, token, retries=QUICK) as client, client.subscribe([note]) as events:
            await following(events, 1)
            http.post("/v1/admin/tenants/globex:suspend").raise_for_status()
            with pytest.raises(TenantSuspended):
                await following(events, 1)
    finally:
        http.post("/v1/admin/tenants/globex:resume").raise_for_status()


async def test_what_waits_for_a_slow_caller_is_bounded_and_nothing_of_it_is_lost(docs, alice, note):
    async with alice.subscribe([note], buffer=2) as events:
        await following(events, 1)
        for number in range(1, 31):
            await docs.documents.merge("notes", note, {"n": number})
        assert events._buffer.qsize() <= 2
        changes = await following(events, 30)
    assert [change.fields["n"] for change in changes] == list(range(1, 31))


async def closed(link):
    async with asyncio.timeout(WITHIN):
        while link._writers:
            await asyncio.sleep(0.01)


async def test_nothing_stays_open_behind_a_subscription(alice, note, link):
    async with alice.subscribe([note]):
        pass
    await closed(link)
    async with alice.subscribe([]) as events:
        assert [event async for event in events] == []
        # It has come to its end: that is as good as having been left.
        await closed(link)
    assert link.opened == 2


async def test_a_subscription_that_was_left_yields_nothing_more(alice, note):
    async with alice.subscribe([note]) as events:
        await following(events, 1)
        waiting = asyncio.create_task(following(events, 1))
        await asyncio.sleep(0)
    async with asyncio.timeout(WITHIN):
        assert await waiting == []
    assert [event async for event in events] == []
