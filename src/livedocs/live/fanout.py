"""Every change to everyone who may see it. Synchronous: when a call returns, it has been written.

Grant changes pass through here in the same order as document changes. That order is what makes a revocation exact:
once a grant's end has been applied, no later change finds the membership.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Protocol

from livedocs.access.acl import Allowed, Denied
from livedocs.changes.event import CollectionGone, DocumentChange, GrantChange, RoomChange, RoomKey
from livedocs.changes.normalise import payload
from livedocs.live import frames
from livedocs.live.client import Client
from livedocs.live.frames import Frame
from livedocs.live.rooms import Membership, Rooms
from livedocs.telemetry import Metrics, get_logger

log = get_logger(__name__)

# asyncio's timers take no more than a day at a time reliably; a grant may last for years.
_LONGEST_TIMER = 86_400.0
# Seconds that writing one event may keep the loop from everything else; the clock is read every so many writes.
_SLICE = 0.003
_STEP = 32


class Resyncs(Protocol):
    """Who brings a membership up to date again when its deltas were lost (joins.py)."""

    def resync(self, client: Client, rooms: Collection[RoomKey], reason: str) -> None:
        """Have one `$resync` per room sent as soon as its newest state can be read."""


class Fanout:
    """The feed's listener: changes in, frames out, memberships ended.

    Args:
        rooms: the memberships.
        clock: the time now, aware UTC; injected for tests.
    """

    def __init__(
        self, rooms: Rooms, *, metrics: Metrics, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.rooms = rooms
        self._metrics = metrics
        self.clock = clock
        self._resyncs: Resyncs | None = None
        # Sockets that fell behind, until they have drained or been cut off.
        self.slow: set[Client] = set()
        metrics.sockets_behind.set_function(lambda: len(self.slow))
        metrics.rooms.follow(lambda: rooms.tenants)
        # Sockets that hold an event of a large room, and whether `_release` is about to be called.
        self._holding: deque[Client] = deque()
        self._due = False

    def attach(self, resyncs: Resyncs) -> None:
        """Say who resyncs. Needed once, before the first change."""
        self._resyncs = resyncs

    # -- the feed's listener --

    def change(self, change: RoomChange) -> None:
        """The next change, in stream order."""
        if isinstance(change, GrantChange):
            self._grant(change)
        else:
            self._document(change)

    def gone(self, change: CollectionGone) -> None:
        """A collection, a tenant's database or all the grants vanished at once."""
        reason = "grants_dropped" if change.tenant is None else "collection_dropped"
        self._resync(reason, lambda room: change.tenant is None or room.tenant == change.tenant)

    def gap(self, reason: str) -> None:
        """Changes were lost: every membership is looked up again before it gets anything more."""
        self._resync(reason, lambda _: True)

    # -- changes --

    def _document(self, change: DocumentChange) -> None:
        """One event to its room: a slice of it now, the rest held by the sockets and written in further slices."""
        if change.doubtful:
            self._send_whole(change)
            return
        frame: Frame | None = None
        room, token, sent, deadline, late = change.room, change.token, 0, 0.0, False
        for membership in self.rooms.of_room(room):
            # `wants`, without a call for each socket.
            if not membership.active or token <= membership.after or not membership.takes(change):
                continue
            if frame is None:
                frame = event_frame(change)
                deadline = time.perf_counter() + _SLICE
            client: Client = membership.member
            if late:
                outcome = client.hold(frame, room)
                self._holding.append(client)
            else:
                outcome = client.deliver(frame, room)
            if outcome == "sent":
                sent += 1
                late = late or (sent % _STEP == 0 and time.perf_counter() > deadline)
            elif outcome == "cut":
                self._fell_behind(client)
        if frame is not None:
            self._metrics.deliveries.inc(sent)
            self._metrics.latency.observe(max(0.0, (self.clock() - change.wall).total_seconds()))
        self._later()

    def _send_whole(self, change: DocumentChange) -> None:
        """In place of an update that could be read in two ways, the state it led to."""
        clients = [m.member for m in self.rooms.of_room(change.room) if m.wants(change)]
        if self._resyncs is not None:
            for client in clients:
                self._resyncs.resync(client, [change.room], "ambiguous_path")

    def _later(self) -> None:
        if self._holding and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._release)

    def _release(self) -> None:
        """Have the next sockets write what they hold; those that had to meanwhile hold nothing any more."""
        self._due = False
        deadline = time.perf_counter() + _SLICE
        while self._holding:
            for _ in range(min(_STEP, len(self._holding))):
                self._holding.popleft().release()
            if time.perf_counter() > deadline:
                break
        self._later()

    def _fell_behind(self, client: Client) -> None:
        self._metrics.slow_sockets.inc()
        self.slow.add(client)

    def deliver(self, client: Client, frame: Frame, room: RoomKey) -> None:
        """Write one room event to one client."""
        match client.deliver(frame, room):
            case "sent":
                self._metrics.deliveries.inc()
            case "cut":
                self._fell_behind(client)

    def _grant(self, change: GrantChange) -> None:
        concerned = [m for m in self.rooms.of_room(change.room) if m.concerns(change)]
        ended = 0
        for membership in concerned:
            membership.apply(change)
            ended += not self.settle(membership, "expired" if change.ended else "revoked")
        if ended and not change.ended:
            self._metrics.revocation.observe(max(0.0, (self.clock() - change.wall).total_seconds()))

    # -- memberships --

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
        if membership.active and self.rooms.holds(membership):
            self.settle(membership, "expired")

    def evict(self, membership: Membership, reason: str) -> None:
        """End a membership and say so. Nothing of its room is written to that socket afterwards."""
        if not self.remove(membership):
            return
        self._metrics.evictions.labels(reason).inc()
        membership.member.send(frames.event("$revoked", {"uuid": str(membership.room.uuid), "reason": reason}))

    def remove(self, membership: Membership) -> bool:
        """End a membership in silence."""
        membership.active = False
        if membership.timer is not None:
            membership.timer.cancel()
            membership.timer = None
        client: Client = membership.member
        if client.cut is not None:
            client.cut.discard(membership.room)
        return self.rooms.remove(membership)

    def _resync(self, reason: str, concerned: Callable[[RoomKey], bool]) -> None:
        stale: dict[Client, list[RoomKey]] = {}
        for room in self.rooms:
            if concerned(room):
                for membership in self.rooms.of_room(room):
                    if membership.active:
                        stale.setdefault(membership.member, []).append(room)
        if self._resyncs is not None:
            for client, rooms in stale.items():
                self._resyncs.resync(client, rooms, reason)


def event_frame(change: DocumentChange) -> Frame:
    """A document change as the room's clients get it."""
    return frames.event(change.collection, *payload(change))
