"""Bodies that are read as they come: no more of them is taken from the network than somebody has use for.

Quart takes a body as fast as it arrives, whether or not the view reads it, so that one large upload would be in
memory as a whole. For the paths named here it is held back instead, and the peer's TCP with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

_AHEAD = 2**20
"""Bytes that may wait for the view."""

KEY = "livedocs.pace"
"""Where the scope of such a request has its `Pace`."""

App = Callable[[Any, Any, Any], Awaitable[None]]


class Pace:
    """One body on its way."""

    def __init__(self, receive: Callable[[], Awaitable[Any]]) -> None:
        self._receive = receive
        # Bytes that were received and not yet taken; `_room` is set exactly while they are at most `_AHEAD`.
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()

    async def receive(self) -> Any:
        """The next message, once there is room for it."""
        await self._room.wait()
        message = await self._receive()
        self._count(len(message.get("body", b"")))
        return message

    def taken(self, count: int) -> None:
        """The view has taken so many bytes."""
        self._count(-count)

    def _count(self, change: int) -> None:
        self._waiting += change
        if self._waiting > _AHEAD:
            self._room.clear()
        else:
            self._room.set()


def paced(app: App, ending: str) -> App:
    """The application, with the bodies of paths of that ending held back."""

    async def front(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].endswith(ending):
            pace = Pace(receive)
            await app({**scope, KEY: pace}, pace.receive, send)
        else:
            await app(scope, receive, send)

    return front
