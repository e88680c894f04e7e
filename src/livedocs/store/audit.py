"""Who did what to which UUID and subject, when, and from where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args
from uuid import UUID

from bson.binary import Binary
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession

from livedocs.store.connection import AUDIT, MongoDocument

Action = Literal[
    "document.create",
    "document.delete",
    "grant.set",
    "grant.remove",
    "session.disconnect",
    "session.end",
    "admin.refused",
    "audit.lost",
    "tenant.create",
    "tenant.register",
    "tenant.limits",
    "tenant.aliases",
    "tenant.confine",
    "tenant.release",
    "tenant.suspend",
    "tenant.resume",
    "tenant.deletion_asked",
    "tenant.delete",
]
ACTIONS: tuple[str, ...] = get_args(Action)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and from which address (empty when from none, as a command on the server)."""

    subject: str
    address: str = ""


SYSTEM: Final = Actor("system")
"""Who acts where nobody has asked."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was done. `subject` is the one acted upon; `detail` holds nothing out of a document."""

    action: Action
    tenant: str
    uuid: UUID | None = None
    subject: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Noted:
    """An entry with its actor and its moment, aware UTC."""

    actor: Actor
    entry: Entry
    at: datetime


class Audit:
    """Writes the entries; a TTL index ends them. An entry is part of the transaction that it tells of."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._audit = client[control_database][AUDIT]

    async def record(self, session: AsyncClientSession, actor: Actor, *entries: Entry) -> None:
        """Add entries; none is fine."""
        if entries:
            at = datetime.now(UTC)
            await self._audit.insert_many([_stored(actor, entry, at) for entry in entries], session=session)

    async def write(self, *noted: Noted) -> None:
        """Add entries of what happened outside a transaction."""
        if noted:
            await self._audit.insert_many([_stored(one.actor, one.entry, one.at) for one in noted])


def _stored(actor: Actor, entry: Entry, at: datetime) -> MongoDocument:
    stored: MongoDocument = {
        "at": at,
        "actor": actor.subject,
        "address": actor.address,
        "action": entry.action,
        "tenant": entry.tenant,
    }
    if entry.uuid is not None:
        stored["uuid"] = Binary.from_uuid(entry.uuid)
    if entry.subject is not None:
        stored["subject"] = entry.subject
    if entry.detail:
        stored["detail"] = dict(entry.detail)
    return stored
