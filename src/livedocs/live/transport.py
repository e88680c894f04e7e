"""Hypercorn's connections: HTTP/1.1 alone is spoken on them, and those of accepted WebSockets are taken over.

This is the only module that touches Hypercorn's private attributes. It was written against the versions in
`TESTED`, and the server does not start on another one. Tests fail if on the installed one the direct path is not
taken (`tests/integration/sockets/test_slow.py`) or HTTP/2 is spoken (`tests/security/test_http_2.py`).
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import h11
from hypercorn.asyncio import tcp_server
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import events
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup, WorkerContext
from wsproto.events import Message

from livedocs.live.outbox import AsgiOutbox, Outbox, Send

TESTED = frozenset({"0.18"})

SOCKET_PATHS = frozenset({"/socket.io", "/socket.io/"})

MAX_HEAD_BYTES = 2**15
"""Of a request line and its header fields: three cookies of the largest token, and as much again for all else."""
MAX_HEAD_LINES = 100
HEAD_SECONDS = 15.0
"""From the first byte of a request's head to its last."""

# Bytes of a connection past twice of which asyncio reads no further until they are wanted.
_READ_AHEAD = 2**14
# Where h11 takes a head to end.
_HEAD_END = re.compile(rb"\n\r?\n")
# What of a head's end may be in the bytes before.
_STRADDLE = 2
_UPGRADE = b"upgrade"
_SOCKET_TARGETS = frozenset(path.encode() for path in SOCKET_PATHS)


def check_version(installed: str) -> None:
    """Refuse a Hypercorn that this module was not written against.

    What is done here to its insides closes holes of its own: where they may have moved, better no server than one
    that buffers without end and unfolds whatever is compressed.

    Raises:
        RuntimeError: another one is installed.
    """
    if ".".join(installed.split(".")[:2]) not in TESTED:
        msg = f"Hypercorn {installed} is installed; livedocs is written against {', '.join(sorted(TESTED))}"
        raise RuntimeError(msg)


def speak_http_1_only() -> None:
    """Have Hypercorn speak HTTP/1.1 on every connection of this process, and never HTTP/2.

    By itself it turns to HTTP/2 for whoever begins with it (RFC 9113, 3.3) or asks for an upgrade to `h2c`. There
    a peer that grants no window had 2.2 GB kept for it in 27 s before anybody knew who it was, and a proxy that
    passes the upgrade on becomes a pipe through which forged headers come.

    Raises:
        RuntimeError: this Hypercorn chooses its protocols in another way.
    """
    wrapper = getattr(tcp_server, "ProtocolWrapper", None)
    if wrapper is Http1:
        return
    chooses = list(inspect.signature(wrapper).parameters) if inspect.isclass(wrapper) else []
    hooks = (H11Protocol._check_protocol, H11Protocol._create_stream, H11Protocol._send_error_response)  # noqa: SLF001
    if chooses != list(inspect.signature(Http1).parameters) or not all(map(inspect.iscoroutinefunction, hooks)):
        msg = "this Hypercorn chooses its protocols in another way; HTTP/2 cannot be switched off in it"
        raise RuntimeError(msg)
    tcp_server.ProtocolWrapper = Http1  # type: ignore[attr-defined, assignment]


class Http1(H11Protocol):
    """HTTP/1.1 on one connection, and of a request's head only so much and for so long.

    In place of Hypercorn's `ProtocolWrapper`, which chooses between protocols. h11 bounds only a head that is not
    complete; one that is may have 16,000 fields, whose parsing blocks everybody.
    """

    def __init__(  # noqa: PLR0917 - Hypercorn's
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        task_group: TaskGroup,
        state: ConnectionState,
        ssl: bool,  # noqa: FBT001
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        send: Callable[[Event], Awaitable[None]],
        alpn_protocol: str | None = None,  # noqa: ARG002 - whatever a TLS handshake has come to
    ) -> None:
        super().__init__(app, config, context, task_group, state, ssl, client, server, send)
        listening = getattr(send, "__self__", None)
        if isinstance(listening, TCPServer):
            # Else 128 KiB of what nobody has looked at are kept of each connection, before anybody is known.
            listening.reader._limit = _READ_AHEAD  # type: ignore[attr-defined]  # noqa: SLF001
        # Of the head that is coming in: bytes, lines, its last bytes, and when it is too late for the rest.
        self._head_bytes = 0
        self._head_lines = 0
        self._head_tail = b""
        self._overdue: asyncio.TimerHandle | None = None
        # Whoever was refused here is not listened to any more.
        self._refused = False

    async def handle(self, event: Event) -> None:
        """Bytes of the peer's, or its end."""
        if self._refused:
            return
        if isinstance(event, Closed):
            self._head_done()
            if self.stream is None:
                # Hypercorn keeps a connection whose peer has gone for as long as one that is at rest.
                await self.send(event)
        elif isinstance(event, RawData) and event.data and not self._takes(event.data):
            await self._refuse(431)
            return
        await super().handle(event)

    async def stream_send(self, event: events.Event) -> None:
        """What the application says. Nobody's requests wait here one behind the other (RFC 9112, 9.3.2)."""
        if (
            isinstance(event, events.Response)
            and self.connection.their_state is h11.DONE
            and self.connection.trailing_data[0]
        ):
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    def _takes(self, data: bytes) -> bool:
        """Count what has come of a head, if it is one. False when that is too much of it."""
        if self.connection.their_state is not h11.IDLE:
            return True
        known = len(self._head_tail)
        end = _HEAD_END.search(self._head_tail + data)
        size = end.end() - known if end else len(data)
        self._head_bytes += size
        self._head_lines += data.count(b"\n", 0, size)
        self._head_tail = data[-_STRADDLE:]
        if end is None and self._overdue is None:
            self._overdue = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._too_late)
        # One for the request line, one for the empty line.
        return self._head_bytes <= MAX_HEAD_BYTES and self._head_lines <= MAX_HEAD_LINES + 2

    def _head_done(self) -> None:
        self._head_bytes = self._head_lines = 0
        self._head_tail = b""
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _too_late(self) -> None:
        transport = _transport_of(self)
        if transport is not None:
            transport.abort()

    async def _refuse(self, status: int) -> None:
        self._refused = True
        self._head_done()
        await self._send_error_response(status)
        await self.send(Closed())

    async def _check_protocol(self, event: h11.Request) -> None:
        """Here Hypercorn turns to HTTP/2; RFC 9110, 7.8, lets a server ignore an upgrade."""

    async def _close_stream(self) -> None:
        # What the application has not read by now nobody needs. Hypercorn would wait for room in its queue to say
        # that it is over: for ever when it has ended itself, with the connection and all that is in it.
        queue = getattr(getattr(self.stream, "app_put", None), "__self__", None)
        while isinstance(queue, asyncio.Queue) and not queue.empty():
            queue.get_nowait()
        await super()._close_stream()

    async def _create_stream(self, request: h11.Request) -> None:
        self._head_done()
        if not request.http_version.startswith(b"1."):
            await self._refuse(505)
            return
        await super()._create_stream(_without_other_upgrades(request))


def _without_other_upgrades(request: h11.Request) -> h11.Request:
    """The request, whose one possible upgrade is that of `/socket.io` to a WebSocket."""
    wanted = [value for name, value in request.headers if name == _UPGRADE]
    path = request.target.partition(b"?")[0]
    if not wanted or (path in _SOCKET_TARGETS and [value.strip().lower() for value in wanted] == [b"websocket"]):
        return request
    kept = [(name, value) for name, value in request.headers if name != _UPGRADE]
    return h11.Request(
        method=request.method, target=request.target, headers=kept, http_version=request.http_version
    )


class _BoundedBuffer(WebsocketBuffer):
    """Hypercorn's message buffer, with an end.

    Hypercorn's own goes on growing after it has refused a message: one fragmented message took a process from 44
    to 249 MB. Here the first overflow stops reading and cuts the connection off.
    """

    def __init__(self, max_length: int, transport: asyncio.Transport | None, abort: Callable[[], None]) -> None:
        super().__init__(max_length)
        self._transport = transport
        self._abort = abort
        self._overflown = False

    def extend(self, event: Message[Any]) -> None:
        if self._overflown:
            raise FrameTooLargeError
        try:
            super().extend(event)
        except FrameTooLargeError:
            self._overflown = True
            self.clear()
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()
            # Hypercorn writes the close frame (1009) after this returns.
            asyncio.get_running_loop().call_later(0.1, self._abort)
            raise


def direct_transport(send: Send) -> asyncio.Transport | None:
    """The asyncio transport behind a WebSocket's `send`, if it takes finished frames."""
    stream = getattr(send, "__self__", None)
    if not isinstance(stream, WSStream) or not isinstance(getattr(stream.send, "__self__", None), H11Protocol):
        return None
    return connection_of(send)


def connection_of(send: Send) -> asyncio.Transport | None:
    """The asyncio transport of the connection behind ASGI's `send`."""
    stream = getattr(send, "__self__", None)
    if not isinstance(stream, WSStream | HTTPStream):
        return None
    protocol = getattr(stream.send, "__self__", None)
    return _transport_of(protocol) if isinstance(protocol, H11Protocol) else None


def _transport_of(protocol: H11Protocol) -> asyncio.Transport | None:
    server = getattr(protocol.send, "__self__", None)
    if not isinstance(server, TCPServer):
        return None
    transport = server.writer.transport
    return transport if isinstance(transport, asyncio.Transport) else None


class _Gone:
    """In place of a connection that is not Hypercorn's any more: what it still says goes nowhere."""

    def write(self, data: bytes) -> None:
        """Not written."""

    def write_eof(self) -> None:
        """The connection stays open."""

    def is_closing(self) -> bool:
        """Else asyncio's writer closes the connection when it is collected."""
        return True

    def close(self) -> None:
        """It is not closed."""


_gone = _Gone()


async def _unheard(event: Event) -> None:
    """In place of the way from Hypercorn's protocol to its connection, which hold each other otherwise."""


async def accept(send: Send, headers: list[tuple[bytes, bytes]]) -> asyncio.Transport | None:
    """Accept a WebSocket, without compression, and take its connection over if that is possible.

    Hypercorn takes permessage-deflate whenever it is offered: a compression context per socket, and 292 KB of
    input that became 389 MB. And a connection costs it two tasks and some 20 KiB for as long as it lasts.

    Returns:
        The connection, from now on the caller's alone: Hypercorn's part ends when its application returns. None
        where the socket goes on by ASGI, as with a peer that sent frames too early.
    """
    stream = getattr(send, "__self__", None)
    if isinstance(stream, WSStream):
        stream.handshake.extensions = None
    turned = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turned.cancel)
    await send({"type": "websocket.accept", "headers": headers})
    # When others have had their turn meanwhile, Hypercorn may have read on already.
    return None if turned.done() else _take_over(send)


def _take_over(send: Send) -> asyncio.Transport | None:
    transport = direct_transport(send)
    if transport is None or transport.is_closing():
        return None
    stream: WSStream = send.__self__  # type: ignore[attr-defined] # direct_transport has looked
    protocol: H11Protocol = stream.send.__self__  # type: ignore[attr-defined]
    server: TCPServer = protocol.send.__self__  # type: ignore[attr-defined]
    streams = transport.get_protocol()
    if stream.closed or server.reader.at_eof() or not isinstance(streams, asyncio.StreamReaderProtocol):
        return None
    # To Hypercorn it looks as if the connection had been lost.
    streams.connection_lost(None)
    if not server.reader.at_eof():
        # The peer has sent frames before it was told that it may. Hypercorn reads them and closes the connection.
        return None
    server.writer._transport = _gone  # type: ignore[attr-defined]  # noqa: SLF001
    server.protocol.send = protocol.send = _unheard
    return transport


def open_outbox(send: Send, max_message: int) -> Outbox:
    """The way out of an accepted WebSocket that stays with the server, with a bound on what comes in.

    Whoever opens it has to see to it that a peer that has fallen silent is cut off.
    """
    outbox = AsgiOutbox(send, asyncio.current_task())
    stream = getattr(send, "__self__", None)
    if isinstance(stream, WSStream):
        stream.buffer = _BoundedBuffer(max_message, direct_transport(send), outbox.abort)
    return outbox
