"""What stands at the listening sockets: the one ASGI application, and how Hypercorn serves it.

`/socket.io` goes to the sockets and everything else to Quart; a refusal looks the same on either way.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast
from weakref import WeakSet

from hypercorn import asyncio as hypercorn
from hypercorn import config as hypercorn_config
from hypercorn.typing import ASGIFramework
from prometheus_client import CollectorRegistry, make_asgi_app
from quart import Quart

from livedocs import exchange
from livedocs.access.connections import Connections, Peer, Quota
from livedocs.access.limits import Limits
from livedocs.config import Settings
from livedocs.errors import LivedocsError, NotFound, RateLimited
from livedocs.http.admission import refusal
from livedocs.http.exchanges import App
from livedocs.live.listening import Gate, Listening
from livedocs.live.sockets import Message, Receive, Scope, Send, Sockets
from livedocs.live.transport import MAX_HEAD_BYTES, SOCKET_PATHS, connection_of, speak_http_1_only
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

# Bytes of an answer that a connection is given at once; it keeps as many again before it waits for the peer.
_PIECE = 2**16


class Front:
    """The one ASGI application: `/socket.io` to the sockets, everything else to Quart.

    Args:
        became_socket: told of a connection that is a WebSocket from now on, by its address and port.
    """

    def __init__(self, quart: Quart, sockets: Sockets, became_socket: Callable[[Peer], None]) -> None:
        self._quart = quart
        self._sockets = sockets
        self._became_socket = became_socket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "lifespan" and scope["path"] in SOCKET_PATHS:
            await self._sockets(scope, receive, send)
            if exchange.current().goes_on and scope.get("client"):
                self._became_socket(tuple(scope["client"]))
        elif scope["type"] == "websocket":
            # The listener upgrades nothing else; another server might.
            await receive()
            status, headers, body = refusal(NotFound())
            await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": body})
        else:
            await self._quart(cast("Any", scope), cast("Any", receive), cast("Any", send))


class Stalls:
    """Hands answers out in pieces, and cuts off HTTP peers that do not take them.

    Hypercorn waits for them without end: each keeps its answer in memory, and the server from stopping.

    Args:
        app: serves.
        patience: seconds in which a piece of an answer has to be taken.
        unread: counts what an address has not taken yet; whoever asks for more is refused by `Admission`.
    """

    def __init__(self, app: App, patience: float, unread: Quota) -> None:
        self._app = app
        self._patience = patience
        self._unread = unread
        # Of those that are closed by now some may be in it still.
        self._connections: WeakSet[asyncio.Transport] = WeakSet()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a WebSocket has its own ways."""
        connection = connection_of(send) if scope["type"] == "http" else None
        if connection is None:
            await self._app(scope, receive, send)
            return
        self._connections.add(connection)
        loop = asyncio.get_running_loop()

        def give_up() -> None:
            _log.info("answer_not_taken", address=exchange.current().address)
            connection.abort()

        async def timely(message: Message) -> None:
            overdue = loop.call_later(self._patience, give_up)
            try:
                await send(message)
            finally:
                overdue.cancel()

        async def answer(message: Message) -> None:
            body = message.get("body", b"")
            if not body:
                await timely(message)
                return
            address, left = exchange.current().address, len(body)
            self._unread.add(address, left)
            try:
                # Else a peer that reads a byte now and then would have the whole of it kept.
                for piece in _pieces(body):
                    if connection.is_closing():
                        return
                    more = left > len(piece) or message.get("more_body", False)
                    await timely({**message, "body": piece, "more_body": more})
                    self._unread.remove(address, len(piece))
                    left -= len(piece)
            finally:
                self._unread.remove(address, left)

        await self._app(scope, receive, answer)

    def cut(self) -> None:
        """Cut off whoever is left."""
        for connection in tuple(self._connections):
            connection.abort()


def _pieces(body: bytes) -> Iterator[bytes]:
    return (body[at : at + _PIECE] for at in range(0, len(body), _PIECE)) if len(body) > _PIECE else iter((body,))


class Counted:
    """The gate of a listener; says no in HTTP, as cheaply as can be.

    Args:
        connections: counts them.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.ended = connections.ended

    def refusal(self, peer: Peer) -> bytes | None:
        """What the peer is told in place of being let in; None counts its connection."""
        try:
            self._connections.opened(peer)
        except LivedocsError as error:
            wait = math.ceil(error.retry_after or 1)
            head = (f"HTTP/1.1 {error.status} ", f"Retry-After: {wait}", "Content-Length: 0", "Connection: close")
            return "\r\n".join((*head, "", "")).encode()
        return None


class Listener(hypercorn_config.Config):
    """Hypercorn's configuration, whose sockets count their connections."""

    gate: Gate | None = None

    def create_sockets(self) -> hypercorn_config.Sockets:
        """The sockets that are listened at."""
        made = super().create_sockets()
        if self.gate is not None:
            made.insecure_sockets[:] = [Listening(one, self.gate) for one in made.insecure_sockets]
        return made


async def serve(
    front: App,
    bind: str,
    settings: Settings,
    stop: Callable[[], Awaitable[object]],
    *,
    connections: Connections,
    unread: Quota,
) -> None:
    """Serve the public listener until `stop` returns."""
    config = listener(bind, settings)
    config.gate = Counted(connections)
    stalls = Stalls(front, settings.socket_stall_timeout, unread)

    async def stopped() -> None:
        await stop()
        # Until then Hypercorn waits for requests under way, and after it for what has not been taken.
        asyncio.get_running_loop().call_later(config.graceful_timeout, stalls.cut)

    await hypercorn.serve(cast("ASGIFramework", stalls), config, shutdown_trigger=stopped)


async def serve_metrics(registry: CollectorRegistry, bind: str, limits: Limits) -> None:
    """Serve `/metrics` on a listener of its own until cancelled; an address may ask as often as for probes."""
    metrics = http_only(make_asgi_app(registry), limits)
    await hypercorn.serve(cast("ASGIFramework", metrics), listener(bind), shutdown_trigger=asyncio.Event().wait)


def listener(bind: str, settings: Settings | None = None) -> Listener:
    """Hypercorn's configuration; what it leaves open by default is set here."""
    speak_http_1_only()
    config = Listener()
    config.bind = [bind]
    # What a TLS handshake would offer.
    config.alpn_protocols = ["http/1.1"]
    config.h11_max_incomplete_size = MAX_HEAD_BYTES
    # Pieces of a body, of up to 64 KiB, that nobody has asked for. One would not do: `Http1` empties the queue to
    # put in that it is over, and another piece may wait to be put in meanwhile.
    config.max_app_queue_size = 2
    config.backlog = 4096
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = 30
    config.read_timeout = 60
    config.graceful_timeout = 3
    if settings is not None:
        config.websocket_max_message_size = settings.max_message_bytes
        # A live socket is heard from once per ping, so this ends only what is dead or was never meant well.
        config.read_timeout = int(settings.ping_interval + settings.ping_timeout) + 5
    return config


def http_only(app: Callable[..., Awaitable[None]], limits: Limits) -> Callable[..., Awaitable[None]]:
    """An ASGI application that serves HTTP and nothing else, told so in a way that is not logged as an error."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                limits.address("probes", scope["client"][0] if scope.get("client") else "")
            except RateLimited as error:
                status, headers, body = refusal(error)
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
            else:
                await app(scope, receive, send)
        elif scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
        else:
            await receive()
            await send({"type": "websocket.close"})

    return front
