"""What the head of a request may cost, before anybody is known."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypercorn.asyncio import serve

from livedocs import front
from livedocs.live import transport

MIB = 2**20
LINE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


def cpu(server):
    """Seconds of CPU that the process has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def test_a_head_of_many_cookies_and_fields_is_taken(server, dial):
    cookies = b"Cookie: " + b"; ".join(b"c%d=" % number + b"x" * 4096 for number in range(3)) + b"\r\n"
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(90))
    for end in (b"Connection: close\r\n\r\n", b"Connection: close\r\n\n"):
        answer = await (await dial(LINE + cookies + fields + end)).rest()
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "head",
    [
        LINE + b"X: " + b"x" * transport.MAX_HEAD_BYTES + b"\r\n\r\n",
        LINE + b"X: " + b"x" * transport.MAX_HEAD_BYTES,
        LINE + b"a:\r\n" * (transport.MAX_HEAD_LINES + 1) + b"\r\n",
        LINE + b"a:\n" * 2 * transport.MAX_HEAD_LINES,
        b"GET /" + b"x" * 2**16,
    ],
    ids=["large", "large and incomplete", "fields", "fields and incomplete", "path"],
)
@pytest.mark.parametrize("step", [2**20, 997])
async def test_a_head_that_is_too_large_is_refused_as_it_comes(server, dial, head, step):
    peer = await dial()
    for at in range(0, len(head), step):
        peer.writer.write(head[at : at + step])
    assert (await peer.rest())[:13] in {b"HTTP/1.1 431 ", b""}


async def test_a_body_behind_a_head_is_none_of_it(server, dial):
    """Wherever the network cuts them apart."""
    head = b"POST /v1/docs/notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65536\r\nConnection: close\r\n\r\n"
    for cut in range(len(head) - 5, len(head) + 2):
        peer = await dial((head + b"\n" * 65536)[:cut])
        await peer.writer.drain()
        await asyncio.sleep(0)
        peer.writer.write((head + b"\n" * 65536)[cut:])
        assert (await peer.rest()).startswith(b"HTTP/1.1 401 ")


async def test_heads_of_thousands_of_fields_cost_next_to_nothing(server, dial):
    head = LINE + b"a:\r\n" * 16_000 + b"\r\n"
    before = cpu(server)
    for _ in range(50):
        await (await dial(head)).rest()
    # To parse them took 60 ms each.
    assert cpu(server) - before < 0.5


async def test_requests_do_not_wait_one_behind_the_other(server, dial):
    """The first is answered, and the connection closed: what waits behind it would wait here."""
    answer = await (await dial((LINE + b"\r\n") * 200)).rest()
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert b"connection: close" in answer


async def test_a_connection_that_is_kept_serves_one_request_after_the_other(server, dial):
    peer = await dial()
    for _ in range(5):
        peer.writer.write(LINE + b"\r\n")
        async with asyncio.timeout(10):
            head = await peer.reader.readuntil(b"\r\n\r\n")
            await peer.reader.readexactly(len(b'{"status":"ok"}'))
        assert head.startswith(b"HTTP/1.1 200 ")


async def test_a_head_that_trickles_is_cut_off_after_a_kept_request_too(serve_here, monkeypatch):
    monkeypatch.setattr(transport, "HEAD_SECONDS", 0.3)
    port = await serve_here()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        begun = time.monotonic()
        ended = asyncio.create_task(reader.read())
        writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
        while not ended.done():
            writer.write(b"a")
            await asyncio.sleep(0.02)
    assert time.monotonic() - begun < 5
    writer.close()


async def test_a_slow_request_is_no_slow_head(serve_here, monkeypatch):
    monkeypatch.setattr(transport, "HEAD_SECONDS", 0.2)
    port = await serve_here(wait=1.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # In two pieces, so that the clock runs.
    writer.write(b"GET / HTTP/1.1\r\nHost: loc")
    await asyncio.sleep(0.05)
    writer.write(b"alhost\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.fixture
async def serve_here(deployment, free_ports):
    """A listener like the public one, in this process."""
    stop, tasks = asyncio.Event(), []

    async def start(wait: float = 0.0):
        (port,) = free_ports(1)

        async def app(scope, receive, send):
            if scope["type"] != "http":
                return
            await asyncio.sleep(wait)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        config = front.listener(f"127.0.0.1:{port}", deployment.settings())
        config.graceful_timeout = 0.1
        tasks.append(asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait)))
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    return port

    yield start
    stop.set()
    await asyncio.gather(*tasks)
