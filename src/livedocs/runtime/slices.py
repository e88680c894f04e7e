"""Work that takes long, on the event loop a slice at a time.

Not in a thread: one that computes gives up the interpreter's lock every 5 ms only, and the loop needs it again
after each system call. A frame to a thousand sockets would take 5 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from time import perf_counter
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work that stops for a moment every 3 ms at the latest, or between two calls of a library that take longer."""

_SLICE = 0.004
# Of a text, or a document, of so many bytes nothing takes longer than 2 ms.
_SHORT = 2**12

# One slice in each turn of the loop, whoever's: they take turns.
_lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def run(steps: Steps[T], size: int) -> T:
    """What the steps return. The loop has its turn after every few milliseconds of them.

    Args:
        steps: what is to be done.
        size: bytes of what it is done with; with few of them it is done at once.
    """
    if size <= _SHORT:
        return at_once(steps)
    lane = _lanes.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    done: list[T] = []
    while not done:
        # First of all: what the caller has done so far was another slice of the same turn.
        await asyncio.sleep(0)
        # Taken for each slice: a short work waits for one slice of each long one, and not for their ends.
        async with lane:
            until = perf_counter() + _SLICE
            while not done and perf_counter() < until:
                try:
                    next(steps)
                except StopIteration as end:
                    done.append(end.value)
    await asyncio.sleep(0)
    return done[0]


def at_once(steps: Steps[T]) -> T:
    """What the steps return, without a pause: for work that is known to be short, and outside of a loop."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


_PIECE = 1_000


def pieces(container: dict[str, Any] | list[Any]) -> Iterable[Iterable[tuple[Any, Any]]]:
    """The names, or places, and the values in a container, up to a thousand at a time."""
    pairs = container.items() if isinstance(container, dict) else enumerate(container)
    return (pairs,) if len(container) <= _PIECE else _divided(iter(pairs))


def _divided(pairs: Iterator[tuple[Any, Any]]) -> Iterator[list[tuple[Any, Any]]]:
    while piece := list(islice(pairs, _PIECE)):
        yield piece
