"""What the stream carries once normalised. Every value knows its token, its place in the one total order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from bson.objectid import ObjectId
from bson.timestamp import Timestamp

from livedocs.model import CollectionKey, Grant

Op = Literal["insert", "update", "replace", "delete"]


class RoomKey(NamedTuple):
    """A room: one UUID of one tenant. Both parts always: equal UUIDs of two tenants are two rooms."""

    tenant: str
    uuid: UUID


class DocumentChange(NamedTuple):
    """A committed change of one document, on its way to one room.

    A tuple because one is made for every event, and a frozen dataclass takes four times as long to make.

    Attributes:
        token: the event's resume token, the cursor clients get.
        at: cluster time; shared by the events of one transaction.
        wall: commit time, aware UTC.
        txn: the same string for every event of one transaction, None outside of one.
        raw: the event as MongoDB sent it, BSON; decoded again only when somebody is there to read it.
        whole: for an update that moved the document into this room, the document as the update left it.
        doubtful: whether a path of an update could mean two things; then nobody is sent the update itself.
    """

    token: str
    at: Timestamp
    room: RoomKey
    collection: str
    key: CollectionKey
    op: Op
    wall: datetime
    txn: str | None
    raw: bytes
    whole: bytes | None = None
    doubtful: bool = False

    @property
    def size(self) -> int:
        """Bytes it keeps in memory, roughly."""
        return len(self.raw) + len(self.whole or b"") + 400


@dataclass(frozen=True, slots=True)
class GrantChange:
    """A committed change of one grant.

    Attributes:
        grant: the grant from now on, or None: it is gone, or says nothing that could be enforced.
        before: the grant until now where that is known.
        ended: whether it is gone because its time was over (the TTL monitor's delete).
    """

    token: str
    at: Timestamp
    room: RoomKey
    subject: str
    grant: Grant | None
    before: Grant | None
    wall: datetime
    ended: bool = False

    @property
    def size(self) -> int:
        """Bytes it keeps in memory, roughly."""
        return 1000


@dataclass(frozen=True, slots=True)
class TenantsChange:
    """The tenants' registry has changed: read it again."""

    token: str
    at: Timestamp


@dataclass(frozen=True, slots=True)
class InquiryMade:
    """A server process asks all others something about their sockets.

    Attributes:
        id: the inquiry's, for the answers.
        by: the process that asks; neither this nor the question has been looked at yet.
    """

    token: str
    at: Timestamp
    id: ObjectId
    by: Any
    question: Any


@dataclass(frozen=True, slots=True)
class CollectionGone:
    """A collection was dropped or renamed, or a whole database: no event says what became of each document.

    `collection` is None for the whole database. `tenant` is None when the grants themselves are gone.
    """

    token: str
    at: Timestamp
    tenant: str | None
    collection: str | None


RoomChange = DocumentChange | GrantChange
Change = DocumentChange | GrantChange | TenantsChange | InquiryMade | CollectionGone
