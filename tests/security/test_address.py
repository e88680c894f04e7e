"""What one address may have before anybody is known: connections, bodies, answers that it does not take."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time

import httpx
import pytest

from livedocs import front
from livedocs.access.connections import Connections, Quota
from livedocs.access.limits import Limits
from livedocs.errors import TooManyBytes
from livedocs.http.admission import Admission
from livedocs.http.caller import Proxies
from livedocs.http.exchanges import Exchanges
from livedocs.telemetry import Metrics

MIB = 2**20
ATTACKER, OTHER = "127.0.0.2", "127.0.0.3"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
HEAD = b"POST /v1/docs/notes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def connect(server, data=b"", source=ATTACKER):
    """A connection on which these bytes were sent; None if it was refused at once."""
    peer = socket.socket()
    peer.bind((source, 0))
    peer.settimeout(5)
    try:
        peer.connect(("127.0.0.1", server.port))
        peer.settimeout(0)
        if data:
            # As much of it as the kernel takes.
            peer.send(data)
    except OSError:
        peer.close()
        return None
    else:
        return peer


async def flood(server, count, data):
    """That many connections, all of them held open."""

    def open_all():
        return [peer for _ in range(count) if (peer := connect(server, data)) is not None]

    return await asyncio.to_thread(open_all)


async def serves(server, source=OTHER, token=None):
    """The status that somebody elsewhere is answered."""
    transport = httpx.AsyncHTTPTransport(local_address=source)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", transport=transport) as client:
        headers = {"Authorization": f"Bearer {token or server.token('bob')}"}
        answer = await client.get("/v1/me", headers=headers, timeout=60)
        return answer.status_code


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 30_000,
        HEAD + b"Content-Length: 3000000\r\nAuthorization: Bearer made-up\r\n\r\n" + b"x" * 2_000_000,
        HEAD + b"Content-Length: 3000000\r\n\r\n" + b"x" * 2_000_000,
        b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40,
        b"\x00\x01garbage\r\n\r\n" * 100,
    ],
    ids=["nothing", "heads", "bodies with a token", "bodies", "answers", "garbage"],
)
async def test_thousands_of_connections_of_one_address_are_bounded_and_keep_nobody_else_out(
    start_server, look, data
):
    # More of them than any other limit would let in at once.
    server = start_server(
        limit_requests_per_address=0, limit_connections_per_address=0, introspection_cache=300, log_level="warning"
    )
    # One that is known: what strangers do to the OAuth service is another matter.
    token = server.token("bob")
    assert (await serves(server, OTHER, token)) == 200
    seen = look(server)
    memory = seen.resident()
    flooding = asyncio.create_task(flood(server, 3000, data))
    held, most = [], 0
    try:
        while not flooding.done():
            assert (await serves(server, OTHER, token)) == 200
            most = max(most, seen.resident() - memory)
            await asyncio.wait([flooding], timeout=0.1)
        held = await flooding
        assert (await serves(server, OTHER, token)) == 200
        most = max(most, seen.resident() - memory)
        assert most < 64 * MIB
        assert seen.descriptors() < 350
    finally:
        for peer in held:
            peer.close()

    async def gone():
        return seen.descriptors() < 50

    await seen.until(gone, 120)
    assert (await serves(server, ATTACKER)) == 200


async def test_connections_past_the_limit_are_refused_and_counted(start_server, look, dial):
    server = start_server(max_connections_per_address=3, max_connections=10)
    seen = look(server)
    held = [await dial(at=server, source=ATTACKER) for _ in range(3)]
    refused = await dial(at=server, source=ATTACKER)
    assert (await refused.rest()).startswith(b"HTTP/1.1 503 ")
    assert await seen.metric('livedocs_limits_hit_total{kind="connections",scope="address"}') == 1
    # One that was closed makes room for another.
    await held.pop().close()

    async def room():
        probe = await dial(HEALTH, at=server, source=ATTACKER)
        return (await probe.rest()).startswith(b"HTTP/1.1 200 ")

    await seen.until(room)
    others = [await dial(at=server, source=f"127.0.0.{number}") for number in range(10, 20)]
    ends = [asyncio.create_task(other.reader.read()) for other in others]
    done, pending = await asyncio.wait(ends, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert done
    assert pending
    assert await seen.metric('livedocs_limits_hit_total{kind="connections",scope="server"}') >= 1
    for end in pending:
        end.cancel()


async def test_a_socket_is_no_connection_any_more(start_server, wire):
    server = start_server(max_connections_per_address=2)
    for _ in range(6):
        assert (await wire("alice", "40", at=server, source=ATTACKER)).status == 101


async def test_connections_that_come_too_fast_are_refused(start_server, look, dial):
    server = start_server(limit_connections_per_address=1, limit_burst=5)
    answers = [await (await dial(b"x\r\n\r\n", at=server, source=ATTACKER)).rest() for _ in range(8)]
    assert answers[0].startswith(b"HTTP/1.1 400 ")
    # Malformed requests never come to a path of ours: their connections count.
    assert await look(server).metric('livedocs_rate_limited_total{kind="connections",scope="address"}') >= 2
    assert (await serves(server)) == 200


async def test_behind_a_proxy_requests_count_by_the_address_it_names(start_server, look, dial):
    server = start_server(
        trusted_proxies="127.0.0.1", max_connections_per_address=3, max_waiting_requests_per_address=2
    )
    held = HEAD + b"Content-Length: 5\r\nX-Forwarded-For: %s\r\nAuthorization: Bearer %s\r\n\r\n"
    token = server.token("alice").encode()
    # Known, their bodies still to come: three in progress, as many as there may be.
    opened = [await dial(held % (b"203.0.113.1", token), at=server) for _ in range(3)]
    assert len(opened) == 3

    async def refused():
        probe = await dial(held % (b"203.0.113.1", token), at=server)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                return (await probe.reader.read(100)).startswith(b"HTTP/1.1 503 ")
        return False

    await look(server).until(refused)
    # The proxy itself is not cut off, and somebody else's requests pass.
    ask = HEALTH.replace(b"/healthz", b"/v1/me")[:-2] + b"X-Forwarded-For: %s\r\nAuthorization: Bearer %s\r\n\r\n"
    for number in range(2, 8):
        answer = await (await dial(ask % (b"203.0.113.%d" % number, token), at=server)).rest()
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_body_stays_where_it_is_until_somebody_is_known(start_server, look):
    """Whoever sends made-up tokens has them asked about; meanwhile each request kept up to 3 MiB."""
    asked, answer = [], b'{"active": false}'

    async def silent(reader, writer):
        """An OAuth service that says nothing about tokens that were made up, and is well."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
                if b"made-up" in await reader.readexactly(size):
                    asked.append(writer)
                    await reader.read()
                kind = b"Content-Type: application/json"
                writer.write(b"HTTP/1.1 200 OK\r\n%s\r\nContent-Length: %d\r\n\r\n" % (kind, len(answer)) + answer)
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as issuer:
        url = f"http://127.0.0.1:{issuer.sockets[0].getsockname()[1]}/"
        server = await asyncio.to_thread(start_server, oauth_introspection_url=url, oauth_timeout=30)
        seen = look(server)
        memory = seen.resident()
        head = HEAD + b"Content-Length: 3000000\r\nAuthorization: Bearer made-up-%d\r\n\r\n"
        peers = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]
        for number, (_, writer) in enumerate(peers):
            writer.write(head % number + bytes(2_900_000))
        async with asyncio.timeout(30):
            while not asked:
                await asyncio.sleep(0.01)

        # Others are served, so what has come of the bodies by now has been read, or is not.
        for _ in range(20):
            assert await seen.metric("process_virtual") >= 0
            most = max(memory, seen.resident())
        assert most - memory < 48 * MIB
        for _, writer in peers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await asyncio.to_thread(server.kill)
        for writer in asked:
            writer.transport.abort()


async def test_a_body_that_nobody_reads_is_let_go_of_with_its_request(server, look, dial):
    """Refused before its body was read: the server waited for ever for somebody to take it."""
    seen = look(server)
    memory, before = seen.resident(), seen.descriptors()
    for path in (b"/v1/docs/notes:import", b"/v1/docs/notes", b"/nowhere"):
        for _ in range(20):
            peer = await dial(b"POST %s HTTP/1.1\r\nHost: l\r\nContent-Length: 9000000\r\n\r\n" % path)
            peer.writer.write(bytes(2_000_000))
            async with asyncio.timeout(10):
                assert (await peer.reader.read(9)) == b"HTTP/1.1 "
            peer.writer.transport.abort()

    async def gone():
        return seen.descriptors() <= before

    await seen.until(gone)
    assert seen.resident() - memory < 16 * MIB


async def test_an_answer_that_is_not_taken_counts_against_its_address(deployment, free_ports):
    """On the listener of the server, in this process, with an answer larger than the kernel takes."""
    (port,), stop, settings, metrics = free_ports(1), asyncio.Event(), deployment.settings(), Metrics()
    unread = Quota("unread bytes", metrics, per_address=MIB, error=TooManyBytes)
    limits = Limits(settings, metrics, clock=time.monotonic)

    async def large(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(32 * MIB)})

    app = Exchanges(Admission(large, settings, limits, metrics, unread), metrics, Proxies(()))
    connections = Connections(settings, metrics, limits, lambda _: False)
    bind = f"127.0.0.1:{port}"
    serving = asyncio.create_task(
        front.serve(app, bind, settings, stop.wait, connections=connections, unread=unread)
    )

    opened = []

    async def ask(source):
        """The beginning of the answer, of which no more is read, and the way to end it."""
        while True:
            try:
                local = {"local_addr": (source, 0), "limit": 1024}
                reader, writer = await asyncio.open_connection("127.0.0.1", port, **local)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            opened.append(writer)
            writer.write(HEALTH)
            return await reader.read(12), writer.transport.abort

    async with asyncio.timeout(60):
        first, let_go = await ask(ATTACKER)
        assert first == b"HTTP/1.1 200"
        status = b""
        while status != b"HTTP/1.1 429":
            status, end = await ask(ATTACKER)
            end()
        assert (await ask(OTHER))[0] == b"HTTP/1.1 200"
        let_go()
        while (await ask(ATTACKER))[0] != b"HTTP/1.1 200":
            await asyncio.sleep(0.01)
    for writer in opened:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    stop.set()
    await serving
