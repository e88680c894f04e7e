"""What a client may take for granted, one stretch at a time. Pure.

An epoch is the life of one room on one connection from an answer that states a position (the acknowledgement of a
join, or a `$resync`) to whatever ends it. Within an epoch a client is promised every event behind that position,
once and in order; so that is what is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rig.recording import Answered, Asked, Connection, Delivered, Forgery, Room, Told

Kind = Literal["join", "resume", "resync"]
End = Literal["open", "left", "revoked", "resync", "rejoin", "refused", "closed"]

REFUSALS = frozenset({"forbidden", "unavailable", "too_many_rooms"})
REASONS = {
    "$revoked": frozenset({"revoked", "expired"}),
    "$resync": frozenset(
        {
            *(
                "slow",
                "history_lost",
                "event_too_large",
                "collection_dropped",
                "grants_dropped",
                "event_unreadable",
            ),
            *("access", "ambiguous_order", "ambiguous_path"),
        }
    ),
}
RESYNC_OF_JOIN = frozenset({"window"})


@dataclass(slots=True)
class Epoch:
    """One room on one connection, from a stated position on.

    Attributes:
        base: the position behind which every event is due.
        cursor: the position that the answer stated.
        asked_at: when the answer was asked for; the moment it came where nobody had asked.
        resumed: what the answer said it would replay.
        snapshot: the documents it carried, if any.
    """

    room: Room
    kind: Kind
    base: str
    cursor: str
    asked_at: float
    began: float
    role: str | None = None
    resumed: int | None = None
    snapshot: Mapping[str, Any] | None = None
    collections: tuple[str, ...] | None = None
    events: list[Delivered] = field(default_factory=list)
    end: End = "open"
    reason: str = ""
    ended: float | None = None
    last_known: str = ""
    forged: Forgery = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A room that a client was not let into."""

    room: Room
    code: str
    asked_at: float
    at: float


Complain = Callable[[str, str], None]


class Reader:
    """Reads a connection's entries into epochs, and complains of what no server may send.

    Args:
        complain: called with a kind of violation and what is wrong.
    """

    def __init__(self, connection: Connection, complain: Complain) -> None:
        self._connection = connection
        self._complain = complain
        self._live: dict[str, Epoch] = {}
        self._asked: dict[int, Asked] = {}
        self.epochs: list[Epoch] = []
        self.refusals: list[Refusal] = []
        self._gone = False

    def read(self) -> None:
        """Read all of them."""
        for entry in self._connection.entries:
            if isinstance(entry, Asked):
                self._asked[entry.number] = entry
            elif isinstance(entry, Answered):
                self._answer(entry)
            elif isinstance(entry, Delivered):
                self._deliver(entry)
            else:
                self._told(entry)
        if self._connection.ended is not None:
            for uuid in tuple(self._live):
                self._end(uuid, "closed", self._connection.ended)

    def _room(self, uuid: str) -> Room:
        return Room(self._connection.who.tenant, uuid)

    def _end(self, uuid: str, end: End, at: float, reason: str = "") -> Epoch | None:
        epoch = self._live.pop(uuid, None)
        if epoch is not None:
            epoch.end, epoch.ended, epoch.reason = end, at, reason
        return epoch

    def _begin(self, epoch: Epoch) -> None:
        self._live[epoch.room.uuid] = epoch
        self.epochs.append(epoch)

    def _answer(self, answer: Answered) -> None:
        asked = self._asked.pop(answer.number, None)
        if asked is None:
            self._complain("malformed", f"an answer to nothing: {answer.number}")
        elif asked.call == "LeaveRoom":
            for uuid in answer.body.get("left", ()):
                if self._end(uuid, "left", answer.at) is None:
                    self._complain("malformed", f"left a room it was not in: {uuid}")
        else:
            self._answer_join(asked, answer)

    def _answer_join(self, asked: Asked, answer: Answered) -> None:
        body = answer.body
        joined, refused = body.get("joined"), body.get("refused")
        if not isinstance(joined, dict) or not isinstance(refused, dict):
            self._complain("malformed", f"JoinRoom was answered with {body}")
            return
        if joined.keys() | refused.keys() != set(asked.uuids) or joined.keys() & refused.keys():
            self._complain(
                "malformed", f"asked for {asked.uuids}, answered {sorted(joined)} and {sorted(refused)}"
            )
        for uuid, refusal in refused.items():
            self._end(uuid, "refused", answer.at)
            self.refusals.append(Refusal(self._room(uuid), refusal.get("code"), asked.at, answer.at))
            if refusal.get("code") not in REFUSALS | ({"invalid_cursor"} if asked.forged else set()):
                self._complain("malformed", f"refused with {refusal}")
        for uuid, given in joined.items():
            self._end(uuid, "rejoin", answer.at)
            if asked.forged == "made_up" and "resumed" in given:
                self._complain("forged_cursor", f"{asked.since} was made up, and {given['resumed']} are replayed")
            if self._well_formed_join(asked, given):
                self._begin(_joined(self._room(uuid), asked, answer.at, given))

    def _well_formed_join(self, asked: Asked, given: Mapping[str, Any]) -> bool:
        problems = []
        if not given.keys() <= {"role", "cursor", "snapshot", "resumed", "resync"}:
            problems.append("unknown members")
        if given.get("role") not in {"reader", "writer", "owner"} or not _is_cursor(given.get("cursor")):
            problems.append("role or cursor")
        resync = given.get("resync")
        if resync is not None and (resync not in RESYNC_OF_JOIN or "resumed" in given):
            problems.append("resync")
        if (resync is not None or asked.snapshot) and not isinstance(given.get("snapshot"), dict):
            self._complain("missing_resync", f"no snapshot in {list(given)}")
        if not asked.snapshot and resync is None and "snapshot" in given:
            problems.append("a snapshot nobody asked for")
        if asked.since is not None and resync is None and not isinstance(given.get("resumed"), int):
            problems.append("neither resumed nor resync")
        if problems:
            self._complain("malformed", f"{', '.join(problems)} in a join's answer: {str(given)[:300]}")
        return not problems

    def _deliver(self, event: Delivered) -> None:
        if self._gone:
            self._complain("after_end", f"an event after a final $goaway: {event.meta}")
        uuid = event.data.get("uuid") if isinstance(event.data, dict) else None
        epoch = self._live.get(uuid) if isinstance(uuid, str) else None
        if epoch is None:
            self._complain("uninvited", f"an event of {uuid} {event.meta.get('id')} outside of any membership")
        else:
            epoch.events.append(event)

    def _told(self, told: Told) -> None:
        body = told.body
        if told.name == "$revoked":
            self._check_control(told, {"uuid", "reason"})
            if self._end(body.get("uuid"), "revoked", told.at, body.get("reason", "")) is None:
                self._complain("malformed", f"$revoked for a room it was not in: {body}")
        elif told.name == "$resync":
            self._check_control(told, {"uuid", "reason", "cursor", "snapshot"})
            former = self._end(body.get("uuid"), "resync", told.at, body.get("reason", ""))
            if former is None or not _is_cursor(body.get("cursor")) or not isinstance(body.get("snapshot"), dict):
                self._complain("malformed", f"$resync out of place: {str(body)[:300]}")
                return
            self._begin(
                Epoch(
                    former.room,
                    "resync",
                    body["cursor"],
                    body["cursor"],
                    former.began,
                    told.at,
                    snapshot=body["snapshot"],
                    collections=former.collections,
                )
            )
        elif told.name == "$goaway":
            self._check_control(told, {"reason", "within_ms"})
            self._gone = self._gone or body.get("within_ms") == 0
        elif told.name == "$ticket":
            self._check_control(told, {"ticket"})
        elif told.name == "$expiring":
            self._check_control(told, {"at"})
        else:
            self._complain("malformed", f"an unknown control event: {told.name} {str(body)[:300]}")

    def _check_control(self, told: Told, members: set[str]) -> None:
        reasons = REASONS.get(told.name)
        if told.body.keys() != members or (reasons is not None and told.body["reason"] not in reasons):
            self._complain("malformed", f"{told.name} {str(told.body)[:300]}")


def _joined(room: Room, asked: Asked, at: float, given: Mapping[str, Any]) -> Epoch:
    is_resumed = "resumed" in given
    return Epoch(
        room,
        "resume" if is_resumed else "join",
        # What was missed is due from the client's own cursor on, whatever position the answer states.
        asked.since or "" if is_resumed else given["cursor"],
        given["cursor"],
        asked.at,
        at,
        given["role"],
        given.get("resumed"),
        given.get("snapshot"),
        asked.collections,
        forged=asked.forged,
    )


def _is_cursor(value: object) -> bool:
    return isinstance(value, str) and value.startswith("82") and len(value) >= 18


def segments(connection: Connection) -> Iterator[list[Delivered]]:
    """The document events between one answer or `$resync` and the next: within it the live ones are one order."""
    found: list[Delivered] = []
    for entry in connection.entries:
        if isinstance(entry, Delivered):
            found.append(entry)
        elif isinstance(entry, Answered) or (isinstance(entry, Told) and entry.name == "$resync"):
            if found:
                yield found
            found = []
    if found:
        yield found
