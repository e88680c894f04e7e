"""Whoever leaves, or does not take what it is sent, holds nobody up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import httpx
import pytest

from livedocs.demo.mongod import MongodError, wait_until

# More than the kernel keeps for the two of them.
ANSWERS = 100


@pytest.fixture
def stalled():
    """Connects to a server, asks for much, and takes nothing of it."""
    with socket.socket() as peer:

        def ask(server):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect(("127.0.0.1", server.port))
            request = f"GET /openapi.json HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n".encode()
            # One after the other: what is sent ahead is not served.
            for _ in range(ANSWERS):
                peer.sendall(request)
                if not more_answers(server):
                    break
            assert 0 < answers_given(server) < ANSWERS
            return peer

        yield ask


def answers_given(server):
    return server.log.read_text().count('"route": "/openapi.json"')


def more_answers(server):
    before = answers_given(server)
    try:
        wait_until(lambda: answers_given(server) > before, 1, "another answer")
    except MongodError:
        return False
    return True


def test_a_peer_that_does_not_take_its_answer_does_not_hold_up_a_stop(start_server, stalled):
    server = start_server()
    stalled(server)
    server.stop()


def test_a_peer_that_does_not_take_its_answer_is_cut_off(start_server, stalled):
    server = start_server(socket_stall_timeout=2)
    peer = stalled(server)
    wait_until(lambda: "answer_not_taken" in server.log.read_text(), 10, "the server to give up")
    peer.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        while peer.recv(2**16):
            pass


async def test_a_socket_that_has_not_said_who_it_is_is_closed_at_a_stop(start_server, wire):
    server = start_server()
    stranger, known = await wire("alice", at=server), await wire("alice", "40", at=server)
    begun = time.monotonic()
    await asyncio.to_thread(server.stop)
    # Nobody was waited for in vain.
    assert time.monotonic() - begun < 4
    for made in (stranger, known):
        # A close frame: going away (RFC 6455, 7.4.1).
        assert (await made.rest()).endswith(b"\x88\x02\x03\xe9")


async def gone(server):
    """Wait until the server knows that everyone has left."""
    async with asyncio.timeout(10), httpx.AsyncClient(trust_env=False) as client:
        while 'livedocs_transports{path="direct"} 0.0' not in (await client.get(server.metrics_url)).text:
            await asyncio.sleep(0.05)


async def test_who_has_left_makes_room_for_others(start_server, wire):
    server = start_server(max_sockets_per_address=2)
    for at_all in (None, "40") * 3:
        first, second = await wire("alice", at_all, at=server), await wire("alice", at_all, at=server)
        assert (await wire("alice", at=server)).status == 503
        for made in (first, second):
            await made.close()
        async with asyncio.timeout(10):
            while (again := await wire("alice", at=server)).status != 101:
                await asyncio.sleep(0.05)
        await again.close()
        await gone(server)
