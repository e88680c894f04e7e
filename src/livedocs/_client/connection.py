"""One socket: opened and authenticated, read in order, answered to its pings."""

from __future__ import annotations

import asyncio
from typing import Any, Self
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from livedocs._client import answers, wire
from livedocs._client.wire import Acked, Connected, ConnectRefused, Ended, Opened, Ping, Received
from livedocs.config import is_loopback
from livedocs.errors import ServerUnreachable

_SECONDS = 10.0
# A snapshot may be as large as the documents of a UUID are together.
_MOST_BYTES = 2**28


class _Connect(connect):
    """A handshake that is not sent on: the token is for the server it was meant for."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Connection:
    """A socket after CONNECT.

    Made by `opened`; whoever has it reads with `receive` and closes it.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._silence = _SECONDS
        self._number = 0
        # When the server was last heard from, by the loop's clock.
        self._heard = asyncio.get_running_loop().time()

    @classmethod
    async def opened(cls, url: str, token: str) -> Self:
        """A socket that the server has let in.

        Args:
            url: of the server, http or https, without a path.
            token: an access token.

        Raises:
            LivedocsError: the server refuses.
            ServerUnreachable: nobody answers in time.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                return await cls._opened(url, token)
        except InvalidStatus as error:
            answer = error.response
            raise answers.error_of(answer.status_code, answer.headers, bytes(answer.body or b"")) from None
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed) as error:
            raise ServerUnreachable(f"{url}: {error or type(error).__name__}") from error

    @classmethod
    async def _opened(cls, url: str, token: str) -> Self:
        parts = urlsplit(url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        connection = cls(
            await _Connect(
                f"{scheme}://{parts.netloc}/socket.io/?EIO=4&transport=websocket",
                additional_headers={"Authorization": f"Bearer {token}"},
                # The server declines it anyway: compression is memory for each socket.
                compression=None,
                max_size=_MOST_BYTES,
                # Engine.IO has pings of its own.
                ping_interval=None,
                close_timeout=1,
                # A proxy of the environment cannot reach a server on this machine.
                proxy=None if is_loopback(parts.hostname or "") else True,
            )
        )
        try:
            await connection._connect()
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _connect(self) -> None:
        await self._socket.send(wire.CONNECT)
        while True:
            match await self._packet():
                case Connected():
                    return
                case ConnectRefused(told):
                    raise answers.refusal(told)
                case Ended():
                    raise ServerUnreachable("ended before it began")

    async def emit(self, name: str, *arguments: Any) -> int:
        """Send an event. Returns the number its acknowledgement has.

        Raises:
            ServerUnreachable: the socket is gone.
        """
        self._number += 1
        try:
            await self._socket.send(wire.event(name, *arguments, number=self._number))
        except ConnectionClosed as error:
            raise ServerUnreachable(str(error)) from error
        return self._number

    async def receive(self, within: float | None = None) -> Received | Acked | None:
        """The next thing from the server, in the order it was written; None when none came `within` seconds.

        While nobody receives, nothing is read, and pings go unanswered.

        Raises:
            ServerUnreachable: the socket is gone, or the server has kept still for too long.
        """
        loop = asyncio.get_running_loop()
        deadline = None if within is None else loop.time() + within
        while True:
            dead = self._heard + self._silence
            try:
                # What has come already is given without a wait, however long ago that was.
                async with asyncio.timeout_at(dead if deadline is None else min(dead, deadline)):
                    packet = await self._packet()
            except TimeoutError:
                if loop.time() >= dead:
                    raise ServerUnreachable("nothing has come for too long") from None
                return None
            except ConnectionClosed as error:
                raise ServerUnreachable(str(error)) from error
            match packet:
                case Received() | Acked():
                    return packet
                case Ended():
                    raise ServerUnreachable("closed by the server")

    async def _packet(self) -> wire.Packet | None:
        text = await self._socket.recv()
        self._heard = asyncio.get_running_loop().time()
        packet = wire.parse(text) if isinstance(text, str) else None
        if isinstance(packet, Ping):
            await self._socket.send(wire.PONG)
        elif isinstance(packet, Opened):
            self._silence = packet.silence
        return packet

    async def close(self) -> None:
        """Close the socket; what has come and was not received is lost."""
        await self._socket.close()
