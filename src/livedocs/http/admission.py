"""What holds before anything is done for a request or a handshake: what its address may have.

It stands around everything there is, so that no path can be forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from livedocs import exchange
from livedocs.access.connections import Quota
from livedocs.access.limits import Kind, Limits
from livedocs.config import Settings
from livedocs.errors import LivedocsError, RateLimited
from livedocs.exchange import Exchange
from livedocs.http.cors import cors_headers
from livedocs.http.exchanges import METHODS, App, Message, Receive, Scope, Send
from livedocs.http.headers import security_headers
from livedocs.http.problems import problem
from livedocs.telemetry import Metrics

PROBES = frozenset({"/healthz", "/readyz"})
_WITH_BODY = frozenset({b"content-length", b"transfer-encoding"})


def refusal(error: LivedocsError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The answer for what is refused outside of the HTTP application: status, headers, body."""
    answer = problem(error)
    made = exchange.current()
    made.status = answer.status
    headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Cache-Control": "no-store"}
    return answer.status, [*_encoded(headers), *made.headers], answer.body


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


class Admission:
    """An ASGI application around another, which is not called for what is refused.

    Args:
        app: serves, inside of an exchange.
        settings: `max_connections_per_address`, which counts requests where a proxy has the connections;
            `max_waiting_requests_per_address`; whose pages may read a refusal.
        limits: how often an address may ask.
        unread: bytes of answers that an address has not taken yet.
    """

    def __init__(self, app: App, settings: Settings, limits: Limits, metrics: Metrics, unread: Quota) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._unread = unread
        self._requests = Quota("requests", metrics, per_address=settings.max_connections_per_address)
        self._waiting = Quota("waiting requests", metrics, per_address=settings.max_waiting_requests_per_address)
        self._origins = settings.origins
        self._always = [*_encoded(security_headers(settings.public_url)), (b"vary", b"Origin")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        made = exchange.current()
        if scope["type"] == "websocket":
            await self._handshake(made, scope, receive, send)
        elif scope["type"] == "http":
            await self._request(made, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _handshake(self, made: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._limits.address("handshakes", made.address)
        except RateLimited as error:
            self._metrics.handshakes.labels(error.on_socket()).inc()
            await receive()
            status, headers, body = refusal(error)
            await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": body})
            return
        await self._app(scope, receive, send)

    async def _request(self, made: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        kind: Kind = "probes" if scope["path"] in PROBES else "requests"
        try:
            self._limits.address(kind, made.address)
            self._unread.check(made.address)
            self._requests.check(made.address)
            self._waiting.check(made.address)
        except LivedocsError as error:
            await self._refuse(error, scope, send)
            return
        with self._counted(made):
            if any(name in _WITH_BODY for name, _ in scope["headers"]):
                receive = _held_back(made, receive)
            await self._app(scope, receive, send)

    @contextmanager
    def _counted(self, made: Exchange) -> Iterator[None]:
        """Count a request while it lasts, and as long as nobody is known for it among those that wait."""
        address, waits = made.address, True

        def identified() -> None:
            nonlocal waits
            if waits:
                waits = False
                self._waiting.remove(address)

        self._requests.add(address)
        self._waiting.add(address)
        made.identified = identified
        try:
            yield
        finally:
            identified()
            self._requests.remove(address)

    async def _refuse(self, error: LivedocsError, scope: Scope, send: Send) -> None:
        status, headers, body = refusal(error)
        names = {name for name, _ in headers}
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        more = [header for header in self._always if header[0] not in names]
        headers = [*headers, *more, *_encoded(cors_headers(origins, self._origins))]
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        self._metrics.requests.labels(method, str(status)).inc()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _held_back(made: Exchange, receive: Receive) -> Receive:
    """Leave a body where it is, in the peer's TCP, until somebody is known or the answer begins.

    Quart takes a body as it comes, wanted or not: megabytes while somebody is asked about a made-up token.
    """
    wanted = asyncio.Event()
    counted = made.identified

    def identified() -> None:
        wanted.set()
        counted()

    made.identified = identified

    async def receive_later() -> Message:
        await wanted.wait()
        return await receive()

    return receive_later
