"""Requests that may be sent twice and must happen once (the Idempotency-Key header).

A key is written in the transaction of what it is for, so that either both are there or neither is; it belongs to
the subject that sent it, and passes after a day by a TTL index. A request that comes while the first of its key is
under way waits for that one's transaction and finds what it made; the draft's 409 for this case is never needed.

Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/, 2.7 (422 for another payload)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from livedocs.errors import IdempotencyKeyReused
from livedocs.store.connection import IDEMPOTENCY, MongoDocument
from livedocs.store.failures import translated

_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Once:
    """A request that is to happen once.

    Attributes:
        subject: who sends it.
        key: what the sender calls it.
        fingerprint: tells this request from any other that might bear the same key.
    """

    subject: str
    key: str
    fingerprint: str


class IdempotencyKeys:
    """The keys that were used, each with what its request made."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._keys = client[control_database][IDEMPOTENCY]

    async def find(self, session: AsyncClientSession, tenant: str, once: Once) -> MongoDocument | None:
        """The keys of the document that the request has made already, or None.

        Raises:
            IdempotencyKeyReused: the key was used for another request.
        """
        found = await self._keys.find_one({"_id": _identifier(tenant, once)}, session=session)
        if found is None:
            return None
        _check(found, once)
        made: MongoDocument = found["made"]
        return made

    async def keep(self, session: AsyncClientSession, tenant: str, once: Once, made: dict[str, Any]) -> None:
        """Remember what the request has made."""
        record = {
            "_id": _identifier(tenant, once),
            "fingerprint": once.fingerprint,
            "made": made,
            "at": datetime.now(UTC),
        }
        await self._keys.insert_one(record, session=session)

    async def position(self, tenant: str, once: Once) -> int:
        """How far a request that takes many steps has come; 0 for one that is not known.

        Raises:
            IdempotencyKeyReused: the key was used for another request.
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_SECONDS):
            found = await self._keys.find_one({"_id": _identifier(tenant, once)})
        if found is None:
            return 0
        _check(found, once)
        return int(found["position"])

    async def claim(self, tenant: str, once: Once) -> None:
        """Let the key stand for this request, before anything of it is done.

        Raises:
            IdempotencyKeyReused: it stands for another one.
            Unavailable: MongoDB cannot be written now.
        """
        await self.advance(tenant, once, 0)

    async def advance(self, tenant: str, once: Once, position: int) -> None:
        """Remember that it has come that far; never back.

        Raises:
            IdempotencyKeyReused: the key was used for another request.
            Unavailable: MongoDB cannot be written now.
        """
        # The fingerprint is part of the filter: under another one the key is found taken by the insertion.
        identifier = _identifier(tenant, once)
        query = {"_id": identifier, "fingerprint": once.fingerprint}
        update = {"$max": {"position": position}, "$set": {"at": datetime.now(UTC)}}
        with translated(seconds=_SECONDS):
            try:
                await self._keys.update_one(query, update, upsert=True)
            except DuplicateKeyError:
                # Or by the same request, sent twice at once.
                found = await self._keys.find_one_and_update(query, update)
                if found is None:
                    raise IdempotencyKeyReused(key=once.key) from None


def _check(found: MongoDocument, once: Once) -> None:
    if found["fingerprint"] != once.fingerprint:
        raise IdempotencyKeyReused(key=once.key)


def _identifier(tenant: str, once: Once) -> dict[str, str]:
    return {"tenant": tenant, "subject": once.subject, "key": once.key}
