"""The history ring: every room change of the last minutes, in stream order. Pure.

It serves resumes and closes the joins' gap, so it keeps grant changes beside document changes: what lay before a
grant is decided by stream order, not by clocks. Bounded by age and by bytes; when a bound cuts it short, the floor
rises and a cursor below it is out of the window.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable

from bson.timestamp import Timestamp

from livedocs.changes import cursor
from livedocs.changes.event import RoomChange, RoomKey


def _token(change: RoomChange) -> str:
    return change.token


class _Lane:
    """The changes of one room, oldest first. `items[:head]` has been given up."""

    __slots__ = ("head", "items")

    def __init__(self) -> None:
        self.items: list[RoomChange] = []
        self.head = 0

    def give_up_oldest(self) -> None:
        self.head += 1
        if self.head > 32 and self.head * 2 > len(self.items):
            del self.items[: self.head]
            self.head = 0


class History:
    """A window over the stream.

    Args:
        window: seconds, in cluster time, that a change is kept.
        max_bytes: most memory the kept changes may take.
    """

    def __init__(self, *, window: float, max_bytes: int) -> None:
        self._window = window
        self._max_bytes = max_bytes
        self._lanes: dict[RoomKey, _Lane] = {}
        # Invariant: the order of `_order` is stream order, and each room's lane holds the same changes in it.
        self._order: deque[RoomChange] = deque()
        self._bytes = 0
        self._floor = cursor.before(Timestamp(0, 0))
        # Per tenant, a position that no cursor continues across, where that is later than the floor was.
        self._breaks: dict[str, str] = {}
        # Everything at or before this position has been seen. A token, or a position after a cluster time.
        self._position = self._floor

    @property
    def floor(self) -> str:
        """The lowest cursor after which nothing has been given up."""
        return self._floor

    @property
    def position(self) -> str:
        """How far the stream has been followed."""
        return self._position

    @property
    def count(self) -> int:
        """Changes kept."""
        return len(self._order)

    @property
    def bytes(self) -> int:
        """Memory of the changes kept, roughly."""
        return self._bytes

    @property
    def seconds(self) -> float:
        """How far back a cursor can resume now, in cluster time."""
        reach = cursor.cluster_time(self._position).time - cursor.cluster_time(self._floor).time
        return float(max(0, reach))

    def restart(self, floor: str) -> None:
        """Begin again behind `floor`: nothing before it can be resumed."""
        self._lanes.clear()
        self._order.clear()
        self._breaks.clear()
        self._bytes = 0
        self._floor = self._position = floor

    def append(self, change: RoomChange) -> None:
        """Take the next change; its token is never below an earlier one's."""
        lane = self._lanes.get(change.room)
        if lane is None:
            lane = self._lanes[change.room] = _Lane()
        lane.items.append(change)
        self._order.append(change)
        self._bytes += change.size
        self._position = max(self._position, change.token)

    def break_off(self, token: str, tenant: str | None) -> None:
        """Let nobody of that tenant, or nobody at all, continue from before that position: no event tells all."""
        if tenant is None:
            self._floor = max(self._floor, token)
        else:
            self._breaks[tenant] = token
        self._position = max(self._position, token)

    def advance(self, position: str) -> None:
        """Note that the stream has been followed up to there, and give up what is out of bounds."""
        self._position = max(self._position, position)
        oldest_kept = cursor.cluster_time(self._position).time - self._window
        order = self._order
        while order and (self._bytes > self._max_bytes or order[0].at.time < oldest_kept):
            self._give_up_oldest()
        horizon = int(oldest_kept)
        if horizon > 0:
            self._floor = max(self._floor, cursor.before(Timestamp(horizon, 0)))

    def _give_up_oldest(self) -> None:
        change = self._order.popleft()
        self._bytes -= change.size
        self._floor = max(self._floor, change.token)
        lane = self._lanes[change.room]
        lane.give_up_oldest()
        if lane.head == len(lane.items):
            del self._lanes[change.room]

    def passed(self, at: Timestamp) -> bool:
        """Whether every change up to and including that cluster time has been seen."""
        return self._position >= cursor.after(at)

    def covers(self, since: str, tenant: str) -> bool:
        """Whether everything of that tenant after that cursor is still here."""
        return since >= self._floor and since >= self._breaks.get(tenant, "")

    def since(self, room: RoomKey, cursor_: str) -> list[RoomChange]:
        """The room's changes after a cursor, oldest first; found by binary search."""
        lane = self._lanes.get(room)
        if lane is None:
            return []
        start = bisect_right(lane.items, cursor_, lo=lane.head, key=_token)
        return lane.items[start:]

    def rooms(self) -> Iterable[RoomKey]:
        """Rooms with at least one change kept."""
        return self._lanes.keys()
