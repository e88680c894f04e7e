"""Calls in the air: one per key, shared by everybody who asks for the same thing meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from livedocs.runtime import tasks

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Single flight. A caller that gives up does not take the call away from the others."""

    def __init__(self) -> None:
        # The call that a new caller of a key joins. A call leaves it when it ends or is detached.
        self._joinable: dict[str, asyncio.Task[T]] = {}
        # Every call that has not ended; this object owns them.
        self._tasks: set[asyncio.Task[T]] = set()

    async def share(self, key: str, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the call in the air for that key, starting one when there is none.

        Raises:
            Exception: what the call raised, for everybody who shares it.
        """
        return await asyncio.shield(self.start(key, call))

    def start(self, key: str, call: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The call in the air for that key, started when there is none. Nobody has to wait for it."""
        task = self._joinable.get(key)
        if task is None:
            task = asyncio.create_task(call())
            self._joinable[key] = task
            self._tasks.add(task)
            task.add_done_callback(lambda ended: self._ended(key, ended))
        return task

    def flying(self, key: str) -> bool:
        """Whether there is a call to join."""
        return key in self._joinable

    def detach(self, key: str) -> None:
        """Let the next caller start anew, although a call may still be in the air."""
        self._joinable.pop(key, None)

    def is_current(self, key: str) -> bool:
        """Asked from inside a call: whether it is still the one that callers of the key join."""
        return self._joinable.get(key) is asyncio.current_task()

    async def aclose(self) -> None:
        """Cancel what is in the air and wait for its end."""
        await tasks.end(self._tasks)

    def _ended(self, key: str, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if self._joinable.get(key) is task:
            del self._joinable[key]
        if not task.cancelled():
            # Seen here too, so that asyncio does not report it when every caller has gone meanwhile.
            task.exception()
