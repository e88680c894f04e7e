"""ops/nginx/nginx.conf, run by nginx: no client gets past the headers that it sets."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import h2.config
import h2.connection
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.protocol import ProtocolWrapper

KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
CLAIMS = {
    "X-Forwarded-For": "10.0.0.1",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Server": "evil.example",
    "X-Real-IP": "10.0.0.1",
    "Forwarded": "for=10.0.0.1",
    "X-Request-Id": "somebody-elses",
    "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "Tracestate": "evil=1",
    "Baggage": "evil=1",
    "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA",
}


async def naive(scope, receive, send):
    """A server that agrees to whatever it is asked for, and shows what has come."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    lines = [f"{name.decode()}: {value.decode()}" for name, value in scope["headers"]]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": "\n".join(lines).encode()})


@pytest.fixture
async def proxy(start_proxy, free_ports, monkeypatch):
    """The proxy in front of a server that does speak HTTP/2."""
    monkeypatch.setattr("hypercorn.asyncio.tcp_server.ProtocolWrapper", ProtocolWrapper)
    config, stop = Config(), asyncio.Event()
    (port,) = free_ports(1)
    config.bind = [f"127.0.0.1:{port}"]
    config.graceful_timeout = 0.1
    task = asyncio.create_task(serve(naive, config, shutdown_trigger=stop.wait))
    proxy = await asyncio.to_thread(start_proxy, port)
    yield proxy
    await asyncio.to_thread(proxy.stop)
    stop.set()
    await task


@pytest.fixture
async def dial(proxy):
    """`dial(head)` sends these bytes over TLS and returns the answer's head, and the streams."""
    opened = []

    async def send(data):
        reader, writer = await asyncio.open_connection("localhost", proxy.port, ssl=proxy.tls())
        opened.append(writer)
        writer.write(data)
        async with asyncio.timeout(10):
            return await reader.readuntil(b"\r\n\r\n"), reader, writer

    yield send
    for writer in opened:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


def request(path, upgrade, connection="Upgrade", method="GET", more=b""):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\n"
    return head.encode() + KEY + more + b"\r\n"


SMUGGLED = [
    ("/v1/me", "h2c"),
    ("/socket.io/?EIO=4&transport=websocket", "h2c"),
    ("/socket.io/", "websocket, h2c"),
    ("/socket.io/", "h2c, websocket"),
    ("/socket.io/", "TLS/1.0"),
    ("/", "websocket"),
    ("/v1/me", "WebSocket"),
    ("/socket.iox", "websocket"),
    ("/socket.io/x", "websocket"),
    ("/x/socket.io/", "websocket"),
    ("/socket.io/%20websocket", "x"),
    ("/socket.io/%0awebsocket", "websocket"),
]


@pytest.mark.parametrize(("path", "upgrade"), SMUGGLED)
@pytest.mark.parametrize("connection", ["Upgrade", "Upgrade, HTTP2-Settings", "close, Upgrade"])
async def test_no_other_upgrade_reaches_the_server(dial, path, upgrade, connection):
    settings = b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    head, reader, writer = await dial(request(path, upgrade, connection, more=settings))
    assert not head.startswith(b"HTTP/1.1 101 ")
    # What follows is another request or nothing: no pipe.
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    writer.write(peer.data_to_send())
    async with asyncio.timeout(40):
        rest = await reader.read()
    assert b"\x00\x00\x00\x04\x01" not in rest
    assert b"\nupgrade:" not in rest.lower()


@pytest.mark.parametrize("path", ["/socket.io/?EIO=4&transport=websocket", "/socket.io"])
@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket"])
async def test_a_websocket_is_upgraded_where_it_belongs(dial, path, upgrade):
    head, _, _ = await dial(request(path, upgrade))
    assert head.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("path", ["/", "/socket.io/", "/v1/me"])
async def test_nothing_that_a_client_claims_about_itself_passes(dial, path):
    claims = "".join(f"{name}: {value}\r\n{name.lower()}: {value}\r\n" for name, value in CLAIMS.items()).encode()
    _, reader, _ = await dial(request(path, "h2c", "close", more=claims))
    async with asyncio.timeout(10):
        seen = (await reader.read()).decode().lower()
    for value in {*CLAIMS.values()} - {"http", "1"}:
        assert value.lower() not in seen
    assert "x-forwarded-for: 127.0.0.1" in seen
    assert "x-forwarded-proto: https" in seen
    assert seen.count("x-forwarded-for") == seen.count("x-request-id") == 1
    assert "upgrade" not in seen


async def test_three_cookies_of_the_largest_token_pass(dial):
    cookies = "; ".join(f"c{number}={'x' * 4096}" for number in range(3))
    head, reader, _ = await dial(
        f"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: {cookies}\r\n\r\n".encode()
    )
    assert head.startswith(b"HTTP/1.1 200 ")
    assert (await reader.read()).count(b"x") > 3 * 4096
