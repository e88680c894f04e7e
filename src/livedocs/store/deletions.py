"""The end of a tenant, in two steps: the first keeps everyone out and gives a code, the second takes the code.

What is deleted are the tenant's grants and its entry in the registry and, where that was asked for, the documents
of its registered collections. Collections that were never registered stay: they may belong to another program. The
audit log stays. The second step can be repeated as long as the registry has the tenant, which is deleted last.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.write_concern import WriteConcern

from livedocs.errors import Conflict, NotFound
from livedocs.model import Tenant
from livedocs.store.audit import SYSTEM, Actor, Audit, Entry
from livedocs.store.connection import ACL, TENANTS, MongoDocument
from livedocs.store.failures import translated
from livedocs.store.tenants import parse_tenant

_SECONDS = 30.0
_VALID = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Loss:
    """What a deletion takes away.

    Attributes:
        documents: by registered collection, how many; estimated.
        grants: how many.
        drop: whether the documents go as well, or only what livedocs holds about them.
    """

    documents: dict[str, int]
    grants: int
    drop: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """A deletion that was asked for: the code that carries it out, until when, and what it takes away."""

    code: str
    expires_at: datetime
    loss: Loss


class Deletions:
    """Deletes tenants."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._client = client
        self._tenants = client[control_database][TENANTS]
        self._acl = client[control_database][ACL]
        self._audit = Audit(client, control_database)

    async def loss(self, slug: str, *, drop: bool) -> Loss:
        """What would be gone.

        Raises:
            NotFound: there is no such tenant.
        """
        with translated(seconds=_SECONDS):
            tenant, _ = await self._stored(slug)
            database = self._client[tenant.database]
            documents = {name: await database[name].estimated_document_count() for name in tenant.collections}
            return Loss(documents, await self._acl.count_documents({"_id.tenant": slug}), drop)

    async def ask(self, slug: str, *, drop: bool, actor: Actor = SYSTEM) -> Asked:
        """Suspend the tenant, and give the code for the second step.

        Raises:
            NotFound: there is no such tenant.
        """
        loss = await self.loss(slug, drop=drop)
        code, expires_at = secrets.token_urlsafe(9), datetime.now(UTC) + _VALID
        deletion = {"code": _digest(code), "expires_at": expires_at, "drop": drop}

        async def body(session: AsyncClientSession) -> None:
            await self._tenants.update_one(
                {"_id": {"$eq": slug}}, {"$set": {"status": "suspended", "deletion": deletion}}, session=session
            )
            await self._audit.record(session, actor, Entry("tenant.deletion_asked", slug, detail={"drop": drop}))

        with translated(seconds=_SECONDS):
            async with self._client.start_session() as session:
                await session.with_transaction(body, write_concern=WriteConcern("majority"))
        return Asked(code, expires_at, loss)

    async def carry_out(self, slug: str, code: str, actor: Actor = SYSTEM) -> Loss:
        """Delete the tenant.

        Raises:
            NotFound: there is no such tenant.
            Conflict: the code is not the one of a deletion that was asked for in the last minutes.
        """
        with translated(seconds=_SECONDS):
            tenant, deletion = await self._stored(slug)
            known = isinstance(deletion, dict) and hmac.compare_digest(str(deletion["code"]), _digest(code))
            if not known or deletion["expires_at"] <= datetime.now(UTC) or tenant.active:
                raise Conflict("Request the deletion first; its code is valid for 15 minutes.")
        loss = await self.loss(slug, drop=bool(deletion["drop"]))
        with translated(seconds=_SECONDS):
            await self._acl.delete_many({"_id.tenant": {"$eq": slug}})
            if loss.drop:
                for name in tenant.collections:
                    await self._client[tenant.database].drop_collection(name)
            detail = {"drop": loss.drop, "grants": loss.grants, "database": tenant.database}

            async def body(session: AsyncClientSession) -> None:
                await self._tenants.delete_one({"_id": {"$eq": slug}}, session=session)
                await self._audit.record(session, actor, Entry("tenant.delete", slug, detail=detail))

            async with self._client.start_session() as session:
                await session.with_transaction(body, write_concern=WriteConcern("majority"))
        return loss

    async def _stored(self, slug: str) -> tuple[Tenant, Any]:
        document = await self._tenants.find_one({"_id": {"$eq": slug}})
        tenant = parse_tenant(document) if document is not None else None
        if document is None or tenant is None:
            raise NotFound("There is no tenant with this slug.", slug=slug)
        return tenant, document.get("deletion")


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
