"""Who did what to which UUID and subject, when, and from where."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from bson.binary import Binary
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession

from livedocs.store.connection import AUDIT, MongoDocument

Action = Literal["document.create", "document.delete", "grant.set", "grant.remove"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and from which address (empty when from none, as a command on the server)."""

    subject: str
    address: str = ""


class Audit:
    """Writes the entries; a TTL index ends them. An entry is part of the transaction that it tells of."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._audit = client[control_database][AUDIT]

    async def record(
        self,
        session: AsyncClientSession,
        actor: Actor,
        action: Action,
        tenant: str,
        uuid: UUID,
        *,
        subject: str | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Add one entry. `subject` is the one acted upon; `detail` holds nothing out of a document."""
        entry: MongoDocument = {
            "at": datetime.now(UTC),
            "actor": actor.subject,
            "address": actor.address,
            "action": action,
            "tenant": tenant,
            "uuid": Binary.from_uuid(uuid),
        }
        if subject is not None:
            entry["subject"] = subject
        if detail:
            entry["detail"] = detail
        await self._audit.insert_one(entry, session=session)
