"""What a run records: everything its clients sent and received, in the order each of them saw it.

Times are seconds of the harness's monotonic clock; `Recording.wall` turns one into seconds since the epoch, which
is what commit times are given in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple


class Room(NamedTuple):
    """One UUID (in text form) of one tenant."""

    tenant: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Who:
    """Whose socket it is, and until when its token is good (epoch seconds)."""

    tenant: str
    subject: str
    groups: tuple[str, ...] = ()
    token_ends: float = float("inf")

    @property
    def subjects(self) -> frozenset[str]:
        """Every subject whose grants count for it."""
        return frozenset({self.subject, "tenant:*", *(f"group:{name}" for name in self.groups)})


@dataclass(slots=True)
class Membership:
    """Somebody was in a group at the OAuth provider.

    Attributes:
        began: monotonic seconds; 0 for somebody who was in it from the start.
        ended: None while it lasts.
    """

    group: str
    began: float = 0.0
    ended: float | None = None


Forgery = Literal["", "made_up", "borrowed"]
"""Of a cursor: none, or one that no server has given out, or one that another user was given."""


@dataclass(frozen=True, slots=True)
class Asked:
    """JoinRoom or LeaveRoom was sent; `number` is the acknowledgement's. `forged` says it of `since`."""

    at: float
    number: int
    call: Literal["JoinRoom", "LeaveRoom"]
    uuids: tuple[str, ...]
    since: str | None = None
    snapshot: bool = False
    collections: tuple[str, ...] | None = None
    forged: Forgery = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """The acknowledgement of a call arrived."""

    at: float
    number: int
    body: Any


@dataclass(frozen=True, slots=True)
class Delivered:
    """A document event arrived."""

    at: float
    collection: str
    data: Any
    meta: Any


@dataclass(frozen=True, slots=True)
class Told:
    """A control event (its name starts with `$`) arrived."""

    at: float
    name: str
    body: Any


Entry = Asked | Answered | Delivered | Told


@dataclass(slots=True)
class Connection:
    """One socket from its handshake to its end.

    Attributes:
        process: the server process it reached, a new name for each incarnation.
        ended: when it ended; None: it was still open when the run was over, and had been given time.
        memberships: in groups, of whoever holds the socket, whenever they were; empty: those of `who`, all along.
    """

    number: int
    who: Who
    process: str
    began: float
    entries: list[Entry] = field(default_factory=list)
    ended: float | None = None
    why: str = ""
    memberships: list[Membership] = field(default_factory=list)


@dataclass(slots=True)
class Import:
    """An import whose right was taken away while it ran.

    Attributes:
        name: what its markers begin with, before a colon.
        why: what took the right away.
        cut: when that had happened.
        ended: when the server had ended it; None when it never did.
        answer: how the server's answer begins.
    """

    name: str
    tenant: str
    why: str
    began: float
    cut: float = 0.0
    ended: float | None = None
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Write:
    """A write that a service tried, and what it knows of it.

    Attributes:
        marker: unique, stored by the write itself in the document's field `w`; a delete has none, and names the
            document instead.
        outcome: `unknown` when there was an error after which it may have happened or not.
    """

    at: float
    tenant: str
    collection: str
    op: str
    marker: str
    outcome: Literal["done", "nothing", "unknown"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What the nemesis did, from when to when."""

    name: str
    began: float
    ended: float
    detail: str = ""


@dataclass(slots=True)
class Recording:
    """A whole run.

    Attributes:
        epoch: what to add to a monotonic time for seconds since the epoch.
        complaints: what a fault itself found wrong while it lasted.
        interval: the servers' introspection interval, seconds.
    """

    epoch: float
    connections: list[Connection] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    grants: list[Write] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    interval: float = 5.0

    def wall(self, at: float) -> float:
        """A monotonic time as seconds since the epoch."""
        return at + self.epoch


def deliveries(connections: Sequence[Connection]) -> int:
    """Document events received in all."""
    return sum(isinstance(entry, Delivered) for connection in connections for entry in connection.entries)
