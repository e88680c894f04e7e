"""What a subscription yields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from livedocs.errors import ClientError, LivedocsError
from livedocs.model import Role


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every document of a UUID, as they were at `cursor`: what was known before does not count any more.

    Attributes:
        documents: by collection, each with its `uuid`.
        reason: `joined` for the first one; else why changes could not be told one by one (docs/guarantees.md, 6).
        role: what the caller may do; None in a later snapshot.
    """

    uuid: UUID
    documents: Mapping[str, Sequence[Mapping[str, Any]]]
    cursor: str
    reason: str
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Truncated:
    """An array that an update has shortened."""

    field: str
    size: int


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change of one document.

    Attributes:
        fields: the whole document after an insert or a replace, the changed fields by their paths after an update,
            nothing but `uuid` after a delete; values as BSON.
        removed: paths of the fields that are gone.
        cursor: where the stream is after it; keep it to go on from here.
        at: when it was committed.
        txn: the same for all changes of one transaction.
        id: the document's `_id`, where several documents may share the UUID; None where the UUID is the `_id`.
    """

    uuid: UUID
    collection: str
    op: Literal["insert", "update", "replace", "delete"]
    fields: Mapping[str, Any]
    cursor: str
    at: datetime
    removed: Sequence[str] = ()
    truncated: Sequence[Truncated] = ()
    txn: Any = None
    id: Any = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """The caller may no longer see the UUID; nothing follows. `reason` is `revoked` or `expired`."""

    uuid: UUID
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The caller may not see the UUID, or what was asked for is not there; nothing follows."""

    uuid: UUID
    error: LivedocsError | ClientError


Event = Snapshot | Change | Revoked | Refused
