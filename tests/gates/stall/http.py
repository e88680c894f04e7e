"""HTTP/1.1 by hand: nothing is refused before it is sent, and an answer may come before all of it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Attackers have an address of their own, so that limits by address do not meet those who measure.
ATTACKER = "127.0.0.2"
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; status 0 when there was none."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


async def connection(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To the server, from the attackers' address."""
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(ATTACKER, 0), limit=2**20)


def head(
    port: int,
    method: str,
    path: str,
    *,
    token: str | None,
    size: int,
    kind: str = "application/json",
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """A request up to its body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: localhost:{port}", "Connection: close"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if size:
        lines += [f"Content-Type: {kind}", f"Content-Length: {size}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


async def send(
    port: int, method: str, path: str, *, token: str | None, body: bytes | None = None, **options: Any
) -> Reply:
    """One request and its answer; what the server does not want to read is no error."""
    reader, writer = await connection(port)
    request = head(port, method, path, token=token, size=len(body or b""), **options)

    async def write() -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
            for at in range(0, len(body or b""), 262144):
                writer.write((body or b"")[at : at + 262144])
                await writer.drain()

    writing = asyncio.create_task(write())
    data = b""
    try:
        async with asyncio.timeout(_PATIENCE):
            with contextlib.suppress(ConnectionError):
                while chunk := await reader.read(262144):
                    data += chunk
    except TimeoutError:
        pass
    finally:
        writing.cancel()
        await asyncio.wait([writing])
        writer.transport.abort()
    start, _, rest = data.partition(b"\r\n\r\n")
    status = start.split(b" ", 2)[1] if start.startswith(b"HTTP/1.1 ") else b"0"
    return Reply(int(status), rest)
