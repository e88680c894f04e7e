"""Into a room, without a gap and without a moment too much.

A join is: register as pending, look at grants and documents together at one cluster time T, then without an
`await` activate, answer, and write what the history has behind T. Registered first, so that a revoke behind T
finds it. A resync is the same with `$resync` for an answer; a change of a caller's groups the same with no answer.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from livedocs import tasks
from livedocs.access.acl import Denied
from livedocs.access.principal import Principal
from livedocs.changes import cursor
from livedocs.changes.cursor import Sealing
from livedocs.changes.event import DocumentChange, RoomKey
from livedocs.changes.history import History
from livedocs.errors import AnswerTooLarge, Forbidden, LivedocsError, TooManyRooms, Unavailable
from livedocs.live import frames
from livedocs.live.client import Client
from livedocs.live.fanout import Fanout
from livedocs.live.frames import Frame
from livedocs.live.join_snapshots import JoinSnapshots
from livedocs.live.preparation import Preparation, Space, documents_of
from livedocs.live.prepared import PreparedFrames
from livedocs.live.rooms import Membership, access_since, held_throughout
from livedocs.live.tickets import Tickets
from livedocs.live.turns import Turns
from livedocs.model import Snapshot
from livedocs.telemetry import Metrics, get_logger, log_failure

log = get_logger(__name__)

# A join that has not been answered by then is refused.
_TIMEOUT = 10.0
_RETRY_FIRST, _RETRY_MOST = 0.2, 5.0
# Snapshots with documents of one user that are read and encoded at a time, and resyncs of one tenant.
_SNAPSHOTS_PER_USER = 2
_RESYNCS_PER_TENANT = 4
MOST_PER_CALL = 100
"""Entries in the list of a JoinRoom."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a JoinRoom asks for beside its UUIDs."""

    since: str | None = None
    snapshot: bool = False
    collections: frozenset[str] | None = None
    ticket: str | None = None


@dataclass(slots=True)
class Outcome:
    """What became of a call: the ack's content, and what is written behind it, in stream order."""

    joined: dict[str, dict[str, Any]]
    refused: dict[str, dict[str, Any]]
    replay: list[DocumentChange]
    # Rooms, by reason, whose replay leaves something out: their newest state has to come behind it.
    incomplete: dict[RoomKey, str]
    # Of the replay, what has been encoded already, by token.
    frames: dict[str, Frame]
    # Whether grants have been looked at, and the caller's ticket with them. If not, it has no newer one.
    looked: bool = False


@dataclass(frozen=True, slots=True)
class _Missed:
    """The changes a membership is owed, and why they are not all, if they are not."""

    replay: list[DocumentChange]
    incomplete: str | None


def _missed(changes: list[DocumentChange], *, begin: str, first: str, prepared: PreparedFrames) -> _Missed:
    """What of a room's changes is replayed: those behind `first`, up to one that cannot be shown, or not at once.

    `access`: there are changes behind the cursor `begin` from before the grants in force began. They are not
    replayed, so what comes after them has no sure ground.
    """
    replay = [change for change in changes if change.token > first]
    incomplete = "access" if any(begin < change.token <= first for change in changes) else None
    for index, change in enumerate(replay):
        if change.withheld is not None:
            return _Missed(replay[:index], change.withheld)
        if change.heavy and prepared.get(change) is None:
            # To encode it now would stop the event loop, and nothing may be awaited here.
            return _Missed(replay[:index], "window")
    return _Missed(replay, incomplete)


class Joins:
    """Lets clients into rooms, and brings memberships up to date.

    Args:
        snapshots: reads what a join rests on.
        cursors: makes the cursors that clients get.
        tickets: knows since when a caller has been in its groups.
        most_rooms: rooms one socket may be in.
        most_bytes: of an answer that is about more than one room.
    """

    def __init__(
        self,
        snapshots: JoinSnapshots,
        history: History,
        fanout: Fanout,
        cursors: Sealing,
        *,
        tickets: Tickets,
        most_rooms: int,
        most_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._reader = snapshots
        self._most_bytes = most_bytes
        self._preparation = Preparation(fanout.prepared)
        self._snapshots = Turns(_SNAPSHOTS_PER_USER)
        self._resyncs = Turns(_RESYNCS_PER_TENANT)
        self._history = history
        self._fanout = fanout
        self._cursors = cursors
        self._tickets = tickets
        self._rooms = fanout.rooms
        self._most_rooms = most_rooms
        self._metrics = metrics
        self._joined = metrics.joins.labels("ok")
        # What is to be resynced, by client and room; a client has a task here as long as it has an entry.
        self._stale: dict[Client, dict[RoomKey, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- join --

    async def join(self, client: Client, uuids: Sequence[UUID], wish: Wish) -> Outcome:
        """Let the client into the rooms it may be in.

        The caller writes the answer and then `replay`, without an await, and calls `complete`. Never raises for
        what the client asked: every UUID is either joined or refused.
        """
        outcome = Outcome({}, {}, [], {}, {})
        wanted = self._within_limits(client, uuids, outcome)
        if not wanted:
            return outcome
        async with client.busy:
            pending = [self._register(client, uuid) for uuid in wanted]
            seen: list[tuple[Membership, Snapshot]] = []
            try:
                async with asyncio.timeout(_TIMEOUT):
                    self._reader.check_stream(client.tenant.slug)
                    async with self._snapshots.of((client.tenant.slug, client.principal.subject)):
                        await self._see(client, pending, wish, outcome, seen)
            except (LivedocsError, TimeoutError) as error:
                refusal = error if isinstance(error, LivedocsError) else Unavailable()
                for membership in pending:
                    if str(membership.room.uuid) not in outcome.refused:
                        self._refuse(membership, refusal, outcome)
                return outcome
            except BaseException:
                for membership in pending:
                    self._fanout.remove(membership)
                raise
            if seen:
                self._tickets.admit(client, wish.ticket, max(snapshot.at for _, snapshot in seen))
                outcome.looked = True
            for membership, snapshot in seen:
                self._let_in(membership, snapshot, wish, outcome)
        outcome.replay.sort(key=lambda change: change.token)
        return outcome

    async def _see(
        self,
        client: Client,
        pending: list[Membership],
        wish: Wish,
        outcome: Outcome,
        seen: list[tuple[Membership, Snapshot]],
    ) -> None:
        """Read what the joins rest on, and make their answers, until an answer is full.

        Rooms that are too large to be read together are read one part after the other. Each part is of a cluster
        time of its own, which is that of its rooms' cursors.
        """
        space = Space(self._most_bytes, client.unread)
        parts = deque([pending])
        while parts:
            part = parts.popleft()
            if space.full:
                # Not even looked at: whatever there is has no room in this answer.
                for membership in part:
                    self._refuse(membership, AnswerTooLarge(), outcome)
                continue
            try:
                left_out = await self._see_part(client, part, wish, outcome, seen, space)
            except AnswerTooLarge:
                if len(part) == 1:
                    raise
                half = len(part) // 2
                parts.extendleft([part[half:], part[:half]])
            else:
                if left_out:
                    parts.appendleft(left_out)

    async def _see_part(  # noqa: PLR0917 - of `_see`
        self,
        client: Client,
        part: list[Membership],
        wish: Wish,
        outcome: Outcome,
        seen: list[tuple[Membership, Snapshot]],
        space: Space,
    ) -> list[Membership]:
        """The same for those that are read together. Returns those that did not fit into one round of reads."""
        begins = [(m.room, begin) for m in part if (begin := _begin(m, wish)) is not None]
        snapshot = await self._reader.read(
            client.principal,
            client.tenant,
            [membership.room.uuid for membership in part],
            begins or None,
            documents=wish.snapshot,
        )
        left_out = []
        for membership in part:
            if membership.room.uuid in snapshot.left_out:
                left_out.append(membership)
                continue
            try:
                await self._prepare(membership, snapshot, wish, outcome, space)
            except LivedocsError as error:
                self._refuse(membership, error, outcome)
            else:
                seen.append((membership, snapshot))
        return left_out

    async def _prepare(
        self, membership: Membership, snapshot: Snapshot, wish: Wish, outcome: Outcome, space: Space
    ) -> None:
        """Encode what a room's answer and its replay will need."""
        room, tenant = membership.room, membership.member.tenant
        begin = _begin(membership, wish)
        resumes = begin is not None and self._reader.resumable(room, begin, snapshot)
        if wish.snapshot or (begin is not None and not resumes):
            await self._preparation.documents(snapshot, room.uuid, wish.collections, tenant, space)
        if begin is not None and resumes:
            changes = [
                change
                for change in self._history.since(room, begin)
                if isinstance(change, DocumentChange)
                and (wish.collections is None or change.collection in wish.collections)
            ]
            await self._preparation.frames(changes, space, outcome.frames)

    def ticket(self, client: Client) -> str:
        """What the client returns at its next join; for the acknowledgement, as its newest."""
        return self._tickets.issue(client)

    def complete(self, client: Client, outcome: Outcome) -> None:
        """Have what a replay had to leave out made up for by `$resync`; for right behind the replay."""
        for room, reason in outcome.incomplete.items():
            self.resync(client, [room], reason)

    def _within_limits(self, client: Client, uuids: Sequence[UUID], outcome: Outcome) -> list[UUID]:
        wanted = list(dict.fromkeys(uuids))
        room = self._most_rooms - len(self._rooms.of_member(client))
        new = [uuid for uuid in wanted if self._rooms.get(client, RoomKey(client.tenant.slug, uuid)) is None]
        refused = new[max(0, room) :]
        if refused:
            self._metrics.limits_hit.labels("rooms", "socket").inc()
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
            told = self._history.position_of(room.tenant)
            membership.resume = max(former.after, told) if former.active else former.resume
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
        if not self._reader.continues(snapshot, membership.member.tenant):
            # The stream has begun anew since the snapshot was read: what lies behind it is not known here.
            self._refuse(membership, Unavailable(), outcome)
            return
        begin = _begin(membership, wish)
        resync = begin is not None and not self._reader.resumable(membership.room, begin, snapshot)
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
        # Not lost before the replay has arrived, the cursor leads through it again.
        position = begin if begin is not None and replay else cursor.after(snapshot.at)
        answer: dict[str, Any] = {"role": membership.role.label, "cursor": self._cursors.seal(position)}
        if begin is not None and wish.since is not None:
            answer["resumed"] = len(replay)
        if resync:
            answer["resync"] = "window"
            self._metrics.resyncs.labels("window").inc()
        if wish.snapshot or resync:
            answer["snapshot"] = documents_of(snapshot, uuid, wish.collections, membership.member.tenant)
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
        # The caller may have lost groups since the snapshot was read: what it held by them does not count.
        membership.subjects = frozenset(membership.member.principal.subjects)
        at_snapshot = {
            grant.key.subject: grant
            for grant in snapshot.grants[room.uuid]
            if grant.key.subject in membership.subjects
        }
        held = held_throughout(at_snapshot.values(), later, membership.subjects, now)
        if held is None:
            return None
        membership.held = held
        attested = partial(self._tickets.attested, membership.member, otherwise=horizon)
        first = horizon if begin is None else max(begin, access_since(known, at_snapshot, now, attested))
        membership.collections = wish.collections
        membership.after = max(horizon, self._history.position_of(room.tenant))
        membership.active = True
        self._fanout.settle(membership, "revoked", now)
        return _missed(
            [c for c in changes if isinstance(c, DocumentChange) and membership.takes(c)],
            begin=horizon if begin is None else begin,
            first=first,
            prepared=self._fanout.prepared,
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
        wait, most = _RETRY_FIRST, MOST_PER_CALL
        try:
            while (waiting := self._stale.get(client)) and client.closed is None:
                # Whoever does not take the newest state of some rooms has no use for that of others.
                await client.outbox.writable()
                async with self._resyncs.of(client.tenant.slug), client.busy:
                    # Taken out first: what is asked for from here on is asked for anew.
                    batch = {room: waiting.pop(room) for room in list(waiting)[:most]}
                    try:
                        rest = await self._resync_batch(client, batch)
                    except Unavailable:
                        rest = batch
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is not to be others' trouble
                        self._metrics.contained.labels("resync").inc()
                        log_failure(log, "resync_failed", error, tenant=client.tenant.slug, rooms=len(batch))
                        rest = self._single_out(client, batch)
                for room, reason in rest.items():
                    waiting.setdefault(room, reason)
                if len(rest) < len(batch):
                    wait, most = _RETRY_FIRST, MOST_PER_CALL
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
                self._fanout.evict(membership, "unavailable")
        return {}

    async def _resync_batch(self, client: Client, batch: dict[RoomKey, str]) -> dict[RoomKey, str]:
        """One round of reads for some rooms of a client. Returns those that it has to be tried again for.

        Raises:
            Unavailable: for all of them.
        """
        rooms = [room for room in batch if self._deactivate(client, room)]
        if not rooms:
            return {}
        space, rest = Space(self._most_bytes, client.unread), {}
        try:
            async with asyncio.timeout(_TIMEOUT):
                uuids = [room.uuid for room in rooms]
                snapshot = await self._reader.read(client.principal, client.tenant, uuids, None, documents=True)
                for room in rooms:
                    membership = self._rooms.get(client, room)
                    if membership is not None and not await self._prepare_resync(membership, snapshot, space):
                        rest[room] = batch[room]
        except (LivedocsError, TimeoutError) as error:
            raise Unavailable from error
        if not self._reader.continues(snapshot, client.tenant):
            raise Unavailable
        for room in rooms:
            membership = self._rooms.get(client, room)
            if membership is None or room in rest or room.uuid not in snapshot.grants:
                continue
            try:
                self._send_resync(membership, snapshot, batch[room])
            except Exception as error:  # noqa: BLE001 - one room's; it must not silence the socket's others
                self._metrics.contained.labels("resync").inc()
                log_failure(log, "resync_failed", error, tenant=room.tenant, room=str(room.uuid))
                self._fanout.evict(membership, "unavailable")
        client.settle_unread()
        return rest

    async def _prepare_resync(self, membership: Membership, snapshot: Snapshot, space: Space) -> bool:
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
                    "cursor": self._cursors.seal(cursor.after(snapshot.at)),
                    "snapshot": documents_of(
                        snapshot, membership.room.uuid, membership.collections, client.tenant
                    ),
                },
            )
        )
        for change in missed.replay:
            self._fanout.replay(client, change)
        if missed.incomplete is not None:
            self.resync(client, [membership.room], missed.incomplete)

    # -- a caller who has changed --

    async def reauthorize(self, client: Client, principal: Principal) -> None:
        """Apply a caller's new groups to its rooms; its subject and tenant are the same as before.

        What it held by a group that it is not in any more ends here and now, and needs no reading: a decision that
        can fail would leave it in the room. What it gains by new groups is read; until that has been possible, a
        room that only a new group could open gives it nothing.
        """
        lost = frozenset(client.principal.subjects).difference(principal.subjects)
        gained = frozenset(principal.subjects).difference(client.principal.subjects)
        client.principal = principal
        active = [m for m in self._rooms.of_member(client).values() if m.active]
        for membership in active:
            self._take_away(membership, lost, keep=bool(gained))
        if gained:
            await self._add_gained(client, [m.room for m in active if self._rooms.holds(m)])

    def _take_away(self, membership: Membership, lost: frozenset[str], *, keep: bool) -> None:
        """Take away what rests on those subjects. If nothing is left it is over, or with `keep` held back."""
        membership.subjects -= lost
        for subject in lost.intersection(membership.held):
            del membership.held[subject]
        if keep and isinstance(membership.decide(self._fanout.clock()), Denied):
            membership.active = False
        else:
            self._fanout.settle(membership, "revoked")

    async def _add_gained(self, client: Client, rooms: list[RoomKey]) -> None:
        """Have the grants of groups that the caller is in now count in the rooms that it is in."""
        async with client.busy:
            for start in range(0, len(rooms), MOST_PER_CALL):
                batch = rooms[start : start + MOST_PER_CALL]
                try:
                    async with asyncio.timeout(_TIMEOUT):
                        uuids = [room.uuid for room in batch]
                        snapshot = await self._reader.read(
                            client.principal, client.tenant, uuids, (), documents=False
                        )
                except (LivedocsError, TimeoutError):
                    # It tries until it can be read.
                    self.resync(client, batch, "access")
                    continue
                self._tickets.looked(client, snapshot.at)
                for room in batch:
                    membership = self._rooms.get(client, room)
                    if membership is not None:
                        self._regrant(membership, snapshot)

    def _regrant(self, membership: Membership, snapshot: Snapshot) -> None:
        subjects = frozenset(membership.member.principal.subjects)
        grants = [grant for grant in snapshot.grants[membership.room.uuid] if grant.key.subject in subjects]
        later = self._history.since(membership.room, cursor.after(snapshot.at))
        held = held_throughout(grants, later, subjects, self._fanout.clock())
        membership.subjects, membership.held = subjects, held or {}
        was_held_back = not membership.active
        if self._fanout.settle(membership, "revoked") and was_held_back:
            # What came meanwhile was not for it yet.
            self.resync(membership.member, [membership.room], "access")

    async def aclose(self) -> None:
        """End what is under way."""
        await tasks.end(self._tasks)
        await self._reader.aclose()


def _begin(membership: Membership, wish: Wish) -> str | None:
    """The cursor from which a membership is to go on; None: from the snapshot."""
    if wish.since is not None or wish.snapshot:
        return wish.since
    return membership.resume
