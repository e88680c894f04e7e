"""Bodies that are read as they come, and the bytes that a request has in flight.

Quart takes a body as fast as it arrives, whether or not the view reads it: a large upload would be in memory as a
whole before anybody knew whose it is. Here nothing is taken from the network but what somebody has asked for, and
the peer's TCP is held back with it. What is read counts as in flight until the request ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from quart import request

from livedocs.access.budgets import BytesInFlight, Hold
from livedocs.access.principal import Principal

_KEY = "livedocs.pace"

_LINGER = 1.0

App = Callable[[Any, Any, Any], Awaitable[None]]


class Pace:
    """One body on its way. One message of it is taken ahead of its reader, 64 KiB at most.

    Args:
        receive: the next message of the peer.
        budgets: what everybody has in flight.
    """

    def __init__(self, receive: Callable[[], Awaitable[Any]], budgets: BytesInFlight) -> None:
        self._receive = receive
        self._budgets = budgets
        self._held: Hold | None = None
        # Bytes that were received and not yet taken; `_room` is set exactly while there are none.
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()
        self._ended = asyncio.Event()
        self._discarding = False

    async def receive(self) -> Any:
        """The next message, once the one before it was taken."""
        await self._room.wait()
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._ended.set()
        if self._discarding:
            return {**message, "body": b""}
        self._count(len(message.get("body", b"")))
        return message

    @property
    def complete(self) -> bool:
        """Whether the whole body has come, or the peer has gone."""
        return self._ended.is_set()

    def discard(self) -> None:
        """Nobody wants the rest: let it come and go. The server could not close the connection behind it."""
        self._discarding = True
        self._room.set()

    async def linger(self) -> None:
        """Wait a moment for the body's end: a connection that is closed before takes the answer with it."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), _LINGER)

    def taken(self, count: int) -> None:
        """The view has taken so many bytes."""
        self._count(-count)

    def hold(self, principal: Principal) -> Hold:
        """What the caller has in flight for this request; nothing at first."""
        if self._held is None:
            self._held = self._budgets.hold(principal)
        return self._held

    def release(self) -> None:
        """The request has ended."""
        if self._held is not None:
            self._held.release()

    def _count(self, change: int) -> None:
        self._waiting += change
        if self._waiting:
            self._room.clear()
        else:
            self._room.set()


def paced(app: App, budgets: BytesInFlight) -> App:
    """The application, with every body held back until it is read."""

    async def front(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        pace = Pace(receive, budgets)

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                pace.discard()
            elif not pace.complete and not message.get("more_body", False):
                await send({**message, "more_body": True})
                pace.release()
                await pace.linger()
                message = {"type": message["type"], "body": b"", "more_body": False}
            await send(message)

        try:
            await app({**scope, _KEY: pace}, pace.receive, answer)
        finally:
            pace.release()

    return front


def current() -> Pace:
    """That of the present request."""
    pace: Pace = cast("dict[str, Any]", request.scope)[_KEY]
    return pace


async def chunks() -> AsyncIterator[bytes]:
    """The present request's body as it comes; what was taken makes room for more."""
    pace = current()
    async for chunk in request.body:
        pace.taken(len(chunk))
        yield chunk
