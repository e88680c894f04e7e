"""What outlives a request's beginning ends with its sender's access, and says how far it came."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pymongo
import pytest

WITHIN = 20.0
INTERVAL = 0.5


@pytest.fixture(scope="module")
def brisk(start_server):
    """A server that asks about tokens again after half a second."""
    return start_server(introspection_interval=INTERVAL, introspection_cache=INTERVAL)


@pytest.fixture
async def ask(brisk):
    async with httpx.AsyncClient(base_url=brisk.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
async def provider(brisk):
    async with httpx.AsyncClient(base_url=brisk.deployment.oauth.issuer, trust_env=False) as client:
        yield client


class Import:
    """One that goes on and on, a hundred lines at a time, and listens meanwhile."""

    def __init__(self, server, client, user, uuids=None, path="/v1/docs/notes:import"):
        self.token = server.token(user)
        self._client = client
        self._path = path
        named = [{"uuid": uuid} for uuid in uuids or ()] or [{}] * 100
        self._lines = b"".join(json.dumps({"document": {"n": 1}, **one}).encode() + b"\n" for one in named)
        self._headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": str(uuid4()),
        }
        self._last = asyncio.Event()
        self._sending = asyncio.create_task(self._send(server.port))

    async def _send(self, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = {"Host": f"localhost:{port}", "Transfer-Encoding": "chunked", **self._headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"POST {self._path} HTTP/1.1\r\n{head}\r\n".encode())
        chunk = b"%x\r\n%s\r\n" % (len(self._lines), self._lines)
        pumping = asyncio.create_task(self._pump(writer, chunk))
        try:
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            told = json.loads(await reader.readexactly(length))
            return int(answer.split()[1]), told, b"retry-after" in answer.lower()
        finally:
            pumping.cancel()
            writer.close()

    async def _pump(self, writer, chunk):
        with contextlib.suppress(ConnectionError):
            while not self._last.is_set():
                writer.write(chunk)
                await writer.drain()
                await asyncio.sleep(0.1)
            writer.write(b"0\r\n\r\n")

    async def begun(self):
        """Wait until something of it is written."""
        async with asyncio.timeout(WITHIN):
            while not await self.lines():
                await asyncio.sleep(0.05)

    async def lines(self):
        """How many of its lines are done."""
        return (await self._client.get(self._path, headers=self._headers)).json()["lines"]

    def finish(self):
        """Send no more."""
        self._last.set()

    async def end(self):
        """Its answer: the status, the body, and whether it says when to come back."""
        async with asyncio.timeout(WITHIN):
            return await self._sending


async def test_an_import_ends_with_its_token(brisk, ask, provider):
    going_on = Import(brisk, ask, "acme-service")
    await going_on.begun()
    await provider.post("/dev/revoke", json={"token": going_on.token})
    status, told, _ = await going_on.end()
    assert (status, told["code"]) == (401, "invalid_token")
    assert told["lines"] >= 100


async def test_an_import_ends_when_nobody_can_say_whether_its_token_is_good(brisk, ask, provider):
    going_on = Import(brisk, ask, "acme-service")
    await going_on.begun()
    await provider.post("/dev/faults", json={"introspection": "error"})
    try:
        status, told, retry_after = await going_on.end()
    finally:
        await provider.delete("/dev/faults")
    assert (status, told["code"], retry_after) == (503, "auth_unavailable", True)
    assert told["lines"] >= 100


async def test_an_import_ends_with_its_tenants_good_standing(brisk, ask):
    going_on = Import(brisk, ask, "carol")
    await going_on.begun()
    operator = {"Authorization": f"Bearer {brisk.token('acme-operator')}"}
    await ask.post("/v1/admin/tenants/globex:suspend", headers=operator)
    try:
        status, told, _ = await going_on.end()
    finally:
        await ask.post("/v1/admin/tenants/globex:resume", headers=operator)
    assert (status, told["code"]) == (403, "tenant_suspended")
    assert told["lines"] >= 100


async def test_who_has_left_a_group_writes_nothing_more_by_its_grant(brisk, ask, provider):
    uuids = [str(uuid4()) for _ in range(100)]
    service = {"Authorization": f"Bearer {brisk.token('acme-service')}"}
    grants = [{"subject": "group:staff", "role": "writer"}]
    items = [{"uuid": uuid, "document": {}, "grants": grants} for uuid in uuids]
    made = await ask.post("/v1/docs/notes:bulk", json={"items": items}, headers=service)
    assert made.json()["failed"] == 0
    await provider.post("/dev/users/bob", json={"groups": ["staff"]})
    try:
        going_on = Import(brisk, ask, "bob", uuids)
        await going_on.begun()
        await provider.post("/dev/users/bob", json={"groups": []})
        # Batches that are decided later than anything that is remembered of the token.
        clock, done = asyncio.get_running_loop().time, await going_on.lines()
        later = clock() + 2 * INTERVAL
        async with asyncio.timeout(WITHIN):
            while clock() < later or await going_on.lines() < done + 300:
                await asyncio.sleep(0.1)
        going_on.finish()
        status, told, _ = await going_on.end()
    finally:
        await provider.delete("/dev/users/bob")
    assert status == 200
    assert told["succeeded"] >= 100
    assert {error["code"] for error in told["errors"]} == {"forbidden"}


@pytest.fixture
def silent(brisk):
    """A server process that never comes any further."""
    with pymongo.MongoClient(brisk.deployment.uri) as mongo:
        processes = mongo[brisk.control_database]["processes"]
        until = datetime.now(UTC) + timedelta(minutes=5)
        lease = {"_id": "silent", "host": "nowhere", "pid": 1, "position": "", "expires_at": until}
        processes.insert_one(lease)
        yield
        processes.delete_one({"_id": "silent"})


async def test_a_receipt_is_for_those_who_may_still_have_it(brisk, ask, provider, silent):
    uuid, token = str(uuid4()), brisk.token("alice")
    headers = {"Authorization": f"Bearer {token}"}
    await ask.put(f"/v1/docs/notes/{uuid}", json={}, headers=headers)
    waiting = asyncio.create_task(
        ask.put(f"/v1/grants/{uuid}/user:bob", json={"role": "reader"}, headers={**headers, "Prefer": "wait=2"})
    )
    bob = {"Authorization": f"Bearer {brisk.token('bob')}"}
    async with asyncio.timeout(WITHIN):
        while (await ask.get(f"/v1/docs/notes/{uuid}", headers=bob)).status_code != 200:
            await asyncio.sleep(0.02)
    await provider.post("/dev/revoke", json={"token": token})
    answer = await waiting
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    # The change itself is done, and that is said.
    assert answer.json()["committed"] is True


async def test_who_is_connected_is_told_to_those_who_may_still_know(brisk, ask, provider, silent):
    token = brisk.token("ada")
    asking = asyncio.create_task(ask.get("/v1/admin/sessions", headers={"Authorization": f"Bearer {token}"}))
    await ask.get("/healthz")
    await provider.post("/dev/revoke", json={"token": token})
    answer = await asking
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
