"""The history checker: what clients saw, held against the truth. Pure.

`check` knows nothing of how the server works; it takes guarantees 1 to 7 of the design at their word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from rig.epochs import Epoch, Reader, Refusal, segments
from rig.groups import Groups
from rig.progress import Progress, server
from rig.recording import Connection, Delivered, Recording, Room, Write
from rig.world import END, Event, World

# A refusal is judged only by what was so for this long before it was asked for: while a deposed primary has not
# noticed, a snapshot is as old as the primary's idleness. Seconds.
_STALE = 30.0
# Faults by which sockets are made slow, and the seconds it takes at most until everyone has had its `$resync`.
_SLOW = frozenset({"stall_client", "stall_sockets"})
_RESYNC_TIME = 10.0
# Seconds that a batch of an import takes, and that an eviction takes on its way to a socket, at most.
_BATCH_TIME = 5.0
_EVICTION_TIME = 2.0
END_OF_TIME = float("inf")


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind} [{self.where}] {self.what}"


@dataclass(slots=True)
class Verdict:
    """What was checked and what was found."""

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    revocations: list[tuple[str, float, float]] = field(default_factory=list)
    """Process, when the revoke was committed (epoch seconds), seconds until the socket was told."""


def check(recording: Recording, world: World) -> Verdict:
    """Hold everything recorded against the truth."""
    verdict = Verdict()
    readers = [(connection, _read(connection, verdict.violations)) for connection in recording.connections]
    seen = Progress(recording.connections)
    for connection, reader in readers:
        groups = Groups(recording, connection)
        for epoch in reader.epochs:
            _Check(recording, world, connection, epoch, verdict, seen, groups).run()
        for refusal in reader.refusals:
            _check_refusal(recording, world, refusal, verdict, groups)
        _check_transactions(connection, verdict)
    _check_writes(recording.writes, world, verdict)
    _check_imports(recording, world, verdict)
    verdict.violations += [Violation("complaint", "nemesis", text) for text in recording.complaints]
    verdict.counts["connections"] = len(recording.connections)
    return verdict


def _place(connection: Connection, room: Room | None = None) -> str:
    where = f"#{connection.number} {connection.who.tenant}/{connection.who.subject} on {connection.process}"
    return where if room is None else f"{where} room {room.uuid}"


def _read(connection: Connection, violations: list[Violation]) -> Reader:
    reader = Reader(connection, lambda kind, what: violations.append(Violation(kind, _place(connection), what)))
    reader.read()
    return reader


@dataclass(slots=True)
class _Check:
    """The checks of one epoch."""

    recording: Recording
    world: World
    connection: Connection
    epoch: Epoch
    verdict: Verdict
    seen: Progress
    groups: Groups

    def run(self) -> None:
        self.verdict.counts["epochs"] += 1
        self.verdict.counts[self.epoch.kind] += 1
        self._entitled()
        self._snapshot()
        if self._order():
            self._complete()
        self._resumed()
        self._end()
        self._left_groups()

    def _complain(self, kind: str, what: str) -> None:
        self.verdict.violations.append(Violation(kind, _place(self.connection, self.epoch.room), what))

    @property
    def _subjects(self) -> frozenset[str]:
        return self.connection.who.subjects

    @property
    def _all_subjects(self) -> frozenset[str]:
        """With the groups that its user came to after the handshake: a socket outlives a change of groups."""
        later = (f"group:{each.group}" for each in self.connection.memberships)
        return self._subjects | frozenset(later)

    def _entitled(self) -> None:
        """Let in only by a grant, in a role that a grant gave."""
        epoch = self.epoch
        now = self.recording.wall(epoch.began)
        subjects = self.groups.possible(now) | self.groups.possible(self.recording.wall(epoch.asked_at))
        at_cursor = self.world.held(epoch.room, subjects, epoch.cursor)
        later = self.world.changes(epoch.room, subjects, epoch.cursor, END)
        # Only what can have been known when the answer was written.
        later = [grant for grant in later if grant.wall <= now]
        is_replaying = epoch.cursor == epoch.base and epoch.kind == "resume"
        asked = self.recording.wall(epoch.asked_at)
        if not is_replaying and not any(grant.in_force(asked) for grant in at_cursor):
            self._complain("no_grant", f"let in at {epoch.cursor} without a grant in force")
        roles = {grant.role for grant in (*at_cursor, *later)}
        if epoch.role is not None and epoch.role not in roles:
            self._complain("no_grant", f"was given the role {epoch.role}, grants say {roles}")

    def _snapshot(self) -> None:
        epoch = self.epoch
        if epoch.snapshot is None:
            return
        self.verdict.counts["snapshots"] += 1
        found = _comparable(epoch.snapshot)
        if epoch.kind == "resume":
            # The position stated is where the replay begins; the snapshot is of a moment it leads through.
            positions = [epoch.base, *(event.token for event in self.world.after(epoch.room, epoch.base))]
            right = any(self._state(position) == found for position in positions)
        else:
            right = self._state(epoch.cursor) == found
        if not right:
            expected = self._state(epoch.cursor)
            self._complain("wrong_snapshot", f"at {epoch.cursor}: {_difference(found, expected)} ({epoch.kind})")

    def _state(self, position: str) -> dict[str, list[bytes]]:
        state = self.world.state(self.epoch.room, position)
        wanted = self.epoch.collections
        return _comparable({name: docs for name, docs in state.items() if wanted is None or name in wanted})

    def _order(self) -> bool:
        """Each event is a true one, said truthfully, in order and once. False: what follows makes no sense."""
        epoch = self.epoch
        truth = {event.token: event for event in self.world.after(epoch.room, "", epoch.collections)}
        last = epoch.base
        sane = True
        for delivered in epoch.events:
            self.verdict.counts["events"] += 1
            token = delivered.meta.get("id", "")
            event = truth.get(token)
            if event is None:
                self._unknown(token)
                sane = False
                continue
            if token <= last:
                kind = "duplicate" if token == last or self._had(token, delivered) else "out_of_order"
                self._complain(kind, f"{token} came behind {last}")
                sane = False
            last = max(last, token)
            if not _tells(delivered, event):
                self._complain("wrong_content", f"{delivered} instead of {event}")
            self._permitted(event)
        return sane

    def _had(self, token: str, this: Delivered) -> bool:
        return any(other is not this and other.meta.get("id") == token for other in self.epoch.events)

    def _unknown(self, token: str) -> None:
        rooms = self.world.tokens.get(token, set())
        if any(room.tenant != self.epoch.room.tenant for room in rooms):
            self._complain("wrong_tenant", f"{token} is an event of {rooms}")
        else:
            self._complain("invented", f"{token} is no event of this room, but of {rooms or 'nowhere'}")

    def _permitted(self, event: Event) -> None:
        epoch = self.epoch
        if not self.world.allowed(epoch.room, self._all_subjects, event.token, event.wall):
            self._complain("no_grant_at_commit", f"{event.token} was delivered without a grant in force")
        elif not self.world.allowed(epoch.room, self.groups.possible(event.wall), event.token, event.wall):
            kind = "after_group_removal" if self._had_left(event.wall) else "before_group"
            self._complain(kind, f"{event.token} was delivered because of a group that its user was not in")
        elif event.wall >= self.connection.who.token_ends:
            self._complain("after_token_end", f"{event.token} was committed after the token's end")
        else:
            begin, end = sorted((self._held_from(), event.token))
            broken = self.world.broken(epoch.room, self._all_subjects, begin, end)
            if broken is not None:
                self._complain(
                    "after_revoke", f"{event.token} was delivered although no grant was in force at {broken}"
                )

    def _had_left(self, wall: float) -> bool:
        at = wall - self.recording.epoch
        return any(each.ended is not None and each.ended < at for each in self.connection.memberships)

    def _held_from(self) -> str:
        """A position within the membership: access is unbroken from there to every event of it."""
        epoch = self.epoch
        if epoch.kind == "resume" and epoch.events:
            return str(epoch.events[0].meta["id"])
        return epoch.cursor

    def _complete(self) -> None:
        """No event is missing between two that came, and none at all behind the base."""
        epoch = self.epoch
        due = self._due()
        for index, delivered in enumerate(epoch.events):
            if delivered.meta["id"] != due[index].token:
                self._complain("lost", f"{due[index].token} is missing ahead of {delivered.meta['id']}")
                return
        left_out = len(self.world.after(epoch.room, epoch.base, epoch.collections)) - len(due)
        if left_out and epoch.events and epoch.end == "open":
            self._complain("missing_resync", f"{left_out} events were left out, and the client was not told")
        missing = due[len(epoch.events) :]
        if not missing:
            return
        if epoch.end == "open":
            self._complain("lost", f"{len(missing)} events up to the end of the run, the first {missing[0].token}")
        elif epoch.end == "revoked" and epoch.reason == "revoked":
            # A group that its user had left earlier owes it nothing, however long that group's own grant lasts.
            began, ended = self.recording.wall(epoch.began), self.recording.wall(epoch.ended or 0.0)
            broken = self.world.broken(epoch.room, self.groups.certain(began, ended), epoch.base, END)
            is_early = broken is not None and broken.by_commit and missing[0].token < broken.token
            # Out of a group, it is put out without waiting for what is on its way.
            is_early = is_early and not self.groups.lost(epoch.began, epoch.ended or 0.0)
            if is_early and not self._was_out_of_step(missing[0].wall):
                self._complain("lost", f"{missing[0].token} was committed before the revoke at {broken}")

    def _due(self) -> list[Event]:
        """The events behind the base that the client is owed.

        A resume leaves out what lies before a break in the access: nobody may be sent that.
        """
        epoch = self.epoch
        due = self.world.after(epoch.room, epoch.base, epoch.collections)
        if epoch.kind != "resume":
            return due
        first = epoch.events[0].meta["id"] if epoch.events else END
        return [event for event in due if event.token >= first or self._unbroken(event, first)]

    def _unbroken(self, event: Event, until: str) -> bool:
        """Whether one of the grants that let the client in already let it read the event at its commit.

        A grant that took the place of another one before that ended does not: what is from before it is left out,
        and made up for by `$resync`.
        """
        room = self.epoch.room
        # Times run out without a commit. One that did before the answer came may not have let the client in.
        wall = self.recording.wall(self.epoch.began)
        # Nor may one that was revoked by then, to the second: what counts is what was in force at the snapshot.
        until = max(until, f"82{int(wall) + 1:08X}")
        return any(
            self.world.allowed(room, [subject], event.token, event.wall)
            and self.world.broken(room, [subject], event.token, until, end_wall=wall) is None
            for subject in self._owed(event.wall, wall)
        )

    def _owed(self, begin: float, end: float) -> frozenset[str]:
        """Whose grants oblige the server to replay what was committed between these moments."""
        subjects = self.groups.certain(begin, end)
        if self.epoch.end == "resync" and self.epoch.reason == "access":
            # It could not be proved who was in a group when: what a group alone allows is made up for.
            return frozenset(subject for subject in subjects if not subject.startswith("group:"))
        return subjects

    def _was_out_of_step(self, since: float) -> bool:
        """Whether a `$resync` was on its way when the revoke came: `$revoked` then takes its place."""
        begin, end = since - self.recording.epoch, self.epoch.ended or 0.0
        if any(
            begin <= at <= end + _RESYNC_TIME for at in self.seen.resyncs.get(server(self.connection.process), ())
        ):
            return True
        # A slow socket that is revoked before it has drained may be the only one that was cut short.
        return any(
            fault.name in _SLOW and fault.began <= end and begin <= fault.ended + _RESYNC_TIME
            for fault in self.recording.faults
        )

    def _resumed(self) -> None:
        epoch = self.epoch
        if epoch.resumed is None:
            return
        due = self._due()
        # What this process had already written to somebody was in its history.
        known = self.seen.by(self.connection.process, epoch.asked_at)
        least = sum(event.token <= known for event in due)
        now = self.recording.wall(epoch.began)
        behind = self.world.after(epoch.room, epoch.base, epoch.collections)
        most = sum(event.wall <= now for event in behind)
        if not least <= epoch.resumed <= most:
            self._complain("wrong_count", f"resumed: {epoch.resumed}, but between {least} and {most} were missed")
        elif epoch.end != "closed" and epoch.resumed > len(epoch.events):
            self._complain("lost", f"{len(epoch.events)} of {epoch.resumed} replayed events came")

    def _end(self) -> None:
        epoch = self.epoch
        if epoch.end == "open":
            broken = self.world.broken(epoch.room, self._subjects, epoch.cursor, END)
            if broken is not None:
                self._complain("not_revoked", f"no grant was in force at {broken}, and the socket was not told")
        elif epoch.end == "revoked":
            self._revoked()

    def _revoked(self) -> None:
        """It was told for a reason; how long that took."""
        epoch = self.epoch
        told = self.recording.wall(epoch.ended or 0.0)
        broken = self.world.broken(epoch.room, self._subjects, epoch.cursor, END, end_wall=told)
        if broken is not None and broken.wall <= told:
            if broken.by_commit and epoch.reason == "revoked":
                took = (self.connection.process, broken.wall, told - broken.wall)
                self.verdict.revocations.append(took)
            return
        certain = self.groups.certain(self.recording.wall(epoch.began), told)
        if self.world.broken(epoch.room, certain, epoch.cursor, END, end_wall=told) is not None:
            # Those groups were left, that let it in.
            self.verdict.counts["revoked_of_groups"] += 1
            return
        if epoch.reason == "expired" and self._a_grant_ran_out(told):
            # Renewed in time, but the renewal had not come through the stream yet: closed is safe.
            return
        self._complain("unjustified_revoke", f"$revoked {epoch.reason}, but a grant was in force all along")

    def _left_groups(self) -> None:
        """Two intervals after being taken out of a group, nobody is in a room that it alone let them into."""
        epoch = self.epoch
        for left in self.groups.lost(epoch.began, END_OF_TIME if epoch.ended is None else epoch.ended):
            due = self.groups.deadline(left)
            told = due + _EVICTION_TIME
            last = max((entry.at for entry in self.connection.entries), default=0.0)
            if epoch.began > due or (epoch.ended or last) <= told:
                continue
            self.verdict.counts["judged_after_groups"] += 1
            if not self._could_see(self.recording.wall(due), self.recording.wall(told)):
                self._complain(
                    "kept_after_group_removal",
                    f"still in {epoch.ended or last:.1f}, out of the group since {left:.1f}, due at {due:.1f}",
                )

    def _could_see(self, begin: float, end: float) -> bool:
        """Whether a grant of somebody the client still was allowed anything at any moment between these."""
        room = self.epoch.room
        subjects = self.groups.possible(begin + 0.001)
        before, behind = f"82{int(begin) - 1:08X}", f"82{int(end) + 1:08X}"
        grants = [
            *self.world.held(room, subjects, before),
            *self.world.changes(room, subjects, before, behind),
        ]
        return any(grant.in_force(begin - 1) or grant.in_force(end) for grant in grants)

    def _a_grant_ran_out(self, by: float) -> bool:
        epoch = self.epoch
        grants = [
            *self.world.held(epoch.room, self._subjects, epoch.cursor),
            *self.world.changes(epoch.room, self._subjects, epoch.cursor, END),
        ]
        return any(grant.ends is not None and grant.ends <= by for grant in grants)


def _comparable(snapshot: Mapping[str, Sequence[Any]]) -> dict[str, list[bytes]]:
    return {
        name: sorted(orjson.dumps(document, option=orjson.OPT_SORT_KEYS) for document in documents)
        for name, documents in snapshot.items()
        if documents
    }


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    for name in sorted(found.keys() | expected.keys()):
        ours, theirs = found.get(name, []), expected.get(name, [])
        if ours != theirs:
            extra = [doc for doc in ours if doc not in theirs][:1]
            absent = [doc for doc in theirs if doc not in ours][:1]
            return f"{name}: has {extra}, lacks {absent}"
    return "nothing"


def _tells(delivered: Delivered, event: Event) -> bool:
    """Whether the event came as it was committed."""
    meta = delivered.meta
    return (
        delivered.collection == event.collection
        and delivered.data == event.data
        and meta.get("op") == event.op
        and meta.get("removed") == list(event.removed)
        and meta.get("truncated") == [dict(item) for item in event.truncated]
        and ("txn" in meta) == event.txn
        and isinstance(meta.get("at"), dict)
        and meta.get("_id") == event.identifier
        and meta.keys() <= {"op", "id", "at", "removed", "truncated", "txn", "_id"}
    )


def _check_refusal(
    recording: Recording,
    world: World,
    refusal: Refusal,
    verdict: Verdict,
    groups: Groups,
) -> None:
    """Nobody is kept out who held a grant all the time."""
    verdict.counts[f"refused_{refusal.code}"] += 1
    if refusal.code != "forbidden":
        return
    since = recording.wall(refusal.asked_at) - _STALE
    until = recording.wall(refusal.at)
    subjects = groups.certain(since, until)
    changes = [grant for grant in world.changes(refusal.room, subjects, "", END) if since <= grant.wall <= until]
    begin = world.changes(refusal.room, subjects, "", END)
    before = [grant.token for grant in begin if grant.wall < since]
    position = before[-1] if before else ""
    held = world.held(refusal.room, subjects, position)
    last = changes[-1].token if changes else position
    if not any(grant.in_force(until) for grant in held):
        return
    if world.broken(refusal.room, subjects, position, last, end_wall=until) is None:
        verdict.violations.append(
            Violation("wrongly_refused", _place(groups.connection, refusal.room), "forbidden, in spite of a grant")
        )


def _check_transactions(connection: Connection, verdict: Verdict) -> None:
    """Nothing comes between two events of one transaction."""
    for segment in segments(connection):
        closed: set[str] = set()
        current: str | None = None
        for event in segment:
            txn = event.meta.get("txn")
            if txn == current:
                continue
            if txn in closed:
                verdict.violations.append(
                    Violation("torn_transaction", _place(connection), f"{event.meta['id']} of {txn} came apart")
                )
            if current is not None:
                closed.add(current)
            current = txn
    verdict.counts["transactions"] += len(
        {entry.meta["txn"] for entry in connection.entries if isinstance(entry, Delivered) and "txn" in entry.meta}
    )


def _check_writes(writes: Sequence[Write], world: World, verdict: Verdict) -> None:
    """What was answered with success is in the truth; what was not known is settled by it."""
    for write in writes:
        happened = (
            write.marker
            in {identity[2] for identity in world.deletes if identity[:2] == (write.tenant, write.collection)}
            if write.op == "delete"
            else (write.tenant, write.marker) in world.markers
        )
        verdict.counts["writes"] += 1
        if write.outcome == "unknown":
            verdict.counts["unknown_happened" if happened else "unknown_did_not"] += 1
        elif write.outcome == "done" and not happened:
            what = f"{write.op} {write.marker} was acknowledged by a majority and is not in the oplog"
            verdict.violations.append(Violation("lost_write", write.collection, what))
        elif write.outcome == "nothing" and happened and write.op != "delete":
            what = f"{write.op} {write.marker} was refused and has happened"
            verdict.violations.append(Violation("ghost_write", write.collection, what))


def _check_imports(recording: Recording, world: World, verdict: Verdict) -> None:
    """An import writes nothing later than an interval and a batch after its right was taken away."""
    for each in recording.imports:
        verdict.counts["imports"] += 1
        last = world.written.get((each.tenant, each.name))
        if last is None:
            continue
        verdict.counts["imports_that_wrote"] += 1
        late = last - recording.wall(each.cut)
        if late > recording.interval + _BATCH_TIME:
            what = f"wrote {late:.1f} s after {each.why}, and was answered {each.answer!r}"
            verdict.violations.append(Violation("import_outlived", f"{each.tenant} {each.name}", what))
