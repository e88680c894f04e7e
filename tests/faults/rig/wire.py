"""A Socket.IO client of the bare protocol: one WebSocket, everything recorded as it comes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from rig import link
from rig.recording import Answered, Asked, Connection, Delivered, Entry, Forgery, Told

HOST = "127.0.0.1"
_MOST = 64 * 2**20


class Refused(Exception):
    """The handshake was refused, or there was nobody to shake hands with."""


class Wire:
    """One open socket. What arrives goes into `connection.entries` and to `hear`.

    Args:
        hear: called with each entry after it was recorded.
    """

    def __init__(self, socket: ClientConnection, connection: Connection, hear: Callable[[Entry], None]) -> None:
        self._socket = socket
        self.connection = connection
        self._hear = hear
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reads = asyncio.Event()
        self._reads.set()
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(
        cls, port: int, token: str, connection: Connection, hear: Callable[[Entry], None], *, limit: float = 8
    ) -> Wire:
        """Shake hands.

        Raises:
            Refused: with the reason.
        """
        try:
            async with asyncio.timeout(limit):
                socket = await connect(
                    f"ws://{HOST}:{port}/socket.io/?EIO=4&transport=websocket",
                    sock=await link.connect(port),
                    additional_headers={"Authorization": f"Bearer {token}"},
                    compression=None,
                    ping_interval=None,
                    close_timeout=1,
                    max_size=_MOST,
                    max_queue=16,
                    proxy=None,
                )
                try:
                    await socket.send("40")
                    while not (text := await socket.recv()).startswith("4"):
                        pass
                except BaseException:
                    socket.transport.abort()
                    raise
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed, EOFError) as error:
            raise Refused(f"{type(error).__name__}: {error}") from error
        if not str(text).startswith("40"):
            socket.transport.abort()
            raise Refused(str(text))
        connection.began = time.monotonic()
        return cls(socket, connection, hear)

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.connection.ended is None

    async def join(
        self,
        uuids: Sequence[str],
        *,
        since: str | None = None,
        snapshot: bool = False,
        collections: tuple[str, ...] | None = None,
        forged: Forgery = "",
        ticket: Any = None,
        limit: float = 15,
    ) -> Any:
        """JoinRoom. Returns the acknowledgement, or None when the socket has ended."""
        options: dict[str, Any] = {}
        if since is not None:
            options["since"] = since
        if ticket is not None:
            options["ticket"] = ticket
        if snapshot:
            options["snapshot"] = True
        if collections is not None:
            options["collections"] = list(collections)
        number = next(self._numbers)
        asked = Asked(time.monotonic(), number, "JoinRoom", tuple(uuids), since, snapshot, collections, forged)
        self._record(asked)
        return await self._ask(number, ["JoinRoom", list(uuids), *([options] if options else [])], limit)

    async def leave(self, uuids: Sequence[str], *, limit: float = 15) -> Any:
        """LeaveRoom. Returns the acknowledgement, or None when the socket has ended."""
        number = next(self._numbers)
        self._record(Asked(time.monotonic(), number, "LeaveRoom", tuple(uuids)))
        return await self._ask(number, ["LeaveRoom", list(uuids)], limit)

    async def _ask(self, number: int, call: list[Any], limit: float) -> Any:
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(limit):
                await self._socket.send(f"42{number}{orjson.dumps(call).decode()}")
                return await future
        except ConnectionClosed:
            return None
        except TimeoutError:
            # Nobody there any more: the same as an end, and as such it is recorded.
            self.abort("no answer")
            return None
        finally:
            self._waiting.pop(number, None)

    def stop_reading(self) -> None:
        """Take nothing any more, as a hung client does."""
        self._reads.clear()

    def read_on(self) -> None:
        """Take what has gathered, and the rest."""
        self._reads.set()

    def abort(self, why: str = "aborted") -> None:
        """Be gone without a word."""
        self._ended(why)
        self._socket.transport.abort()

    async def close(self) -> None:
        """Be gone, and wait for it."""
        self.abort("closed")
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        why = "ended by the server"
        try:
            while True:
                text = await self._socket.recv()
                if self.connection.ended is not None:
                    return
                await self._take(str(text))
                if not self._reads.is_set():
                    await self._reads.wait()
        except ConnectionClosed as error:
            why = str(error)[:200]
        finally:
            self._ended(why)

    def _ended(self, why: str) -> None:
        if self.connection.ended is None:
            self.connection.ended = time.monotonic()
            self.connection.why = why
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)

    def _record(self, entry: Entry) -> None:
        self.connection.entries.append(entry)
        self._hear(entry)

    async def _take(self, text: str) -> None:
        now = time.monotonic()
        if text == "2":
            await self._socket.send("3")
        elif text.startswith("42"):
            name, *arguments = orjson.loads(text[2:])
            if name.startswith("$"):
                self._record(Told(now, name, arguments[0]))
            else:
                self._record(Delivered(now, name, arguments[0], arguments[1]))
        elif text.startswith("43"):
            digits = 2 + text[2:].index("[")
            number = int(text[2:digits])
            (body,) = orjson.loads(text[digits:])
            self._record(Answered(now, number, body))
            future = self._waiting.get(number)
            if future is not None and not future.done():
                future.set_result(body)
