"""The values that cross layers, in the words the rest of the code uses.

Nothing here does I/O or reads a clock. What a role allows is decided in `access/acl.py`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from bson.binary import UUID_SUBTYPE, Binary
from bson.timestamp import Timestamp

from livedocs.errors import InvalidSubject, InvalidUuid

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_SUBJECT = re.compile(r"(?:(?:user|client|group):[^\x00-\x1f\x7f]{1,255}|tenant:\*)\Z")
SLUG = re.compile(r"[a-z][a-z0-9-]{1,38}\Z")
COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,119}\Z")


def parse_uuid(text: object) -> UUID:
    """The UUID of its RFC 9562 text form: 36 characters with hyphens, either case, nothing around it.

    Raises:
        InvalidUuid: for anything else, `uuid.UUID`'s braces, URNs and bare hex digits among it.
    """
    if not isinstance(text, str) or not _UUID.match(text):
        raise InvalidUuid(value=text)
    return UUID(text)


def parse_subject(text: object) -> str:
    """A subject as grants name it: `user:<sub>`, `client:<client_id>`, `group:<name>` or `tenant:*`.

    Raises:
        InvalidSubject: for anything else.
    """
    if not isinstance(text, str) or not _SUBJECT.match(text):
        raise InvalidSubject(value=text)
    return text


class Role(enum.IntEnum):
    """What a grant allows; each role includes the ones below it."""

    READER = 1
    WRITER = 2
    OWNER = 3

    @property
    def label(self) -> str:
        """The role's name on the wire and in the database: `reader`, `writer`, `owner`."""
        return self.name.lower()

    @classmethod
    def parse(cls, label: object) -> Role | None:
        """The role of that label, or None when there is no such role."""
        return _ROLES.get(label) if isinstance(label, str) else None


_ROLES = {role.label: role for role in Role}


@dataclass(frozen=True, slots=True)
class GrantKey:
    """A grant's natural key, the `_id` of its document in the `acl` collection."""

    tenant: str
    uuid: UUID
    subject: str


@dataclass(frozen=True, slots=True)
class Grant:
    """One subject's role on one UUID. `expires_at` is an aware UTC time, or None for no end."""

    key: GrantKey
    role: Role
    expires_at: datetime | None = None
    granted_by: str = ""
    granted_at: datetime | None = None

    def in_force(self, now: datetime) -> bool:
        """Whether the grant counts at that moment; at its very end it no longer does."""
        return self.expires_at is None or now < self.expires_at


def grant_id(key: GrantKey) -> dict[str, Any]:
    """The `_id` of a grant. The only place that builds it: field order counts in an embedded key."""
    return {"tenant": key.tenant, "uuid": Binary.from_uuid(key.uuid), "subject": key.subject}


def grant_document(grant: Grant) -> dict[str, Any]:
    """A grant as the `acl` collection stores it."""
    document: dict[str, Any] = {
        "_id": grant_id(grant.key),
        "role": grant.role.label,
        "granted_by": grant.granted_by,
        "granted_at": grant.granted_at,
    }
    if grant.expires_at is not None:
        document["expires_at"] = grant.expires_at
    return document


def parse_grant_key(identifier: object) -> GrantKey | None:
    """The key in an `acl` document's `_id`, or None when it is not one of ours."""
    match identifier:
        case {"tenant": str() as tenant, "uuid": UUID() as uuid, "subject": str() as subject}:
            return GrantKey(tenant, uuid, subject)
        case {"tenant": str() as tenant, "uuid": Binary() as binary, "subject": str() as subject}:
            is_uuid = binary.subtype == UUID_SUBTYPE and len(binary) == 16
            return GrantKey(tenant, binary.as_uuid(), subject) if is_uuid else None
    return None


def parse_grant(document: Mapping[str, Any]) -> Grant | None:
    """A stored grant, or None when it says nothing that could be enforced (it then allows nothing)."""
    key = parse_grant_key(document.get("_id"))
    role = Role.parse(document.get("role"))
    expires_at = document.get("expires_at")
    if key is None or role is None or not (expires_at is None or isinstance(expires_at, datetime)):
        return None
    granted_at = document.get("granted_at")
    return Grant(
        key,
        role,
        _aware(expires_at),
        str(document.get("granted_by", "")),
        _aware(granted_at) if isinstance(granted_at, datetime) else None,
    )


def _aware(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


CollectionKey = Literal["_id", "uuid"]


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant and the MongoDB database it owns.

    Attributes:
        collections: the registered collections, each with its key field.
        limits: its own, in place of the server's settings of those names.
        services: by client id, the collections that a service of the tenant is confined to.
    """

    slug: str
    database: str
    collections: Mapping[str, CollectionKey]
    status: Literal["active", "suspended"] = "active"
    limits: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    services: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether its people may come in."""
        return self.status == "active"

    def confines(self, subject: str) -> frozenset[str] | None:
        """The collections that the subject is confined to; None for people, and for services that are not."""
        kind, _, name = subject.partition(":")
        return self.services.get(name) if kind == "client" else None

    def limit(self, name: str) -> int | None:
        """The tenant's own limit of that name; None when it has none, or something that is no limit."""
        own = self.limits.get(name)
        return own if isinstance(own, int) and not isinstance(own, bool) and own > 0 else None


@dataclass(frozen=True, slots=True)
class Look:
    """What one caller asks for: the grants of its subjects on some UUIDs, and the documents of some of these."""

    uuids: Sequence[UUID]
    subjects: Sequence[str]
    with_documents: frozenset[UUID] = frozenset()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Grants and documents as they were together at one cluster time.

    Attributes:
        at: the cluster time both were read at (`cursor.atClusterTime`).
        grants: by UUID, every grant of the caller's subjects, in force or not; every UUID asked for has an entry.
        documents: by UUID, then by collection, the raw BSON documents (`dict`), for the UUIDs that have a grant.
        shared: the same for all snapshots of one round of reads: what was made of its documents is kept here,
            so that it is made once. Whoever looks into it holds the documents that it was made of.
    """

    at: Timestamp
    grants: Mapping[UUID, Sequence[Grant]]
    documents: Mapping[UUID, Mapping[str, Sequence[dict[str, Any]]]]
    shared: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
