"""Into a room, without a gap and without a moment too much.

A join is: register as pending, look at grants and documents together at one cluster time T, then without an
`await` activate, answer, and write what the history has behind T. Registered first, so that a revoke behind T
finds it. A resync is the same with `$resync` for an answer; a change of a caller's groups the same with no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from livedocs import extjson, tasks
from livedocs.access.principal import Principal
from livedocs.changes import cursor
from livedocs.changes.event import DocumentChange, RoomKey
from livedocs.changes.history import History
from livedocs.errors import Forbidden, LivedocsError, TooManyRooms, Unavailable
from livedocs.live import frames
from livedocs.live.client import Client
from livedocs.live.fanout import Fanout, event_frame
from livedocs.live.looks import Looks
from livedocs.live.rooms import Membership, access_since, held_throughout
from livedocs.model import Snapshot
from livedocs.presentation import present_all
from livedocs.telemetry import Metrics, get_logger

log = get_logger(__name__)

# A join that has not been answered by then is refused.
_TIMEOUT = 10.0
_RETRY = 0.2
MOST_PER_CALL = 100


@dataclass(frozen=True, slots=True)
class Wish:
    """What a JoinRoom asks for beside its UUIDs."""

    since: str | None = None
    snapshot: bool = False
    collections: frozenset[str] | None = None


@dataclass(slots=True)
class Outcome:
    """What became of a call: the ack's content, and what is written behind it, in stream order."""

    joined: dict[str, dict[str, Any]]
    refused: dict[str, dict[str, Any]]
    replay: list[DocumentChange]
    # Rooms, by reason, whose replay leaves something out: their newest state has to come behind it.
    incomplete: dict[RoomKey, str]


@dataclass(frozen=True, slots=True)
class _Missed:
    """The changes a membership is owed, and why they are not all, if they are not."""

    replay: list[DocumentChange]
    incomplete: str | None


def _missed(changes: list[DocumentChange], *, begin: str, first: str) -> _Missed:
    """What of a room's changes is replayed: those behind `first`, up to one that nobody could read for certain.

    `access`: there are changes behind the cursor `begin` from before the grants in force began. They are not
    replayed, so what comes after them has no sure ground.
    """
    replay = [change for change in changes if change.token > first]
    incomplete = "access" if any(begin < change.token <= first for change in changes) else None
    for index, change in enumerate(replay):
        if change.doubtful:
            return _Missed(replay[:index], "ambiguous_path")
    return _Missed(replay, incomplete)


class Joins:
    """Lets clients into rooms, and brings memberships up to date.

    Args:
        looks: reads what a join rests on.
        most_rooms: rooms one socket may be in.
    """

    def __init__(
        self,
        looks: Looks,
        history: History,
        fanout: Fanout,
        *,
        most_rooms: int,
        metrics: Metrics,
    ) -> None:
        self._looks = looks
        self._history = history
        self._fanout = fanout
        self._rooms = fanout.rooms
        self._most_rooms = most_rooms
        self._metrics = metrics
        self._joined = metrics.joins.labels("ok")
        # What is to be resynced, by client and room; a client has a task here as long as it has an entry.
        self._stale: dict[Client, dict[RoomKey, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._readers = asyncio.Semaphore(16)

    # -- join --

    async def join(self, client: Client, uuids: Sequence[UUID], wish: Wish) -> Outcome:
        """Let the client into the rooms it may be in.

        The caller writes the answer and then `replay`, without an await, and calls `complete`. Never raises for
        what the client asked: every UUID is either joined or refused.
        """
        outcome = Outcome({}, {}, [], {})
        wanted = self._within_limits(client, uuids, outcome)
        if not wanted:
            return outcome
        async with client.busy:
            pending = [self._register(client, uuid) for uuid in wanted]
            try:
                async with asyncio.timeout(_TIMEOUT):
                    self._looks.check_stream()
                    begins = [begin for m in pending if (begin := _begin(m, wish)) is not None]
                    snapshot = await self._looks.look(
                        client.principal, client.tenant, wanted, begins or None, documents=wish.snapshot
                    )
            except (LivedocsError, TimeoutError) as error:
                refusal = error if isinstance(error, LivedocsError) else Unavailable()
                for membership in pending:
                    self._refuse(membership, refusal, outcome)
                return outcome
            except BaseException:
                for membership in pending:
                    self._fanout.remove(membership)
                raise
            for membership in pending:
                self._let_in(membership, snapshot, wish, outcome)
        outcome.replay.sort(key=lambda change: change.token)
        return outcome

    def complete(self, client: Client, outcome: Outcome) -> None:
        """Have what a replay had to leave out made up for by `$resync`; for right behind the replay."""
        for room, reason in outcome.incomplete.items():
            self.resync(client, [room], reason)

    def _within_limits(self, client: Client, uuids: Sequence[UUID], outcome: Outcome) -> list[UUID]:
        wanted = list(dict.fromkeys(uuids))
        room = self._most_rooms - len(self._rooms.of_member(client))
        new = [uuid for uuid in wanted if self._rooms.get(client, RoomKey(client.tenant.slug, uuid)) is None]
        refused = wanted if len(wanted) > MOST_PER_CALL else new[max(0, room) :]
        if refused:
            self._metrics.limits_hit.labels("rooms", "call" if len(wanted) > MOST_PER_CALL else "socket").inc()
        for uuid in refused:
            outcome.refused[str(uuid)] = {"code": TooManyRooms.on_socket()}
            self._metrics.joins.labels(TooManyRooms.on_socket()).inc()
        return [uuid for uuid in wanted if str(uuid) not in outcome.refused]

    def _register(self, client: Client, uuid: UUID) -> Membership:
        """A pending membership, in place of one the client may have had."""
        room = RoomKey(client.tenant.slug, uuid)
        former = self._rooms.get(client, room)
        membership = Membership(room, client, frozenset(client.principal.subjects))
        if former is not None:
            # What the former one was sent ends here; without a snapshot the new one goes on from here.
            membership.resume = max(former.after, self._history.position) if former.active else former.resume
            # What a slow socket was not sent of the former one is still owed to it.
            owed = client.cut is not None and room in client.cut
            self._fanout.remove(former)
            if client.cut is not None and owed:
                client.cut.add(room)
        self._rooms.add(membership)
        return membership

    def _refuse(self, membership: Membership, error: LivedocsError, outcome: Outcome) -> None:
        self._fanout.remove(membership)
        code = error.on_socket()
        outcome.refused[str(membership.room.uuid)] = {"code": code}
        self._metrics.joins.labels(code).inc()

    # -- no await in this part: from the snapshot to the activation nothing else may run --

    def _let_in(self, membership: Membership, snapshot: Snapshot, wish: Wish, outcome: Outcome) -> None:
        uuid = membership.room.uuid
        if not self._rooms.holds(membership):
            # The socket has gone, or left again, in the meantime.
            outcome.refused[str(uuid)] = {"code": Forbidden.on_socket()}
            return
        begin = _begin(membership, wish)
        resync = begin is not None and not self._looks.resumable(begin, snapshot, membership.member.tenant)
        if resync and snapshot.grants[uuid] and uuid not in snapshot.documents:
            # A grant has run out since the snapshot was read: it was without the documents that are needed now.
            self._refuse(membership, Unavailable(), outcome)
            return
        begin = None if resync else begin
        missed = self._activate(membership, snapshot, wish, begin)
        if missed is None:
            self._refuse(membership, Forbidden(), outcome)
            return
        replay = missed.replay
        if missed.incomplete is not None:
            outcome.incomplete[membership.room] = missed.incomplete
        answer: dict[str, Any] = {"role": membership.role.label, "cursor": cursor.after(snapshot.at)}
        if begin is not None and replay:
            # Not lost before the replay has arrived, the cursor leads through it again.
            answer["cursor"] = begin
        if begin is not None and wish.since is not None:
            answer["resumed"] = len(replay)
        if resync:
            answer["resync"] = "window"
            self._metrics.resyncs.labels("window").inc()
        if wish.snapshot or resync:
            answer["snapshot"] = documents_of(snapshot, membership)
        outcome.joined[str(uuid)] = answer
        outcome.replay.extend(replay)
        self._joined.inc()

    def _activate(
        self, membership: Membership, snapshot: Snapshot, wish: Wish, begin: str | None
    ) -> _Missed | None:
        """Make the membership live. Returns what it has missed, or None when it may not be in the room.

        `begin` is the cursor to resume from; None begins at the snapshot.
        """
        room, now = membership.room, self._fanout.clock()
        horizon = cursor.after(snapshot.at)
        changes = self._history.since(room, horizon if begin is None else min(begin, horizon))
        known = [change for change in changes if change.token <= horizon]
        later = [change for change in changes if change.token > horizon]
        at_snapshot = {grant.key.subject: grant for grant in snapshot.grants[room.uuid]}
        # The caller's groups may have changed since the membership was made; the snapshot is of these.
        membership.subjects = frozenset(membership.member.principal.subjects)
        held = held_throughout(at_snapshot.values(), later, membership.subjects, now)
        if held is None:
            return None
        membership.held = held
        first = horizon if begin is None else max(begin, access_since(known, at_snapshot, now))
        membership.collections = wish.collections
        membership.after = max(horizon, self._history.position)
        membership.active = True
        self._fanout.settle(membership, "revoked", now)
        return _missed(
            [c for c in changes if isinstance(c, DocumentChange) and membership.takes(c)],
            begin=horizon if begin is None else begin,
            first=first,
        )

    # -- resync --

    def resync(self, client: Client, rooms: Collection[RoomKey], reason: str) -> None:
        """Have one `$resync` per room sent as soon as its newest state can be read."""
        if client.closed is not None or not rooms:
            return
        for room in rooms:
            # Until its newest state has been read, nothing of the room is written.
            self._deactivate(client, room)
        first = client not in self._stale
        waiting = self._stale.setdefault(client, {})
        for room in rooms:
            waiting.setdefault(room, reason)
        if first:
            self._own(self._resync(client))

    def _own(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work, name="resync")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resync(self, client: Client) -> None:
        try:
            while (waiting := self._stale.get(client)) and client.closed is None:
                async with client.busy, self._readers:
                    # Taken out first: what is asked for from here on is asked for anew.
                    batch = {room: waiting.pop(room) for room in list(waiting)[:MOST_PER_CALL]}
                    if await self._resync_batch(client, batch):
                        continue
                for room, reason in batch.items():
                    waiting.setdefault(room, reason)
                await asyncio.sleep(_RETRY)
        finally:
            self._stale.pop(client, None)

    async def _resync_batch(self, client: Client, batch: dict[RoomKey, str]) -> bool:
        """One round of reads for up to 100 rooms of a client. False when it has to be tried again."""
        uuids = [room.uuid for room in batch if self._deactivate(client, room)]
        if not uuids:
            return True
        try:
            async with asyncio.timeout(_TIMEOUT):
                snapshot = await self._looks.look(client.principal, client.tenant, uuids, None, documents=True)
        except (LivedocsError, TimeoutError):
            return False
        for room, reason in batch.items():
            membership = self._rooms.get(client, room)
            if membership is not None and room.uuid in snapshot.grants:
                self._send_resync(membership, snapshot, reason)
        return True

    def _deactivate(self, client: Client, room: RoomKey) -> bool:
        membership = self._rooms.get(client, room)
        if membership is None:
            return False
        membership.active = False
        return True

    def _send_resync(self, membership: Membership, snapshot: Snapshot, reason: str) -> None:
        client: Client = membership.member
        missed = self._activate(membership, snapshot, Wish(collections=membership.collections), None)
        if missed is None:
            self._fanout.evict(membership, "revoked")
            return
        self._metrics.resyncs.labels(reason).inc()
        client.send(
            frames.event(
                "$resync",
                {
                    "uuid": str(membership.room.uuid),
                    "reason": reason,
                    "cursor": cursor.after(snapshot.at),
                    "snapshot": documents_of(snapshot, membership),
                },
            )
        )
        for change in missed.replay:
            self._fanout.deliver(client, event_frame(change), change.room)
        if missed.incomplete is not None:
            self.resync(client, [membership.room], missed.incomplete)

    # -- a caller who has changed --

    async def reauthorize(self, client: Client, principal: Principal) -> None:
        """Apply a caller's new groups to its rooms; its subject and tenant are the same as before.

        Rooms that its new subjects may not read are left with `$revoked`; of the others nothing is lost.

        Raises:
            Unavailable: the grants cannot be read now; it has to be tried again.
        """
        async with client.busy:
            subjects = frozenset(principal.subjects)
            rooms = [m.room for m in self._rooms.of_member(client).values() if m.active]
            for start in range(0, len(rooms), MOST_PER_CALL):
                batch = rooms[start : start + MOST_PER_CALL]
                try:
                    async with asyncio.timeout(_TIMEOUT):
                        uuids = [room.uuid for room in batch]
                        snapshot = await self._looks.look(principal, client.tenant, uuids, (), documents=False)
                except TimeoutError as error:
                    raise Unavailable from error
                for room in batch:
                    membership = self._rooms.get(client, room)
                    if membership is not None and membership.active:
                        self._regrant(membership, snapshot, subjects)
            client.principal = principal

    def _regrant(self, membership: Membership, snapshot: Snapshot, subjects: frozenset[str]) -> None:
        later = self._history.since(membership.room, cursor.after(snapshot.at))
        held = held_throughout(snapshot.grants[membership.room.uuid], later, subjects, self._fanout.clock())
        membership.subjects, membership.held = subjects, held or {}
        self._fanout.settle(membership, "revoked")

    async def aclose(self) -> None:
        """End what is under way."""
        await tasks.end(self._tasks)
        await self._looks.aclose()


def _begin(membership: Membership, wish: Wish) -> str | None:
    """The cursor from which a membership is to go on; None: from the snapshot."""
    if wish.since is not None or wish.snapshot:
        return wish.since
    return membership.resume


def documents_of(snapshot: Snapshot, membership: Membership) -> orjson.Fragment:
    """A room's documents as a client gets them, by collection; encoded once for everyone of one round of reads."""
    uuid, wanted, tenant = membership.room.uuid, membership.collections, membership.member.tenant
    documents = snapshot.documents.get(uuid)
    if documents is None:
        return orjson.Fragment(b"{}")
    made = snapshot.shared.get((uuid, wanted))
    # Between two who join, other collections may have been registered.
    if made is None or made[0] is not tenant:
        encoded = extjson.dumps(present_all(documents, tenant.collections, wanted, uuid))
        made = snapshot.shared[uuid, wanted] = (tenant, orjson.Fragment(encoded))
    fragment: orjson.Fragment = made[1]
    return fragment
