"""The newest state of rooms, for whoever has missed something of them.

A resync is a join without a question: the membership is held back, grants and documents are looked at together
at one cluster time T, then without an `await` it is active again, and gets `$resync` and what the history has
behind T.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection

from livedocs.changes import cursor
from livedocs.changes.cursor import Sealing
from livedocs.changes.event import DocumentChange, RoomKey
from livedocs.errors import LivedocsError, Unavailable
from livedocs.live import frames
from livedocs.live.activation import Activation
from livedocs.live.client import Client
from livedocs.live.delivery import Delivery
from livedocs.live.frames import Frame
from livedocs.live.join_snapshots import JoinSnapshots
from livedocs.live.memberships import Memberships
from livedocs.live.preparation import Preparation, Space, documents_of
from livedocs.live.rooms import Membership
from livedocs.live.turns import Turns
from livedocs.model import Snapshot
from livedocs.runtime import tasks
from livedocs.telemetry import Metrics, get_logger, log_failure

log = get_logger(__name__)

# Seconds that a round of reads may take.
_TIMEOUT = 10.0
_RETRY_FIRST, _RETRY_MOST = 0.2, 5.0
# Resyncs of one tenant at a time.
_PER_TENANT = 4
_MOST_ROOMS = 100


class Resyncs:
    """Sends `$resync`, as soon as the newest state can be read.

    Args:
        snapshots: reads what a membership rests on.
        activation: makes it live again.
        cursors: makes the cursors that clients get.
        most_bytes: of what is read and encoded at a time, beyond the first room.
    """

    def __init__(
        self,
        snapshots: JoinSnapshots,
        activation: Activation,
        memberships: Memberships,
        delivery: Delivery,
        cursors: Sealing,
        *,
        most_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._snapshots = snapshots
        self._activation = activation
        self._memberships = memberships
        self._rooms = memberships.rooms
        self._delivery = delivery
        self._preparation = Preparation(delivery.prepared)
        self._cursors = cursors
        self._most_bytes = most_bytes
        self._metrics = metrics
        self._turns = Turns(_PER_TENANT)
        # What is to be resynced, by client and room; a client has a task here as long as it has an entry.
        self._stale: dict[Client, dict[RoomKey, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def resync(self, client: Client, rooms: Collection[RoomKey], reason: str) -> None:
        """Have one `$resync` per room sent as soon as its newest state can be read."""
        if client.closed is not None or not rooms:
            return
        for room in rooms:
            # Until its newest state has been read, nothing of the room is written.
            self._hold_back(client, room)
        first = client not in self._stale
        waiting = self._stale.setdefault(client, {})
        for room in rooms:
            waiting.setdefault(room, reason)
        if first:
            task = asyncio.get_running_loop().create_task(self._work(client), name="resync")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def mend(self, membership: Membership) -> None:
        """Bring a member up to date for whom something has gone wrong; failing that, it is out, or its socket."""
        client, room = membership.member, membership.room
        try:
            if membership.active:
                self.resync(client, [room], "event_unreadable")
        except Exception as error:  # noqa: BLE001 - nobody else is to be harmed, whatever it is
            self._metrics.contained.labels("socket").inc()
            log_failure(log, "room_left_in_error", error, tenant=room.tenant)
            try:
                self._memberships.evict(membership, "unavailable")
            except Exception as fault:  # noqa: BLE001 - as above
                self._metrics.contained.labels("socket").inc()
                log_failure(log, "socket_left_in_error", fault, tenant=room.tenant)
                client.abort("error")

    def replay(self, client: Client, change: DocumentChange, frame: Frame | None = None) -> None:
        """Write a change that the client has missed; the newest state instead of one that cannot be written."""
        try:
            frame = frame or self._delivery.prepared.frame(change)
        except Exception as error:  # noqa: BLE001 - one room's, whatever it is
            self._metrics.contained.labels("change").inc()
            log_failure(log, "change_untold", error, tenant=change.room.tenant, room=str(change.room.uuid))
            for membership in tuple(self._rooms.of_room(change.room)):
                self.mend(membership)
        else:
            self._delivery.deliver(client, frame, change.room)

    async def _work(self, client: Client) -> None:
        wait, most = _RETRY_FIRST, _MOST_ROOMS
        try:
            while (waiting := self._stale.get(client)) and client.closed is None:
                # Whoever does not take the newest state of some rooms has no use for that of others.
                await client.outbox.writable()
                async with self._turns.of(client.tenant.slug), client.busy:
                    # Taken out first: what is asked for from here on is asked for anew.
                    batch = {room: waiting.pop(room) for room in list(waiting)[:most]}
                    try:
                        rest = await self._resync(client, batch)
                    except Unavailable:
                        rest = batch
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is not to be others' trouble
                        self._metrics.contained.labels("resync").inc()
                        log_failure(log, "resync_failed", error, tenant=client.tenant.slug, rooms=len(batch))
                        rest = self._single_out(client, batch)
                for room, reason in rest.items():
                    waiting.setdefault(room, reason)
                if len(rest) < len(batch):
                    wait, most = _RETRY_FIRST, _MOST_ROOMS
                    continue
                # Fewer at a time: what makes it fail may be one of them.
                most = max(1, most // 2)
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
                wait = min(_RETRY_MOST, 2 * wait)
        finally:
            self._stale.pop(client, None)

    def _single_out(self, client: Client, batch: dict[RoomKey, str]) -> dict[RoomKey, str]:
        """What is tried again of rooms that could not be decided. One that failed by itself is left."""
        if len(batch) > 1:
            return batch
        for room in batch:
            membership = self._rooms.get(client, room)
            if membership is not None:
                self._memberships.evict(membership, "unavailable")
        return {}

    async def _resync(self, client: Client, batch: dict[RoomKey, str]) -> dict[RoomKey, str]:
        """One round of reads for some rooms of a client. Returns those that it has to be tried again for.

        Raises:
            Unavailable: for all of them.
        """
        rooms = [room for room in batch if self._hold_back(client, room)]
        if not rooms:
            return {}
        space, rest = Space(self._most_bytes, client.unread), {}
        try:
            async with asyncio.timeout(_TIMEOUT):
                uuids = [room.uuid for room in rooms]
                snapshot = await self._snapshots.read(client.principal, client.tenant, uuids, None, documents=True)
                for room in rooms:
                    membership = self._rooms.get(client, room)
                    if membership is not None and not await self._prepare(membership, snapshot, space):
                        rest[room] = batch[room]
        except (LivedocsError, TimeoutError) as error:
            raise Unavailable from error
        if not self._snapshots.continues(snapshot, client.tenant):
            raise Unavailable
        for room in rooms:
            membership = self._rooms.get(client, room)
            if membership is None or room in rest or room.uuid not in snapshot.grants:
                continue
            try:
                self._send(membership, snapshot, batch[room])
            except Exception as error:  # noqa: BLE001 - one room's; it must not silence the socket's others
                self._metrics.contained.labels("resync").inc()
                log_failure(log, "resync_failed", error, tenant=room.tenant, room=str(room.uuid))
                self._memberships.evict(membership, "unavailable")
        client.settle_unread()
        return rest

    async def _prepare(self, membership: Membership, snapshot: Snapshot, space: Space) -> bool:
        """Encode a room's documents. False when there was no room for them."""
        uuid = membership.room.uuid
        if uuid in snapshot.left_out:
            return False
        try:
            wanted, tenant = membership.collections, membership.member.tenant
            await self._preparation.documents(snapshot, uuid, wanted, tenant, space)
        except LivedocsError:
            return False
        return True

    def _hold_back(self, client: Client, room: RoomKey) -> bool:
        membership = self._rooms.get(client, room)
        if membership is None:
            return False
        membership.hold_back()
        return True

    # -- no await from here: what is sent and what comes behind it follow each other --

    def _send(self, membership: Membership, snapshot: Snapshot, reason: str) -> None:
        client, uuid = membership.member, membership.room.uuid
        missed = self._activation.activate(membership, snapshot, membership.collections, None)
        if missed is None:
            self._memberships.evict(membership, "revoked")
            return
        self._metrics.resyncs.labels(reason).inc()
        told = {
            "uuid": str(uuid),
            "reason": reason,
            "cursor": self._cursors.seal(cursor.after(snapshot.at)),
            "snapshot": documents_of(snapshot, uuid, membership.collections, client.tenant),
        }
        client.send(frames.event("$resync", told))
        for change in missed.replay:
            self.replay(client, change)
        if missed.incomplete is not None:
            self.resync(client, [membership.room], missed.incomplete)

    async def aclose(self) -> None:
        """End what is under way."""
        await tasks.end(self._tasks)
