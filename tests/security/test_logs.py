"""Nothing that somebody sends is logged, whatever it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import random

import h2.config
import h2.connection

MARK = b"nobody-may-log-this"
HOST = b"Host: localhost\r\n"
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
SECRETS = b"Cookie: livedocs_token=%s; x=%s\r\nAuthorization: Bearer %s\r\nX-%s: %s\r\n" % ((MARK,) * 5)


def http_2():
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
    peer.initiate_connection()
    peer.send_headers(1, [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", MARK.decode())])
    return peer.data_to_send() + MARK + b"\xff" * 40


TARGETS = (
    b"/%s?q=%s" % (MARK, MARK),
    b"*",
    b"//" + MARK,
    b"/v1/docs/%s/%s" % (MARK, MARK),
    b"/socket.io/?" + MARK,
)
BODIES = (b"{", MARK, b"\xff\xfe" + MARK, b'{"%s": "%s"}' % (MARK, MARK), b'{"$%s": 1}' % MARK)
HEADERS = (b"Sec-WebSocket-Extensions: ", b"Sec-WebSocket-Protocol: ", b"Origin: http://")


def requests():
    """Requests and what is none, each with the marker wherever it can be."""
    for method in (b"GET", b"POST", b"PRI", b"OPTIONS", MARK):
        for target in TARGETS:
            for version in (b"HTTP/1.1", b"HTTP/2.0", b"HTTP/1.0", b"HTTP/9", MARK):
                yield b"%s %s %s\r\n%s%s\r\n" % (method, target, version, HOST, SECRETS)
    head = b"PUT /v1/docs/notes/%s HTTP/1.1\r\nContent-Type: application/json\r\n" % MARK + HOST + SECRETS
    for body in BODIES:
        yield head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        yield head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%s\r\n" % MARK + body
        yield head + b"Content-Length: %s\r\n\r\n" % MARK
    shake = b"GET /socket.io/?EIO=%s&transport=websocket HTTP/1.1\r\n" + HOST + UPGRADE + SECRETS
    for header in HEADERS:
        yield shake % b"4" + header + MARK + b"\r\n\r\n"
    yield shake % MARK + b"\r\n"
    yield b"GET / HTTP/1.1\r\n" + HOST + b"X: " + MARK * 5_000
    yield http_2()
    yield b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: " + MARK + b"\r\n\r\n"


FRAMES = (
    (b"%s" % MARK, 1),
    (b"40" + MARK, 1),
    (b'40{"token":"%s"}' % MARK, 1),
    (b'420["%s",["%s"]]' % (MARK, MARK), 1),
    (b'420["JoinRoom",["%s"]]' % MARK, 1),
    (b'420["JoinRoom",[{"uuid":"%s","since":"%s"}]]' % (MARK, MARK), 1),
    (b'421["Reauth",{"token":"%s"}]' % MARK, 1),
    (b"42[" + MARK, 1),
    (b"451-" + MARK, 1),
    (MARK, 2),
    (b"\xff" + MARK, 1),
    (MARK, 3),
    (MARK, 8),
    (b"\x03\xe8" + MARK, 8),
    (MARK * 7, 9),
    (MARK, 15),
)


async def spoiled(dial, server, data, draw):
    """Send it in pieces, some of them changed, and end it in one of the ways there are."""
    if draw.random() < 0.5:
        at = draw.randrange(len(data))
        data = data[:at] + draw.randbytes(draw.randrange(3)) + data[at + draw.randrange(3) :]
    peer = await dial(at=server)
    with contextlib.suppress(ConnectionError):
        for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
            peer.writer.write(piece)
            await peer.writer.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(draw.choice([0, 0.02])):
                await peer.reader.read(100)
    (peer.writer.transport.abort if draw.random() < 0.5 else peer.writer.close)()


async def test_nothing_of_what_is_sent_is_ever_in_the_log(start_server, dial, wire):
    server = start_server(
        log_level="debug", limit_requests_per_address=0, limit_connections_per_address=0, connect_timeout=1
    )
    draw = random.Random(48)  # noqa: S311 - the same garbage every time
    for data in requests():
        await spoiled(dial, server, data, draw)
    for payload, opcode in FRAMES:
        for user, connect in (("alice", "40"), ("alice", None), (None, None)):
            made = await wire(user, connect, at=server)
            with contextlib.suppress(ConnectionError):
                await made.send(payload, opcode=opcode, fin=draw.random() < 0.8, rsv1=draw.random() < 0.1)
                await made.send(payload, opcode=0)
            made.writer.close()
    assert await (await dial(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n", at=server)).rest()
    server.stop()
    log = server.log.read_bytes()
    assert b'"request"' in log
    assert MARK not in log
    assert b"\\xff" not in log
    # Whatever it was, it was expected.
    assert b"Traceback" not in log
