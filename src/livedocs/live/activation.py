"""From a snapshot to a live membership, without an `await`: nothing may come between the two."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from livedocs.changes import cursor
from livedocs.changes.event import DocumentChange
from livedocs.changes.history import History
from livedocs.live.memberships import Memberships
from livedocs.live.prepared import PreparedFrames
from livedocs.live.rooms import Membership, access_since, held_throughout
from livedocs.live.tickets import Tickets
from livedocs.model import Snapshot


@dataclass(frozen=True, slots=True)
class Missed:
    """The changes a membership is owed, and why they are not all, if they are not."""

    replay: list[DocumentChange]
    incomplete: str | None


class Activation:
    """Makes memberships live.

    Args:
        history: the changes behind the snapshot.
        memberships: decides what the grants allow.
        prepared: the frames of heavy changes that have been made.
        tickets: knows since when a caller has been in its groups.
    """

    def __init__(
        self, history: History, memberships: Memberships, prepared: PreparedFrames, tickets: Tickets
    ) -> None:
        self._history = history
        self._memberships = memberships
        self._prepared = prepared
        self._tickets = tickets

    def activate(
        self, membership: Membership, snapshot: Snapshot, collections: frozenset[str] | None, begin: str | None
    ) -> Missed | None:
        """Make the membership live. Returns what it has missed, or None when it may not be in the room.

        Args:
            membership: pending, or held back.
            snapshot: the grants, and the cluster time that they are of.
            collections: the only ones wanted, None for all.
            begin: the cursor to resume from; None begins at the snapshot.
        """
        room, now = membership.room, self._memberships.clock()
        horizon = cursor.after(snapshot.at)
        changes = self._history.since(room, horizon if begin is None else min(begin, horizon))
        known = [change for change in changes if change.token <= horizon]
        later = [change for change in changes if change.token > horizon]
        # The caller may have lost groups since the snapshot was read: what it held by them does not count.
        subjects = frozenset(membership.member.principal.subjects)
        at_snapshot = {
            grant.key.subject: grant for grant in snapshot.grants[room.uuid] if grant.key.subject in subjects
        }
        held = held_throughout(at_snapshot.values(), later, subjects, now)
        if held is None:
            return None
        attested = partial(self._tickets.attested, membership.member, otherwise=horizon)
        first = horizon if begin is None else max(begin, access_since(known, at_snapshot, now, attested))
        after = max(horizon, self._history.position_of(room.tenant))
        membership.activate(subjects, held, collections, after)
        self._memberships.settle(membership, "revoked", now)
        return _missed(
            [c for c in changes if isinstance(c, DocumentChange) and membership.takes(c)],
            begin=horizon if begin is None else begin,
            first=first,
            prepared=self._prepared,
        )


def _missed(changes: list[DocumentChange], *, begin: str, first: str, prepared: PreparedFrames) -> Missed:
    """What of a room's changes is replayed: those behind `first`, up to one that cannot be shown, or not at once.

    `access`: there are changes behind the cursor `begin` from before the grants in force began. They are not
    replayed, so what comes after them has no sure ground.
    """
    replay = [change for change in changes if change.token > first]
    incomplete = "access" if any(begin < change.token <= first for change in changes) else None
    for index, change in enumerate(replay):
        if change.withheld is not None:
            return Missed(replay[:index], change.withheld)
        if change.heavy and prepared.get(change) is None:
            # To encode it now would stop the event loop, and nothing may be awaited here.
            return Missed(replay[:index], "window")
    return Missed(replay, incomplete)
