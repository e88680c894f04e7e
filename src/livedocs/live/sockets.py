"""The Socket.IO endpoint: an ASGI application for `/socket.io`, WebSocket only.

Who is asking is settled before the WebSocket is accepted, so that what is open has a principal. The one exception
are programs that send their token in CONNECT; they are few at a time and have seconds.

Sources: https://socket.io/docs/v4/engine-io-protocol; https://socket.io/docs/v4/socket-io-protocol
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from structlog.contextvars import bind_contextvars, bound_contextvars

from livedocs import exchange, tracing
from livedocs.access.authenticate import Authenticator
from livedocs.access.budgets import BytesInFlight
from livedocs.access.credentials import check_origin, login_id, origin_from, well_formed
from livedocs.access.limits import Limits
from livedocs.changes.cursor import Sealing
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
from livedocs.exchange import Exchange
from livedocs.live import frames, transport
from livedocs.live.calls import Calls
from livedocs.live.client import Bounds, Client
from livedocs.live.conversation import Admitted, Conversation
from livedocs.live.heartbeat import Heartbeat
from livedocs.live.joins import Joins
from livedocs.live.link import Link
from livedocs.live.memberships import Memberships
from livedocs.live.outbox import LINGER, DirectOutbox, Outbox
from livedocs.live.protocol import Call, Connect, check_handshake
from livedocs.live.quotas import Arrival, SocketQuotas
from livedocs.live.sessions import Sessions
from livedocs.live.tickets import Tickets
from livedocs.live.timers import TimerWheel
from livedocs.model import Tenant
from livedocs.telemetry import Metrics, get_logger, log_failure

log = get_logger(__name__)

_ROUTE = "/socket.io"
# Seconds in which sockets that are over are seen off before whatever else is waiting gets its turn.
_SLICE = 0.002

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


# How the HTTP side of the house says no; app.py brings the two together. Status, headers and body.
Refusal = Callable[[LivedocsError], tuple[int, list[tuple[bytes, bytes]], bytes]]


class Sockets:
    """Every socket of this process."""

    def __init__(
        self,
        settings: Settings,
        *,
        authenticator: Authenticator,
        joins: Joins,
        memberships: Memberships,
        backlogged: set[Client],
        cursors: Sealing,
        tickets: Tickets,
        sessions: Sessions,
        wheel: TimerWheel,
        refusal: Refusal,
        limits: Limits,
        budgets: BytesInFlight,
        metrics: Metrics,
        ended: Callable[[Client], None] = lambda _: None,
    ) -> None:
        self._ended = ended
        self._settings = settings
        self._authenticator = authenticator
        self._joins = joins
        self._memberships = memberships
        self._backlogged = backlogged
        self._sessions = sessions
        self._tickets = tickets
        self._wheel = wheel
        self._refusal = refusal
        self._metrics = metrics
        self._limits = limits
        self._budgets = budgets
        self._quotas = SocketQuotas(settings)
        self._calls = Calls(joins, memberships, self._reauthenticate, metrics, limits, cursors=cursors)
        self._bounds = Bounds(settings.socket_queue_bytes, settings.socket_queue_messages)
        self._clients: dict[str, Client] = {}
        # Accepted, and not connected yet.
        self._strangers: set[Conversation] = set()
        # Those that are over, and by whose will. While there are any, `_see_off` is about to be called.
        self._leaving: deque[tuple[Conversation, str | None]] = deque()
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
        address = made.address
        try:
            with tracing.span(f"GET {_ROUTE}", kind="server", parent=made.parent):
                admitted = await self._admit(scope, address)
        except LivedocsError as error:
            self._note_refusal(error)
            await self._refuse(send, error)
            return
        arrival = self._quotas.opened(address, vouched=admitted is not None)
        self._empty.clear()
        try:
            made.status = 101
            connection = await transport.accept(send, made.headers)
            direct = None if connection is None else DirectOutbox(connection)
            outbox: Outbox = direct or transport.open_outbox(send, self._settings.max_message_bytes)
        except BaseException:
            self._left(arrival)
            raise
        conversation = self._begin(made, outbox, admitted, arrival)
        if connection is not None and direct is not None:
            made.goes_on = True
            connection.set_protocol(Link(connection, conversation, direct, self._settings.max_message_bytes))
            return
        # Nothing of the handshake counts any more: it, and the token in it, is let go of.
        scope["headers"] = []
        await self._converse(receive, conversation)

    def _note_refusal(self, error: LivedocsError) -> None:
        self._metrics.handshakes.labels(error.on_socket()).inc()
        if isinstance(error, TooManyConnections) and "limit" in error.data:
            self._metrics.limits_hit.labels(*error.data["limit"].split(" per ")).inc()

    async def _refuse_http(self, send: Send) -> None:
        """Long-polling: there the session id alone would be the credential."""
        status, headers, body = self._refusal(BadRequest("Only the WebSocket transport is spoken here."))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _refuse(self, send: Send, error: LivedocsError) -> None:
        if isinstance(error, InvalidToken):
            error = Unauthenticated(error.detail)
        status, headers, body = self._refusal(error)
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})

    async def _admit(self, scope: Scope, address: str) -> Admitted | None:
        """Who is asking; None for a program that will say so in CONNECT.

        Raises:
            LivedocsError: the WebSocket is not to be accepted.
        """
        headers = scope["headers"]
        check_handshake(scope["query_string"])
        origin = origin_from(headers)
        found = await self._checked(scope, address)
        if found is None and origin is not None:
            raise Unauthenticated
        if self._draining:
            raise TooManyConnections(retry_after=1)
        self._quotas.check_open(address, vouched=found is not None)
        return found

    async def _checked(self, scope: Scope, address: str) -> Admitted | None:
        headers = scope["headers"]
        # The origin is judged before the token is: a foreign page learns nothing about the cookie it rode on.
        origin = origin_from(headers)
        check_origin(origin, None, self._settings.origins)
        found = await self._authenticator.request(headers, address=address)
        if found is None:
            return None
        principal, tenant, credential = found
        check_origin(origin, credential, self._settings.origins)
        self._limits.caller("handshakes", principal, tenant)
        login = login_id(headers, secure=self._settings.secure) if credential.source == "cookie" else None
        return Admitted(principal, tenant, credential.token, login)

    # -- one socket --

    def _begin(self, made: Exchange, outbox: Outbox, admitted: Admitted | None, arrival: Arrival) -> Conversation:
        settings = self._settings
        heartbeat = Heartbeat(outbox, interval=settings.ping_interval, timeout=settings.ping_timeout)
        conversation = Conversation(
            self, made, outbox=outbox, heartbeat=heartbeat, admitted=admitted, arrival=arrival
        )
        self._strangers.add(conversation)
        self._metrics.transports.labels(outbox.path).inc()
        self._wheel.put(heartbeat, settings.connect_timeout)
        outbox.write(
            frames.opened(
                uuid4().hex,
                ping_interval=settings.ping_interval,
                ping_timeout=settings.ping_timeout,
                max_payload=settings.max_message_bytes,
            )
        )
        return conversation

    async def _converse(self, receive: Receive, conversation: Conversation) -> None:
        """Read a socket that stays with the server."""
        try:
            while not conversation.over and (message := await receive())["type"] != "websocket.disconnect":
                await conversation.take(message.get("text"))
        except asyncio.CancelledError:
            # An aborted socket without a transport ends its own task; at a stop the server does.
            if conversation.client is None or conversation.client.closed is None:
                raise
        finally:
            conversation.end()
            conversation.outbox.close(1000)

    # -- what a conversation asks for; satisfies `conversation.House` --

    async def connect(self, conversation: Conversation, packet: Connect) -> Client:
        """Authenticate CONNECT, and take the socket in.

        Raises:
            LivedocsError: who asks is not let in.
        """
        try:
            admitted = await self._identify(packet, conversation.admitted, conversation.made.address)
            client = self._welcome(conversation, admitted)
        except LivedocsError as error:
            self._note_refusal(error)
            raise
        self._strangers.discard(conversation)
        self._quotas.vouched(conversation.arrival)
        conversation.heartbeat.connected = True
        self._wheel.put(conversation.heartbeat, self._settings.ping_interval)
        return client

    async def answer(self, client: Client, call: Call) -> bool:
        """Do what an event asks for. False when there were too many."""
        return await self._calls.answer(client, call)

    def counted(self, client: Client) -> bool:
        """Count a packet that asks for nothing as an event. False when there were too many."""
        return self._calls.counted(client)

    def alive(self, conversation: Conversation) -> None:
        """Its peer has answered a ping."""
        self._wheel.put(conversation.heartbeat, conversation.heartbeat.pong())

    def ended(self, conversation: Conversation, reason: str | None) -> None:
        """It is over; by the server's will if there is a reason."""
        if conversation.client is not None:
            # From now on nothing is done for it.
            conversation.client.closed = conversation.client.closed or "gone"
        if not self._leaving:
            asyncio.get_running_loop().call_soon(self._see_off)
        self._leaving.append((conversation, reason))

    def _see_off(self) -> None:
        """Do what is to be done for those that are over, a slice at a time: a thousand may go at once."""
        deadline = time.perf_counter() + _SLICE
        while self._leaving and time.perf_counter() < deadline:
            conversation, reason = self._leaving.popleft()
            with bound_contextvars(**conversation.made.ids):
                try:
                    self._forget(conversation, reason)
                except Exception as error:  # noqa: BLE001 - one socket's, whatever it is
                    self._metrics.contained.labels("socket").inc()
                    log_failure(log, "socket_left_in_error", error)
        if self._leaving:
            asyncio.get_running_loop().call_soon(self._see_off)

    def _forget(self, conversation: Conversation, reason: str | None) -> None:
        self._strangers.discard(conversation)
        self._wheel.take(conversation.heartbeat)
        self._metrics.transports.labels(conversation.outbox.path).dec()
        if conversation.client is not None:
            self._forget_client(conversation.client)
        if reason is not None:
            conversation.made.reason = reason
            self._metrics.disconnects.labels(reason).inc()
        self._left(conversation.arrival)
        if conversation.made.goes_on:
            conversation.made.finish(conversation.made)

    def _left(self, arrival: Arrival) -> None:
        self._quotas.ended(arrival)
        if not self._quotas.open:
            self._empty.set()

    async def _identify(self, packet: Connect, admitted: Admitted | None, address: str) -> Admitted:
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
        principal, tenant = await self._authenticator.token(token, address=address)
        if admitted is None:
            self._limits.caller("handshakes", principal, tenant)
            return Admitted(principal, tenant, token)
        return Admitted(principal, tenant, token, admitted.login)

    def _welcome(self, conversation: Conversation, admitted: Admitted) -> Client:
        principal, made = admitted.principal, conversation.made
        self._quotas.connected(principal, admitted.tenant)
        client = Client(
            uuid4().hex,
            principal,
            admitted.tenant,
            conversation.outbox,
            self._bounds,
            address=made.address,
            since=time.time(),
            backlogged=self._backlogged,
            unread=self._budgets.hold(principal),
        )
        self._clients[client.sid] = client
        self._tickets.seen(client, principal)
        self._sessions.attach(client, admitted.token, admitted.login)
        self._metrics.handshakes.labels("ok").inc()
        client.send(frames.connected(client.sid))
        made.socket, made.tenant = client.sid, principal.tenant
        bind_contextvars(socket=client.sid)
        return client

    def _forget_client(self, client: Client) -> None:
        client.unread.release()
        self._ended(client)
        for membership in tuple(self._memberships.rooms.of_member(client).values()):
            self._memberships.remove(membership)
        self._sessions.detach(client)
        del self._clients[client.sid]
        self._quotas.disconnected(client.principal)

    async def _reauthenticate(self, client: Client, token: str) -> None:
        # Not asked about anew if it was a moment ago: each question is a call of the provider's.
        principal, _ = await self._authenticator.token(token, address=client.address)
        if (principal.tenant, principal.subject) != (client.principal.tenant, client.principal.subject):
            detail = "The new token is somebody else's."
            raise Forbidden(detail)
        self._tickets.seen(client, principal)
        if principal.groups != client.principal.groups:
            await self._joins.reauthorize(client, principal)
        login = client.session.login if client.session is not None else None
        self._sessions.detach(client)
        client.principal = principal
        self._sessions.attach(client, token, login)
        self._tickets.renew(client)

    # -- all sockets --

    def tenants_changed(self, tenant_of: Callable[[str], Tenant | None]) -> None:
        """Apply the registry as it is now: everyone of a suspended or deleted tenant is out at once.

        A service that is confined to other collections than before comes back under the new rule: which events its
        rooms give it was decided by the old one.
        """
        for client in self.clients:
            tenant = tenant_of(client.tenant.slug)
            who = client.principal.subject, client.principal.client_id
            if tenant is None or not tenant.active:
                client.close("tenant_suspended")
            elif tenant.confines(*who) != client.tenant.confines(*who):
                client.close("confined")
            else:
                client.tenant = tenant

    async def drain(self, grace: float) -> None:
        """Send everyone elsewhere, give them `grace` seconds, then close what is left and see it closed."""
        self._draining = True
        frame = frames.event("$goaway", {"reason": "shutdown", "within_ms": int(grace * 1000)})
        for client in self.clients:
            client.send(frame)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._empty.wait()
        for client in self.clients:
            client.close("shutdown")
        for conversation in tuple(self._strangers):
            conversation.leave(1001)
        # Those that do not take their last frames are cut off before that.
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * LINGER):
                await self._empty.wait()
