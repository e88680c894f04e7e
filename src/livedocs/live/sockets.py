"""The Socket.IO endpoint: an ASGI application for `/socket.io`, WebSocket only.

Who is asking is settled before the WebSocket is accepted, so that what is open has a principal. The one exception
are programs that send their token in CONNECT; they are few at a time and have seconds.

Sources: https://socket.io/docs/v4/engine-io-protocol; https://socket.io/docs/v4/socket-io-protocol
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from structlog.contextvars import bind_contextvars

from livedocs import exchange, tracing
from livedocs.access.authenticate import Authenticator
from livedocs.access.credentials import check_origin, login_id, origin_from, well_formed
from livedocs.access.limits import Limits
from livedocs.access.principal import Principal
from livedocs.config import Settings
from livedocs.errors import (
    BadRequest,
    Forbidden,
    InvalidToken,
    LivedocsError,
    MultipleCredentials,
    TooManyConnections,
    Unauthenticated,
)
from livedocs.live import frames, transport
from livedocs.live.calls import Calls, refusal
from livedocs.live.census import Arrival, Census
from livedocs.live.client import Bounds, Client
from livedocs.live.fanout import Fanout
from livedocs.live.heartbeat import Heartbeat
from livedocs.live.joins import Joins
from livedocs.live.protocol import Call, Connect, Leave, Pong, ProtocolError, check_handshake, parse
from livedocs.live.sessions import Sessions
from livedocs.live.timers import TimerWheel
from livedocs.live.transport import Outbox
from livedocs.model import Tenant
from livedocs.telemetry import Metrics, get_logger

log = get_logger(__name__)

_ROUTE = "/socket.io"
# Whoever goes on sending after as many refusals in a row does not read them.
_MOST_REFUSED = 100

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Edge(Protocol):
    """What the endpoint shares with the HTTP side of the house; app.py brings the two together."""

    def refusal(self, error: LivedocsError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The answer for a refused handshake: status, headers, body."""

    def address(self, scope: Scope) -> str:
        """The peer's address; forwarded headers are believed only from configured proxies."""


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A handshake whose credential was good; `login` is the browser's, whichever of its tokens this is."""

    principal: Principal
    tenant: Tenant
    token: str
    login: str | None = None


class Sockets:
    """Every socket of this process."""

    def __init__(
        self,
        settings: Settings,
        *,
        authenticator: Authenticator,
        joins: Joins,
        fanout: Fanout,
        sessions: Sessions,
        wheel: TimerWheel,
        edge: Edge,
        limits: Limits,
        metrics: Metrics,
        ended: Callable[[Client], None] = lambda _: None,
    ) -> None:
        self._ended = ended
        self._settings = settings
        self._authenticator = authenticator
        self._joins = joins
        self._fanout = fanout
        self._sessions = sessions
        self._wheel = wheel
        self._edge = edge
        self._metrics = metrics
        self._limits = limits
        self._census = Census(settings)
        self._calls = Calls(joins, fanout, self._reauthenticate, metrics, limits)
        self._bounds = Bounds(settings.socket_queue_bytes, settings.socket_queue_messages)
        self._clients: dict[str, Client] = {}
        metrics.sockets.follow(lambda: Counter(client.principal.tenant for client in self._clients.values()))
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def clients(self) -> Iterable[Client]:
        """The connected clients."""
        return tuple(self._clients.values())

    # -- ASGI --

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of `/socket.io`."""
        made = exchange.current()
        made.route = _ROUTE
        if scope["type"] != "websocket":
            await self._refuse_http(send)
            return
        await receive()
        address = self._edge.address(scope)
        try:
            with tracing.span(f"GET {_ROUTE}", kind="server", parent=made.parent):
                admitted = await self._admit(scope, address)
        except LivedocsError as error:
            self._note_refusal(error)
            await self._refuse(send, error)
            return
        # For as long as the socket lives only the address counts: the rest, the token among it, is let go of.
        scope["headers"] = [header for header in scope["headers"] if header[0].lower() == b"x-forwarded-for"]
        arrival = self._census.opened(address, vouched=admitted is not None)
        self._empty.clear()
        try:
            transport.decline_compression(send)
            made.status = 101
            await send({"type": "websocket.accept", "headers": made.headers})
            await self._serve(scope, receive, send, admitted, arrival)
        finally:
            self._census.ended(arrival)
            if not self._census.open:
                self._empty.set()

    def _note_refusal(self, error: LivedocsError) -> None:
        self._metrics.handshakes.labels(error.on_socket()).inc()
        if isinstance(error, TooManyConnections) and "limit" in error.data:
            self._metrics.limits_hit.labels(*error.data["limit"].split(" per ")).inc()

    async def _refuse_http(self, send: Send) -> None:
        """Long-polling: there the session id alone would be the credential."""
        status, headers, body = self._edge.refusal(BadRequest("Only the WebSocket transport is spoken here."))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _refuse(self, send: Send, error: LivedocsError) -> None:
        if isinstance(error, InvalidToken):
            error = Unauthenticated(error.detail)
        status, headers, body = self._edge.refusal(error)
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})

    async def _admit(self, scope: Scope, address: str) -> _Admitted | None:
        """Who is asking; None for a program that will say so in CONNECT.

        Raises:
            LivedocsError: the WebSocket is not to be accepted.
        """
        headers = scope["headers"]
        # Before anything is done for it, such as asking the OAuth service about its token.
        self._limits.address("handshakes", address)
        check_handshake(scope["query_string"])
        origin = origin_from(headers)
        found = await self._checked(scope)
        if found is None and origin is not None:
            raise Unauthenticated
        if self._draining:
            raise TooManyConnections(retry_after=1)
        self._census.check_open(address, vouched=found is not None)
        return found

    async def _checked(self, scope: Scope) -> _Admitted | None:
        headers = scope["headers"]
        # The origin is judged before the token is: a foreign page learns nothing about the cookie it rode on.
        origin = origin_from(headers)
        check_origin(origin, None, self._settings.origins)
        found = await self._authenticator.request(headers)
        if found is None:
            return None
        principal, tenant, credential = found
        check_origin(origin, credential, self._settings.origins)
        self._limits.caller("handshakes", principal, tenant)
        login = login_id(headers, secure=self._settings.secure) if credential.source == "cookie" else None
        return _Admitted(principal, tenant, credential.token, login)

    # -- one socket --

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, admitted: _Admitted | None, arrival: Arrival
    ) -> None:
        settings = self._settings
        outbox = transport.open_outbox(send, settings.max_message_bytes)
        heartbeat = Heartbeat(outbox, interval=settings.ping_interval, timeout=settings.ping_timeout)
        self._metrics.transports.labels(outbox.path).inc()
        self._wheel.put(heartbeat, settings.connect_timeout)
        client: Client | None = None
        reason: str | None = None
        try:
            outbox.write(
                frames.opened(
                    uuid4().hex,
                    ping_interval=settings.ping_interval,
                    ping_timeout=settings.ping_timeout,
                    max_payload=settings.max_message_bytes,
                )
            )
            client = await self._connect(scope, receive, outbox, heartbeat, admitted)
            if client is not None:
                self._census.vouched(arrival)
                await self._converse(receive, client, heartbeat)
        except ProtocolError as error:
            log.info("a socket broke the protocol", reason=str(error), address=self._edge.address(scope))
            reason = "protocol_error"
            outbox.close(1002)
        except asyncio.CancelledError:
            # An aborted socket without a transport ends its own task; at a stop the server does.
            if client is None or client.closed is None:
                raise
        finally:
            self._wheel.take(heartbeat)
            self._metrics.transports.labels(outbox.path).dec()
            if client is not None:
                reason = reason or client.closed
                self._forget(client)
            self._note_end(reason or heartbeat.gave_up)
            outbox.close(1000)

    async def _connect(
        self, scope: Scope, receive: Receive, outbox: Outbox, heartbeat: Heartbeat, admitted: _Admitted | None
    ) -> Client | None:
        """Wait for CONNECT. None when the socket ended, or was refused, before."""
        while True:
            packet = _packet(await receive())
            if packet is None or isinstance(packet, Leave):
                return None
            if isinstance(packet, Call):
                msg = "an event before CONNECT"
                raise ProtocolError(msg)
            if not isinstance(packet, Connect):
                continue
            if packet.namespace != "/":
                outbox.write(frames.connect_error("Invalid namespace", {"code": "bad_request"}, packet.namespace))
                continue
            try:
                with tracing.span("CONNECT", kind="server", parent=exchange.current().parent):
                    admitted = await self._identify(packet, admitted)
                client = self._welcome(scope, outbox, admitted)
            except LivedocsError as error:
                self._note_refusal(error)
                outbox.write(frames.connect_error(error.detail, refusal(error)))
                outbox.close(1008)
                return None
            heartbeat.connected = True
            self._wheel.put(heartbeat, self._settings.ping_interval)
            return client

    async def _identify(self, packet: Connect, admitted: _Admitted | None) -> _Admitted:
        """Authenticate CONNECT itself: the handshake's credential may have ended since, or there was none."""
        auth = packet.auth
        token = auth.get("token") if isinstance(auth, dict) else None
        if admitted is not None and token is not None:
            raise MultipleCredentials
        if admitted is not None:
            token = admitted.token
        if not isinstance(token, str) or not token:
            raise Unauthenticated
        if not well_formed(token):
            raise InvalidToken
        principal, tenant = await self._authenticator.token(token)
        if admitted is None:
            self._limits.caller("handshakes", principal, tenant)
            return _Admitted(principal, tenant, token)
        return _Admitted(principal, tenant, token, admitted.login)

    def _welcome(self, scope: Scope, outbox: Outbox, admitted: _Admitted) -> Client:
        principal = admitted.principal
        self._census.connected(principal, admitted.tenant)
        client = Client(
            uuid4().hex,
            principal,
            admitted.tenant,
            outbox,
            self._bounds,
            address=self._edge.address(scope),
            since=time.time(),
        )
        self._clients[client.sid] = client
        self._sessions.attach(client, admitted.token, admitted.login)
        self._metrics.handshakes.labels("ok").inc()
        client.send(frames.connected(client.sid))
        made = exchange.current()
        made.socket, made.tenant = client.sid, principal.tenant
        bind_contextvars(socket=client.sid)
        return client

    async def _converse(self, receive: Receive, client: Client, heartbeat: Heartbeat) -> None:
        # Events in a row that came too fast.
        refused = 0
        while client.closed is None:
            match _packet(await receive()):
                case None | Leave():
                    return
                case Pong():
                    self._wheel.put(heartbeat, heartbeat.pong())
                case Call() as call:
                    refused = 0 if await self._calls.answer(client, call) else refused + 1
                    if refused > _MOST_REFUSED:
                        client.close("rate_limited")
                case Connect():
                    # Each CONNECT is authenticated: a second one needs a connection of its own.
                    msg = "a second CONNECT"
                    raise ProtocolError(msg)

    def _note_end(self, reason: str | None) -> None:
        """A socket has ended; by the server's will if there is a reason."""
        if reason is not None:
            exchange.current().reason = reason
            self._metrics.disconnects.labels(reason).inc()

    def _forget(self, client: Client) -> None:
        client.closed = client.closed or "gone"
        self._ended(client)
        for membership in tuple(self._fanout.rooms.of_member(client).values()):
            self._fanout.remove(membership)
        self._sessions.detach(client)
        del self._clients[client.sid]
        self._census.disconnected(client.principal)

    async def _reauthenticate(self, client: Client, token: str) -> None:
        principal, _ = await self._authenticator.token(token, fresh=True)
        if (principal.tenant, principal.subject) != (client.principal.tenant, client.principal.subject):
            detail = "The new token is somebody else's."
            raise Forbidden(detail)
        if principal.groups != client.principal.groups:
            await self._joins.reauthorize(client, principal)
        login = client.session.login if client.session is not None else None
        self._sessions.detach(client)
        client.principal = principal
        self._sessions.attach(client, token, login)

    # -- all sockets --

    def tenants_changed(self, tenant_of: Callable[[str], Tenant | None]) -> None:
        """Apply the registry as it is now: everyone of a suspended or deleted tenant is out at once.

        A service that is confined to other collections than before comes back under the new rule: which events its
        rooms give it was decided by the old one.
        """
        for client in self.clients:
            tenant, subject = tenant_of(client.tenant.slug), client.principal.subject
            if tenant is None or not tenant.active:
                client.close("tenant_suspended")
            elif tenant.confines(subject) != client.tenant.confines(subject):
                client.close("confined")
            else:
                client.tenant = tenant

    async def drain(self, grace: float) -> None:
        """Send everyone elsewhere, give them `grace` seconds, then close what is left."""
        self._draining = True
        frame = frames.event("$goaway", {"reason": "shutdown", "within_ms": int(grace * 1000)})
        for client in self.clients:
            client.send(frame)
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            for client in self.clients:
                client.close("shutdown")


def _packet(message: Message) -> Any:
    """The packet of a message, or None when the peer is gone."""
    if message["type"] == "websocket.disconnect":
        return None
    text = message.get("text")
    if text is None:
        msg = "binary messages are refused"
        raise ProtocolError(msg)
    return parse(text)
