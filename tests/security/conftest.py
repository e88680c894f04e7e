"""A WebSocket by hand, for what no client library would send, and a look at the server from outside."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

WITHIN = 10.0


@dataclass
class Wire:
    """One TCP connection to the server. `status` is that of the handshake's answer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0

    async def send(self, payload: bytes | str, *, opcode: int = 1, rsv1: bool = False, fin: bool = True) -> None:
        """One frame (RFC 6455, 5.2), masked with zeros, whatever the payload."""
        data = payload.encode() if isinstance(payload, str) else payload
        head = bytearray([opcode | 0x80 * fin | 0x40 * rsv1])
        if len(data) < 126:
            head += bytes([0x80 | len(data)])
        elif len(data) < 65536:
            head += bytes([0x80 | 126]) + len(data).to_bytes(2)
        else:
            head += bytes([0x80 | 127]) + len(data).to_bytes(8)
        self.writer.write(bytes(head) + bytes(4) + data)
        await self.writer.drain()

    async def text(self) -> str:
        """The payload of the next frame of the server; at the end, IncompleteReadError or ConnectionError."""
        async with asyncio.timeout(WITHIN):
            _, size = await self.reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            return (await self.reader.readexactly(size)).decode("utf-8", "replace")

    async def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        async with asyncio.timeout(WITHIN):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def handshake(port: int, headers: dict[str, str], *, source: str | None = None) -> Wire:
    """Ask for a WebSocket, from that address of this machine."""
    local = (source, 0) if source else None
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port, local_addr=local))
    lines = {
        "Host": f"localhost:{port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        # As browsers offer it.
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **headers,
    }
    request = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in lines.items()
    )
    wire.writer.write(request.encode() + b"\r\n")
    async with asyncio.timeout(WITHIN):
        head = await wire.reader.readuntil(b"\r\n\r\n")
    wire.status = int(head.split()[1])
    return wire


@pytest.fixture
async def wire(server: Any) -> AsyncIterator[Callable[..., Awaitable[Wire]]]:
    """`wire("alice")` is a socket of alice's before CONNECT, `wire("alice", "40")` one after it."""
    opened: list[Wire] = []

    async def open_(
        user: str | None = None,
        connect: str | None = None,
        *,
        at: Any = None,
        source: str | None = None,
        token: str | None = None,
    ) -> Wire:
        to = at or server
        token = to.token(user) if user else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        made = await handshake(to.port, headers, source=source)
        opened.append(made)
        if made.status == 101:
            assert (await made.text()).startswith("0{")
            if connect is not None:
                await made.send(connect)
                assert (await made.text()).startswith("40")
        return made

    yield open_
    for made in opened:
        await made.close()


@pytest.fixture
async def dial(server: Any) -> AsyncIterator[Callable[..., Awaitable[Wire]]]:
    """`dial(b"GET / ...")` is a TCP connection on which these bytes were sent, whatever they are."""
    opened: list[Wire] = []

    async def open_(data: bytes = b"", *, at: Any = None, source: str | None = None) -> Wire:
        local = (source, 0) if source else None
        made = Wire(*await asyncio.open_connection("127.0.0.1", (at or server).port, local_addr=local))
        opened.append(made)
        made.writer.write(data)
        return made

    yield open_
    for made in opened:
        await made.close()


@dataclass(frozen=True)
class Look:
    """What can be seen of a server process."""

    server: Any

    def resident(self) -> int:
        """Bytes of memory."""
        return int(Path(f"/proc/{self.server.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open files and sockets."""
        return len(list(Path(f"/proc/{self.server.pid}/fd").iterdir()))

    async def metric(self, name: str) -> float:
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(self.server.metrics_url)).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    async def until(self, holds: Callable[[], Awaitable[bool]], within: float = WITHIN) -> None:
        """Wait until what another process does can be seen."""
        async with asyncio.timeout(within):
            while not await holds():
                await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def look() -> type[Look]:
    return Look


def cpu(pid: int) -> float:
    """Milliseconds of CPU that the threads of a process have used."""
    used = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            used += int((task / "schedstat").read_text().split()[0])
    return used / 1e6


def memory(pid: int, name: str) -> int:
    """Bytes of memory: `VmRSS` now, `VmHWM` at most since it was last forgotten."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(name + ":")]
    return int(line.split()[1]) * 1024


def forget_most(pid: int) -> None:
    """Forget the most memory that a process has had (proc(5), `clear_refs`)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@dataclass
class Cost:
    """The CPU, in ms, between two turns of the loop at most; and the most memory beyond that before, in bytes."""

    held: float = 0.0
    memory: int = 0


@contextlib.asynccontextmanager
async def _costs(server: Any, probe: Wire) -> AsyncIterator[Cost]:
    forget_most(server.pid)
    before, cost = memory(server.pid, "VmRSS"), Cost()

    async def ask() -> None:
        while True:
            used = cpu(server.pid)
            await probe.send('420["LeaveRoom",[]]')
            while not (await probe.text()).startswith("430"):
                pass
            cost.held = max(cost.held, cpu(server.pid) - used)

    asking = asyncio.create_task(ask())
    try:
        yield cost
        assert not asking.done(), "the probe was not answered"
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        cost.memory = memory(server.pid, "VmHWM") - before


@pytest.fixture(scope="session")
def costs() -> Callable[..., contextlib.AbstractAsyncContextManager[Cost]]:
    """`async with costs(server, probe) as cost` measures; `probe` is a socket of somebody else's.

    CPU and not time, so that a busy machine makes little of it longer; a thread that has the interpreter's lock
    counts, too.
    """
    return _costs
