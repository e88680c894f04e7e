"""Imports are bounded in number, in what they hold and in how long they may be waited for."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from livedocs.errors import BadRequest
from livedocs.http import backpressure, imports

WITHIN = 20.0
LINE = b'{"document":{"n":1}}\n'


@pytest.fixture(scope="module")
def small(start_server):
    """A server that takes two imports of a user and three of a tenant, and holds a MiB for a user."""
    return start_server(
        max_imports_per_user=2,
        max_imports_per_tenant=3,
        max_bytes_in_flight_per_user=2**20,
        max_document_bytes=2**20,
    )


@pytest.fixture
async def client(small):
    async with httpx.AsyncClient(base_url=small.url, trust_env=False, timeout=60) as client:
        yield client


class Held:
    """An import that begins, listens, and does not end before it is told to."""

    def __init__(self, server, token, first=LINE):
        self._more = asyncio.Event()
        self.answer = asyncio.create_task(self._send(server.port, token, first))

    async def _send(self, port, token, first):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = f"Host: localhost:{port}\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n"
        head = f"POST /v1/docs/notes:import HTTP/1.1\r\n{lines}Content-Type: application/x-ndjson\r\n\r\n"
        writer.write(head.encode() + b"%x\r\n%s\r\n" % (len(first), first))
        ending = asyncio.create_task(self._end(writer))
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            told = json.loads(await reader.readexactly(length))
            return int(head.split()[1]), told, b"retry-after" in head
        finally:
            ending.cancel()
            writer.close()

    async def _end(self, writer):
        await self._more.wait()
        writer.write(b"0\r\n\r\n")

    async def end(self):
        self._more.set()
        async with asyncio.timeout(WITHIN):
            return await self.answer


async def first_answer(held):
    """The answer of the one of them that has ended; it is no longer among them."""
    async with asyncio.timeout(WITHIN):
        done, _ = await asyncio.wait([one.answer for one in held], return_when=asyncio.FIRST_COMPLETED)
    [ended] = [one for one in held if one.answer in done]
    held.remove(ended)
    return ended.answer.result()


async def test_a_user_and_a_tenant_have_so_many_imports_under_way(small):
    held = [Held(small, small.token("alice")) for _ in range(3)]
    status, told, retry_after = await first_answer(held)
    assert (status, told["code"], told["limit"], retry_after) == (429, "rate_limited", "imports per user", True)
    others = [Held(small, small.token("bob")) for _ in range(2)]
    status, told, _ = await first_answer(others)
    assert (status, told["limit"]) == (429, "imports per tenant")
    # Of another tenant nobody notices.
    status, told, _ = await Held(small, small.token("carol")).end()
    assert (status, told["succeeded"]) == (200, 1)
    for one in [*held, *others]:
        status, told, _ = await one.end()
        assert (status, told["succeeded"]) == (200, 1)
    status, told, _ = await Held(small, small.token("alice")).end()
    assert (status, told["succeeded"]) == (200, 1)


async def test_what_imports_hold_back_counts_as_in_flight(small, client):
    # A line without an end is held until it ends.
    begun = b'{"document":{"a":"' + b"x" * 900_000
    held = Held(small, small.token("alice"), begun)
    # It has to be the first: else the import is what is refused.
    await asyncio.sleep(1)

    async def post(user):
        headers = {"Authorization": f"Bearer {small.token(user)}", "Content-Type": "application/json"}
        body = b'{"a":"' + b"x" * 600_000 + b'"}'
        return await client.post("/v1/docs/notes", content=body, headers=headers)

    # A request with a body is refused before it is read; of somebody else's nothing is.
    async with asyncio.timeout(WITHIN):
        while (answer := await post("alice")).is_success:
            """It is not held yet."""
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_bytes")
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await post("bob")).status_code == 201
    status, told, _ = await first_answer([Held(small, small.token("alice"), begun)])
    assert (status, told["code"], told["lines"]) == (429, "too_many_bytes", 0)
    await held.end()
    assert (await post("alice")).status_code == 201


@pytest.mark.parametrize(("every", "size", "ends"), [(0.02, 1, True), (0.02, 4096, False)])
async def test_an_import_that_trickles_is_given_up_on_and_a_slow_one_is_not(monkeypatch, every, size, ends):
    monkeypatch.setattr(imports, "SILENCE", 0.3)

    async def slowly():
        for _ in range(50):
            await asyncio.sleep(every)
            yield bytes(size)

    monkeypatch.setattr(backpressure, "chunks", slowly)
    received = 0
    try:
        async for chunk in imports._chunks():
            received += len(chunk)
    except BadRequest as error:
        assert ends
        assert error.data["limit"] == imports.SLOWEST  # noqa: PT017 - one of the two
    else:
        assert received == 50 * size
        assert not ends
