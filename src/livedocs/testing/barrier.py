"""That somebody is *not* shown something is proven by order, not by waiting.

A server follows one stream, and what it writes to one socket arrives in order. So whatever was committed before a
call of `settle` has been shown, or never will be, once two things have come back: a document that is written then,
to an observer who may see it; after that, an echo, to each socket in question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from livedocs.testing.deployment import MARK, MARKS, OBSERVER, Deployment
from livedocs.testing.sockets import WITHIN, Joined, Listener


class Barrier:
    """What no earlier event comes behind. One for all tests; everything about it happens in one event loop."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._observer: Listener | None = None
        # One mark after the other: the observer is shown each of them.
        self._turn = asyncio.Lock()

    async def settle(self, listeners: Sequence[Listener]) -> None:
        """Wait until every one of them has been shown all that was committed before this call.

        Raises:
            AssertionError: the server does not show it in time.
        """
        async with self._turn:
            observer = await self._watching()
            mark = uuid4().hex
            await asyncio.to_thread(self._deployment.mark, mark)
            await observer.expect(MARKS, {"mark": mark}, None, WITHIN)
        await asyncio.gather(*(listener.echoed() for listener in listeners))

    async def _watching(self) -> Listener:
        if self._observer is not None and self._observer.ended is None:
            return self._observer
        await self.aclose()
        token = self._deployment.oauth.token(OBSERVER, ttl=86400)
        observer = self._observer = await Listener.connected(self._deployment, OBSERVER, token)
        joined = await observer.join(MARK, None, None, WITHIN)
        if not isinstance(joined, Joined):
            raise joined
        return observer

    async def aclose(self) -> None:
        """Look on no more."""
        if self._observer is not None:
            await self._observer.close()
