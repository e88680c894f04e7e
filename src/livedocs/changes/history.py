"""The history ring: every room change of the last minutes, in stream order. Pure.

It serves resumes and closes the joins' gap, so it keeps grant changes beside document changes: what lay before a
grant is decided by stream order, not by clocks. Bounded by age and by bytes. The bytes are shared by all tenants
with max-min fairness: over the bound, the oldest changes of the tenant that holds most are given up. So a flood of
one tenant shortens that tenant's window, and a tenant below its fair share keeps all of its own.

Within a tenant the oldest changes go first, whichever their room: a floor per room would need memory for each room
whose changes were given up, and a flood can touch any number of rooms.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import Any

from bson.timestamp import Timestamp

from livedocs.changes import cursor
from livedocs.changes.event import RoomChange, RoomKey

# Stands in a lane, before its head, for what was given up, so that its memory is free at once.
_GIVEN_UP: Any = None
# Entries of the heap that may be out of date beside twice as many as there are tenants.
_SLACK = 64


def _token(change: RoomChange) -> str:
    return change.token


class _Lane:
    """The changes of one room, oldest first. `items[:head]` has been given up."""

    __slots__ = ("head", "items")

    def __init__(self) -> None:
        self.items: list[RoomChange] = []
        self.head = 0

    def give_up_oldest(self) -> None:
        self.items[self.head] = _GIVEN_UP
        self.head += 1
        if self.head > 32 and self.head * 2 > len(self.items):
            del self.items[: self.head]
            self.head = 0


class _Share:
    """What one tenant holds: its changes in stream order, their bytes, and its own floor."""

    __slots__ = ("bytes", "changes", "floor", "position")

    def __init__(self) -> None:
        self.changes: deque[RoomChange] = deque()
        self.bytes = 0
        # No cursor of the tenant below this continues: something was given up, or no event tells all. May be below
        # the floor of all tenants, which counts as well.
        self.floor = ""
        # The newest of its changes that has been taken. May be below the position of all tenants, too.
        self.position = ""


class _Largest:
    """Finds the share with the most bytes, in O(log n) amortised.

    Nothing is done for a share that grows until somebody asks: then it is pushed once, however often it has grown.
    An entry whose figure is not the share's bytes any more is out of date and skipped.
    """

    def __init__(self) -> None:
        # (-bytes, tenant). Invariant: every share that is not in `_grown` has an entry of at least its bytes.
        self._heap: list[tuple[int, str]] = []
        self._grown: set[str] = set()

    def clear(self) -> None:
        self._heap.clear()
        self._grown.clear()

    def grew(self, tenant: str) -> None:
        self._grown.add(tenant)

    def forget(self, tenant: str) -> None:
        self._grown.discard(tenant)

    def find(self, shares: dict[str, _Share]) -> str:
        """The tenant that holds most; there must be one that holds anything."""
        for tenant in self._grown:
            heapq.heappush(self._heap, (-shares[tenant].bytes, tenant))
        self._grown.clear()
        if len(self._heap) > 2 * len(shares) + _SLACK:
            self._heap = [(-share.bytes, tenant) for tenant, share in shares.items()]
            heapq.heapify(self._heap)
        while True:
            known, tenant = self._heap[0]
            share = shares.get(tenant)
            if share is not None and share.bytes == -known:
                return tenant
            if share is not None and share.bytes < -known:
                heapq.heapreplace(self._heap, (-share.bytes, tenant))
            else:
                # Gone, or an entry from before it grew, which has a newer one.
                heapq.heappop(self._heap)


class History:
    """A window over the stream.

    Args:
        window: seconds, in cluster time, that a change is kept.
        max_bytes: most memory the kept changes may take.
    """

    def __init__(self, *, window: float, max_bytes: int) -> None:
        self._window = window
        self._max_bytes = max_bytes
        # Invariant: each share has its tenant's changes in stream order, and each room's lane the room's of them.
        self._lanes: dict[RoomKey, _Lane] = {}
        self._shares: dict[str, _Share] = {}
        # When, in cluster time, a share is next to be looked at: (seconds, tenant), one entry for each share. It
        # is never later than the share's oldest change, or than its floor if it has no change.
        self._due: list[tuple[int, str]] = []
        self._largest = _Largest()
        self._count = 0
        self._bytes = 0
        self._floor = cursor.before(Timestamp(0, 0))
        # Everything at or before this position has been seen. A token, or a position after a cluster time.
        self._position = self._floor

    @property
    def floor(self) -> str:
        """The lowest cursor from which a tenant can resume that holds no more than its share."""
        return self._floor

    @property
    def position(self) -> str:
        """How far the changes of every tenant have been taken."""
        return self._position

    def position_of(self, tenant: str) -> str:
        """How far the changes of that tenant have been taken, at least."""
        share = self._shares.get(tenant)
        return self._position if share is None else max(self._position, share.position)

    @property
    def count(self) -> int:
        """Changes kept."""
        return self._count

    @property
    def bytes(self) -> int:
        """Memory of the changes kept, roughly."""
        return self._bytes

    @property
    def seconds(self) -> float:
        """How far back a tenant can resume now that holds no more than its share, in cluster time."""
        return self._reach(self._floor)

    @property
    def shortest(self) -> float:
        """How far back the tenant with the shortest window can resume now. Looks at every tenant."""
        return self._reach(max((share.floor for share in self._shares.values()), default=self._floor))

    @property
    def shortened(self) -> int:
        """Tenants whose window is shorter than that of the others. Looks at every tenant."""
        return sum(share.floor > self._floor for share in self._shares.values())

    def _reach(self, floor: str) -> float:
        begin = cursor.cluster_time(max(floor, self._floor)).time
        return float(max(0, cursor.cluster_time(self._position).time - begin))

    def restart(self, floor: str) -> None:
        """Begin again behind `floor`: nothing before it can be resumed."""
        self._lanes.clear()
        self._shares.clear()
        self._due.clear()
        self._largest.clear()
        self._count = self._bytes = 0
        self._floor = self._position = floor

    def append(self, change: RoomChange) -> None:
        """Take a tenant's next change; its token is never below that of an earlier one of the tenant."""
        lane = self._lanes.get(change.room)
        if lane is None:
            lane = self._lanes[change.room] = _Lane()
        lane.items.append(change)
        tenant, size = change.room.tenant, change.size
        share = self._shares.get(tenant) or self._share(tenant, change.at.time)
        share.changes.append(change)
        share.bytes += size
        self._largest.grew(tenant)
        self._count += 1
        self._bytes += size
        share.position = max(share.position, change.token)
        # At once, not at the end of the batch: a batch may hold many large events.
        while self._bytes > self._max_bytes:
            self._give_up_oldest(self._shares[self._largest.find(self._shares)])

    def break_off(self, token: str, tenant: str | None) -> None:
        """Let nobody of that tenant, or nobody at all, continue from before that position: no event tells all."""
        if tenant is None:
            self._floor = max(self._floor, token)
        else:
            share = self._share(tenant, cursor.cluster_time(token).time)
            share.floor = share.position = max(share.floor, share.position, token)

    def advance(self, position: str) -> None:
        """Note that the stream has been followed up to there, and give up what is older than the window."""
        self._position = max(self._position, position)
        horizon = int(cursor.cluster_time(self._position).time - self._window)
        if horizon <= 0:
            return
        self._floor = max(self._floor, cursor.before(Timestamp(horizon, 0)))
        while self._due and self._due[0][0] < horizon:
            self._look_at(self._due[0][1], horizon)

    def _share(self, tenant: str, seconds: int) -> _Share:
        """The tenant's share; a new one is looked at when those seconds lie outside the window."""
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = _Share()
            heapq.heappush(self._due, (seconds, tenant))
        return share

    def _look_at(self, tenant: str, horizon: int) -> None:
        """Give up what the first in `_due` holds from before the horizon, and its share if nothing is left."""
        share = self._shares[tenant]
        while share.changes and share.changes[0].at.time < horizon:
            self._give_up_oldest(share)
        if share.changes:
            heapq.heapreplace(self._due, (share.changes[0].at.time, tenant))
        elif share.floor > self._floor:
            heapq.heapreplace(self._due, (cursor.cluster_time(share.floor).time, tenant))
        else:
            heapq.heappop(self._due)
            self._largest.forget(tenant)
            del self._shares[tenant]

    def _give_up_oldest(self, share: _Share) -> None:
        change = share.changes.popleft()
        size = change.size
        share.bytes -= size
        share.floor = max(share.floor, change.token)
        self._count -= 1
        self._bytes -= size
        lane = self._lanes[change.room]
        lane.give_up_oldest()
        if lane.head == len(lane.items):
            del self._lanes[change.room]

    def passed(self, at: Timestamp) -> bool:
        """Whether every change up to and including that cluster time has been seen."""
        return self._position >= cursor.after(at)

    def has_reached(self, tenant: str, position: str) -> bool:
        """Whether the newest change of the tenant, if any is kept, is at the cluster time of that position."""
        share = self._shares.get(tenant)
        return share is not None and share.position.startswith(position[: cursor.TIME_ENDS])

    def last(self, room: RoomKey) -> RoomChange | None:
        """The room's newest change that is kept."""
        lane = self._lanes.get(room)
        return lane.items[-1] if lane is not None else None

    def covers(self, since: str, tenant: str) -> bool:
        """Whether everything of that tenant after that cursor is still here."""
        share = self._shares.get(tenant)
        return since >= self._floor and (share is None or since >= share.floor)

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
