"""An event loop whose turns are short, however much there is to do at once.

asyncio hears every socket that has something to say, and runs everything that is ready, before it looks at its
sockets again. Two hundred requests whose answers from MongoDB arrive together are two hundred short pieces of work
and one long turn, in which no ping is answered and no change is read. Here a turn hears some of the sockets, and
runs what fits into a few milliseconds; the others keep their order and come first in the next one.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from time import perf_counter
from typing import Any, TypeVarTuple

TURN = 0.004
"""Seconds after which nothing further is begun in a turn of the loop."""

AT_ONCE = 256
"""Sockets that are heard in a turn: taking a buffer of one takes the kernel up to a tenth of a millisecond."""

_Ts = TypeVarTuple("_Ts")
_Waiting = tuple[asyncio.Handle, Context, Callable[..., object], tuple[Any, ...]]


class _FewAtOnce(selectors.DefaultSelector):
    """Some of what is ready, in turn: whatever is left out is still ready when it is asked for again."""

    def __init__(self) -> None:
        super().__init__()
        self._begin = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As the selector itself, but no more than `AT_ONCE`."""
        ready = super().select(timeout)
        if len(ready) <= AT_ONCE:
            return ready
        begin = self._begin % len(ready)
        self._begin = begin + AT_ONCE
        return (ready[begin:] + ready[:begin])[:AT_ONCE]


class FairEventLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, with a bound to what a turn takes of sockets and of what `call_soon` is given.

    Timers and other threads are asyncio's business as ever: what they have to say is heard at the beginning of
    each turn.
    """

    def __init__(self) -> None:
        super().__init__(_FewAtOnce())
        self._fair: deque[_Waiting] = deque()
        # Whether `_take_turn` is among the callbacks of asyncio's next turn.
        self._due = False

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Have it called in the next turn, or one soon after.

        Raises:
            RuntimeError: the loop is closed.
        """
        if not self._due:
            super().call_soon(self._take_turn)
            self._due = True
        if context is None:
            context = copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        self._fair.append((handle, context, callback, args))
        return handle

    def _take_turn(self) -> None:
        self._due = False
        fair, until = self._fair, perf_counter() + TURN
        try:
            # What is added meanwhile is for the next turn, as in asyncio.
            for _ in range(len(fair)):
                handle, context, callback, args = fair.popleft()
                if handle.cancelled():
                    continue
                try:
                    context.run(callback, *args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as asyncio does: it is the callback's alone
                    self.call_exception_handler(
                        {"message": f"Exception in callback {callback!r}", "exception": error, "handle": handle}
                    )
                if perf_counter() > until:
                    break
        finally:
            if fair and not self._due:
                super().call_soon(self._take_turn)
                self._due = True
