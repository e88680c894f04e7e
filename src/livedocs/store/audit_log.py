"""The audit log as a whole: read newest first, in pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from bson.binary import Binary
from bson.errors import InvalidId
from bson.objectid import ObjectId
from pymongo import AsyncMongoClient

from livedocs.errors import InvalidCursor
from livedocs.store.audit import Actor, Audit, Entry
from livedocs.store.connection import AUDIT, MongoDocument
from livedocs.store.failures import translated

_SECONDS = 10.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Search:
    """What entries have to be like; None where it does not matter. Times are aware UTC, `until` is left out."""

    actor: str | None = None
    action: str | None = None
    uuid: UUID | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """An entry of the log."""

    at: datetime
    actor: str
    address: str
    action: str
    uuid: UUID | None
    subject: str | None
    detail: dict[str, Any]
    cursor: str


class AuditLog:
    """The audit log of every tenant."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._client = client
        self._control_database = control_database
        self._audit = client[control_database][AUDIT]

    async def add(self, actor: Actor, entry: Entry) -> None:
        """Record what was done outside the database.

        Raises:
            Unavailable: MongoDB cannot be written now.
        """
        with translated(seconds=_SECONDS):
            async with self._client.start_session() as session:
                await Audit(self._client, self._control_database).record(session, actor, entry)

    async def search(self, tenant: str, search: Search, *, before: str | None, limit: int) -> Sequence[Recorded]:
        """Entries of a tenant, the newest first.

        Args:
            tenant: whose.
            search: which of them.
            before: the cursor of the entry behind which to go on.
            limit: at most so many.

        Raises:
            InvalidCursor: it is none of ours.
            Unavailable: MongoDB cannot be read now.
        """
        query = _query(tenant, search)
        if before is not None:
            at, identifier = _parse_cursor(before)
            query["$or"] = [{"at": {"$lt": at}}, {"at": at, "_id": {"$lt": identifier}}]
        with translated(seconds=_SECONDS):
            cursor = self._audit.find(query).sort([("at", -1), ("_id", -1)]).limit(limit)
            return [_recorded(document) async for document in cursor]


def _query(tenant: str, search: Search) -> dict[str, Any]:
    # $eq throughout: what comes from a client is a value and never an operator.
    query: dict[str, Any] = {"tenant": {"$eq": tenant}}
    for name in ("actor", "action", "subject"):
        value = getattr(search, name)
        if value is not None:
            query[name] = {"$eq": value}
    if search.uuid is not None:
        query["uuid"] = {"$eq": Binary.from_uuid(search.uuid)}
    times = {"$gte": search.since, "$lt": search.until}
    bounds = {operator: at for operator, at in times.items() if at is not None}
    if bounds:
        query["at"] = bounds
    return query


def _recorded(document: MongoDocument) -> Recorded:
    at, uuid = document["at"], document.get("uuid")
    stamp = (at - _EPOCH) // timedelta(milliseconds=1)
    cursor = base64.urlsafe_b64encode(stamp.to_bytes(8, "big") + document["_id"].binary).decode().rstrip("=")
    return Recorded(
        at,
        str(document.get("actor", "")),
        str(document.get("address", "")),
        str(document.get("action", "")),
        uuid if isinstance(uuid, UUID) else None,
        document.get("subject"),
        dict(document.get("detail") or {}),
        cursor,
    )


def _parse_cursor(text: str) -> tuple[datetime, ObjectId]:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if len(data) != 20:
            raise InvalidCursor
        return _EPOCH + timedelta(milliseconds=int.from_bytes(data[:8], "big")), ObjectId(data[8:])
    except (binascii.Error, ValueError, OverflowError, InvalidId):
        raise InvalidCursor from None
