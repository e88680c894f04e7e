"""What the server does of its own accord, and what it refuses administrators, is on record."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import httpx
import pytest

from livedocs.errors import Unavailable
from livedocs.store import audit_writer
from livedocs.store.audit import Actor, Entry
from livedocs.store.audit_writer import AuditWriter
from livedocs.store.connection import connect


@pytest.fixture(scope="module")
def audit(mongo, deployment):
    return mongo[deployment.control_database]["audit"]


async def recorded(audit, query, count=1):
    async with asyncio.timeout(10):
        while audit.count_documents(query) < count:
            await asyncio.sleep(0.05)
    return list(audit.find(query))


@pytest.fixture(scope="module")
def watchful(start_server):
    return start_server(introspection_interval=0.5, introspection_cache=0)


async def test_a_socket_whose_token_was_revoked_is_on_record_without_the_token(
    open_peer, watchful, oauth, audit, server
):
    token = watchful.token("bob")
    peer = await open_peer(None, url=watchful.ws_url, headers={"Authorization": f"Bearer {token}"})
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as provider:
        await provider.post("/dev/revoke", json={"token": token})
    await peer.until(peer.closed.is_set)
    [entry] = await recorded(audit, {"action": "session.end", "detail.reason": "token_revoked"})
    assert (entry["actor"], entry["subject"], entry["tenant"]) == ("system", "user:bob", "acme")
    assert entry["detail"]["address"] == "127.0.0.1"
    assert token not in repr(entry)


async def test_a_reauth_with_somebody_elses_token_is_on_record_and_an_ordinary_end_is_not(
    open_peer, server, audit
):
    await (await open_peer("alice")).close()
    peer = await open_peer("alice")
    await peer.call("Reauth", {"token": server.token("bob")})
    await peer.until(peer.closed.is_set)
    await recorded(audit, {"action": "session.end", "detail.reason": "reauth_refused", "subject": "user:alice"})
    assert audit.count_documents({"action": "session.end", "detail.reason": "gone"}) == 0


async def test_an_administrators_work_that_is_refused_is_on_record(api, audit):
    uuid = str(uuid4())
    bob = api("bob")
    answers = [
        await bob.put(f"/v1/grants/{uuid}/user:bob", json={"role": "owner"}),
        await bob.get("/v1/admin/audit"),
        await bob.post("/v1/admin/tenants", json={"slug": "mine"}),
        await bob.delete("/v1/admin/sessions/x"),
        await bob.post(f"/v1/grants/{uuid}:transfer", json={"from": "user:alice", "to": "user:bob"}),
    ]
    assert {answer.status_code for answer in answers} == {403}
    # Many at once are one entry.
    items = [{"uuid": uuid, "subject": f"user:{name}", "role": "owner"} for name in ("bob", "carol")]
    bulk = (await bob.post("/v1/grants:bulk", json={"items": items})).json()
    assert [item["code"] for item in bulk["results"]] == ["forbidden"] * 2
    # Reading what one may not read is no administration.
    assert (await bob.get(f"/v1/docs/notes/{uuid}")).status_code == 403
    entries = await recorded(audit, {"action": "admin.refused", "actor": "user:bob"}, 6)
    assert [(one["detail"]["method"], one["detail"]["code"]) for one in entries] == [
        ("PUT", "forbidden"),
        ("GET", "insufficient_scope"),
        ("POST", "insufficient_scope"),
        ("DELETE", "insufficient_scope"),
        ("POST", "forbidden"),
        ("POST", "forbidden"),
    ]
    assert {one["address"] for one in entries} == {"127.0.0.1"}
    assert all(one["tenant"] == "acme" for one in entries)


async def test_whoever_tries_again_and_again_does_not_fill_the_trail(api, audit):
    carol = api("carol")
    for _ in range(60):
        assert (await carol.get("/v1/admin/audit")).status_code == 403
    await recorded(audit, {"action": "admin.refused", "actor": "user:carol"}, 20)
    assert audit.count_documents({"action": "admin.refused", "actor": "user:carol"}) <= 24


async def test_entries_wait_while_mongodb_is_away_and_the_number_lost_is_told(deployment, audit, monkeypatch):
    client = connect(deployment.settings())
    journal = AuditWriter(client, deployment.control_database)
    monkeypatch.setattr(audit_writer, "_MOST", 3)
    monkeypatch.setattr(audit_writer, "_SHARE", 1)
    try:
        for number in range(5):
            journal.note(Actor("user:dora"), Entry("admin.refused", "acme", detail={"number": number}))
        write = journal._audit.write

        async def away(*_):
            raise Unavailable

        monkeypatch.setattr(journal._audit, "write", away)
        with pytest.raises(Unavailable):
            await journal.flush()
        monkeypatch.setattr(journal._audit, "write", write)
        await journal.aclose()
    finally:
        await client.close()
    kept = list(audit.find({"actor": "user:dora"}).sort("detail.number"))
    assert [one["detail"]["number"] for one in kept] == [0, 1, 2]
    [lost] = audit.find({"action": "audit.lost"})
    assert lost["detail"] == {"count": 2}


async def test_every_grant_revoke_and_document_is_on_record_with_who_whom_what_and_where(api, audit):
    uuid = str(uuid4())
    alice = api("alice")
    await alice.post("/v1/docs/notes", json={"uuid": uuid, "secret": "not for the trail"})
    await alice.put(f"/v1/grants/{uuid}/user:bob", json={"role": "reader"})
    await alice.delete(f"/v1/grants/{uuid}/user:bob")
    await alice.delete(f"/v1/docs/notes/{uuid}")
    found = await api("ada").get("/v1/admin/audit", params={"uuid": uuid})
    entries = found.json()["entries"][::-1]
    assert {(one["actor"], one["address"], one["uuid"]) for one in entries} == {("user:alice", "127.0.0.1", uuid)}
    assert [(one["action"], one.get("subject")) for one in entries if one["action"].startswith("grant")][-2:] == [
        ("grant.set", "user:bob"),
        ("grant.remove", "user:bob"),
    ]
    assert {"document.create", "document.delete"} <= {one["action"] for one in entries}
    assert "not for the trail" not in json.dumps(entries)
