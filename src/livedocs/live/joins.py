"""Into a room, without a gap and without a moment too much.

A join is: register as pending, look at grants and documents together at one cluster time T, then without an
`await` activate, answer, and write what the history has behind T. Registered first, so that a revoke behind T
finds it. A change of a caller's groups is the same with no answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from livedocs.access.acl import Denied
from livedocs.access.principal import Principal
from livedocs.changes import cursor
from livedocs.changes.cursor import Sealing
from livedocs.changes.event import DocumentChange, RoomKey
from livedocs.changes.history import History
from livedocs.errors import AnswerTooLarge, Forbidden, LivedocsError, TooManyRooms, Unavailable
from livedocs.live.activation import Activation
from livedocs.live.client import Client
from livedocs.live.delivery import Delivery
from livedocs.live.frames import Frame
from livedocs.live.join_snapshots import JoinSnapshots
from livedocs.live.memberships import Memberships
from livedocs.live.preparation import Preparation, Space, documents_of
from livedocs.live.resyncs import Resyncs
from livedocs.live.rooms import Membership, held_throughout
from livedocs.live.tickets import Tickets
from livedocs.live.turns import Turns
from livedocs.model import Snapshot
from livedocs.telemetry import Metrics

# A join that has not been answered by then is refused.
_TIMEOUT = 10.0
# Snapshots with documents of one user that are read and encoded at a time.
_SNAPSHOTS_PER_USER = 2
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


class Joins:
    """Lets clients into rooms, and applies a caller's new groups to them.

    Args:
        snapshots: reads what a join rests on.
        activation: makes the memberships live.
        resyncs: makes up for what a replay has to leave out.
        cursors: makes the cursors that clients get.
        tickets: knows since when a caller has been in its groups.
        most_rooms: rooms one socket may be in.
        most_bytes: of an answer that is about more than one room.
    """

    def __init__(
        self,
        snapshots: JoinSnapshots,
        history: History,
        activation: Activation,
        memberships: Memberships,
        *,
        delivery: Delivery,
        resyncs: Resyncs,
        cursors: Sealing,
        tickets: Tickets,
        most_rooms: int,
        most_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._reader = snapshots
        self._most_bytes = most_bytes
        self._preparation = Preparation(delivery.prepared)
        self._snapshots = Turns(_SNAPSHOTS_PER_USER)
        self._history = history
        self._activation = activation
        self._memberships = memberships
        self._rooms = memberships.rooms
        self._resyncs = resyncs
        self._cursors = cursors
        self._tickets = tickets
        self._most_rooms = most_rooms
        self._metrics = metrics
        self._joined = metrics.joins.labels("ok")

    # -- join --

    async def join(self, client: Client, uuids: Sequence[UUID], wish: Wish) -> Outcome:
        """Let the client into the rooms it may be in.

        The caller writes the answer and calls `complete`, without an await. Never raises for what the client
        asked: every UUID is either joined or refused.
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
                    self._memberships.remove(membership)
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
        """Write what was missed, and have what that leaves out made up for; for right behind the answer."""
        for change in outcome.replay:
            self._resyncs.replay(client, change, outcome.frames.get(change.token))
        for room, reason in outcome.incomplete.items():
            self._resyncs.resync(client, [room], reason)

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
            self._memberships.remove(former)
            if owed:
                client.owe(room)
        self._rooms.add(membership)
        return membership

    def _refuse(self, membership: Membership, error: LivedocsError, outcome: Outcome) -> None:
        self._memberships.remove(membership)
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
        missed = self._activation.activate(membership, snapshot, wish.collections, begin)
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
        membership.lose(lost)
        if keep and isinstance(membership.decide(self._memberships.clock()), Denied):
            membership.hold_back()
        else:
            self._memberships.settle(membership, "revoked")

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
                    self._resyncs.resync(client, batch, "access")
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
        held = held_throughout(grants, later, subjects, self._memberships.clock())
        membership.rest_on(subjects, held or {})
        was_held_back = not membership.active
        if self._memberships.settle(membership, "revoked") and was_held_back:
            # What came meanwhile was not for it yet.
            self._resyncs.resync(membership.member, [membership.room], "access")

    async def aclose(self) -> None:
        """End what is under way."""
        await self._reader.aclose()


def _begin(membership: Membership, wish: Wish) -> str | None:
    """The cursor from which a membership is to go on; None: from the snapshot."""
    if wish.since is not None or wish.snapshot:
        return wish.since
    return membership.resume
