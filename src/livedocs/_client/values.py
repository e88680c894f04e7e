"""What the client hands out and takes, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from livedocs.errors import ClientError, LivedocsError
from livedocs.model import Role

RoleName = Literal["reader", "writer", "owner"]


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the server has it.

    Attributes:
        fields: its fields but for `uuid`, as BSON values; empty when the answer was asked to be minimal.
        etag: names this state of it, for `if_match`.
        created: whether the request made it.
    """

    collection: str
    uuid: UUID
    fields: Mapping[str, Any]
    etag: str
    created: bool = False


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A grant that a document brings along: what the subject is to have, and until when."""

    subject: str
    role: Role | RoleName
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A document that is to be written.

    Attributes:
        uuid: which; a new one when None.
        grants: put into force with the document, or not at all; subjects and roles, or with an end `NewGrant`s.
        mode: `replace`, or `merge` as of RFC 7396.
        if_match, if_none_match: conditions, as the headers.
    """

    fields: Mapping[str, Any]
    uuid: UUID | None = None
    grants: Mapping[str, Role | RoleName] | Sequence[NewGrant] = ()
    mode: Literal["replace", "merge"] = "replace"
    if_match: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True, slots=True)
class GrantChange:
    """A grant that is to be put into force, or with a role of None taken away."""

    uuid: UUID
    subject: str
    role: Role | RoleName | None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an item.

    Attributes:
        status: what a single request would have been answered with; 0 when no answer came.
        error: why it was refused; None when it was not.
    """

    uuid: UUID | None
    status: int
    etag: str | None = None
    subject: str | None = None
    error: LivedocsError | ClientError | None = None

    @property
    def created(self) -> bool:
        """Whether the item made something new."""
        return self.status == 201


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far a change of grants had got when the wait for it was over.

    Attributes:
        applied: whether every live server process had applied it.
        pending: the processes that had not.
    """

    applied: bool
    pending: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as the server has it. `receipt` is there when the request asked to wait."""

    subject: str
    role: Role
    granted_by: str
    granted_at: datetime | None = None
    expires_at: datetime | None = None
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A grant that lets a subject in, or could.

    Attributes:
        kind: by which of its subjects.
        applies: None when it is unknown whether the subject is in the group.
    """

    kind: Literal["subject", "group", "tenant"]
    applies: bool | None
    in_force: bool
    grant: Grant


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a subject may, or may not, see a UUID's documents.

    Attributes:
        reason: `no_grant`, `expired`, `role_too_low`; None when it may.
        sockets: of the subject that hold the room, in all server processes that answered in time; None for whoever
            is no administrator.
    """

    allowed: bool
    role: Role | None
    until: datetime | None
    reason: str | None
    rules: tuple[Rule, ...]
    sockets: int | None


@dataclass(frozen=True, slots=True)
class Imported:
    """What has become of an import.

    Attributes:
        lines: the number of the line behind the last one.
        refused: by line, the first hundred of the last request.
    """

    lines: int
    succeeded: int
    failed: int
    refused: Mapping[int, LivedocsError | ClientError] = field(default_factory=dict)
