"""A WebSocket that is read here: the protocol of a connection that Hypercorn has accepted and handed over.

wsproto takes the frames apart (RFC 6455, 5). A socket at rest has no parser, no task and no buffer here: there are
ten thousand of them that say nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from io import StringIO
from time import perf_counter

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

from livedocs.live.conversation import Conversation
from livedocs.live.outbox import DirectOutbox
from livedocs.telemetry import get_logger

log = get_logger(__name__)

# Messages that may wait for the one before them; then the socket is not read until they have been taken.
_MOST_WAITING = 10
# Bytes that are taken apart at a time, and seconds after which whatever else is waiting gets its turn. One read
# brings up to 256 KiB, which have room for 40,000 frames.
_STEP = 1024
_SLICE = 0.003
# Frames that are looked at to see whether a read ends with a whole one.
_FEW = 100
# Bytes that wait to be taken apart past which no more are read, and bytes that the peer may leave unread before it
# gets no more pongs: it would have them kept here without end.
_MOST_UNREAD = 2**16
# Engine.IO's packet that asks for nothing. A ping of the WebSocket's own counts as one: it costs as much.
_NOOP = "6"
# Bytes of the mask of a client's frame (RFC 6455, 5.2).
_MASK = 4


class Link(asyncio.Protocol):
    """Reads one socket, and hands its messages to the conversation in turn.

    Args:
        transport: of the connection; whoever makes this sets it as its protocol.
        conversation: hears what is said, and of the end.
        outbox: the way out over the same connection; told when that has its fill.
        most: bytes of the longest message.
    """

    __slots__ = (
        "_conversation",
        "_lost",
        "_most",
        "_outbox",
        "_parser",
        "_parts",
        "_passing",
        "_rest",
        "_size",
        "_task",
        "_transport",
        "_waiting",
    )

    def __init__(
        self, transport: asyncio.Transport, conversation: Conversation, outbox: DirectOutbox, most: int
    ) -> None:
        self._transport = transport
        self._conversation = conversation
        self._outbox = outbox
        self._most = most
        # From the first time on that a message came in pieces; `_passing`: only as long as this read lasts.
        self._parser: Connection | None = None
        self._passing = False
        # What has been read and not been taken apart yet. While there is any, nothing more is read.
        self._rest: bytearray | None = None
        # Of a message that is incomplete: its beginning, and the bytes of it.
        self._parts: StringIO | None = None
        self._size = 0
        # While there are messages to be taken; of them None is a binary one.
        self._waiting: deque[str | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._lost = False

    def data_received(self, data: bytes) -> None:
        """What the peer has sent."""
        if self._rest is not None:
            self._rest += data
            self._passing = self._passing and _whole(data)
        else:
            if self._parser is None:
                self._parser = Connection(ConnectionType.SERVER)
                self._passing = _whole(data)
            self._rest = bytearray(data)
            if len(data) <= _STEP:
                self._go_on()
                return
            # Not now: many may have much to say in the same turn of the loop.
            asyncio.get_running_loop().call_soon(self._go_on)
        if len(self._rest) > _MOST_UNREAD:
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Take apart what has been read, a slice of it now and the rest in later turns of the loop."""
        if self._rest is None:
            return
        deadline = perf_counter() + _SLICE
        while self._rest and not self._crowded and not self._is_over:
            piece = bytes(self._rest[:_STEP])
            del self._rest[:_STEP]
            self._take_apart(piece)
            if perf_counter() > deadline:
                break
        if self._rest and not self._is_over:
            # In a crowd `_talk` goes on, once it has made room.
            if not self._crowded:
                asyncio.get_running_loop().call_soon(self._go_on)
        else:
            self._rest = None
            if self._passing:
                self._parser = None
        self._regulate()

    @property
    def _crowded(self) -> bool:
        return self._waiting is not None and len(self._waiting) > _MOST_WAITING

    @property
    def _is_over(self) -> bool:
        return self._lost or self._conversation.over or self._transport.is_closing()

    def _regulate(self) -> None:
        """Read on exactly while there is use for what comes."""
        if self._rest is not None or self._crowded:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _take_apart(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            return
        parser.receive_data(data)
        for event in parser.events():
            match event:
                case TextMessage() | BytesMessage():
                    self._collect(event)
                case Ping():
                    if self._transport.get_write_buffer_size() <= _MOST_UNREAD:
                        self._transport.write(parser.send(event.response()))
                    self._heard(_NOOP)
                case CloseConnection(code=code):
                    # The peer's goodbye, or the parser's verdict on what was no frame.
                    unsaid = code == CloseReason.NO_STATUS_RCVD
                    self._conversation.leave(CloseReason.NORMAL_CLOSURE if unsaid else code)
            if self._conversation.over:
                return

    def _collect(self, event: TextMessage | BytesMessage) -> None:
        """A message, or the next part of it."""
        text = event.data if isinstance(event, TextMessage) else None
        # An empty part counts, too: there could be parts without end.
        self._size += len(event.data if text is None else text.encode()) or not event.message_finished
        if self._size > self._most:
            self._parts = None
            self._conversation.leave(CloseReason.MESSAGE_TOO_BIG)
        elif not event.message_finished:
            if text is not None:
                self._parts = self._parts or StringIO()
                self._parts.write(text)
        else:
            if self._parts is not None:
                self._parts.write(text or "")
                text, self._parts = self._parts.getvalue(), None
            self._size = 0
            self._heard(text)

    def _heard(self, text: str | None) -> None:
        if text is not None and self._conversation.at_once(text):
            # A sign of life, though what was asked for before it may still wait.
            return
        if self._waiting is not None:
            self._waiting.append(text)
        else:
            self._waiting = deque([text])
            self._task = asyncio.get_running_loop().create_task(self._talk(self._waiting), name="conversation")

    async def _talk(self, waiting: deque[str | None]) -> None:
        """Have messages taken as long as there are any."""
        conversation = self._conversation
        conversation.enter()
        deadline = perf_counter() + _SLICE
        try:
            while waiting and not self._lost:
                await conversation.take(waiting.popleft())
                self._go_on()
                if waiting and perf_counter() > deadline:
                    # What is answered without a pause would keep the loop for as long as the peer sends.
                    await asyncio.sleep(0)
                    deadline = perf_counter() + _SLICE
        except Exception:
            log.exception("conversation_failed")
            self._transport.abort()
        finally:
            self._waiting = self._task = None
            if self._lost:
                conversation.end()
            else:
                self._regulate()

    def pause_writing(self) -> None:
        """The peer does not take what is written as fast as it is written."""
        self._outbox.pause()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._outbox.resume()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever the reason is
        """Nothing comes any more, and nothing goes out."""
        self._lost = True
        self._parser = self._parts = self._rest = None
        self._outbox.lost()
        # Else what is being done for it comes to its end first.
        if self._task is None:
            self._conversation.end()


def _whole(data: bytes) -> bool:
    """Whether these are a few whole frames of a client, each of them a message of its own or a control frame."""
    at = 0
    for _ in range(_FEW):
        if at + 1 >= len(data):
            break
        first, length = data[at], data[at + 1] & 0x7F
        if not first & 0x80:
            return False
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            length = int.from_bytes(data[at + 2 : at + 2 + extended])
        at += 2 + extended + _MASK + length
    return at == len(data)
