"""Every change to everyone who may see it. Synchronous: when a call returns, it has been written.

Grant changes pass through here in the same order as document changes. That order is what makes a revocation exact:
once a grant's end has been applied, no later change finds the membership.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC

from livedocs.changes.event import CollectionGone, DocumentChange, GrantChange, RoomChange, RoomKey
from livedocs.live.client import Client
from livedocs.live.delivery import Delivery
from livedocs.live.frames import Frame
from livedocs.live.memberships import Memberships
from livedocs.live.resyncs import Resyncs
from livedocs.live.rooms import Membership, State
from livedocs.telemetry import Metrics, get_logger, log_failure

log = get_logger(__name__)

# Seconds that writing one event may keep the loop from everything else; the clock is read every so many writes, or
# bytes if that is sooner.
_SLICE = 0.003
_STEP, _STEP_BYTES = 32, 2**16


class Fanout:
    """The feed's listener: changes in, frames out, memberships ended.

    Args:
        memberships: ends those whose grants end.
        delivery: knows the sockets that have fallen behind.
        resyncs: brings up to date whoever has missed something.
    """

    def __init__(
        self, memberships: Memberships, delivery: Delivery, resyncs: Resyncs, *, metrics: Metrics
    ) -> None:
        self._memberships = memberships
        self._rooms = memberships.rooms
        self._delivery = delivery
        self._prepared = delivery.prepared
        self._resyncs = resyncs
        self._metrics = metrics
        self._contained = metrics.contained
        # Sockets that hold an event of a large room, and whether `_release` is about to be called.
        self._holding: deque[Client] = deque()
        self._due = False

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
            and any(membership.takes(change) for membership in self._rooms.of_room(change.room))
            and self._prepared.get(change) is None
        )

    async def prepare(self, change: DocumentChange) -> None:
        """Make its frame off the event loop."""
        await self._prepared.prepare(change, live=True)

    def unreadable(self, room: RoomKey) -> None:
        """A change of that room could not be told: its members are owed the newest state."""
        for membership in tuple(self._rooms.of_room(room)):
            self._resyncs.mend(membership)

    # -- changes --

    def _document(self, change: DocumentChange) -> None:  # noqa: C901 - a call for each socket would show
        """One event to its room: a slice of it now, the rest held by the sockets and written in further slices."""
        if change.withheld is not None:
            self._send_whole(change, change.withheld)
            return
        frame: Frame | None = None
        room, token, sent, step, deadline, late = change.room, change.token, 0, 1, 0.0, False
        harmed: list[Membership] = []
        active = State.ACTIVE
        for membership in self._rooms.of_room(room):
            # `wants`, without a call for each socket.
            if membership.state is not active or token <= membership.after or not membership.takes(change):
                continue
            if frame is None:
                frame = self._prepared.frame(change)
                step = max(1, min(_STEP, _STEP_BYTES // len(frame.wire)))
                deadline = time.perf_counter() + _SLICE
            client = membership.member
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
                self._delivery.fell_behind(client)
        if frame is not None:
            self._metrics.deliveries.inc(sent)
            latency = self._memberships.clock() - change.wall.replace(tzinfo=UTC)
            self._metrics.latency.observe(max(0.0, latency.total_seconds()))
        for membership in harmed:
            self._resyncs.mend(membership)
        self._later()

    def _send_whole(self, change: DocumentChange, reason: str) -> None:
        """In place of a change that cannot be shown, the state it led to."""
        for client in [m.member for m in self._rooms.of_room(change.room) if m.wants(change)]:
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

    def _grant(self, change: GrantChange) -> None:
        concerned = [m for m in self._rooms.of_room(change.room) if m.concerns(change)]
        ended, now = 0, self._memberships.clock()
        for membership in concerned:
            membership.apply(change)
            ended += not self._memberships.settle(membership, "expired" if change.ended else "revoked", now)
        if ended and not change.ended:
            self._metrics.revocation.observe(max(0.0, (self._memberships.clock() - change.wall).total_seconds()))

    def _resync(self, reason: str, concerned: Callable[[RoomKey], bool]) -> None:
        stale: dict[Client, list[RoomKey]] = {}
        for room in self._rooms:
            if concerned(room):
                for membership in self._rooms.of_room(room):
                    if membership.active:
                        stale.setdefault(membership.member, []).append(room)
        for client, rooms in stale.items():
            try:
                self._resyncs.resync(client, rooms, reason)
            except Exception as error:  # noqa: BLE001 - one socket's, whatever it is
                self._contained.labels("socket").inc()
                log_failure(log, "socket_left_in_error", error, tenant=client.tenant.slug)
                client.abort("error")
