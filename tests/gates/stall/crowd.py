"""Sockets of one user that cost the test next to nothing: they drop what they read, or read nothing at all."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import socket
from typing import Any

from stall.http import ATTACKER

_PATIENCE = 60.0
_AT_ONCE = 20


class Member(asyncio.Protocol):
    """One WebSocket. It keeps the first bytes of each frame, and answers pings."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._skip = 0
        self.transport: asyncio.Transport | None = None
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()
        self.answers: dict[int, asyncio.Future[bytes]] = {}
        self.frames = 0
        self.bytes = 0
        self.keep = 262144
        self.refusal = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self.connected.set()
        for future in self.answers.values():
            if not future.done():
                future.set_result(b"")

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        self._data += data
        while self._take():
            pass

    def _take(self) -> bool:
        """Take the next whole thing; False when there is none yet."""
        return self._answer() if self._data.startswith(b"HTTP/1.1") else self._message()

    def _answer(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return False
        assert self.transport is not None
        if b" 101 " not in self._data[:20]:
            self.refusal = bytes(self._data)
            self.transport.abort()
            return False
        del self._data[: end + 4]
        self.send("40")
        return True

    def _message(self) -> bool:
        data = self._data
        if len(data) < 10 and (len(data) < 2 or data[1] & 0x7F >= 126):
            return False
        size, at = data[1] & 0x7F, 2
        if size >= 126:
            at += 2 if size == 126 else 8
            size = int.from_bytes(data[2:at])
        if len(data) < at + (size if size < self.keep else 64):
            return False
        self._frame(bytes(data[at : at + min(size, self.keep)]))
        present = min(at + size, len(data))
        self._skip = at + size - present
        del data[:present]
        return True

    def _frame(self, payload: bytes) -> None:
        self.frames += 1
        if payload == b"2":
            self.send("3")
        elif payload.startswith(b"44"):
            self.refusal = payload
        elif payload.startswith(b"4") and payload[1:2] in b"04":
            self.connected.set()
        elif payload.startswith(b"43"):
            number = int(payload[2 : payload.index(b"[")])
            future = self.answers.get(number)
            if future is not None and not future.done():
                future.set_result(payload)

    def send(self, text: str | bytes) -> None:
        """One message."""
        payload = text.encode() if isinstance(text, str) else text
        size = len(payload)
        if size < 126:
            head = bytes([0x81, 0x80 | size])
        elif size < 65536:
            head = bytes([0x81, 0x80 | 126]) + size.to_bytes(2)
        else:
            head = bytes([0x81, 0x80 | 127]) + size.to_bytes(8)
        if self.transport is not None:
            self.transport.write(head + bytes(4) + payload)


class Crowd:
    """Sockets of one user."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self._numbers = itertools.count(1)
        self._pongs: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, port: int, token: str, count: int, *, deaf: bool = False) -> Crowd:
        """Connect so many. Deaf ones have a small window, so that what they do not read is not the kernel's."""
        loop = asyncio.get_running_loop()
        members: list[Member] = []

        async def one() -> None:
            deadline = loop.time() + _PATIENCE
            while (member := await attempt()).refusal:
                # Of one user only so many come in a second.
                refused = member.refusal
                limited = (b" 429 " in refused[:15] or b"rate_limited" in refused) and loop.time() < deadline
                assert limited, f"a socket was refused: {member.refusal!r}"
                await asyncio.sleep(0.5)
            assert not member.closed.is_set(), "a socket was refused"
            members.append(member)

        async def attempt() -> Member:
            client = socket.socket()
            if deaf:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            client.bind((ATTACKER, 0))
            await loop.sock_connect(client, ("127.0.0.1", port))
            _, member = await loop.create_connection(Member, sock=client)
            key = base64.b64encode(os.urandom(16)).decode()
            assert member.transport is not None
            member.transport.write(
                (
                    f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost:{port}\r\n"
                    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                    f"Sec-WebSocket-Key: {key}\r\nAuthorization: Bearer {token}\r\n\r\n"
                ).encode()
            )
            async with asyncio.timeout(_PATIENCE):
                await member.connected.wait()
            return member

        for start in range(0, count, _AT_ONCE):
            await asyncio.gather(*(one() for _ in range(min(_AT_ONCE, count - start))))
        return cls(members)

    def emit(self, name: str, *arguments: Any) -> None:
        """An event of each of them, without an acknowledgement."""
        text = "42" + json.dumps([name, *arguments], separators=(",", ":"))
        for member in self.members:
            member.send(text)

    async def call(self, name: str, *arguments: Any, within: float = _PATIENCE) -> list[bytes]:
        """An event of each of them; the beginnings of the acknowledgements. Empty: the socket was ended."""
        return await self.call_text(json.dumps([name, *arguments], separators=(",", ":")), within=within)

    async def call_text(self, text: str, *, within: float = _PATIENCE) -> list[bytes]:
        """The same of an event that is text already, JSON or not."""
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        futures = []
        for member in self.members:
            future = member.answers[number] = loop.create_future()
            if member.closed.is_set():
                future.set_result(b"")
            member.send(f"42{number}{text}")
            futures.append(future)
        await asyncio.wait(futures, timeout=within)
        return [future.result() if future.done() else b"" for future in futures]

    def stop_reading(self) -> None:
        """Read nothing any more, and go on saying that one lives."""
        for member in self.members:
            if member.transport is not None and not member.transport.is_closing():
                member.transport.pause_reading()
        self._pongs = asyncio.create_task(self._pong())

    async def _pong(self) -> None:
        while True:
            for member in self.members:
                member.send("3")
            await asyncio.sleep(0.5)

    async def close(self) -> None:
        """Away, all at once."""
        if self._pongs is not None:
            self._pongs.cancel()
            await asyncio.wait([self._pongs])
        for member in self.members:
            if member.transport is not None:
                member.transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                for member in self.members:
                    await member.closed.wait()
