"""What stands at the listening sockets: the one ASGI application, and how Hypercorn serves it.

`/socket.io` goes to the sockets and everything else to Quart; a refusal looks the same on either way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast
from weakref import WeakSet

from hypercorn import asyncio as hypercorn
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework
from prometheus_client import CollectorRegistry, make_asgi_app
from quart import Quart

from livedocs import exchange
from livedocs.config import Settings
from livedocs.errors import LivedocsError, NotFound
from livedocs.http.exchanges import App
from livedocs.http.problems import problem
from livedocs.live.sockets import Message, Receive, Scope, Send, Sockets
from livedocs.live.transport import connection_of
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

_SOCKET_PATHS = frozenset({"/socket.io", "/socket.io/"})


def refusal(error: LivedocsError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The answer for a refused handshake: status, headers, body."""
    answer = problem(error)
    made = exchange.current()
    made.status = answer.status
    headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Cache-Control": "no-store"}
    return (
        answer.status,
        [*((name.lower().encode(), value.encode()) for name, value in headers.items()), *made.headers],
        answer.body,
    )


class Front:
    """The one ASGI application: `/socket.io` to the sockets, everything else to Quart."""

    def __init__(self, quart: Quart, sockets: Sockets) -> None:
        self._quart = quart
        self._sockets = sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "lifespan" and scope["path"] in _SOCKET_PATHS:
            await self._sockets(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            status, headers, body = refusal(NotFound())
            await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": body})
        else:
            await self._quart(cast("Any", scope), cast("Any", receive), cast("Any", send))


class Stalls:
    """Cuts off HTTP peers that do not take their answers.

    Hypercorn waits for them without end: each keeps its answer in memory, and the server from stopping.

    Args:
        app: serves.
        patience: seconds in which a part of an answer has to be taken.
    """

    def __init__(self, app: App, patience: float) -> None:
        self._app = app
        self._patience = patience
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
            _log.info("an answer was not taken", address=(scope.get("client") or [None])[0])
            connection.abort()

        async def timely(message: Message) -> None:
            overdue = loop.call_later(self._patience, give_up)
            try:
                await send(message)
            finally:
                overdue.cancel()

        await self._app(scope, receive, timely)

    def cut(self) -> None:
        """Cut off whoever is left."""
        for connection in tuple(self._connections):
            connection.abort()


async def serve(front: App, bind: str, settings: Settings, stop: Callable[[], Awaitable[object]]) -> None:
    """Serve the public listener until `stop` returns."""
    config = listener(bind, settings)
    stalls = Stalls(front, settings.socket_stall_timeout)

    async def stopped() -> None:
        await stop()
        # Until then Hypercorn waits for requests under way, and after it for what has not been taken.
        asyncio.get_running_loop().call_later(config.graceful_timeout, stalls.cut)

    await hypercorn.serve(cast("ASGIFramework", stalls), config, shutdown_trigger=stopped)


async def serve_metrics(registry: CollectorRegistry, bind: str) -> None:
    """Serve `/metrics` on a listener of its own until cancelled."""
    metrics = http_only(make_asgi_app(registry))
    await hypercorn.serve(cast("ASGIFramework", metrics), listener(bind), shutdown_trigger=asyncio.Event().wait)


def listener(bind: str, settings: Settings | None = None) -> Config:
    """Hypercorn's configuration; what it leaves open by default is set here."""
    config = Config()
    config.bind = [bind]
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


def http_only(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """An ASGI application that serves HTTP and nothing else, told so in a way that is not logged as an error."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)
        elif scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
        else:
            await receive()
            await send({"type": "websocket.close"})

    return front
