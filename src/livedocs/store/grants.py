"""Grants in the `acl` collection of the control database. What is written is decided by the caller's function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from bson.binary import Binary
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession

from livedocs.errors import NotFound
from livedocs.model import Grant, GrantKey, grant_document, grant_id, parse_grant
from livedocs.store.audit import Actor, Audit, Entry
from livedocs.store.connection import ACL, MongoDocument
from livedocs.store.failures import translated
from livedocs.store.transactions import Transactions

_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class GrantState:
    """What a change of grants is decided by: every grant of the UUID, in force or not, and the moment."""

    grants: Sequence[Grant]
    now: datetime


class Grants:
    """The grants of every tenant."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._acl = client[control_database][ACL]
        self._transactions = Transactions(client, control_database)
        self._audit = Audit(client, control_database)

    async def of_uuid(self, tenant: str, uuid: UUID) -> list[Grant]:
        """Every grant of that UUID, by subject, in force or not.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_SECONDS):
            return await self._of_uuid(tenant, uuid, None)

    async def _of_uuid(self, tenant: str, uuid: UUID, session: AsyncClientSession | None) -> list[Grant]:
        query = {"_id.tenant": {"$eq": tenant}, "_id.uuid": Binary.from_uuid(uuid)}
        found = await self._acl.find(query, session=session).sort("_id.subject").to_list()
        return [grant for document in found if (grant := parse_grant(document)) is not None]

    async def of_subjects(
        self, tenant: str, subjects: Sequence[str], *, after: UUID | None, limit: int
    ) -> list[Grant]:
        """The grants those subjects hold, in force or not, in the order of their UUIDs.

        Args:
            tenant: whose grants.
            subjects: at least one.
            after: only UUIDs behind this one.
            limit: number of UUIDs; all the grants of at least so many are among the answer, if there are so many.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        query: dict[str, Any] = {"_id.tenant": {"$eq": tenant}, "_id.subject": {"$in": list(subjects)}}
        if after is not None:
            query["_id.uuid"] = {"$gt": Binary.from_uuid(after)}
        with translated(seconds=_SECONDS):
            # A UUID has at most one grant for each subject, so this many grants span that many UUIDs.
            cursor = self._acl.find(query).sort("_id.uuid").limit(limit * len(subjects))
            found = await cursor.to_list()
        return [grant for document in found if (grant := parse_grant(document)) is not None]

    async def set(self, key: GrantKey, actor: Actor, decide: Callable[[GrantState], Grant]) -> tuple[Grant, bool]:
        """Read the UUID's grants, let `decide` say which grant `key` is to have, write it; in one transaction.

        `decide` may be called several times, each time with what is true then. What it raises is raised, and
        nothing is written.

        Returns:
            The grant now in force, and whether there was none before.

        Raises:
            Unavailable: MongoDB cannot be written now.
        """

        async def body(session: AsyncClientSession) -> tuple[Grant, bool]:
            grant = decide(await self._state(key, session))
            return grant, await self._set(session, actor, grant)

        return await self._transactions.run(key.tenant, key.uuid, body)

    async def put(self, grant: Grant, actor: Actor) -> bool:
        """Put a grant into force whatever there is now; whether the subject had none before."""
        _, created = await self.set(grant.key, actor, lambda _: grant)
        return created

    async def remove(
        self, key: GrantKey, actor: Actor, check: Callable[[GrantState], None] = lambda _: None
    ) -> None:
        """Take a grant away, unless `check` raises for the UUID's grants as they are; in one transaction.

        Raises:
            NotFound: there is no such grant.
            Unavailable: MongoDB cannot be written now.
        """

        async def body(session: AsyncClientSession) -> None:
            check(await self._state(key, session))
            await self._remove(session, actor, key)

        await self._transactions.run(key.tenant, key.uuid, body)

    async def change(
        self,
        tenant: str,
        uuid: UUID,
        actor: Actor,
        decide: Callable[[GrantState], Sequence[Grant | GrantKey]],
    ) -> list[Grant]:
        """Read the UUID's grants, let `decide` say what is to be written, write all of it; in one transaction.

        A `Grant` is put into force, the grant of a `GrantKey` taken away. Of `decide` holds what `set` says.

        Returns:
            Every grant of the UUID that there is then.

        Raises:
            NotFound: there is no grant of a key that is to be taken away.
            Unavailable: MongoDB cannot be written now.
        """

        async def body(session: AsyncClientSession) -> list[Grant]:
            state = GrantState(await self._of_uuid(tenant, uuid, session), datetime.now(UTC))
            for one in decide(state):
                if isinstance(one, Grant):
                    await self._set(session, actor, one)
                else:
                    await self._remove(session, actor, one)
            return await self._of_uuid(tenant, uuid, session)

        return await self._transactions.run(tenant, uuid, body)

    async def _state(self, key: GrantKey, session: AsyncClientSession) -> GrantState:
        return GrantState(await self._of_uuid(key.tenant, key.uuid, session), datetime.now(UTC))

    async def _set(self, session: AsyncClientSession, actor: Actor, grant: Grant) -> bool:
        # Always a replacement: an update event of the change stream would say only which fields differ.
        result = await self._acl.replace_one(
            {"_id": grant_id(grant.key)}, grant_document(grant), upsert=True, session=session
        )
        await self._audit.record(session, actor, grant_set(grant))
        return result.upserted_id is not None

    async def _remove(self, session: AsyncClientSession, actor: Actor, key: GrantKey) -> None:
        result = await self._acl.delete_one({"_id": grant_id(key)}, session=session)
        if not result.deleted_count:
            raise NotFound("The subject has no grant on this UUID.")
        await self._audit.record(session, actor, grant_removed(key))


def grant_set(grant: Grant) -> Entry:
    """What the audit says of a grant put into force."""
    detail: dict[str, Any] = {"role": grant.role.label}
    if grant.expires_at is not None:
        detail["expires_at"] = grant.expires_at
    return Entry("grant.set", grant.key.tenant, grant.key.uuid, grant.key.subject, detail)


def grant_removed(key: GrantKey) -> Entry:
    """What the audit says of a grant taken away."""
    return Entry("grant.remove", key.tenant, key.uuid, key.subject)
