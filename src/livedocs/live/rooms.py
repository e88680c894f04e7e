"""Who is in which room, and on the strength of which grants. Pure: no clock, no socket.

A membership is a cached ACL decision. It holds the grants that justify it; grant changes add to and take from that
set in stream order, and when none is left the membership is over.
"""

from __future__ import annotations

import enum
from asyncio import TimerHandle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from livedocs.access.acl import Decision, decide
from livedocs.changes.event import DocumentChange, GrantChange, RoomChange, RoomKey
from livedocs.live.client import Client
from livedocs.model import Grant, Role


class State(enum.Enum):
    """Where a membership is in its life. Only an active one is written to."""

    PENDING = "pending"
    """Registered, so that nothing is missed, and not let in yet."""
    ACTIVE = "active"
    RESYNCING = "resyncing"
    """Held back: it has missed something, or what it rests on is being looked up."""
    ENDED = "ended"


class Membership:
    """One client in one room.

    Attributes:
        member: the client.
        subjects: the subjects whose grants count for it.
        state: changed by its own methods alone.
        after: the position behind which changes are for this membership: those up to it were in the snapshot it
            got, or have been replayed.
        collections: the only collections wanted, or None for all.
        held: the grants it rests on, by subject.
    """

    __slots__ = (
        "after",
        "collections",
        "held",
        "member",
        "resume",
        "role",
        "room",
        "state",
        "subjects",
        "timer",
    )

    def __init__(self, room: RoomKey, member: Client, subjects: frozenset[str]) -> None:
        self.room = room
        self.member = member
        self.subjects = subjects
        self.state = State.PENDING
        self.after = ""
        self.collections: frozenset[str] | None = None
        self.held: dict[str, Grant] = {}
        self.role = Role.READER
        # Where a membership that this one replaces had got to.
        self.resume: str | None = None
        # Ends the membership at the instant its grants do.
        self.timer: TimerHandle | None = None

    @property
    def active(self) -> bool:
        """Whether it is written to."""
        return self.state is State.ACTIVE

    def activate(
        self,
        subjects: frozenset[str],
        held: dict[str, Grant],
        collections: frozenset[str] | None,
        after: str,
    ) -> None:
        """Let it in, on the strength of those grants: what comes behind that position is for it."""
        self.subjects, self.held = subjects, held
        self.collections, self.after = collections, after
        self.state = State.ACTIVE

    def hold_back(self) -> None:
        """Write nothing to it until it is activated again."""
        if self.state is State.ACTIVE:
            self.state = State.RESYNCING

    def end(self) -> None:
        """Write nothing to it any more."""
        self.state = State.ENDED
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def lose(self, subjects: frozenset[str]) -> None:
        """Have the grants of those subjects count no more."""
        self.subjects -= subjects
        for subject in subjects.intersection(self.held):
            del self.held[subject]

    def rest_on(self, subjects: frozenset[str], held: dict[str, Grant]) -> None:
        """Have those grants count, and no others."""
        self.subjects, self.held = subjects, held

    def wants(self, change: DocumentChange) -> bool:
        """Whether a change in its room is for it, now."""
        return self.active and change.token > self.after and self.takes(change)

    def takes(self, change: DocumentChange) -> bool:
        """Whether a change is of a collection it has asked for."""
        return self.collections is None or change.collection in self.collections

    def concerns(self, change: GrantChange) -> bool:
        """Whether a grant change in its room is about it, and not already known to it."""
        return self.active and change.subject in self.subjects and change.token > self.after

    def apply(self, change: GrantChange) -> None:
        """Add to, or take from, the grants it rests on."""
        if change.grant is None:
            self.held.pop(change.subject, None)
        else:
            self.held[change.subject] = change.grant

    def decide(self, now: datetime) -> Decision:
        """What the grants it holds allow at that moment."""
        return decide(self.held.values(), now)


class Rooms:
    """Every membership of the process, by room and by member.

    Both directions are kept: finding a leaving socket's rooms by scanning them all took 6.4 ms at 55,000 rooms.
    """

    def __init__(self) -> None:
        # Invariant: `_rooms[m.room][m.member]` is m exactly when `_members[m.member][m.room]` is.
        self._rooms: dict[RoomKey, dict[Client, Membership]] = {}
        self._members: dict[Client, dict[RoomKey, Membership]] = {}
        # How many rooms each tenant has; no count is ever kept at zero.
        self.tenants: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._rooms)

    def __iter__(self) -> Iterator[RoomKey]:
        return iter(tuple(self._rooms))

    def add(self, membership: Membership) -> None:
        """Register a membership; one that the member had in that room is replaced."""
        room = membership.room
        members = self._rooms.get(room)
        if members is None:
            members = self._rooms[room] = {}
            self.tenants[room.tenant] += 1
        members[membership.member] = membership
        self._members.setdefault(membership.member, {})[membership.room] = membership

    def remove(self, membership: Membership) -> bool:
        """Take a membership out. False if it is not, or no longer, in."""
        members = self._rooms.get(membership.room, {})
        if members.get(membership.member) is not membership:
            return False
        del members[membership.member]
        if not members:
            del self._rooms[membership.room]
            tenant = membership.room.tenant
            self.tenants[tenant] -= 1
            if not self.tenants[tenant]:
                del self.tenants[tenant]
        rooms = self._members[membership.member]
        del rooms[membership.room]
        if not rooms:
            del self._members[membership.member]
        return True

    def holds(self, membership: Membership) -> bool:
        """Whether this very membership is in."""
        return self._rooms.get(membership.room, {}).get(membership.member) is membership

    def of_room(self, room: RoomKey) -> Iterable[Membership]:
        """The memberships of a room, without a copy: not to be changed while walking it."""
        members = self._rooms.get(room)
        return members.values() if members is not None else ()

    def of_member(self, member: Client) -> Mapping[RoomKey, Membership]:
        """The memberships of a member."""
        return self._members.get(member, {})

    def get(self, member: Client, room: RoomKey) -> Membership | None:
        """A member's membership in a room."""
        return self._members.get(member, {}).get(room)


def held_throughout(
    grants: Iterable[Grant], changes: Sequence[RoomChange], subjects: frozenset[str], now: datetime
) -> dict[str, Grant] | None:
    """The grants of those subjects once the changes have been applied to what a snapshot said.

    None when at some point none was in force, even if one has come back since: what lies behind such a break
    would be replayed as if it had been allowed all along.
    """
    held = {grant.key.subject: grant for grant in grants}
    for change in (None, *changes):
        if isinstance(change, GrantChange) and change.subject in subjects:
            if change.grant is None:
                held.pop(change.subject, None)
            else:
                held[change.subject] = change.grant
        if not any(grant.in_force(now) for grant in held.values()):
            return None
    return held


def access_since(
    changes: Sequence[RoomChange], held: Mapping[str, Grant], now: datetime, attested: Callable[[str], str]
) -> str:
    """The position from which the grants in force now have let the caller in without a break.

    A grant whose beginning lies among the changes counts from there, one whose beginning does not was in force all
    along. Neither counts from before its subject is known to be the caller (`attested`, a position by subject):
    who has just come to a group is not sent its past. The empty string means "before all of the changes".
    """
    begun: dict[str, str] = {}
    for change in changes:
        if isinstance(change, GrantChange) and change.subject in held:
            before = change.before
            if change.grant is not None and (before is None or not before.in_force(change.wall)):
                begun[change.subject] = change.token
    return min(
        (max(begun.get(subject, ""), attested(subject)) for subject, grant in held.items() if grant.in_force(now)),
        default="",
    )
