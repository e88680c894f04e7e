"""The values that cross layers, in the words the rest of the code uses.

Nothing here does I/O or reads a clock. What a role allows is decided in `access/acl.py`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from bson.binary import UUID_SUBTYPE, Binary
from bson.timestamp import Timestamp

from livedocs.errors import InvalidSubject, InvalidUuid
from livedocs.names import is_name

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_KINDS = frozenset({"user", "client", "group"})
_STORED_SUBJECT = re.compile(r"(?:(?:user|client|group):[^\x00-\x1f\x7f]{1,255}|tenant:\*)\Z")
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
        InvalidSubject: for anything else; what a name may be says `names.is_name`.
    """
    if isinstance(text, str):
        kind, _, name = text.partition(":")
        if text == "tenant:*" or (kind in _KINDS and is_name(name)):
            return text
    raise InvalidSubject(value=text)


def parse_stored_subject(text: object) -> str:
    """A subject that some stored grant may have: also names that `parse_subject` refuses by now.

    Such a grant lets nobody in, since no token with such a name is accepted. It is shown, and can be taken away.

    Raises:
        InvalidSubject: for what no grant was ever set for.
    """
    if not isinstance(text, str) or not _STORED_SUBJECT.match(text):
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
        aliases: further names that tokens have for it, as the OAuth service's own id of an organisation.
    """

    slug: str
    database: str
    collections: Mapping[str, CollectionKey]
    status: Literal["active", "suspended"] = "active"
    limits: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    services: Mapping[str, frozenset[str]] = field(default_factory=dict)
    aliases: frozenset[str] = frozenset()

    @property
    def active(self) -> bool:
        """Whether its people may come in."""
        return self.status == "active"

    def confines(self, subject: str, client_id: str) -> frozenset[str] | None:
        """The collections that a token is confined to, by its subject or by its client; None when it is not.

        Whoever seems to be behind it: a service that is taken for a person is no less confined.
        """
        kind, _, name = subject.partition(":")
        own = self.services.get(name) if kind == "client" else None
        return self.services.get(client_id) if own is None else own

    def limit(self, name: str) -> int | None:
        """The tenant's own limit of that name; None when it has none, or something that is no limit."""
        own = self.limits.get(name)
        return own if isinstance(own, int) and not isinstance(own, bool) and own > 0 else None


class TooLarge(NamedTuple):
    """In place of a document that is beyond what is shown (`LIVEDOCS_MAX_SHOWN_BYTES`, `_ELEMENTS`).

    Attributes:
        size: bytes that it has as BSON.
    """

    size: int


class Unreadable(NamedTuple):
    """In place of documents that could not be read, though others of the same room could."""


# A document as it is stored, BSON, or what stands in its place.
Stored = bytes | TooLarge | Unreadable


@dataclass(frozen=True, slots=True)
class ShownBounds:
    """Beyond which a document is never decoded.

    Attributes:
        bytes: of its BSON.
        elements: fields and array items in all.
    """

    bytes: int = 2 * 2**20
    elements: int = 100_000


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
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
        documents: by UUID, then by collection, the documents as they are stored, for the UUIDs that have a grant.
        shared: the same for all snapshots of one round of reads: what was made of its documents is kept here,
            so that it is made once. Whoever looks into it holds the documents that it was made of.
        left_out: UUIDs whose documents were due as well, but did not fit into one round of reads.
    """

    at: Timestamp
    grants: Mapping[UUID, Sequence[Grant]]
    documents: Mapping[UUID, Mapping[str, Sequence[Stored]]]
    shared: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    left_out: frozenset[UUID] = frozenset()


KEY_LEAD = 600
"""Seconds, in cluster time, that a sealing key is committed before it begins to count."""


@dataclass(frozen=True, slots=True)
class SealingKey:
    """What cursors and tickets are sealed with at the cluster times from its beginning to the next key's.

    Attributes:
        number: 0 for the deployment's first one; each has the number behind the one before it.
        begins: the cluster time, in seconds, from which on it counts.
        made: the cluster time at which it was written.
        secret: 32 random bytes.
    """

    number: int
    begins: int
    made: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SealingKeys:
    """Every sealing key there is as of a cluster time."""

    keys: Sequence[SealingKey]
    at: Timestamp


@dataclass(frozen=True, slots=True)
class Renewal:
    """How a refresh token stands.

    Attributes:
        by: who is to spend it, or has spent it just now; None for nobody.
        renewed: the tokens that came of that, sealed (`access.renewals.seal`); None as long as none have.
        over: whether somebody has logged out of its session.
    """

    by: str | None = None
    renewed: bytes | None = None
    over: bool = False
