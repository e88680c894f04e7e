"""The rooms of a subscription: what to join, and what each message means for whoever follows them. Pure.

Each change is told once, in the order of the stream, however often the connection is lost: a room's cursor is the
last change told, it is what the next join resumes from, and what is not behind it is not told again. The newest
ticket goes with every join: it says that the caller has been in its groups all along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from livedocs._client import answers
from livedocs._client.answers import Failure
from livedocs._client.events import Change, Event, Refused, Revoked, Snapshot, Truncated
from livedocs.errors import InvalidCursor, LivedocsError, UnexpectedAnswer
from livedocs.model import Role

MOST_PER_CALL = 100
# Refusals that say "not now".
_LATER = frozenset({"unavailable", "auth_unavailable", "rate_limited"})
_PAUSE = 1.0


@dataclass(slots=True)
class Room:
    """One UUID.

    Attributes:
        cursor: of the last change told; None: it begins with a snapshot.
        joined: on the present connection.
        due: when it may be joined, by the caller's clock; None while a join is under way.
    """

    uuid: UUID
    cursor: str | None
    joined: bool = False
    due: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Join:
    """A call of JoinRoom."""

    uuids: tuple[UUID, ...]
    options: Mapping[str, Any]


class Rooms:
    """Every room of a subscription.

    Args:
        uuids: which.
        since: cursors to go on from.
        collections: only these; all when None.
        snapshot: whether rooms without a cursor begin with a snapshot, or with the next change.
        ticket: of the subscription that the cursors are from.

    Attributes:
        ticket: the newest one.
    """

    def __init__(
        self,
        uuids: Iterable[UUID],
        *,
        since: Mapping[UUID, str],
        collections: Sequence[str] | None,
        snapshot: bool,
        ticket: str | None = None,
    ) -> None:
        self._rooms = {uuid: Room(uuid, since.get(uuid)) for uuid in uuids}
        self._collections = collections
        self._snapshot = snapshot
        self.ticket = ticket

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def cursors(self) -> dict[UUID, str]:
        """Where each room is."""
        return {room.uuid: room.cursor for room in self._rooms.values() if room.cursor is not None}

    def disconnected(self) -> None:
        """Every room is to be joined anew."""
        for room in self._rooms.values():
            room.joined, room.due = False, 0.0

    def due(self) -> float | None:
        """When a room is to be joined next; None when none is."""
        return min((room.due for room in self._waiting()), default=None)

    def _waiting(self) -> Iterator[Any]:
        return (room for room in self._rooms.values() if not room.joined and room.due is not None)

    def joins(self, now: float) -> list[Join]:
        """The calls to make now: rooms that go on from the same cursor together."""
        groups: dict[str | None, list[UUID]] = {}
        for room in self._waiting():
            if room.due <= now:
                room.due = None
                groups.setdefault(room.cursor, []).append(room.uuid)
        return [
            Join(tuple(uuids[start : start + MOST_PER_CALL]), self._options(cursor))
            for cursor, uuids in groups.items()
            for start in range(0, len(uuids), MOST_PER_CALL)
        ]

    def _options(self, cursor: str | None) -> dict[str, Any]:
        options: dict[str, Any] = {"snapshot": self._snapshot} if cursor is None else {"since": cursor}
        if self.ticket is not None:
            # Without a cursor, too: the ticket in the answer would begin anew.
            options["ticket"] = self.ticket
        return options if self._collections is None else {**options, "collections": list(self._collections)}

    # -- what the server says --

    def answered(self, join: Join, answer: Any, now: float) -> list[Event]:
        """What the acknowledgement of a join means.

        Raises:
            LivedocsError, UnexpectedAnswer: the call as a whole was refused for good.
        """
        match answer:
            case {"joined": dict() as joined, "refused": dict() as refused}:
                pass
            case _:
                raise UnexpectedAnswer(101, "not the answer to a join")
        self._keep(answer)
        events: list[Event] = []
        whole = answers.refusal(answer) if "code" in answer else None
        if whole is not None and not _later(whole):
            raise whole
        for uuid in join.uuids:
            room, told = self._rooms.get(uuid), joined.get(str(uuid))
            if room is None:
                continue
            if told is not None:
                events += self._joined(room, told)
                continue
            error = whole or answers.refusal(refused.get(str(uuid)) or {})
            events += self._refused(room, error, now)
        return events

    def _keep(self, told: Any) -> None:
        match told:
            case {"ticket": str() as ticket}:
                self.ticket = ticket

    def _joined(self, room: Room, told: Mapping[str, Any]) -> Iterator[Event]:
        room.joined = True
        cursor, snapshot = told["cursor"], told.get("snapshot")
        if snapshot is not None:
            room.cursor = cursor
            reason = told.get("resync", "joined")
            yield Snapshot(room.uuid, snapshot, cursor, reason, Role.parse(told.get("role")))
        elif room.cursor is None or room.cursor < cursor:
            # What is replayed has cursors behind the one in the answer.
            room.cursor = cursor

    def _refused(self, room: Room, error: Failure, now: float) -> Iterator[Event]:
        if _later(error):
            room.due = now + (answers.wait_of(error) or _PAUSE)
        elif isinstance(error, InvalidCursor) and room.cursor is not None:
            room.cursor, room.due = None, now
        else:
            del self._rooms[room.uuid]
            yield Refused(room.uuid, error)

    def received(self, name: str, arguments: Sequence[Any]) -> Event | None:
        """What an event from the server tells, if it tells anything new."""
        data: Any = arguments[0] if arguments else None
        if name == "$ticket":
            self._keep(data)
            return None
        room = self._room(data)
        if room is None:
            return None
        if name == "$revoked":
            del self._rooms[room.uuid]
            return Revoked(room.uuid, str(data.get("reason")))
        if not room.joined:
            return None
        if name == "$resync":
            return _resynced(room, data)
        return _changed(room, name, data, arguments[1] if len(arguments) > 1 else None)

    def _room(self, data: Any) -> Room | None:
        text = data.get("uuid") if isinstance(data, dict) else None
        try:
            return self._rooms.get(UUID(text)) if isinstance(text, str) else None
        except ValueError:
            return None


def _resynced(room: Room, told: Mapping[str, Any]) -> Snapshot | None:
    match told:
        case {"reason": str() as reason, "cursor": str() as cursor, "snapshot": dict() as snapshot}:
            room.cursor = cursor
            return Snapshot(room.uuid, snapshot, cursor, reason)
    return None


def _changed(room: Room, collection: str, data: Mapping[str, Any], meta: Any) -> Change | None:
    match meta:
        case {
            "op": "insert" | "update" | "replace" | "delete" as op,
            "id": str() as cursor,
            "at": datetime() as at,
        }:
            pass
        case _:
            return None
    if room.cursor is not None and cursor <= room.cursor:
        return None
    room.cursor = cursor
    return Change(
        room.uuid,
        collection,
        op,
        data,
        cursor,
        at,
        tuple(meta.get("removed") or ()),
        tuple(Truncated(one["field"], one["newSize"]) for one in meta.get("truncated") or ()),
        meta.get("txn"),
        meta.get("_id"),
    )


def _later(error: Exception) -> bool:
    return isinstance(error, LivedocsError) and error.code in _LATER
