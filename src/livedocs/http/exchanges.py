"""What surrounds every request and WebSocket: its id, its span, and one log line at its end.

Ids from outside, `X-Request-Id` and `traceparent`, are taken from the configured proxies only: whoever could
choose them could hide behind another request's, or have everything traced.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from time import perf_counter
from typing import Any

from structlog.contextvars import bind_contextvars, bound_contextvars

from livedocs import exchange, tracing
from livedocs.exchange import Exchange
from livedocs.http.caller import Proxies
from livedocs.telemetry import Metrics, get_logger

_log = get_logger(__name__)

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
# What asks all the time whether the server is well; said only at the level `debug`.
_PROBES = frozenset({"/healthz", "/readyz"})
NO_ROUTE = "none"
_REFUSED = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


class Exchanges:
    """An ASGI application around another.

    Args:
        app: serves.
        proxies: whose word about others is believed.
    """

    def __init__(self, app: App, metrics: Metrics, proxies: Proxies) -> None:
        self._app = app
        self._metrics = metrics
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        peer = scope["client"][0] if scope.get("client") else ""
        made = self._open(scope, peer)
        exchange.begin(made)
        if scope["type"] == "http":
            with bound_contextvars(**made.ids):
                await self._serve(made, scope, receive, send)
            return
        # Its task is its own and ends with it: nothing has to be unbound, and nothing be kept for that.
        bind_contextvars(**made.ids)
        made.finish = self._say
        try:
            # Its `send` must stay the server's own: the sockets write to what is behind it. They note the status,
            # and have the id answered.
            await self._app(scope, receive, send)
        finally:
            if not made.goes_on:
                self._say(made)

    def _open(self, scope: Scope, peer: str) -> Exchange:
        if not self._proxies.trusts(peer):
            return Exchange(exchange.new_id(), address=peer)
        headers = _last_of_each(scope)
        forwarded = [
            value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"x-forwarded-for"
        ]
        return Exchange(
            exchange.id_from(headers.get(b"x-request-id")),
            tracing.parse_traceparent(headers.get(b"traceparent", "")),
            address=self._proxies.client(peer, forwarded),
        )

    async def _serve(self, made: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["method"] in METHODS else "OTHER"

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                made.status = message["status"]
                made.identified()
                # A refusal of the sockets has it already.
                headers = [header for header in message.get("headers", ()) if header not in made.headers]
                message = {**message, "headers": [*headers, *made.headers]}
                self._metrics.request_seconds.labels(method, made.route or NO_ROUTE).observe(
                    perf_counter() - made.began
                )
            await send(message)

        with tracing.span(method, kind="server", parent=made.parent) as span:
            try:
                await self._app(scope, receive, answer)
            finally:
                _describe(span, made, method)
                self._say(made, method)

    def _say(self, made: Exchange, method: str = "GET") -> None:
        # What is refused before it comes to a route would fill the log; the metrics count it.
        refused = not made.route and made.status in _REFUSED
        say = _log.debug if made.route in _PROBES or refused else _log.info
        known = {"tenant": made.tenant, "socket": made.socket, "reason": made.reason}
        say(
            "request",
            method=method,
            route=made.route or None,
            status=made.status,
            duration_ms=round((perf_counter() - made.began) * 1000, 1),
            address=made.address,
            **{name: value for name, value in known.items() if value is not None},
        )


def _last_of_each(scope: Scope) -> Mapping[bytes, str]:
    """The headers, by name in lower case; of several of one name the one that the nearest proxy wrote."""
    return {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _describe(span: tracing.Span, made: Exchange, method: str) -> None:
    """Name the span as the semantic conventions for HTTP have it."""
    span.rename(f"{method} {made.route}" if made.route else method)
    span.note("http.request.method", method)
    span.note("livedocs.request.id", made.id)
    if made.route:
        span.note("http.route", made.route)
    if made.tenant is not None:
        span.note("livedocs.tenant", made.tenant)
    if made.status is not None:
        span.note("http.response.status_code", made.status)
        if made.status >= 500:
            span.fail(str(made.status))
