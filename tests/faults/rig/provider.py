"""A token introspection service (RFC 7662) in the test's own process: many principals, faults on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal
from urllib.parse import parse_qs

HOST = "127.0.0.1"
AUDIENCE = "livedocs"

Mode = Literal["good", "error_500", "slow", "wrong_shape", "gone"]


class Provider:
    """Answers `POST /introspect`.

    Args:
        port: on 127.0.0.1, the same again after it was gone.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.mode: Mode = "good"
        self.calls = 0
        self._tokens: dict[str, Mapping[str, Any]] = {}
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def issuer(self) -> str:
        """Its name."""
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def stop(self) -> None:
        """Be gone: connections are refused, open ones end."""
        if self._server is not None:
            self._server.close()
            for writer in tuple(self._open):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def set(self, mode: Mode) -> None:
        """Be in order, or out of it."""
        was, self.mode = self.mode, mode
        if mode == "gone":
            await self.stop()
        elif was == "gone":
            await self.start()

    def token(
        self, tenant: str, subject: str, *, groups: tuple[str, ...] = (), scope: str = "", ttl: float = 7200
    ) -> str:
        """A new token of a user or, for `client:...`, of a service."""
        kind, _, name = subject.partition(":")
        token = secrets.token_urlsafe(18)
        ends = int(time.time() + ttl)
        self._tokens[token] = {
            "active": True,
            "token_type": "Bearer",
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": name,
            "client_id": name if kind == "client" else "web",
            "tenant": tenant,
            "groups": list(groups),
            "scope": scope,
            "exp": ends,
        }
        return token

    def ends(self, token: str) -> float:
        """A token's `exp`."""
        return float(self._tokens[token]["exp"])

    def change(self, token: str, **claims: Any) -> None:
        """Let the service say something else about a token from now on."""
        self._tokens[token] = {**self._tokens[token], **claims}

    def revoke(self, token: str) -> None:
        """The token is good no longer."""
        self._tokens.pop(token, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = next(
                    int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length")
                )
                form = parse_qs((await reader.readexactly(length)).decode())
                self.calls += 1
                status, body = await _ANSWERS[self.mode](self._tokens.get(form["token"][0]))
                text = json.dumps(body).encode()
                head = (
                    f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
                )
                writer.write(head.encode() + text)
                await writer.drain()
        except (OSError, EOFError, StopIteration, KeyError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


_Claims = Mapping[str, Any] | None


async def _good(claims: _Claims) -> tuple[int, Any]:
    return 200, claims or {"active": False}


async def _error(_: _Claims) -> tuple[int, Any]:
    return 500, {"error": "server_error"}


async def _slow(claims: _Claims) -> tuple[int, Any]:
    await asyncio.sleep(3)
    return await _good(claims)


async def _wrong_shape(_: _Claims) -> tuple[int, Any]:
    return 200, [{"active": "true"}]


_ANSWERS: Mapping[str, Callable[[_Claims], Awaitable[tuple[int, Any]]]] = {
    "good": _good,
    "error_500": _error,
    "slow": _slow,
    "wrong_shape": _wrong_shape,
    "gone": _good,
}
