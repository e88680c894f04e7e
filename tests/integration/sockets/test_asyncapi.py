"""The AsyncAPI document against a running server: every message of it goes over the wire, as it is described."""

from __future__ import annotations

import asyncio
import html
import json
from datetime import UTC, datetime
from uuid import uuid4

import httpx

from livedocs.http.socket_contract import MESSAGES, OPERATIONS


async def gone_away(peer):
    """Wait until the server has said that the socket will be closed."""
    await peer.until(lambda: any(event[0] == "$goaway" for event in peer.seen) or peer.closed.is_set())


async def test_every_message_that_the_document_describes_is_sent_as_it_says(
    start_server, open_peer, acme, grant, server
):
    # Whatever arrives is compared with the document by the peers themselves: see conftest.py.
    peers = []

    async def opened(user, **options):
        peers.append(await open_peer(user, **options))
        return peers[-1]

    uuid, other = uuid4(), uuid4()
    grant(uuid, "user:alice")
    grant(other, "user:alice")
    alice = await opened("alice")
    await alice.call("JoinRoom", [str(uuid), str(other), str(uuid4()), "x"], {"snapshot": True})
    inserted = acme.test.insert_one({"uuid": uuid, "a": 1, "list": ["x" * 20] * 9, "at": datetime.now(UTC)})
    acme.test.update_one({"_id": inserted.inserted_id}, {"$set": {"b.c": 2}, "$unset": {"a": 1}})
    acme.test.update_one({"_id": inserted.inserted_id}, [{"$set": {"list": {"$slice": ["$list", 8]}}}])
    acme.test.replace_one({"_id": inserted.inserted_id}, {"uuid": uuid})
    with acme.client.start_session() as session, session.start_transaction():
        acme.notes.insert_one({"_id": uuid}, session=session)
        acme.notes.delete_one({"_id": uuid}, session=session)
    ops = ["insert", "update", "update", "replace", "insert", "delete"]
    metas = [(await alice.expect(name))[1] for name in ["test"] * 4 + ["notes"] * 2]
    assert [meta["op"] for meta in metas] == ops
    assert metas[2]["truncated"] == [{"field": "list", "newSize": 8}]
    assert "txn" in metas[4]
    cursor = metas[0]["id"]
    grant(other, "user:alice", None)
    await alice.expect("$revoked")
    assert (await alice.call("JoinRoom", [str(uuid)], {"since": cursor}))["joined"][str(uuid)]["resumed"] == 5
    window = {"since": server.deployment.cursors().seal("82" + "0" * 16 + "FF")}
    assert (await alice.call("JoinRoom", [str(uuid)], window))["joined"][str(uuid)]["resync"] == "window"
    # Without an acknowledgement.
    await alice.emit("JoinRoom", [str(uuid), str(uuid4())], {"snapshot": True})
    await alice.emit("Nonsense")
    await alice.until(lambda: {"refused", "resync"} <= alice.messages)
    await alice.call("JoinRoom", "no list")
    await alice.call("LeaveRoom", [str(uuid), "x"])
    await alice.call("LeaveRoom", "no list")
    await alice.call("Check", {"any": ["thing"]})
    await alice.call("Reauth", {"token": server.token("alice")})
    await alice.call("Reauth", {"token": server.token("bob")})
    await gone_away(alice)

    short = await opened(None, headers={"Authorization": f"Bearer {server.token('alice', ttl=4)}"})
    await short.expect("$expiring")
    await opened(None, connect_packet="40" + json.dumps({"token": "nonsense"}))
    await opened(None, connect_packet="40" + json.dumps({"token": server.token("bob")}))
    await opened("bob", connect_packet="40/other,")

    strict = start_server(limit_events_per_user=0.01, limit_joins_per_user=0.01, limit_burst=300)
    hasty = await opened("alice", url=strict.ws_url)
    await hasty.call("JoinRoom", [str(uuid4()) for _ in range(4)])
    told = (await hasty.call("JoinRoom", [str(uuid4())]))["refused"]
    assert {"code", "retry_after_ms"} == set(*told.values())
    assert await hasty.call("LeaveRoom", []) == {"left": []}
    for name in ("LeaveRoom", "JoinRoom", "Check", "Reauth"):
        assert (await hasty.call(name, []))["code"] == "rate_limited"
    await hasty.emit("LeaveRoom", [])
    await hasty.until(lambda: "refused" in hasty.messages)
    await asyncio.to_thread(strict.stop)
    await gone_away(hasty)

    received = {name for one in OPERATIONS.values() if one.action == "receive" for name in one.messages}
    seen = set().union(*(peer.messages for peer in peers))
    assert seen == set(MESSAGES) - received | {"check"}


async def test_a_server_shows_the_document_and_a_page_of_it(server):
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        document = (await client.get("/asyncapi.json")).json()
        assert document["asyncapi"] == "3.0.0"
        assert document["servers"]["this"]["host"] == server.url.removeprefix("http://")
        page = html.unescape((await client.get("/docs/socket")).text)
        assert '<a href="/docs/socket">' in (await client.get("/docs")).text
    for message in MESSAGES.values():
        assert message.title in page
    assert "://" not in page
    assert "`" not in page
