"""The way out of the process: bytes to one socket, all on one path and in one order.

Under Hypercorn over HTTP/1.1 the connection of an accepted WebSocket is taken over, and finished frames go
straight to its asyncio transport; elsewhere (HTTP/2, another server) they go through ASGI's `send`. This is the
only module that touches Hypercorn's private attributes; it was written against the versions in `TESTED`, the
server does not start on another one, and `tests/integration/sockets/test_slow.py` fails if the direct path is not
taken on the installed one.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Event
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from wsproto.events import Message

from livedocs.live import frames
from livedocs.live.frames import Frame

TESTED = frozenset({"0.18"})

Send = Callable[[dict[str, Any]], Awaitable[None]]

# A peer that does not take the close frame and what is ahead of it within that many seconds is cut off.
LINGER = 2.0


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


class Outbox(Protocol):
    """Where a socket's frames go. Never blocks, never raises."""

    path: Literal["direct", "asgi"]

    def write(self, frame: Frame) -> None:
        """Send a frame behind all earlier ones."""

    def offer(self, frame: Frame) -> int:
        """Send a frame if nothing waits ahead of it. How many of its bytes wait now, or -1: it was not taken."""

    def backlog(self) -> tuple[int, int]:
        """Bytes and messages that the peer has not taken yet."""

    def close(self, code: int) -> None:
        """Send what is waiting, then close; cut off if that takes too long."""

    def abort(self) -> None:
        """Cut off at once; what is waiting is lost."""


class DirectOutbox:
    """Writes to the asyncio transport of a connection that was taken over."""

    __slots__ = ("_fd", "_messages", "_transport")

    path: Literal["direct", "asgi"] = "direct"

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        # Messages written since the transport's buffer was last seen empty.
        self._messages = 0
        # The socket's own descriptor. It is the transport's business as long as that is not closing; -1 with TLS,
        # where what goes to the socket is not what was written.
        self._fd = _plain_descriptor(transport)

    def offer(self, frame: Frame) -> int:
        """Send a frame if nothing waits ahead of it. How many of its bytes wait now, or -1: it was not taken.

        The way through the transport's `write` costs more than all else that a delivery needs.
        """
        transport = self._transport
        if self._fd < 0 or transport.get_write_buffer_size() or transport.is_closing():
            return -1
        wire = frame.wire
        try:
            sent = os.write(self._fd, wire)
        except OSError:
            # Would block, or broken: the transport finds out which, and acts on it.
            return -1
        if sent == len(wire):
            return 0
        self._messages = 1
        transport.write(wire[sent:])
        return len(wire) - sent

    def write(self, frame: Frame) -> None:
        """Send a frame behind all earlier ones."""
        transport = self._transport
        if transport.is_closing():
            return
        self._messages = self._messages + 1 if transport.get_write_buffer_size() else 1
        transport.write(frame.wire)

    def backlog(self) -> tuple[int, int]:
        """Bytes and messages that the peer has not taken yet."""
        size = self._transport.get_write_buffer_size()
        return size, self._messages if size else 0

    def close(self, code: int) -> None:
        """Send what is waiting, then close; cut off if that takes too long."""
        if not self._transport.is_closing():
            self._transport.write(frames.close(code))
            self._transport.close()
            asyncio.get_running_loop().call_later(LINGER, self._transport.abort)

    def abort(self) -> None:
        """Cut off at once; what is waiting is lost."""
        self._transport.abort()


def _plain_descriptor(transport: asyncio.WriteTransport) -> int:
    """The descriptor of a transport that writes to its socket what it is given; -1 for any other."""
    peer = transport.get_extra_info("socket")
    if peer is None or transport.get_extra_info("sslcontext") is not None or peer.type != socket.SOCK_STREAM:
        return -1
    descriptor: int = peer.fileno()
    return descriptor


class AsgiOutbox:
    """Queues for ASGI's `send`, which one task awaits; the task lives only while something waits."""

    __slots__ = ("_bytes", "_closing", "_owner", "_queue", "_send", "_task")

    path: Literal["direct", "asgi"] = "asgi"

    def __init__(self, send: Send, owner: asyncio.Task[Any] | None) -> None:
        self._send = send
        # The task that serves the socket: when it ends, the server closes the connection.
        self._owner = owner
        self._queue: deque[Frame] = deque()
        self._bytes = 0
        self._closing: int | None = None
        self._task: asyncio.Task[None] | None = None

    def offer(self, frame: Frame) -> int:  # noqa: ARG002 - the same for every frame
        """Never taken: whether the server has something waiting cannot be seen from here."""
        return -1

    def write(self, frame: Frame) -> None:
        """Send a frame behind all earlier ones."""
        if self._closing is None:
            self._queue.append(frame)
            self._bytes += len(frame.text)
            self._wake()

    def backlog(self) -> tuple[int, int]:
        """Bytes and messages that the peer has not taken yet."""
        return self._bytes, len(self._queue)

    def close(self, code: int) -> None:
        """Send what is waiting, then close; cut off if that takes too long."""
        if self._closing is None:
            self._closing = code
            self._wake()
            asyncio.get_running_loop().call_later(LINGER, self.abort)

    def abort(self) -> None:
        """Cut off at once; what is waiting is lost."""
        self._queue.clear()
        self._bytes = 0
        self._closing = self._closing or 1011
        if self._task is not None:
            self._task.cancel()
        if self._owner is not None:
            self._owner.cancel()

    def _wake(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain(), name="asgi-outbox")

    async def _drain(self) -> None:
        try:
            while self._queue:
                frame = self._queue[0]
                await self._send({"type": "websocket.send", "text": frame.text.decode()})
                # `abort` may have emptied the queue meanwhile.
                if self._queue:
                    self._bytes -= len(self._queue.popleft().text)
            if self._closing is not None:
                await self._send({"type": "websocket.close", "code": self._closing})
        except (OSError, RuntimeError):
            self._queue.clear()
            self._bytes = 0
        finally:
            self._task = None


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
    """The asyncio transport of the connection behind ASGI's `send`, shared by all that HTTP/2 carries in it."""
    stream = getattr(send, "__self__", None)
    if not isinstance(stream, WSStream | HTTPStream):
        return None
    protocol = getattr(stream.send, "__self__", None)
    if not isinstance(protocol, H11Protocol | H2Protocol):
        return None
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
        where the socket goes on by ASGI, as over HTTP/2.
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
        # Over HTTP/2 as well, which Hypercorn speaks with whoever begins with it.
        stream.buffer = _BoundedBuffer(max_message, direct_transport(send), outbox.abort)
    return outbox
