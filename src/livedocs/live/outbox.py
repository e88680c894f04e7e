"""The way out of the process: bytes to one socket, all on one path and in one order.

Finished frames of a connection that was taken over from Hypercorn go straight to its asyncio transport; those of a
socket that stayed with the server go through ASGI's `send`. See `transport.py`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

from livedocs.live import frames
from livedocs.live.frames import Frame

Send = Callable[[dict[str, Any]], Awaitable[None]]

# A peer that does not take the close frame and what is ahead of it within that many seconds is cut off.
LINGER = 2.0
# Bytes waiting for a peer past which nothing more is done for it until it has taken them; asyncio's own measure.
_FULL = 2**16
# Bytes that a transport is given at a time: it copies what it cannot send at once.
_PIECE = 2**17
# Pieces, and so bytes, that one socket is given in a turn of the loop: the kernel copies some 2 GB a second.
_PIECES = 4
_AT_ONCE = _PIECES * _PIECE


class Outbox(Protocol):
    """Where a socket's frames go. Never blocks, never raises."""

    path: Literal["direct", "asgi"]

    def write(self, frame: Frame) -> None:
        """Send a frame behind all earlier ones."""

    def offer(self, frame: Frame) -> int:
        """Send a frame if nothing waits ahead of it. How many of its bytes wait now, or -1: it was not taken."""

    def backlog(self) -> tuple[int, int]:
        """Bytes and messages that the peer has not taken yet."""

    @property
    def taken(self) -> int:
        """Bytes that the peer has taken of those that ever had to wait: grows exactly while there is progress."""

    async def writable(self) -> None:
        """Wait until little enough waits for the peer that it may ask for more."""

    def close(self, code: int) -> None:
        """Send what is waiting, then close; cut off if that takes too long."""

    def abort(self) -> None:
        """Cut off at once; what is waiting is lost."""


class DirectOutbox:
    """Writes to the asyncio transport of a connection that was taken over.

    Once the transport has its fill, the rest waits here: the transport would copy it for each socket, while here a
    frame that is for a thousand sockets is one. The connection's protocol passes on the transport's word
    (`pause`, `resume`), and that it is gone (`lost`).
    """

    __slots__ = ("_closing", "_fd", "_full", "_messages", "_queue", "_queued", "_room", "_transport", "_written")

    path: Literal["direct", "asgi"] = "direct"

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        # What the transport has no room for, and its bytes; there only while there is any.
        self._queue: deque[memoryview] | None = None
        self._queued = 0
        # Whether the transport has said that it has its fill.
        self._full = False
        # Whoever waits until it has not.
        self._room: asyncio.Future[None] | None = None
        # The code to close with once the queue is empty.
        self._closing: int | None = None
        # Bytes that ever had to wait, here or in the transport.
        self._written = 0
        # Messages written since nothing was waiting.
        self._messages = 0
        # The socket's own descriptor. It is the transport's business as long as that is not closing; -1 with TLS,
        # where what goes to the socket is not what was written.
        self._fd = _plain_descriptor(transport)

    def offer(self, frame: Frame) -> int:
        """Send a frame if nothing waits ahead of it. How many of its bytes wait now, or -1: it was not taken.

        The way through the transport's `write` costs more than all else that a delivery needs.
        """
        transport = self._transport
        if self._fd < 0 or transport.get_write_buffer_size() or self._queued or transport.is_closing():
            return -1
        wire = frame.wire
        try:
            sent = os.write(self._fd, wire if len(wire) <= _AT_ONCE else memoryview(wire)[:_AT_ONCE])
        except OSError:
            # Would block, or broken: the transport finds out which, and acts on it.
            return -1
        if sent == len(wire):
            return 0
        self._messages = 1
        self._written += len(wire) - sent
        self._put(memoryview(wire)[sent:])
        return len(wire) - sent

    def write(self, frame: Frame) -> None:
        """Send a frame behind all earlier ones."""
        transport = self._transport
        if self._closing is not None or transport.is_closing():
            return
        self._messages = self._messages + 1 if self.backlog()[0] else 1
        self._written += len(frame.wire)
        self._put(memoryview(frame.wire))

    def _put(self, data: memoryview) -> None:
        """Give the transport what it has room for, and keep the rest."""
        if self._queue is None and not self._full and len(data) <= _PIECE:
            self._transport.write(data)
            return
        self._queue = self._queue or deque()
        self._queue.append(data)
        self._queued += len(data)
        self._fill()

    def _fill(self) -> None:
        """Give the transport piece by piece until it has its fill; if that takes long, go on in another turn."""
        pieces = _PIECES
        while self._queue and not self._full:
            if not pieces:
                asyncio.get_running_loop().call_soon(self._go_on)
                return
            pieces -= 1
            data = self._queue.popleft()
            piece, rest = data[:_PIECE], data[_PIECE:]
            if rest:
                self._queue.appendleft(rest)
            self._queued -= len(piece)
            self._transport.write(piece)
        if not self._queue:
            self._queue = None

    def backlog(self) -> tuple[int, int]:
        """Bytes and messages that the peer has not taken yet."""
        size = self._transport.get_write_buffer_size() + self._queued
        return size, self._messages if size else 0

    @property
    def taken(self) -> int:
        """Bytes that the peer has taken of those that ever had to wait."""
        return self._written - self.backlog()[0]

    async def writable(self) -> None:
        """Wait until the transport has room."""
        while self._full and not self._transport.is_closing():
            self._room = self._room or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def pause(self) -> None:
        """The transport has its fill."""
        self._full = True

    def resume(self) -> None:
        """The transport has room again."""
        self._full = False
        self._go_on()

    def _go_on(self) -> None:
        self._fill()
        if not self._full and not self._queue:
            self._wake()
            if self._closing is not None:
                self._finish(self._closing)

    def lost(self) -> None:
        """The connection is gone."""
        self._queue, self._queued = None, 0
        self._wake()

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def close(self, code: int) -> None:
        """Send what is waiting, then close; cut off if that takes too long."""
        if self._closing is not None or self._transport.is_closing():
            return
        self._closing = code
        asyncio.get_running_loop().call_later(LINGER, self._transport.abort)
        if not self._queue:
            self._finish(code)

    def _finish(self, code: int) -> None:
        if not self._transport.is_closing():
            self._transport.write(frames.close(code))
            self._transport.close()

    def abort(self) -> None:
        """Cut off at once; what is waiting is lost."""
        self._queue, self._queued = None, 0
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

    __slots__ = ("_bytes", "_closing", "_owner", "_queue", "_room", "_send", "_task", "taken")

    path: Literal["direct", "asgi"] = "asgi"

    def __init__(self, send: Send, owner: asyncio.Task[Any] | None) -> None:
        self._send = send
        # The task that serves the socket: when it ends, the server closes the connection.
        self._owner = owner
        self._queue: deque[Frame] = deque()
        self._bytes = 0
        self.taken = 0
        # Set while there is room.
        self._room = asyncio.Event()
        self._room.set()
        self._closing: int | None = None
        self._task: asyncio.Task[None] | None = None

    def offer(self, frame: Frame) -> int:  # noqa: ARG002 - the same for every frame
        """Never taken: whether the server has something waiting cannot be seen from here."""
        return -1

    def write(self, frame: Frame) -> None:
        """Send a frame behind all earlier ones."""
        if self._closing is None:
            self._queue.append(frame)
            self._count(len(frame.text))
            self._wake()

    def backlog(self) -> tuple[int, int]:
        """Bytes and messages that the peer has not taken yet."""
        return self._bytes, len(self._queue)

    def _count(self, change: int) -> None:
        self._bytes += change
        if self._bytes > _FULL:
            self._room.clear()
        else:
            self._room.set()

    async def writable(self) -> None:
        """Wait until there is room."""
        await self._room.wait()

    def close(self, code: int) -> None:
        """Send what is waiting, then close; cut off if that takes too long."""
        if self._closing is None:
            self._closing = code
            self._wake()
            asyncio.get_running_loop().call_later(LINGER, self.abort)

    def abort(self) -> None:
        """Cut off at once; what is waiting is lost."""
        self._queue.clear()
        self._count(-self._bytes)
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
                    size = len(self._queue.popleft().text)
                    self.taken += size
                    self._count(-size)
            if self._closing is not None:
                await self._send({"type": "websocket.close", "code": self._closing})
        except (OSError, RuntimeError):
            self._queue.clear()
            self._count(-self._bytes)
        finally:
            self._task = None
