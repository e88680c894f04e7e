"""The shapes of administration, for the description alone, as in `shapes.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as model

from livedocs.http.shapes import PendingProcess, RoleName


@model(config=ConfigDict(extra="forbid"))
class CollectionKeyBody:
    """Where a collection's documents hold their UUID."""

    key: Literal["_id", "uuid"]


@model(config=ConfigDict(extra="forbid"))
class CollectionBody(CollectionKeyBody):
    """A collection that is to be streamed."""

    json_schema: dict[str, Any] | None = Field(
        None, description="What MongoDB holds every write to: a JSON Schema, as `$jsonSchema` takes it."
    )


@model(config=ConfigDict(extra="forbid"))
class Limits:
    """Limits of a tenant, each in place of the server's setting of that name; the first two only tighten it."""

    max_document_bytes: int | None = Field(None, ge=1)
    max_grants_per_uuid: int | None = Field(None, ge=1)
    max_sockets_per_tenant: int | None = Field(None, ge=1)
    max_sockets_per_user: int | None = Field(None, ge=1)
    limit_handshakes_per_tenant: int | None = Field(None, ge=1)
    limit_handshakes_per_user: int | None = Field(None, ge=1)
    limit_joins_per_tenant: int | None = Field(None, ge=1)
    limit_joins_per_user: int | None = Field(None, ge=1)
    limit_events_per_tenant: int | None = Field(None, ge=1)
    limit_events_per_user: int | None = Field(None, ge=1)
    limit_requests_per_tenant: int | None = Field(None, ge=1)
    limit_requests_per_user: int | None = Field(None, ge=1)


@model(config=ConfigDict(extra="forbid"))
class ServiceCollections:
    """The collections that a service is confined to."""

    collections: list[str]


@model(config=ConfigDict(extra="forbid"))
class NewTenant:
    """A tenant that is to be."""

    slug: str = Field(pattern=r"^[a-z][a-z0-9-]{1,38}$")
    database: str | None = Field(None, description="Its own database; `livedocs_SLUG` when absent.")
    collections: dict[str, CollectionBody] = Field(default_factory=dict)
    limits: Limits | None = None


@dataclass
class TenantShown:
    """A tenant."""

    slug: str
    status: Literal["active", "suspended"]
    database: str
    collections: dict[str, CollectionKeyBody]
    limits: dict[str, int]
    services: dict[str, ServiceCollections]
    created_at: datetime | None = None


@dataclass
class TenantPage:
    """One page of tenants."""

    tenants: list[TenantShown]
    next: str | None


@dataclass
class Registered:
    """A registered collection."""

    collection: str
    key: Literal["_id", "uuid"]
    without_uuid: int
    not_streamed: dict[str, int]
    examined: int
    complete: bool


@dataclass
class DeletionQuery:
    """Which step of a deletion."""

    data: Literal["keep", "drop"] | None = None
    confirm: str | None = None


@dataclass
class DeletionDone:
    """What is gone."""

    slug: str
    data: Literal["keep", "drop"]
    documents: dict[str, int]
    grants: int


@dataclass
class DeletionAsked(DeletionDone):
    """What would be gone, and the code that makes it so."""

    code: str
    expires_at: datetime


@dataclass
class SessionQuery:
    """Which sockets."""

    subject: str | None = None
    uuid: str | None = None
    cursor: str | None = None
    limit: int | None = None


@dataclass
class SessionRoom:
    """A room that a socket is in."""

    uuid: str
    role: RoleName


@dataclass
class SessionShown:
    """A connected socket; at most 100 of its rooms are listed."""

    sid: str
    subject: str
    name: str
    client_id: str
    address: str
    since: datetime
    expires_at: datetime
    process: str
    room_count: int
    rooms: list[SessionRoom]


@dataclass
class AskedProcess:
    """A server process, and whether it answered in time."""

    process: str
    host: str
    pid: int
    answered: bool


@dataclass
class SessionPage:
    """One page of the sockets of all processes; `total` counts those of every page, of processes that answered."""

    process: str | None
    complete: bool
    processes: list[AskedProcess]
    total: int
    sessions: list[SessionShown]
    next: str | None


@dataclass
class DisconnectQuery:
    """Whose sockets."""

    subject: str


@dataclass
class Ended:
    """A socket that was disconnected."""

    sid: str
    address: str
    process: str


@dataclass
class Disconnected:
    """What was disconnected, and the processes that have not confirmed it."""

    subject: str
    disconnected: int
    sessions: list[Ended]
    applied: bool
    pending: list[PendingProcess]


@dataclass
class AuditQuery:
    """Which entries."""

    actor: str | None = None
    action: str | None = None
    uuid: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    cursor: str | None = None
    limit: int | None = None


@dataclass
class AuditEntry:
    """What was done."""

    at: datetime
    actor: str
    address: str
    action: str
    uuid: str | None = None
    subject: str | None = None
    detail: dict[str, Any] | None = None


@dataclass
class AuditPage:
    """One page of the audit log."""

    entries: list[AuditEntry]
    next: str | None
