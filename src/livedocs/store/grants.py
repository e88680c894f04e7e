"""Grants in the `acl` collection of the control database. What is written is decided by the caller's function."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
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
from livedocs.store.grant_book import GrantBook
from livedocs.store.grant_reads import GrantReads, Manager
from livedocs.store.one_time import at_one_time
from livedocs.store.transactions import Transactions

_SECONDS = 10.0
_PAGE = 500
# Grants that are read for a page of UUIDs at most: more than the largest number of subjects that anybody has.
_EXAMINED = 12_000
# Of which so many are decoded at a time.
_REPLY = 500


@dataclass(frozen=True, slots=True)
class Held:
    """A page of what some subjects hold: by UUID, in order, and whether there may be more behind the last one."""

    grants: Sequence[tuple[UUID, Sequence[Grant]]]
    more: bool


@dataclass(frozen=True, slots=True)
class Concerning:
    """Grants that could let a subject in.

    Attributes:
        certain: those of the subjects that were asked for.
        groups: the first of those for groups.
    """

    certain: Sequence[Grant]
    groups: Sequence[Grant]


class Grants:
    """The grants of every tenant."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._client = client
        self._acl = client[control_database][ACL]
        self._reads = GrantReads(self._acl)
        self._transactions = Transactions(client, control_database)
        self._audit = Audit(client, control_database)

    async def of_uuid(
        self, tenant: str, uuid: UUID, *, after: str | None = None, limit: int = _PAGE
    ) -> list[Grant]:
        """Grants of that UUID, by subject, in force or not, from behind that subject; at most `limit`.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_SECONDS):
            return await self._reads.page(tenant, uuid, None, after=after, limit=limit)

    async def page(
        self, tenant: str, uuid: UUID, manager: Manager, *, after: str | None, limit: int
    ) -> list[Grant]:
        """The same for whoever manages them, all read at one time.

        Raises:
            LivedocsError: what `manager.require` raises.
            Unavailable: MongoDB cannot be read now.
        """

        async def read(session: AsyncClientSession) -> list[Grant]:
            await self._require(tenant, uuid, manager, session)
            return await self._reads.page(tenant, uuid, session, after=after, limit=limit)

        with translated(seconds=_SECONDS):
            return await at_one_time(self._client, read)

    async def concerning(
        self, tenant: str, uuid: UUID, manager: Manager, subjects: Collection[str], *, groups: int
    ) -> Concerning:
        """The grants of those subjects, and up to so many of those for groups, all read at one time.

        Raises:
            LivedocsError: what `manager.require` raises.
            Unavailable: MongoDB cannot be read now.
        """

        async def read(session: AsyncClientSession) -> Concerning:
            await self._require(tenant, uuid, manager, session)
            certain = await self._reads.of(tenant, uuid, subjects, session)
            return Concerning(
                certain, await self._reads.of_groups(tenant, uuid, groups, session) if groups else ()
            )

        with translated(seconds=_SECONDS):
            return await at_one_time(self._client, read)

    async def require(self, tenant: str, uuid: UUID, manager: Manager) -> None:
        """Let pass whoever manages the UUID's grants.

        Raises:
            LivedocsError: what `manager.require` raises.
            Unavailable: MongoDB cannot be read now.
        """

        async def read(session: AsyncClientSession) -> None:
            await self._require(tenant, uuid, manager, session)

        with translated(seconds=_SECONDS):
            await at_one_time(self._client, read)

    async def _require(self, tenant: str, uuid: UUID, manager: Manager, session: AsyncClientSession) -> None:
        manager.require((await self._reads.books(tenant, {uuid: ()}, manager, session))[uuid])

    async def of_subjects(self, tenant: str, subjects: Sequence[str], *, after: UUID | None, limit: int) -> Held:
        """What those subjects hold, in force or not, in the order of its UUIDs.

        Args:
            tenant: whose grants.
            subjects: at least one.
            after: only UUIDs behind this one.
            limit: UUIDs at most; fewer, though there are more, where very many grants are on the same ones.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        query: dict[str, Any] = {"_id.tenant": {"$eq": tenant}, "_id.subject": {"$in": list(subjects)}}
        if after is not None:
            query["_id.uuid"] = {"$gt": Binary.from_uuid(after)}
        most = min((limit + 1) * len(subjects), _EXAMINED)
        grants: list[Grant] = []
        read, uuids = 0, set[UUID]()
        with translated(seconds=_SECONDS):
            async with self._acl.find(query).sort("_id.uuid").limit(most).batch_size(_REPLY) as cursor:
                async for document in cursor:
                    read += 1
                    grant = parse_grant(document)
                    if grant is None:
                        continue
                    uuids.add(grant.key.uuid)
                    grants.append(grant)
                    if len(uuids) > limit:
                        break
        found = [(uuid, list(group)) for uuid, group in groupby(grants, lambda grant: grant.key.uuid)]
        # Of the last one there may be grants that were not read. No UUID has as many as are examined.
        more = len(uuids) > limit or read == most
        return Held(found[:-1] if more else found, more)

    async def set(
        self, key: GrantKey, manager: Manager, actor: Actor, decide: Callable[[GrantBook], Grant]
    ) -> tuple[Grant, bool]:
        """Let `decide` say which grant `key` is to have, write it; in one transaction.

        `decide` may be called several times, each time with what is true then. What it raises is raised, and
        nothing is written.

        Returns:
            The grant now in force, and whether there was none before.

        Raises:
            Unavailable: MongoDB cannot be written now.
        """

        async def body(session: AsyncClientSession) -> tuple[Grant, bool]:
            grant = decide(await self._book(key, manager, session))
            return grant, await self._set(session, actor, grant)

        return await self._transactions.run(key.tenant, key.uuid, body)

    async def put(self, grant: Grant, actor: Actor) -> bool:
        """Put a grant into force whatever there is now; whether the subject had none before."""

        async def body(session: AsyncClientSession) -> bool:
            return await self._set(session, actor, grant)

        return await self._transactions.run(grant.key.tenant, grant.key.uuid, body)

    async def remove(
        self, key: GrantKey, manager: Manager, actor: Actor, check: Callable[[GrantBook], None]
    ) -> None:
        """Take a grant away, unless `check` raises for the UUID's grants as they are; in one transaction.

        Raises:
            NotFound: there is no such grant.
            Unavailable: MongoDB cannot be written now.
        """

        async def body(session: AsyncClientSession) -> None:
            check(await self._book(key, manager, session))
            await self._remove(session, actor, key)

        await self._transactions.run(key.tenant, key.uuid, body)

    async def change(
        self,
        tenant: str,
        uuid: UUID,
        manager: Manager,
        actor: Actor,
        decide: Callable[[GrantBook], Sequence[Grant | GrantKey]],
        *,
        subjects: Collection[str],
        limit: int = _PAGE,
    ) -> list[Grant]:
        """Let `decide` say what is to be written of the grants of those subjects; all in one transaction.

        A `Grant` is put into force, the grant of a `GrantKey` taken away. Of `decide` holds what `set` says.

        Returns:
            The first page of the grants that there are then.

        Raises:
            NotFound: there is no grant of a key that is to be taken away.
            Unavailable: MongoDB cannot be written now.
        """

        async def body(session: AsyncClientSession) -> list[Grant]:
            books = await self._reads.books(tenant, {uuid: subjects}, manager, session)
            for one in decide(books[uuid]):
                if isinstance(one, Grant):
                    await self._set(session, actor, one)
                else:
                    await self._remove(session, actor, one)
            return await self._reads.page(tenant, uuid, session, after=None, limit=limit)

        return await self._transactions.run(tenant, uuid, body)

    async def _book(self, key: GrantKey, manager: Manager, session: AsyncClientSession) -> GrantBook:
        books = await self._reads.books(key.tenant, {key.uuid: (key.subject,)}, manager, session)
        return books[key.uuid]

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
