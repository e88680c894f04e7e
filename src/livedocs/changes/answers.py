"""A connection of PyMongo's on which nothing but one cursor's questions and answers go back and forth.

PyMongo reads each message in two steps and stops reading in between, which costs more than what is in most of
them; here a message is taken as it comes. No more than one question is open, so nothing has to be held back.
"""

from __future__ import annotations

import asyncio
import struct

from pymongo.errors import AutoReconnect, ProtocolError

_HEADER = struct.Struct("<iiii").unpack_from
_OP_MSG = 2013
_HEADER_SIZE = 16


class Answers(asyncio.Protocol):
    """Takes the place of the protocol that has read the connection so far.

    Args:
        former: that protocol; it is told when the connection has ended.
        number: of the question, which each answer repeats.
        largest: bytes of a message.
    """

    def __init__(
        self, transport: asyncio.Transport, former: asyncio.BaseProtocol, *, number: int, largest: int
    ) -> None:
        self._transport = transport
        self._former = former
        self._number = number
        self._largest = largest
        # The beginning of a message, and its length once that is there.
        self._buffer = bytearray()
        self._length = 0
        # The answer that nobody has taken yet, or who waits for it, or why there will be none.
        self._answer: bytes | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._lost: Exception | None = None
        transport.set_protocol(self)
        transport.resume_reading()

    def ask(self, message: bytes) -> None:
        """Send a question. On a connection that has ended, `read` says so."""
        if self._transport.is_closing():
            # It may have ended before this protocol was its own: nobody would say so a second time.
            self._lost = self._lost or AutoReconnect("connection closed")
        else:
            self._transport.write(message)

    async def read(self) -> bytes:
        """The next answer, without its header.

        Raises:
            AutoReconnect: the connection has ended.
            ProtocolError: what has come is no answer to the question.
        """
        while self._answer is None:
            if self._lost is not None:
                raise self._lost
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        answer, self._answer = self._answer, None
        return answer

    def give_up(self, error: Exception) -> None:
        """End the connection; `read` raises that error."""
        self._lost = self._lost or error
        self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- asyncio.Protocol --

    def data_received(self, data: bytes) -> None:
        """Some bytes of an answer, all of them as a rule."""
        come: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            come = self._buffer
        if not self._length:
            if len(come) < _HEADER_SIZE:
                self._keep(come)
                return
            self._length, _, number, operation = _HEADER(come)
            if not _HEADER_SIZE < self._length <= self._largest or (number, operation) != (self._number, _OP_MSG):
                self.give_up(ProtocolError("a message that answers nothing"))
                return
        if len(come) < self._length:
            self._keep(come)
        elif len(come) > self._length or self._answer is not None:
            self.give_up(ProtocolError("an answer to a question that was not asked"))
        else:
            # A slice of a bytearray would be a copy more, of up to 16 MiB.
            self._answer = bytes(memoryview(come)[_HEADER_SIZE:])
            self._buffer = bytearray()
            self._length = 0
            self._wake()

    def _keep(self, come: bytes | bytearray) -> None:
        if not self._buffer:
            self._buffer = bytearray(come)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        if self._lost is None:
            self._lost = AutoReconnect(str(exc) if exc else "connection closed")
        self._wake()
        self._former.connection_lost(exc)
