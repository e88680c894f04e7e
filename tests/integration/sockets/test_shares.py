"""One tenant's flood is that tenant's own matter: what the tenants of a process share is shared fairly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs
from uuid import uuid4

import httpx
import pytest


@pytest.fixture(scope="module")
def server(start_server, oauth):
    return start_server(oauth.server_port, history_bytes=2**20)


@pytest.fixture(scope="module")
def globex(deployment, mongo):
    return mongo[deployment.databases["globex"]]


async def test_a_flood_in_one_tenant_leaves_another_tenants_resume_window_intact(
    open_peer, api, acme, globex, grant
):
    ours, theirs = uuid4(), uuid4()
    grant(theirs, "user:carol", tenant="globex")
    globex.notes.insert_one({"_id": theirs, "n": 0})
    carol = await open_peer("carol")
    away = (await carol.call("JoinRoom", [str(theirs)]))["joined"][str(theirs)]["cursor"]
    alice = await open_peer("alice")
    grant(ours, "user:alice", "owner")
    acme.notes.insert_one({"_id": ours, "n": 0, "filler": "x" * 900_000})
    mine = (await alice.call("JoinRoom", [str(ours)]))["joined"][str(ours)]["cursor"]
    await carol.close()
    for n in range(1, 4):
        globex.notes.update_one({"_id": theirs}, {"$set": {"n": n}})
    # Replacing a field of that size over and over makes the largest events that a user can make.
    async with api("alice") as client:
        for n in range(6):
            changed = await client.patch(
                f"/v1/docs/notes/{ours}",
                json={"filler": f"{n}" + "x" * 900_000},
                headers={"Content-Type": "application/merge-patch+json"},
            )
            assert changed.status_code == 200, changed.text
    await alice.until(lambda: sum(event[0] == "notes" for event in alice.seen) == 6)
    back = await open_peer("carol")
    resumed = (await back.call("JoinRoom", [str(theirs)], {"since": away}))["joined"][str(theirs)]
    assert (resumed["resumed"], resumed.get("resync")) == (3, None)
    assert [(await back.expect("notes"))[0]["n"] for _ in range(3)] == [1, 2, 3]
    again = await open_peer("alice")
    answer = (await again.call("JoinRoom", [str(ours)], {"since": mine}))["joined"][str(ours)]
    assert answer["resync"] == "window"


class Held(BaseHTTPRequestHandler):
    """A provider that has a good answer for people at once, and none for what is made up until the end."""

    protocol_version = "HTTP/1.1"
    held: ClassVar[list[str]] = []
    full, end = threading.Event(), threading.Event()

    def do_POST(self):
        token = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["token"][0]
        known = {"sub": token, "client_id": "page", "aud": "livedocs", "tenant": "acme", "exp": time.time() + 600}
        if token.startswith("made-up"):
            self.held.append(token)
            if len(self.held) == 10:
                self.full.set()
            self.end.wait()
        body = json.dumps({"active": True, **known} if token.startswith("person") else {"active": False}).encode()
        with contextlib.suppress(ConnectionError):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments):
        """Nothing of it is worth a line."""


class Provider(ThreadingHTTPServer):
    request_queue_size = 128


@pytest.fixture
def held_url():
    with Provider(("127.0.0.1", 0), Held) as provider:
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{provider.server_port}/introspect"
        Held.end.set()
        provider.shutdown()


async def test_a_flood_of_made_up_tokens_from_one_address_lets_everybody_from_elsewhere_in(
    start_server, held_url, open_peer
):
    """Of 11 newcomers, 8 were told 503."""
    server = start_server(oauth_introspection_url=held_url, oauth_timeout=60, trusted_proxies="127.0.0.1")

    def come(token, address):
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
        return client.get(f"{server.url}/v1/me", headers=headers)

    everybody = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(trust_env=False, limits=everybody, timeout=60) as client:
        # 40 connections were all that strangers had.
        flood = [asyncio.create_task(come(f"made-up-{uuid4()}", "203.0.113.66")) for _ in range(60)]
        async with asyncio.timeout(30):
            while not Held.full.is_set():
                await client.get(f"{server.url}/healthz")
        came = await asyncio.gather(*(come(f"person-{n}", f"198.51.100.{n}") for n in range(11)))
        assert [answer.status_code for answer in came] == [200] * 11
        headers = {"Authorization": "Bearer person-11", "X-Forwarded-For": "198.51.100.11"}
        assert (await open_peer(None, url=server.ws_url, headers=headers)).refusal is None
        Held.end.set()
        assert {answer.status_code for answer in await asyncio.gather(*flood)} <= {401, 503}
