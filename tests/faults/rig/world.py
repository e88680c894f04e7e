"""The truth: what was committed, in commit order, and what follows from it. Pure.

Built from the change events of the surviving primary (`truth.py` reads them). It shares no code with the server:
documents are replayed from nothing, so it needs no pre-images to know where a document was.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from bson import Int64, ObjectId

from rig.recording import Room

END = "~"
"""A position behind every event."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed change of a document or of a grant.

    Attributes:
        wall: commit time, epoch seconds.
        document: the whole document of an insert or a replace.
        updated, removed, truncated: an update's description.
        tenant: None for what lies in the control database.
    """

    token: str
    wall: float
    op: str
    tenant: str | None
    collection: str
    document_id: Any
    document: Mapping[str, Any] | None = None
    updated: Mapping[str, Any] = field(default_factory=dict)
    removed: Sequence[str] = ()
    truncated: Sequence[Mapping[str, Any]] = ()
    txn: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """What everyone in a room who may see it is to be told."""

    token: str
    wall: float
    collection: str
    op: str
    data: Mapping[str, Any]
    removed: Sequence[str]
    truncated: Sequence[Mapping[str, Any]]
    txn: bool
    identifier: Any = None
    """The document's `_id` as the wire shows it, where the collection's key is another field."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant from one position on. `role` None: there is none."""

    token: str
    wall: float
    subject: str
    role: str | None
    ends: float | None = None

    def in_force(self, wall: float) -> bool:
        """Whether it allows anything at that moment."""
        return self.role is not None and (self.ends is None or wall < self.ends)


@dataclass(frozen=True, slots=True)
class Break:
    """A moment without any grant in force: at a position, because of a commit or because a time was over."""

    token: str
    wall: float
    by_commit: bool


@dataclass(frozen=True, slots=True)
class _Version:
    token: str
    uuid: str | None
    document: Mapping[str, Any] | None


class World:
    """Every event, grant and document version of a run.

    Args:
        commits: in stream order, from before the first write.
        keys: of the registered collections: `_id` or `uuid`.
    """

    def __init__(self, commits: Iterable[Commit], keys: Mapping[str, str]) -> None:
        self._keys = keys
        self.events: dict[Room, list[Event]] = {}
        self.markers: set[tuple[str, str]] = set()
        # When each marker was last written, for those with a name before a colon.
        self.written: dict[tuple[str, str], float] = {}
        self.deletes: dict[tuple[str, str, str], int] = {}
        self.tokens: dict[str, set[Room]] = {}
        self.count = 0
        self._grants: dict[Room, list[Grant]] = {}
        self._documents: dict[tuple[str, str, str], list[_Version]] = {}
        self._residents: dict[Room, dict[tuple[str, str, str], None]] = {}
        self.last = ""
        for commit in commits:
            self.count += 1
            self.last = max(self.last, commit.token)
            if commit.tenant is None:
                self._grant(commit)
            elif commit.collection in keys:
                self._document(commit)

    # -- documents --

    def _document(self, commit: Commit) -> None:
        tenant = commit.tenant or ""
        identity = (tenant, commit.collection, repr(commit.document_id))
        versions = self._documents.setdefault(identity, [])
        before = versions[-1] if versions else _Version("", None, None)
        document = _after(commit, before.document)
        uuid = self._uuid(commit.collection, document)
        versions.append(_Version(commit.token, uuid, document))
        if uuid is not None:
            self._residents.setdefault(Room(tenant, uuid), {})[identity] = None
        marker = (commit.document or commit.updated).get("w")
        if marker is not None:
            self.markers.add((tenant, str(marker)))
            name = str(marker).partition(":")[0]
            self.written[tenant, name] = max(commit.wall, self.written.get((tenant, name), 0.0))
        if commit.op == "delete":
            self.deletes[identity] = self.deletes.get(identity, 0) + 1
        self._tell(commit, before.uuid, uuid, document)

    def _uuid(self, collection: str, document: Mapping[str, Any] | None) -> str | None:
        value = None if document is None else document.get(self._keys[collection])
        return str(value) if isinstance(value, UUID) else None

    def _tell(
        self, commit: Commit, before: str | None, after: str | None, document: Mapping[str, Any] | None
    ) -> None:
        if before is not None and before != after:
            self._add(commit, before, "delete", {})
        if after is None or document is None:
            return
        if before != after and commit.op == "update":
            # It enters the room by a change of its UUID: nobody there has seen the rest of it.
            self._add(commit, after, "insert", document)
        elif commit.op == "update":
            self._add(commit, after, "update", commit.updated)
        else:
            self._add(commit, after, commit.op, document)

    def _add(self, commit: Commit, uuid: str, op: str, fields: Mapping[str, Any]) -> None:
        room = Room(commit.tenant or "", uuid)
        is_update = op == "update"
        event = Event(
            commit.token,
            commit.wall,
            commit.collection,
            op,
            # Changed fields are shown as they are; a whole document keyed by `_id` without its `_id`.
            shown(fields, "uuid" if is_update else self._keys[commit.collection], uuid),
            tuple(commit.removed) if is_update else (),
            tuple(commit.truncated) if is_update else (),
            commit.txn,
            None if self._keys[commit.collection] == "_id" else wire(commit.document_id),
        )
        self.events.setdefault(room, []).append(event)
        self.tokens.setdefault(commit.token, set()).add(room)

    def state(self, room: Room, position: str) -> dict[str, list[dict[str, Any]]]:
        """The room's documents, by collection and `_id`, after everything up to that position."""
        found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for identity in self._residents.get(room, ()):
            versions = self._documents[identity]
            index = bisect_right(versions, position, key=lambda version: version.token) - 1
            if index >= 0 and versions[index].uuid == room.uuid:
                collection = identity[1]
                document = shown(versions[index].document or {}, self._keys[collection], room.uuid)
                found.setdefault(collection, []).append((identity[2], document))
        return {name: [doc for _, doc in sorted(items, key=lambda item: item[0])] for name, items in found.items()}

    def after(self, room: Room, position: str, collections: Iterable[str] | None = None) -> list[Event]:
        """The room's events behind a position, in order."""
        events = self.events.get(room, [])
        found = events[bisect_right(events, position, key=lambda event: event.token) :]
        if collections is None:
            return found
        wanted = frozenset(collections)
        return [event for event in found if event.collection in wanted]

    # -- grants --

    def _grant(self, commit: Commit) -> None:
        key = commit.document_id
        room = Room(key["tenant"], str(key["uuid"]))
        held = self._grants.setdefault(room, [])
        former = next((grant for grant in reversed(held) if grant.subject == key["subject"]), None)
        fields: dict[str, Any] = {}
        if commit.op == "update" and former is not None and former.role is not None:
            fields = {"role": former.role}
            if former.ends is not None:
                fields["expires_at"] = datetime.fromtimestamp(former.ends, UTC)
        fields |= commit.document or commit.updated
        for name in commit.removed:
            fields.pop(name, None)
        ends = fields.get("expires_at")
        role = None if commit.op == "delete" else fields.get("role")
        held.append(
            Grant(commit.token, commit.wall, key["subject"], role, None if ends is None else ends.timestamp())
        )

    def held(self, room: Room, subjects: Iterable[str], position: str) -> list[Grant]:
        """The grants of those subjects after everything up to that position, in force or not."""
        grants = self._grants.get(room, [])
        wanted = frozenset(subjects)
        latest: dict[str, Grant] = {}
        for grant in grants[: bisect_right(grants, position, key=lambda grant: grant.token)]:
            if grant.subject in wanted:
                latest[grant.subject] = grant
        return [grant for grant in latest.values() if grant.role is not None]

    def allowed(self, room: Room, subjects: Iterable[str], token: str, wall: float) -> bool:
        """Whether a grant was in force at a commit."""
        return any(grant.in_force(wall) for grant in self.held(room, subjects, token))

    def changes(self, room: Room, subjects: Iterable[str], begin: str, end: str) -> list[Grant]:
        """The changes of those subjects' grants in `(begin, end]`."""
        grants = self._grants.get(room, [])
        wanted = frozenset(subjects)
        low = bisect_right(grants, begin, key=lambda grant: grant.token)
        high = bisect_right(grants, end, key=lambda grant: grant.token)
        return [grant for grant in grants[low:high] if grant.subject in wanted]

    def broken(
        self, room: Room, subjects: Iterable[str], begin: str, end: str, end_wall: float | None = None
    ) -> Break | None:
        """The first moment in `(begin, end]` at which no grant of those subjects was in force; None without one.

        `end_wall` also asks for the moment at the end, when times may have run out since the last change.
        """
        wanted = frozenset(subjects)
        latest = {grant.subject: grant for grant in self.held(room, wanted, begin)}
        for change in self.changes(room, wanted, begin, end):
            if not any(grant.in_force(change.wall) for grant in latest.values()):
                return Break(change.token, _over(latest.values(), change.wall), by_commit=False)
            latest[change.subject] = change
            if not any(grant.in_force(change.wall) for grant in latest.values()):
                return Break(change.token, change.wall, by_commit=True)
        if end_wall is not None and not any(grant.in_force(end_wall) for grant in latest.values()):
            return Break(end, _over(latest.values(), end_wall), by_commit=False)
        return None

    def position_at(self, room: Room, wall: float) -> str:
        """A position of that room before everything that was committed from that moment on."""
        events = self.events.get(room, [])
        index = bisect_left(events, wall, key=lambda event: event.wall)
        return events[index - 1].token if index else ""


def _over(grants: Iterable[Grant], default: float) -> float:
    return max((grant.ends for grant in grants if grant.ends is not None), default=default)


def _after(commit: Commit, before: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The document that a commit leaves."""
    if commit.op == "delete":
        return None
    if commit.document is not None:
        return commit.document
    document = _copied(before or {})
    for item in commit.truncated:
        holder, last = _holder(document, item["field"])
        del holder[last][item["newSize"] :]
    for path in commit.removed:
        holder, last = _holder(document, path)
        holder.pop(last, None)
    for path, value in commit.updated.items():
        holder, last = _holder(document, path)
        if isinstance(holder, list) and last == len(holder):
            holder.append(value)
        else:
            holder[last] = value
    return document


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _holder(document: Any, path: str) -> tuple[Any, Any]:
    """What holds a dotted path's last step. The load writes no field whose own name has a dot."""
    *steps, last = path.split(".")
    holder = document
    for step in steps:
        holder = holder[int(step)] if isinstance(holder, list) else holder[step]
    return holder, int(last) if isinstance(holder, list) else last


def shown(fields: Mapping[str, Any], key: str, uuid: str) -> dict[str, Any]:
    """Fields as the wire shows them."""
    hidden = {"uuid", "_id"} if key == "_id" else {"uuid"}
    return {"uuid": uuid, **{name: wire(value) for name, value in fields.items() if name not in hidden}}


def wire(value: Any) -> Any:
    """A value of the kinds that the load writes, as relaxed Extended JSON."""
    if isinstance(value, Mapping):
        return {name: wire(item) for name, item in value.items()}
    if isinstance(value, list):
        return [wire(item) for item in value]
    if isinstance(value, ObjectId):
        return {"$oid": str(value)}
    if isinstance(value, datetime):
        text = value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        fraction = f".{value.microsecond // 1000:03d}" if value.microsecond else ""
        return {"$date": f"{text}{fraction}Z"}
    if isinstance(value, Int64):
        return int(value)
    return value
