"""How memberships go on and end: a grant's change, its instant, an eviction. Synchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache

from livedocs.access.acl import Allowed, Denied
from livedocs.changes.event import RoomKey
from livedocs.live import frames
from livedocs.live.frames import Frame
from livedocs.live.rooms import Membership, Rooms
from livedocs.telemetry import Metrics, get_logger, log_failure

log = get_logger(__name__)

# asyncio's timers take no more than a day at a time reliably; a grant may last for years.
_LONGEST_TIMER = 86_400.0


class Memberships:
    """Decides memberships anew and ends them, on time.

    Args:
        rooms: where they are.
        clock: the time now, aware UTC; injected for tests.
    """

    def __init__(
        self, rooms: Rooms, *, metrics: Metrics, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.rooms = rooms
        self.clock = clock
        self._contained = metrics.contained
        self._evictions = cache(metrics.evictions.labels)
        # The last `$revoked` with what it says: a grant that ends often lets many out.
        self._revoked: tuple[RoomKey, str, Frame] | None = None
        metrics.rooms.follow(lambda: rooms.tenants)

    def settle(self, membership: Membership, reason: str, now: datetime | None = None) -> bool:
        """Act on what the membership's grants allow now. False when that was its end.

        `now` is for a caller that has decided by a reading of the clock already: both are of one moment.
        """
        decision = membership.decide(now or self.clock())
        if membership.timer is not None:
            membership.timer.cancel()
            membership.timer = None
        if isinstance(decision, Denied):
            self.evict(membership, "expired" if decision.reason == "expired" else reason)
            return False
        membership.role = decision.role
        self._arm(membership, decision)
        return True

    def _arm(self, membership: Membership, decision: Allowed) -> None:
        """End it at its instant: nobody waits for MongoDB's TTL monitor."""
        if decision.until is None:
            return
        delay = max(timedelta(0), decision.until - self.clock()).total_seconds()
        membership.timer = asyncio.get_running_loop().call_later(
            min(delay, _LONGEST_TIMER), self._expire, membership
        )

    def _expire(self, membership: Membership) -> None:
        membership.timer = None
        if not membership.active or not self.rooms.holds(membership):
            return
        try:
            self.settle(membership, "expired")
        except Exception as error:  # noqa: BLE001 - fail closed: nobody stays in past the end of a grant
            self._contained.labels("socket").inc()
            log_failure(log, "socket_left_in_error", error, tenant=membership.room.tenant)
            self.rooms.remove(membership)
            membership.member.abort("error")

    def evict(self, membership: Membership, reason: str) -> None:
        """End a membership and say so. Nothing of its room is written to that socket afterwards."""
        if not self.remove(membership):
            return
        self._evictions(reason).inc()
        membership.member.send(self._told_of(membership.room, reason))

    def _told_of(self, room: RoomKey, reason: str) -> Frame:
        if self._revoked is None or self._revoked[:2] != (room, reason):
            told = frames.event("$revoked", {"uuid": str(room.uuid), "reason": reason})
            self._revoked = (room, reason, told)
        return self._revoked[2]

    def remove(self, membership: Membership) -> bool:
        """End a membership in silence. False if it is not, or no longer, in its room."""
        membership.end()
        membership.member.owe_nothing(membership.room)
        return self.rooms.remove(membership)
