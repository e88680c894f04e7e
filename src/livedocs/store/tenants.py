"""Tenants: their documents in the control database, their own databases, and the copy that requests look at."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, get_args

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.write_concern import WriteConcern

from livedocs.errors import BadRequest, Conflict, NotFound, UnknownCollection, UnsuitableCollection
from livedocs.model import COLLECTION, SLUG, CollectionKey, Tenant, parse_stored_subject, parse_subject
from livedocs.names import escaped, is_name
from livedocs.store.audit import SYSTEM, Actor, Audit, Entry
from livedocs.store.connection import ACL, TENANTS, MongoDocument
from livedocs.store.failures import translated
from livedocs.store.inspection import KeyReport, inspect_key
from livedocs.store.preparation import JsonSchema, prepare
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

_SECONDS = 30.0
# So long a server that starts without MongoDB says nothing.
_READ_SECONDS = 5.0
LIMITS = frozenset(
    {
        "max_document_bytes",
        "max_grants_per_uuid",
        "max_sockets_per_tenant",
        "max_sockets_per_user",
        *(
            f"limit_{kind}_per_{scope}"
            for kind in ("handshakes", "joins", "events", "requests")
            for scope in ("tenant", "user")
        ),
    }
)
"""The limits a tenant may have of its own, each in place of the server's setting of that name.

`max_document_bytes` and `max_grants_per_uuid` only tighten it: what they cost falls on everybody.
"""

_DATABASE = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")
_SYSTEM_DATABASES = frozenset({"admin", "local", "config"})
# The collection is the event's name, and these names mean something else to a Socket.IO client.
_SOCKET_EVENTS = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener", "Check"}
)


def validate_tenant(tenant: Tenant, control_database: str) -> None:
    """Refuse names that MongoDB, a URL or a Socket.IO client could misread.

    Raises:
        BadRequest: naming the member and its value.
    """
    if not SLUG.match(tenant.slug):
        raise BadRequest(
            "A slug is 2 to 39 lower-case letters, digits and hyphens and begins with a letter; an alias may be"
            " any other name that tokens have for the tenant.",
            slug=tenant.slug,
        )
    reserved = {*_SYSTEM_DATABASES, control_database.lower()}
    if not _DATABASE.match(tenant.database) or tenant.database.lower() in reserved:
        raise BadRequest("A tenant's database cannot have this name.", database=tenant.database)
    for name, key in tenant.collections.items():
        validate_collection(name, key)


def validate_collection(name: str, key: str) -> None:
    """Refuse a collection that cannot be registered.

    Raises:
        BadRequest: naming the member and its value.
        UnsuitableCollection: it is one of MongoDB's own.
    """
    if name.startswith("system."):
        raise UnsuitableCollection(
            "Collections whose name begins with system. belong to MongoDB.", collection=name, reason="system"
        )
    if not COLLECTION.match(name) or name in _SOCKET_EVENTS:
        raise BadRequest("A collection of this name cannot be registered.", collection=name)
    if key not in get_args(CollectionKey):
        raise BadRequest("A collection's `key` must be `_id` or `uuid`.", key=key)


def validate_limits(limits: Mapping[str, Any]) -> None:
    """Refuse a limit that nobody would enforce.

    Raises:
        BadRequest: naming it.
    """
    for name, value in limits.items():
        if name not in LIMITS:
            raise BadRequest(f"Unknown limit; expected one of: {', '.join(sorted(LIMITS))}.", path=name)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**53:
            raise BadRequest("A limit must be a whole number of at least 1.", path=name)


def parse_tenant(document: Mapping[str, Any]) -> Tenant | None:
    """A stored tenant, or None when it is not one that could be served."""
    slug, database, stored = (document.get(name) for name in ("_id", "database", "collections"))
    status = document.get("status")
    if not (isinstance(slug, str) and isinstance(database, str) and isinstance(stored, Mapping)):
        return None
    # No set: what another program wrote may be a list, which has no hash.
    if status not in ("active", "suspended"):
        return None
    limits, confined = document.get("limits") or {}, document.get("services") or {}
    # One tenant that nobody can understand must not keep the others from being read.
    if not isinstance(limits, Mapping) or not isinstance(confined, Mapping):
        return None
    collections: dict[str, CollectionKey] = {}
    for name, options in stored.items():
        match options:
            case {"key": "_id" | "uuid" as key}:
                collections[name] = key
            case _:
                return None
    services: dict[str, frozenset[str]] = {}
    for client_id, registration in confined.items():
        match registration:
            case {"collections": list(names)} if all(isinstance(name, str) for name in names):
                services[client_id] = frozenset(names)
            case _:
                # Nobody knows what it was to be confined to.
                services[client_id] = frozenset()
    created_at = document.get("created_at")
    return Tenant(
        slug,
        database,
        collections,
        status,
        dict(limits),
        created_at if isinstance(created_at, datetime) else None,
        services,
        _aliases(document.get("aliases")),
    )


def _aliases(stored: Any) -> frozenset[str]:
    """The names that could be a token's; another program may have written anything."""
    names = stored if isinstance(stored, list) else []
    return frozenset(name for name in names if isinstance(name, str) and is_name(name))


def _stored(tenant: Tenant) -> MongoDocument:
    return {
        "_id": tenant.slug,
        "database": tenant.database,
        "collections": {name: {"key": key} for name, key in tenant.collections.items()},
        "limits": dict(tenant.limits),
        "status": tenant.status,
        "created_at": tenant.created_at or datetime.now(UTC),
    }


class Tenants:
    """The registered tenants. Their collections exist, with what the stream needs, before they are registered."""

    def __init__(self, client: AsyncMongoClient[MongoDocument], control_database: str) -> None:
        self._client = client
        self._control_database = control_database
        self._tenants = client[control_database][TENANTS]
        self._acl = client[control_database][ACL]
        self._audit = Audit(client, control_database)

    async def all(self) -> list[Tenant]:
        """Every tenant that can be served, by slug.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        tenants = []
        with translated(seconds=_READ_SECONDS):
            async for document in self._tenants.find().sort("_id"):
                tenant = parse_tenant(document)
                if tenant is None:
                    _log.error("tenant_malformed", slug=str(document["_id"]))
                else:
                    tenants.append(tenant)
        return tenants

    async def get(self, slug: str) -> Tenant | None:
        """The tenant of that slug.

        Raises:
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_READ_SECONDS):
            document = await self._tenants.find_one({"_id": {"$eq": slug}})
        return parse_tenant(document) if document is not None else None

    async def create(
        self, tenant: Tenant, actor: Actor = SYSTEM, schemas: Mapping[str, JsonSchema] = MappingProxyType({})
    ) -> None:
        """Make the tenant's collections, some with a JSON Schema for their validator, and register it.

        Raises:
            BadRequest: a name that cannot be used, a schema that MongoDB does not take.
            UnsuitableCollection: a view, a time series, a capped collection or one of MongoDB's own.
            Conflict: the slug or the database belongs to a tenant already.
        """
        validate_tenant(tenant, self._control_database)
        with translated(seconds=_SECONDS):
            named = {"$or": [{"_id": {"$eq": tenant.slug}}, {"aliases": {"$eq": tenant.slug}}]}
            if await self._tenants.find_one(named, {"_id": 1}) is not None:
                raise Conflict("A tenant with this slug already exists.", slug=tenant.slug)
            async for other in self._tenants.find({}, {"database": 1}):
                # MongoDB takes two names that differ in case for one database.
                if str(other.get("database", "")).lower() == tenant.database.lower():
                    raise Conflict("This database already belongs to a tenant.", database=tenant.database)
            if await self._acl.find_one({"_id.tenant": {"$eq": tenant.slug}}, {"_id": 1}) is not None:
                # Whoever they name would have rights in the new tenant.
                detail = "There are grants of this slug already: delete them from `acl`, or choose another slug."
                raise Conflict(detail, slug=tenant.slug)
            for name, key in tenant.collections.items():
                await prepare(self._client[tenant.database], name, key, schemas.get(name))
            collections = {"collections": sorted(tenant.collections), "database": tenant.database}
            await self._audited(
                lambda session: self._tenants.insert_one(_stored(tenant), session=session),
                actor,
                Entry("tenant.create", tenant.slug, detail=collections),
            )

    async def register(
        self,
        slug: str,
        collection: str,
        key: CollectionKey,
        actor: Actor = SYSTEM,
        schema: JsonSchema | None = None,
    ) -> None:
        """Stream a further collection of that tenant, which may exist already; without a schema as it is.

        Raises:
            BadRequest: a name that cannot be used, or a collection that cannot be held to the schema.
            UnsuitableCollection: a view, a time series, a capped collection or one of MongoDB's own.
            Conflict: it is registered with the other key.
            NotFound: there is no such tenant.
        """
        validate_collection(collection, key)
        tenant = await self.get(slug)
        if tenant is None:
            raise NotFound("There is no tenant with this slug.", slug=slug)
        if tenant.collections.get(collection, key) != key:
            raise Conflict("The collection is registered with another key.", collection=collection)
        with translated(seconds=_SECONDS):
            await prepare(self._client[tenant.database], collection, key, schema)
            # $setField, for a name may hold a dot, which a path would take apart.
            field = {
                "$setField": {"field": {"$literal": collection}, "input": "$collections", "value": {"key": key}}
            }
            entry = Entry("tenant.register", slug, detail={"collection": collection, "key": key})
            await self._update(slug, [{"$set": {"collections": field}}], actor, entry)

    async def set_status(self, slug: str, status: Literal["active", "suspended"], actor: Actor = SYSTEM) -> None:
        """Let the tenant's people in, or keep them out. A deletion that was asked for is forgotten.

        Raises:
            NotFound: there is no such tenant.
        """
        update = {"$set": {"status": status}, "$unset": {"deletion": ""}}
        entry = Entry("tenant.resume" if status == "active" else "tenant.suspend", slug)
        with translated(seconds=_SECONDS):
            await self._update(slug, update, actor, entry)

    async def set_limits(self, slug: str, limits: Mapping[str, int], actor: Actor = SYSTEM) -> None:
        """Put these limits in place of the tenant's present ones.

        Raises:
            BadRequest: a limit that there is not, or a value that cannot be one.
            NotFound: there is no such tenant.
        """
        validate_limits(limits)
        with translated(seconds=_SECONDS):
            entry = Entry("tenant.limits", slug, detail=dict(limits))
            await self._update(slug, {"$set": {"limits": dict(limits)}}, actor, entry)

    async def set_aliases(self, slug: str, aliases: Collection[str], actor: Actor = SYSTEM) -> None:
        """Have tokens that name the tenant by one of these belong to it, and by no other alias any more.

        Raises:
            BadRequest: text that cannot be a name.
            Conflict: another tenant has that name, as its slug or an alias.
            NotFound: there is no such tenant.
        """
        for name in aliases:
            if not is_name(name):
                raise BadRequest("An alias must be 1 to 255 visible characters.", path=escaped(name))
        with translated(seconds=_SECONDS):
            taken = {"_id": {"$ne": slug}, "$or": [{"_id": {"$in": [*aliases]}}, {"aliases": {"$in": [*aliases]}}]}
            other = await self._tenants.find_one(taken, {"_id": 1})
            if other is not None:
                raise Conflict("Another tenant already has this name.", slug=other["_id"])
            entry = Entry("tenant.aliases", slug, detail={"aliases": sorted(aliases)})
            await self._update(slug, {"$set": {"aliases": sorted(aliases)}}, actor, entry)

    async def confine(
        self, slug: str, client_id: str, collections: Collection[str], actor: Actor = SYSTEM
    ) -> None:
        """Confine a service to these collections of the tenant, in place of those it was confined to.

        Raises:
            InvalidSubject: what cannot be a client id.
            NotFound: there is no such tenant.
            UnknownCollection: one that is not registered.
        """
        subject = parse_subject(f"client:{client_id}")
        tenant = await self.get(slug)
        if tenant is None:
            raise NotFound("There is no tenant with this slug.", slug=slug)
        names = sorted(set(collections))
        for name in names:
            if name not in tenant.collections:
                raise UnknownCollection(collection=name)
        entry = Entry("tenant.confine", slug, subject=subject, detail={"collections": names})
        await self._set_service(slug, client_id, {"collections": names}, actor, entry)

    async def release(self, slug: str, client_id: str, actor: Actor = SYSTEM) -> None:
        """Let a service that was confined touch every collection of the tenant again.

        Raises:
            InvalidSubject: what cannot be a client id.
            NotFound: there is no such tenant.
        """
        # One that was confined before names were held to what they are now must be released as well.
        subject = parse_stored_subject(f"client:{client_id}")
        await self._set_service(slug, client_id, "$$REMOVE", actor, Entry("tenant.release", slug, subject=subject))

    async def _set_service(self, slug: str, client_id: str, value: Any, actor: Actor, entry: Entry) -> None:
        # $setField and $literal, for a client id may hold dots and dollar signs; so may the names of collections.
        value = value if value == "$$REMOVE" else {"$literal": value}
        field = {
            "$setField": {
                "field": {"$literal": client_id},
                "input": {"$ifNull": ["$services", {}]},
                "value": value,
            }
        }
        with translated(seconds=_SECONDS):
            await self._update(slug, [{"$set": {"services": field}}], actor, entry)

    async def inspect(self, slug: str, collection: str) -> KeyReport:
        """Which documents of a registered collection are not streamed.

        Raises:
            NotFound: there is no such tenant or collection.
            Unavailable: MongoDB cannot be read now.
        """
        tenant = await self.get(slug)
        if tenant is None or collection not in tenant.collections:
            raise NotFound("There is no such tenant or collection.", slug=slug, collection=collection)
        with translated(seconds=_SECONDS):
            found = self._client[tenant.database][collection]
            return await inspect_key(found, tenant.collections[collection])

    async def _update(
        self, slug: str, update: Mapping[str, Any] | list[dict[str, Any]], actor: Actor, entry: Entry
    ) -> None:
        async def write(session: AsyncClientSession) -> None:
            result = await self._tenants.update_one({"_id": {"$eq": slug}}, update, session=session)
            if not result.matched_count:
                raise NotFound("There is no tenant with this slug.", slug=slug)

        await self._audited(write, actor, entry)

    async def _audited(
        self, write: Callable[[AsyncClientSession], Awaitable[Any]], actor: Actor, entry: Entry
    ) -> None:
        """Write, and say so in the audit, in one transaction."""

        async def body(session: AsyncClientSession) -> None:
            await write(session)
            await self._audit.record(session, actor, entry)

        async with self._client.start_session() as session:
            await session.with_transaction(body, write_concern=WriteConcern("majority"))


class TenantDirectory:
    """The tenants in memory, as of the last `refresh()`. Satisfies `access.authenticate.TenantLookup`."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        # Replaced as a whole, so that a reader never sees half of a refresh.
        self._by_slug: dict[str, Tenant] = {}
        self._by_database: dict[str, Tenant] = {}
        self._by_alias: dict[str, Tenant] = {}

    async def refresh(self) -> bool:
        """Read all of them again; True when anything has changed.

        Raises:
            Unavailable: MongoDB cannot be read now; the copy stays as it is.
        """
        by_slug = {tenant.slug: tenant for tenant in await self._tenants.all()}
        if by_slug == self._by_slug:
            return False
        self._by_slug = by_slug
        self._by_database = {tenant.database: tenant for tenant in by_slug.values()}
        self._by_alias = {alias: tenant for tenant in by_slug.values() for alias in tenant.aliases}
        return True

    def get(self, slug: str) -> Tenant | None:
        """The tenant of that slug, suspended or not."""
        return self._by_slug.get(slug)

    def named(self, name: str) -> Tenant | None:
        """The tenant that a token means by that name: its slug, or an alias."""
        return self._by_slug.get(name) or self._by_alias.get(name)

    def all(self) -> Collection[Tenant]:
        """Every tenant, suspended ones too."""
        return self._by_slug.values()

    def by_database(self, database: str) -> Tenant | None:
        """The tenant that owns that database."""
        return self._by_database.get(database)
