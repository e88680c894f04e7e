"""Lines of docs/security.md about requests, answers and logs."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs
from uuid import uuid4

import httpx
import pymongo
import pytest
from pymongo.monitoring import CommandListener

from livedocs import config, errors
from livedocs.access.credentials import Credential
from livedocs.demo.people import AUDIENCE
from livedocs.model import Tenant
from livedocs.store.documents import Access, Documents, Place
from livedocs.telemetry import configure_logging, redact


@pytest.fixture
async def ask(server):
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        yield client


def bearer(server, user, **more):
    return {"Authorization": f"Bearer {server.token(user)}", **more}


async def test_no_log_line_holds_a_token_a_cookie_or_a_packet(start_server, wire):
    chatty = start_server(log_level="debug", trusted_proxies="")
    first, second = chatty.token("alice"), chatty.token("bob")
    made = await wire(at=chatty)
    await made.send("40" + json.dumps({"token": first}))
    await made.text()
    await made.send("421" + json.dumps(["Reauth", {"token": second}]))
    await made.send("421" + json.dumps(["JoinRoom", ["a-packet-nobody-may-log"]]))
    await made.rest()
    bad = await wire("alice", "40", at=chatty)
    await bad.send("4a-packet-nobody-may-log")
    await bad.rest()
    async with httpx.AsyncClient(base_url=chatty.url, trust_env=False) as client:
        cookie = {"Cookie": f"livedocs_token={first}; livedocs_refresh=a-refresh-nobody-may-log"}
        for headers in (bearer(chatty, "alice"), cookie, {"Authorization": "Bearer a-bad-one-nobody-may-log"}):
            await client.get("/v1/me", headers=headers)
            await client.post("/auth/refresh", headers=headers)
        await client.get("/v1/me", params={"access_token": "a-parameter-nobody-may-log"})
    chatty.stop()
    log = chatty.log.read_text()
    assert "protocol_broken" in log
    # Every token of the development provider is a JWT: "eyJ" begins them all, whoever's they are.
    for secret in (first, second, "eyJ", "nobody-may-log", chatty.deployment.oauth.secret):
        assert secret not in log


async def test_a_forwarded_address_is_believed_only_from_a_configured_proxy(start_server, wire):
    for proxies, expected in (("", "127.0.0.1"), ("127.0.0.1", "203.0.113.9")):
        asked = start_server(trusted_proxies=proxies)
        reader, writer = await asyncio.open_connection("127.0.0.1", asked.port)
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"X-Forwarded-For: 203.0.113.9\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        # A frame that is no packet: the log names the address.
        writer.write(bytes([0x81, 0x81, 0, 0, 0, 0]) + b"z")
        await reader.read()
        writer.close()
        asked.stop()
        assert re.search(r'"address": ?"([^"]*)"', asked.log.read_text()).group(1) == expected


async def test_no_part_of_a_request_chooses_another_tenant(server, ask):
    uuid = str(uuid4())
    headers = bearer(server, "alice", **{"X-Tenant": "globex", "X-Livedocs-Tenant": "globex"})
    made = await ask.post(
        "/v1/docs/notes", params={"tenant": "globex"}, json={"uuid": uuid, "tenant": "globex"}, headers=headers
    )
    assert made.status_code == 201
    assert (await ask.get("/v1/me", params={"tenant": "globex"}, headers=headers)).json()["tenant"] == "acme"
    # It is acme's: carol of globex, a grant of her own tenant in hand, finds nothing under that UUID.
    carol = bearer(server, "carol")
    assert (await ask.get(f"/v1/docs/notes/{uuid}", headers=carol)).status_code == 403
    answer = await ask.get(
        f"/v1/docs/notes/{uuid}", params={"tenant": "acme"}, headers={**carol, "X-Tenant": "acme"}
    )
    assert answer.json()["code"] == "forbidden"
    for path in (f"/v1/acme/docs/notes/{uuid}", f"/acme/v1/docs/notes/{uuid}"):
        assert (await ask.get(path, headers=carol)).status_code == 404
    with pymongo.MongoClient(server.deployment.uri, uuidRepresentation="standard") as mongo:
        assert mongo[server.databases["globex"]]["notes"].count_documents({}) == 0
        assert mongo[server.databases["acme"]]["notes"].count_documents({"tenant": "globex"}) == 1


class Introspection(BaseHTTPRequestHandler):
    """An OAuth service whose users may call themselves what they like, as its clients are called too."""

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        client = {"a-person": "livedocs", "a-program": "acme-service"}.get(form["token"][0])
        said = {"active": client is not None}
        if client is not None:
            said |= {
                "iss": self.server.issuer,
                "aud": AUDIENCE,
                "exp": int(time.time()) + 300,
                "sub": "acme-service",
                "client_id": client,
                "tenant": "acme",
                "scope": "livedocs:write",
            }
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def introspection(oauth):
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Introspection) as server:
        server.issuer = oauth.issuer
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


async def test_a_user_named_like_a_service_is_not_taken_for_it(start_server, introspection, wire):
    server, uuid = start_server(oauth_introspection_url=introspection), str(uuid4())
    path = f"/v1/docs/notes/{uuid}"
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:

        async def call(token, method, path, **options):
            return await client.request(method, path, headers={"Authorization": f"Bearer {token}"}, **options)

        assert (await call("a-program", "GET", "/v1/me")).json()["subject"] == "client:acme-service"
        assert (await call("a-person", "GET", "/v1/me")).json()["subject"] == "user:acme-service"
        # Neither what the service owns, nor what its scope lets a service do, is the user's.
        assert (await call("a-program", "PUT", path, json={"n": 1})).status_code == 201
        for method, target, options in (
            ("GET", path, {}),
            ("PUT", path, {"json": {"n": 2}}),
            ("GET", f"/v1/grants/{uuid}", {}),
            ("PUT", f"/v1/grants/{uuid}/user:acme-service", {"json": {"role": "owner"}}),
        ):
            assert (await call("a-person", method, target, **options)).json()["code"] == "forbidden"
        made = await wire(at=server)
        await made.send('40{"token":"a-person"}')
        await made.text()
        await made.send("420" + json.dumps(["JoinRoom", [uuid]]))
        assert json.loads((await made.text())[3:])[0]["refused"] == {uuid: {"code": "forbidden"}}
        # Nor the other way round.
        grant = {"json": {"role": "reader"}}
        assert (await call("a-program", "PUT", f"/v1/grants/{uuid}/user:acme-service", **grant)).status_code == 201
        assert (await call("a-person", "GET", path)).status_code == 200
        assert (await call("a-program", "DELETE", f"/v1/grants/{uuid}/client:acme-service")).json()[
            "code"
        ] == "conflict"


class Commands(CommandListener):
    """What is asked of MongoDB."""

    def __init__(self):
        self.seen = []

    def started(self, event):
        self.seen.append((event.command_name, event.command.get(event.command_name), sorted(event.command)))

    def succeeded(self, event):
        """Of no interest."""

    def failed(self, event):
        """Of no interest."""


async def test_an_unknown_uuid_and_a_forbidden_one_cost_the_same_questions(server, ask):
    forbidden = uuid4()
    made = await ask.post("/v1/docs/notes", json={"uuid": str(forbidden)}, headers=bearer(server, "alice"))
    assert made.status_code == 201
    commands = Commands()
    client = pymongo.AsyncMongoClient(
        server.deployment.uri, uuidRepresentation="standard", tz_aware=True, event_listeners=[commands]
    )
    try:
        documents = Documents(client, server.control_database)
        tenant = Tenant("acme", server.databases["acme"], {"notes": "_id"})
        asked = []
        for uuid in (forbidden, uuid4()):
            commands.seen.clear()
            access = Access(["user:bob"], lambda grants, _now: bool(grants))
            state = await documents.read(Place(tenant, "notes", uuid), access)
            assert not state.grants
            asked.append(list(commands.seen))
    finally:
        await client.close()
    # What is somebody else's is not read at all: its size would show.
    assert len(asked[0]) == 1
    assert asked[0] == asked[1]
    answers = [
        await ask.get(f"/v1/docs/notes/{uuid}", headers=bearer(server, "bob")) for uuid in (forbidden, uuid4())
    ]
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1
    names = [sorted(set(answer.headers) - {"date"}) for answer in answers]
    assert names[0] == names[1]


def test_secrets_are_masked_in_settings_values_and_log_fields(capsys):
    settings = config.load(
        {},
        public_url="http://localhost:1",
        mongodb_uri="mongodb://user:hunter2@localhost",
        oauth_issuer="http://localhost:2",
        oauth_client_id="livedocs",
        oauth_client_secret="hunter2",
        oauth_audience="livedocs",
    )
    with pytest.raises(errors.ConfigurationError) as refused:
        config.load({"LIVEDOCS_OAUTH_TIMEOUT": "hunter2", "LIVEDOCS_MONGODB_URI": " "})
    assert "OAUTH_TIMEOUT" in str(refused.value)
    shown = [repr(settings), str(settings), str(refused.value), repr(Credential("hunter2", "bearer"))]
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure_logging(settings)
        fields = {"access_token": "hunter2", "cookie": "hunter2", "uri": "mongodb://me:hunter2@db/x"}
        logging.getLogger("any").warning("Authorization: Bearer hunter2")
        import structlog  # noqa: PLC0415 - after it was configured

        structlog.stdlib.get_logger("ours").warning("said", **fields)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        structlog.reset_defaults()
    shown.append(capsys.readouterr().err)
    assert "said" in shown[-1]
    assert "hunter2" not in "".join(shown)
    assert redact("mongodb://a:b@c") == "mongodb://a:**********@c"
