"""Ending tasks for certain, and what still runs when they do not end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

# Seconds in which a cancelled task ends, or is cancelled again.
_PATIENCE = 1.0


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks, and wait until each of them has ended, whatever its end is.

    Once is not enough: `asyncio.wait_for` up to Python 3.11 returns, instead of being cancelled, when what it
    waits for ends at that moment. PyMongo sends every message through one, so a task that works with MongoDB
    until it is cancelled would now and then go on for ever (https://github.com/python/cpython/issues/86296).
    """
    every = set(tasks)
    while pending := {task for task in every if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_PATIENCE)
    for task in every:
        if not task.cancelled():
            # Seen here, so that asyncio does not report it.
            task.exception()


def running() -> list[str]:
    """Each task that has not ended, the current one left out: its name, and the line of its own code it is at."""
    return sorted(_place(task) for task in asyncio.all_tasks() if task is not asyncio.current_task())


def _place(task: asyncio.Task[Any]) -> str:
    # The innermost frame that a task tells of is that of its own coroutine.
    frames = task.get_stack(limit=1)
    where = f" at {frames[-1].f_code.co_qualname}:{frames[-1].f_lineno}" if frames else ""
    return f"{task.get_name()}{where}"
