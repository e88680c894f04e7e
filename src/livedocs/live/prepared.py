"""The frames of document changes; those that take long to encode are made in a thread beforehand."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from livedocs.changes.cursor import Sealing
from livedocs.changes.event import DocumentChange, RoomKey
from livedocs.live import frames
from livedocs.live.frames import Frame
from livedocs.live.payload import payload

# Bytes of frames that are kept for those who resume; the newest one is kept whatever its size.
_MOST_BYTES = 16 * 2**20

_Key = tuple[str, RoomKey]


class PreparedFrames:
    """The newest of them, by change.

    Args:
        cursors: makes the cursors that clients get.
        most_bytes: of frames that are kept.
    """

    def __init__(self, cursors: Sealing, *, most_bytes: int = _MOST_BYTES) -> None:
        self._cursors = cursors
        self._most_bytes = most_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="frames")
        # Invariant: `_bytes` is the sum of the frames', and no more than the bound unless there is only one.
        self._frames: OrderedDict[_Key, Frame] = OrderedDict()
        self._bytes = 0

    def get(self, change: DocumentChange) -> Frame | None:
        """The change's frame, if it has been made and is still there."""
        return self._frames.get((change.token, change.room))

    def frame(self, change: DocumentChange) -> Frame:
        """The change's frame, made now unless it has been. Only for a change that is not heavy, or prepared."""
        return (self.get(change) if change.heavy else None) or self._encoded(change)

    def _encoded(self, change: DocumentChange) -> Frame:
        """A document change as the room's clients get it."""
        return frames.event(change.collection, *payload(change, self._cursors.seal(change.token)))

    async def prepare(self, change: DocumentChange, *, live: bool = False) -> Frame:
        """Make the change's frame, unless it is there.

        Those of `live` changes have a thread of their own, one at a time: others would make the stream wait, and a
        crowd of threads the event loop. Who gives up takes one that has not begun with them.
        """
        frame = self.get(change)
        if frame is None:
            executor = self._thread if live else None
            frame = await asyncio.get_running_loop().run_in_executor(executor, self._encoded, change)
            self._keep((change.token, change.room), frame)
        return frame

    def _keep(self, key: _Key, frame: Frame) -> None:
        replaced = self._frames.pop(key, None)
        self._bytes -= len(replaced.wire) if replaced is not None else 0
        self._frames[key] = frame
        self._bytes += len(frame.wire)
        while self._bytes > self._most_bytes and len(self._frames) > 1:
            _, oldest = self._frames.popitem(last=False)
            self._bytes -= len(oldest.wire)
