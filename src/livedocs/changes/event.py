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

# Bytes that a kept change takes beside its strings and its event: the objects themselves and the history's index
# of them, for a change that is alone in its room. Measured; `tests/unit/test_history_memory.py` compares.
_DOCUMENT_CHANGE = 950
_GRANT_CHANGE = 1500


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
        wall: commit time, UTC without a time zone, which would take as long as a tenth of the rest.
        txn: the same string for every event of one transaction, None outside of one.
        raw: the event as MongoDB sent it, BSON, without its pre-image; decoded again only when somebody is there
            to read it. Empty where nobody will.
        whole: for an update that moved the document into this room, the document as the update left it.
        withheld: why nobody is sent the change itself but a `$resync` for that reason: a path of an update could
            mean two things, or it is too large to be shown. None for nearly all changes.
        heavy: whether to encode it takes longer than the event loop may stand still.
        key_of: of a change without `raw`, the event's `documentKey`, BSON, where clients are told of it.
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
    withheld: str | None = None
    heavy: bool = False
    key_of: bytes = b""

    @property
    def size(self) -> int:
        """Bytes it keeps in memory, the history's index included; never less than it does."""
        kept = len(self.raw) + len(self.whole or b"") + len(self.key_of)
        return kept + len(self.token) + _DOCUMENT_CHANGE


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
        """Bytes it keeps in memory, the history's index included; never less than it does."""
        # A direct writer decides how long a subject is; the grants before and after name it as well.
        return len(self.token) + 3 * len(self.subject) + _GRANT_CHANGE


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


@dataclass(frozen=True, slots=True)
class Lost:
    """An event that nobody could read, in place of it.

    Attributes:
        tenant: whose it was; None when not even that could be told.
    """

    token: str
    at: Timestamp
    tenant: str | None


RoomChange = DocumentChange | GrantChange
Change = DocumentChange | GrantChange | TenantsChange | InquiryMade | CollectionGone | Lost
