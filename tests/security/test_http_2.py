"""HTTP/2 is not spoken: it had 2.2 GB kept for a peer without a window before anybody knew who that was."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

import h2.config
import h2.connection
import h2.settings
import pytest
from hypercorn.asyncio import tcp_server
from hypercorn.protocol import ProtocolWrapper

from livedocs import front
from livedocs.live import transport

MIB = 2**20


class Metrics:
    """The metrics listener, where a server listens for everybody else."""

    def __init__(self, server):
        self.port = server.metrics_port


@pytest.fixture(params=["public", "metrics"])
def listener(server, request):
    return server if request.param == "public" else Metrics(server)


def prior_knowledge():
    """What a client says that takes HTTP/2 for granted (RFC 9113, 3.3), and a request without a window."""
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    for stream in (1, 3, 5):
        head = {":method": "GET", ":path": "/openapi.json", ":scheme": "http", ":authority": "localhost"}
        peer.send_headers(stream, list(head.items()), end_stream=True)
    return peer.data_to_send()


async def test_a_client_that_begins_with_http_2_is_told_that_it_is_not_spoken_here(listener, dial):
    answer = await (await dial(prior_knowledge(), at=listener)).rest()
    assert answer.startswith(b"HTTP/1.1 505 ")
    assert b"connection: close" in answer.lower()
    # Nothing of it was taken for HTTP/2: then a SETTINGS frame would follow.
    assert answer.endswith(b"\r\n\r\n")


async def test_a_preface_in_pieces_is_no_other_preface(server, dial):
    peer = await dial()
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
        peer.writer.write(bytes([byte]))
        await peer.writer.drain()
    assert (await peer.rest()).startswith(b"HTTP/1.1 505 ")


@pytest.mark.parametrize("target", ["/healthz", "/metrics", "/socket.io/?EIO=4&transport=websocket"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_an_upgrade_to_h2c_is_ignored(listener, dial, target, method):
    request = (
        f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        f"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    ).encode()
    peer = await dial(request, at=listener)
    async with asyncio.timeout(10):
        head = await peer.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    assert not head.startswith(b"HTTP/1.1 101 ")
    # What would be HTTP/2 behind it is no HTTP/1.1 either.
    peer.writer.write(prior_knowledge())
    assert b"\x00\x00\x00\x04\x01" not in await peer.rest()


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/me", "/socket.io/x", "/nowhere", "/%73ocket.io/"])
async def test_an_upgrade_to_a_websocket_elsewhere_is_ignored(server, dial, path):
    def request(more=""):
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {more or 'close'}\r\n".encode()

    plain = await (await dial(request() + b"\r\n")).rest()
    upgrade = b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    asked = await (await dial(request("Upgrade, close") + upgrade + b"\r\n")).rest()
    assert asked.split(b"\r\n")[0] == plain.split(b"\r\n")[0]
    assert b" 101 " not in asked.split(b"\r\n")[0]


def test_a_tls_handshake_would_offer_http_1_1_alone(deployment):
    assert front.listener("127.0.0.1:0", deployment.settings()).alpn_protocols == ["http/1.1"]


def test_a_server_library_that_chooses_its_protocols_otherwise_is_not_used(monkeypatch):
    class Other(ProtocolWrapper):
        def __init__(self, app, config, choice):
            """Another way."""

    transport.check_version(version("hypercorn"))
    for other in (Other, None):
        monkeypatch.setattr(tcp_server, "ProtocolWrapper", other)
        with pytest.raises(RuntimeError, match="cannot be switched off"):
            transport.speak_http_1_only()
    monkeypatch.setattr(tcp_server, "ProtocolWrapper", ProtocolWrapper)
    transport.speak_http_1_only()
    assert tcp_server.ProtocolWrapper is transport.Http1
