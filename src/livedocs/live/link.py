"""A WebSocket that is read here: the protocol of a connection that Hypercorn has accepted and handed over.

wsproto takes the frames apart (RFC 6455, 5). A socket at rest has no parser, no task and no buffer here: there are
ten thousand of them that say nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from io import StringIO

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

from livedocs.live.conversation import Conversation
from livedocs.telemetry import get_logger

log = get_logger(__name__)

# Messages that may wait for the one before them; then the socket is not read until they have been taken.
_MOST_WAITING = 10
# Bytes that the peer may leave before it gets no more pongs: it would have them kept here without end.
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
        most: bytes of the longest message.
    """

    __slots__ = (
        "_conversation",
        "_lost",
        "_most",
        "_parser",
        "_parts",
        "_size",
        "_task",
        "_transport",
        "_waiting",
    )

    def __init__(self, transport: asyncio.Transport, conversation: Conversation, most: int) -> None:
        self._transport = transport
        self._conversation = conversation
        self._most = most
        # From the first time on that a message came in pieces.
        self._parser: Connection | None = None
        # Of a message that is incomplete: its beginning, and the bytes of it.
        self._parts: StringIO | None = None
        self._size = 0
        # While there are messages to be taken; of them None is a binary one.
        self._waiting: deque[str | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._lost = False

    def data_received(self, data: bytes) -> None:
        """What the peer has sent."""
        parser = self._parser
        if parser is None:
            parser = Connection(ConnectionType.SERVER)
            if not _whole(data):
                self._parser = parser
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
        if self._waiting is not None:
            self._waiting.append(text)
            if len(self._waiting) > _MOST_WAITING:
                self._transport.pause_reading()
        elif text is None or not self._conversation.at_once(text):
            self._waiting = deque([text])
            self._task = asyncio.get_running_loop().create_task(self._talk(self._waiting), name="conversation")

    async def _talk(self, waiting: deque[str | None]) -> None:
        """Have messages taken as long as there are any."""
        conversation = self._conversation
        conversation.enter()
        try:
            while waiting and not self._lost:
                await conversation.take(waiting.popleft())
                if len(waiting) <= _MOST_WAITING:
                    self._transport.resume_reading()
        except Exception:
            log.exception("a conversation has failed")
            self._transport.abort()
        finally:
            self._waiting = self._task = None
            if self._lost:
                conversation.end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever the reason is
        """Nothing comes any more, and nothing goes out."""
        self._lost = True
        self._parser = self._parts = None
        # Else what is being done for it comes to its end first.
        if self._task is None:
            self._conversation.end()


def _whole(data: bytes) -> bool:
    """Whether these are whole frames of a client, each of them a message of its own or a control frame."""
    at = 0
    while at + 1 < len(data):
        first, length = data[at], data[at + 1] & 0x7F
        if not first & 0x80:
            return False
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            length = int.from_bytes(data[at + 2 : at + 2 + extended])
        at += 2 + extended + _MASK + length
    return at == len(data)
