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
from functools import cache
from typing import Protocol

from livedocs.access.acl import Allowed, Denied
from livedocs.changes.cursor import Sealing
from livedocs.changes.event import CollectionGone, DocumentChange, GrantChange, RoomChange, RoomKey
from livedocs.live import frames
from livedocs.live.client import Client
from livedocs.live.frames import Frame
from livedocs.live.prepared import PreparedFrames
from livedocs.live.rooms import Membership, Rooms
from livedocs.telemetry import Metrics, get_logger, log_failure

log = get_logger(__name__)

# asyncio's timers take no more than a day at a time reliably; a grant may last for years.
_LONGEST_TIMER = 86_400.0
# Seconds that writing one event may keep the loop from everything else; the clock is read every so many writes, or
# bytes if that is sooner.
_SLICE = 0.003
_STEP, _STEP_BYTES = 32, 2**16


class Resyncs(Protocol):
    """Who brings a membership up to date again when its deltas were lost (joins.py)."""

    def resync(self, client: Client, rooms: Collection[RoomKey], reason: str) -> None:
        """Have one `$resync` per room sent as soon as its newest state can be read."""


class Fanout:
    """The feed's listener: changes in, frames out, memberships ended.

    Args:
        rooms: the memberships.
        cursors: makes the cursors that clients get.
        clock: the time now, aware UTC; injected for tests.
    """

    def __init__(
        self,
        rooms: Rooms,
        cursors: Sealing,
        *,
        metrics: Metrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.rooms = rooms
        self.prepared = PreparedFrames(cursors)
        self._metrics = metrics
        self._contained = metrics.contained
        self._evictions = cache(metrics.evictions.labels)
        # The last `$revoked` with what it says: a grant that ends often lets many out.
        self._revoked: tuple[RoomKey, str, Frame] | None = None
        self.clock = clock
        self._resyncs: Resyncs | None = None
        # Sockets for which something waits; some of them have fallen behind.
        self.backlogged: set[Client] = set()
        metrics.sockets_behind.set_function(lambda: sum(client.cut is not None for client in self.backlogged))
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

    def gap(self, reason: str, tenant: str | None = None) -> None:
        """Changes were lost: every membership, or every one of the tenant, is looked up before it gets more."""
        self._resync(reason, lambda room: tenant is None or room.tenant == tenant)

    def unprepared(self, change: DocumentChange) -> bool:
        """Whether somebody is there for that heavy change, and its frame is not."""
        return (
            change.withheld is None
            and change.op != "delete"
            and any(membership.takes(change) for membership in self.rooms.of_room(change.room))
            and self.prepared.get(change) is None
        )

    async def prepare(self, change: DocumentChange) -> None:
        """Make its frame off the event loop."""
        await self.prepared.prepare(change, live=True)

    def unreadable(self, room: RoomKey) -> None:
        """A change of that room could not be told: its members are owed the newest state."""
        for membership in tuple(self.rooms.of_room(room)):
            self._mend(membership)

    def _mend(self, membership: Membership) -> None:
        """Bring a member up to date for whom something has gone wrong; failing that, it is out, or its socket."""
        client: Client = membership.member
        try:
            if membership.active and self._resyncs is not None:
                self._resyncs.resync(client, [membership.room], "event_unreadable")
        except Exception as error:  # noqa: BLE001 - nobody else is to be harmed, whatever it is
            self._contained.labels("socket").inc()
            log_failure(log, "room_left_in_error", error, tenant=membership.room.tenant)
            try:
                self.evict(membership, "unavailable")
            except Exception as fault:  # noqa: BLE001 - as above
                self._contained.labels("socket").inc()
                log_failure(log, "socket_left_in_error", fault, tenant=membership.room.tenant)
                client.abort("error")

    def replay(self, client: Client, change: DocumentChange, frame: Frame | None = None) -> None:
        """Write a change that the client has missed; the newest state instead of one that cannot be written."""
        try:
            frame = frame or self.prepared.frame(change)
        except Exception as error:  # noqa: BLE001 - one room's, whatever it is
            self._contained.labels("change").inc()
            log_failure(log, "change_untold", error, tenant=change.room.tenant, room=str(change.room.uuid))
            self.unreadable(change.room)
        else:
            self.deliver(client, frame, change.room)

    # -- changes --

    def _document(self, change: DocumentChange) -> None:  # noqa: C901 - a call for each socket would show
        """One event to its room: a slice of it now, the rest held by the sockets and written in further slices."""
        if change.withheld is not None:
            self._send_whole(change, change.withheld)
            return
        frame: Frame | None = None
        room, token, sent, step, deadline, late = change.room, change.token, 0, 1, 0.0, False
        harmed: list[Membership] = []
        for membership in self.rooms.of_room(room):
            # `wants`, without a call for each socket.
            if not membership.active or token <= membership.after or not membership.takes(change):
                continue
            if frame is None:
                frame = self.prepared.frame(change)
                step = max(1, min(_STEP, _STEP_BYTES // len(frame.wire)))
                deadline = time.perf_counter() + _SLICE
            client: Client = membership.member
            try:
                if late:
                    outcome = client.hold(frame, room)
                    self._holding.append(client)
                else:
                    outcome = client.deliver(frame, room)
            except Exception as error:  # noqa: BLE001 - one socket's, whatever it is
                self._contained.labels("socket").inc()
                log_failure(log, "socket_unwritable", error, tenant=room.tenant)
                harmed.append(membership)
                continue
            if outcome == "sent":
                sent += 1
                late = late or (sent % step == 0 and time.perf_counter() > deadline)
            elif outcome == "cut":
                self._fell_behind(client)
        if frame is not None:
            self._metrics.deliveries.inc(sent)
            latency = self.clock() - change.wall.replace(tzinfo=UTC)
            self._metrics.latency.observe(max(0.0, latency.total_seconds()))
        for membership in harmed:
            self._mend(membership)
        self._later()

    def _send_whole(self, change: DocumentChange, reason: str) -> None:
        """In place of a change that cannot be shown, the state it led to."""
        clients = [m.member for m in self.rooms.of_room(change.room) if m.wants(change)]
        if self._resyncs is not None:
            for client in clients:
                self._resyncs.resync(client, [change.room], reason)

    def _later(self) -> None:
        if self._holding and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._release)

    def _release(self) -> None:
        """Have the next sockets write what they hold; those that had to meanwhile hold nothing any more."""
        self._due = False
        deadline = time.perf_counter() + _SLICE
        while self._holding:
            client = self._holding.popleft()
            try:
                client.release()
            except Exception as error:  # noqa: BLE001 - one socket's, whatever it is
                self._contained.labels("socket").inc()
                log_failure(log, "socket_unwritable", error, tenant=client.tenant.slug)
                client.abort("error")
            if time.perf_counter() > deadline:
                break
        self._later()

    def _fell_behind(self, client: Client) -> None:
        self._metrics.slow_sockets.inc()
        self.backlogged.add(client)

    def deliver(self, client: Client, frame: Frame, room: RoomKey) -> None:
        """Write one room event to one client."""
        match client.deliver(frame, room):
            case "sent":
                self._metrics.deliveries.inc()
            case "cut":
                self._fell_behind(client)

    def _grant(self, change: GrantChange) -> None:
        concerned = [m for m in self.rooms.of_room(change.room) if m.concerns(change)]
        ended, now = 0, self.clock()
        for membership in concerned:
            membership.apply(change)
            ended += not self.settle(membership, "expired" if change.ended else "revoked", now)
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
                try:
                    self._resyncs.resync(client, rooms, reason)
                except Exception as error:  # noqa: BLE001 - one socket's, whatever it is
                    self._contained.labels("socket").inc()
                    log_failure(log, "socket_left_in_error", error, tenant=client.tenant.slug)
                    client.abort("error")
