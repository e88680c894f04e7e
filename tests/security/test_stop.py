"""A peer that does not take its answer is cut off, and holds nobody up."""

from __future__ import annotations

import contextlib
import socket

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
            peer.sendall(request * ANSWERS)
            wait_until(lambda: answers_given(server) and not more_answers(server), 20, "the server to be stuck")
            assert answers_given(server) < ANSWERS
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
    wait_until(lambda: "an answer was not taken" in server.log.read_text(), 10, "the server to give up")
    peer.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        while peer.recv(2**16):
            pass
