"""Administration over HTTP, as it reaches the sockets of a running server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from uuid import uuid4

import pytest


async def shared(api, *, subject="user:bob", role="reader"):
    """The UUID of a document of alice's that the subject may see."""
    uuid = (await api("alice").post("/v1/docs/notes", json={"title": "First"})).json()["uuid"]
    await api("alice").put(f"/v1/grants/{uuid}/{subject}", json={"role": role})
    return uuid


async def sessions(api, **query):
    answer = await api("ada").get("/v1/admin/sessions", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_session_is_listed_with_its_rooms_and_disconnected_for_good(open_peer, api, mongo, deployment):
    uuid = await shared(api)
    bob = await open_peer("bob")
    await bob.call("JoinRoom", [uuid])
    [found] = (await sessions(api, uuid=uuid))["sessions"]
    assert (found["subject"], found["name"], found["address"]) == ("user:bob", "bob", "127.0.0.1")
    assert (found["room_count"], found["rooms"]) == (1, [{"uuid": uuid, "role": "reader"}])
    assert found["since"] < found["expires_at"]
    assert (await api("ada").delete(f"/v1/admin/sessions/{found['sid']}")).status_code == 204
    assert (await bob.expect("$goaway"))[0]["reason"] == "disconnected"
    await bob.until(bob.closed.is_set)
    again = await api("ada").delete(f"/v1/admin/sessions/{found['sid']}")
    assert (again.status_code, again.json()["code"]) == (404, "not_found")
    assert (await sessions(api, uuid=uuid))["sessions"] == []
    audit = mongo[deployment.control_database]["audit"]
    [entry] = audit.find({"action": "session.disconnect", "detail.sid": found["sid"]})
    assert (entry["actor"], entry["subject"]) == ("user:ada", "user:bob")


async def test_sessions_are_paged_in_the_order_of_their_coming(open_peer, api):
    for _ in range(3):
        await open_peer("alice")
    seen, cursor = [], None
    while True:
        page = await sessions(api, subject="user:alice", limit=2, **({"cursor": cursor} if cursor else {}))
        seen += page["sessions"]
        cursor = page["next"]
        if cursor is None:
            break
    assert len({found["sid"] for found in seen}) == len(seen) == 3
    assert [found["since"] for found in seen] == sorted(found["since"] for found in seen)
    assert page["process"]
    assert (await api("ada").get("/v1/admin/sessions", params={"cursor": "x"})).json()["code"] == "invalid_cursor"


async def test_sessions_of_another_tenant_are_neither_seen_nor_ended(open_peer, api):
    carol = await open_peer("carol")
    assert "user:carol" not in {found["subject"] for found in (await sessions(api))["sessions"]}
    mine = (await sessions(api, subject="user:carol"))["sessions"]
    assert mine == []
    assert (await carol.call("Check", 1)) == 1


async def test_an_explanation_names_the_sockets_and_takes_their_groups(open_peer, api):
    uuid = await shared(api, subject="group:staff", role="writer")
    path = f"/v1/grants/{uuid}/explain"
    before = (await api("ada").get(path, params={"subject": "user:bob"})).json()
    assert (before["groups"]["source"], before["allowed"]) == ("unknown", False)
    bob = await open_peer("bob")
    await bob.call("JoinRoom", [uuid])
    found = (await api("ada").get(path, params={"subject": "user:bob"})).json()
    assert found["groups"] == {"source": "sockets", "names": ["staff"]}
    assert (found["allowed"], found["role"]) == (True, "writer")
    [held] = found["sockets"]["held"]
    assert (held["subject"], held["role"], held["address"]) == ("user:bob", "writer", "127.0.0.1")
    assert held["sid"]
    assert (found["sockets"]["in_room"], found["sockets"]["complete"]) == (1, True)
    alone = (await api("ada").get(path, params={"subject": "user:alice"})).json()["sockets"]
    assert (alone["in_room"], alone["of_subject"], alone["held"]) == (1, 0, [])
    # The owner learns neither that bob is there nor in which groups.
    told = (await api("alice").get(path, params={"subject": "user:bob"})).json()
    assert (told["groups"], told["allowed"]) == ({"source": "unknown", "names": []}, False)
    assert "sockets" not in told


async def test_an_explanation_takes_the_scopes_of_the_sockets(open_peer, api):
    uuid = await shared(api, subject="user:bob", role="reader")
    path = f"/v1/grants/{uuid}/explain"

    async def scopes(subject):
        found = (await api("ada").get(path, params={"subject": subject})).json()
        return [scope["scope"] for scope in found["scopes"]]

    assert await scopes("client:acme-service") == []
    await open_peer("acme-service")
    await open_peer("bob")
    assert await scopes("client:acme-service") == ["livedocs:write"]
    assert await scopes("user:bob") == []


async def test_a_collection_registered_over_http_is_streamed_without_a_restart(open_peer, api):
    registered = await api("acme-operator").put("/v1/admin/tenants/acme/collections/memos", json={"key": "_id"})
    assert registered.status_code == 200, registered.text
    uuid = await shared(api)
    bob = await open_peer("bob")
    await bob.call("JoinRoom", [uuid])
    # The other collection is there for this process as soon as it has seen the change of the registry.
    applied = await api("alice").put(
        f"/v1/grants/{uuid}/user:carol", json={"role": "reader"}, headers={"Prefer": "wait=10"}
    )
    assert applied.json()["applied"] is True
    written = await api("alice").put(f"/v1/docs/memos/{uuid}", json={"text": "new"})
    assert written.status_code == 201, written.text
    data, meta = await bob.expect("memos")
    assert (data["text"], meta["op"]) == ("new", "insert")


async def test_a_suspension_over_http_puts_everyone_out_and_a_resumption_lets_them_in(open_peer, api, server):
    carol = await open_peer("carol")
    assert (await api("acme-operator").post("/v1/admin/tenants/globex:suspend")).status_code == 200
    try:
        assert (await carol.expect("$goaway"))[0]["reason"] == "tenant_suspended"
        assert (await api("carol").get("/v1/me")).json()["code"] == "tenant_suspended"
    finally:
        assert (await api("acme-operator").post("/v1/admin/tenants/globex:resume")).status_code == 200
    uuid = str(uuid4())
    applied = await api("alice").post("/v1/docs/notes", json={"uuid": uuid})
    assert applied.status_code == 201
    receipt = await api("alice").put(
        f"/v1/grants/{uuid}/user:bob", json={"role": "reader"}, headers={"Prefer": "wait=10"}
    )
    assert receipt.json()["applied"] is True
    assert (await api("carol").get("/v1/me")).status_code == 200


@pytest.mark.parametrize("user", ["alice", "acme-service", "acme-operator"])
async def test_only_an_administrator_of_the_tenant_sees_its_sessions(api, user):
    answer = await api(user).get("/v1/admin/sessions")
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


async def command(server, *arguments, user="ada"):
    """A `livedocs sessions` command on the running server, as somebody."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LIVEDOCS_")}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "livedocs", "sessions", *arguments, "--url", server.url],
        env={**environ, "LIVEDOCS_TOKEN": server.token(user), "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_sessions_are_listed_and_disconnected_from_the_command_line(open_peer, api, server):
    uuid = await shared(api)
    bob = await open_peer("bob")
    await bob.call("JoinRoom", [uuid])
    listed = await command(server, "list", "--uuid", uuid, "--json")
    [found] = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (found["subject"], found["room_count"]) == ("user:bob", 1)
    [line] = (await command(server, "list", "--subject", "user:bob")).stdout.splitlines()
    assert line.split()[:3] == [found["sid"], "user:bob", "127.0.0.1"]
    dry = await command(server, "disconnect", "--subject", "user:bob", "--dry-run")
    assert dry.stdout == f"would disconnect {found['sid']} (user:bob)\n"
    assert (await bob.call("Check", 1)) == 1
    done = await command(server, "disconnect", found["sid"])
    assert done.stdout == f"disconnected {found['sid']} (user:bob)\n"
    await bob.until(bob.closed.is_set)
    assert (await command(server, "disconnect", found["sid"])).returncode == 1
    assert (await command(server, "disconnect")).returncode == 2
    refused = await command(server, "list", user="alice")
    assert (refused.returncode, refused.stdout) == (os.EX_NOPERM, "")
    assert refused.stderr.startswith("Error: insufficient_scope: ")
