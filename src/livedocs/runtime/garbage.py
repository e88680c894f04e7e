"""Memory: Python's collector of reference cycles, kept from stopping everything for long, and the C library's own.

Sockets, rooms and the history are hundreds of thousands of objects that stay and that are in no cycle, or in one
that is taken apart when they end. A full collection looks at each of them: 220 ms with a full history, during
which nobody is answered. So what has survived two collections is not looked at again (`gc.freeze`), until so much
of it has gathered that there may be garbage among it.

Source: https://docs.python.org/3/library/gc.html#gc.freeze
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Larger than the buffer of 256 KiB that asyncio takes for every read of a socket: to map and unmap it took longer
# than the read. For the same reason as much may stay free at the heap's end.
_LARGE = 2**19
# Objects, in excess of those that have gone, after which the youngest are looked at; and times of that after which
# those that have survived it are, too. 25,000 take some 5 ms.
_YOUNG, _TIMES = 20_000, 2
# Never by itself.
_FULL = 1_000_000
# Seconds between two looks at what is young: where as many objects go as come, as in a full history, Python would
# not look until there are hundreds of thousands.
_OFTEN = 0.5
# Seconds between two counts of what has been put aside, and by how much that has to have grown for a full
# collection.
_SELDOM = 900.0
_GROWN, _GROWN_BY = 2, 200_000


def give_back_large_blocks() -> None:
    """Have the C library give large blocks back to the system as soon as they are free.

    By itself glibc keeps blocks of up to 32 MiB for later once it has seen one of that size: after a few large
    requests a process has much more than it uses. Elsewhere this does nothing. See mallopt(3).
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)


def keep_collections_short() -> None:
    """Have only young objects looked at in this process from now on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _TIMES, _FULL)
    if _put_aside not in gc.callbacks:
        gc.callbacks.append(_put_aside)


def _put_aside(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] > 0:
        gc.freeze()


async def collect_often() -> None:
    """Look at what is young every half second; at everything once what was put aside has doubled. Never ends."""
    known = gc.get_freeze_count()
    while True:
        for _ in range(int(_SELDOM / _OFTEN)):
            await asyncio.sleep(_OFTEN)
            gc.collect(1)
        if gc.get_freeze_count() > _GROWN * known + _GROWN_BY:
            gc.unfreeze()
            # Its end is an end of a collection: what is left is put aside again.
            gc.collect()
            known = gc.get_freeze_count()
