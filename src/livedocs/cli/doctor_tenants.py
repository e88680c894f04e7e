"""What `livedocs doctor` says of the tenants: their names, their grants, and each registered collection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any

from pymongo import AsyncMongoClient

from livedocs.cli.findings import Finding
from livedocs.config import Settings
from livedocs.model import CollectionKey, Tenant
from livedocs.names import escaped
from livedocs.store.connection import ACL, TENANTS
from livedocs.store.inspection import count_legacy
from livedocs.store.preparation import unsuitable
from livedocs.store.tenants import Tenants

_MOST_LEGACY = 10_000
_MOST_NAMED = 10

Client = AsyncMongoClient[dict[str, Any]]


async def grants(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    """A problem when there are grants that a new tenant would inherit."""
    control = client[settings.control_database]
    known = set(await control[TENANTS].distinct("_id"))
    unknown = sorted(escaped(str(slug)) for slug in set(await control[ACL].distinct("_id.tenant")) - known)
    if unknown:
        yield Finding(
            f"there are grants of tenants that do not exist: {', '.join(unknown[:_MOST_NAMED])}",
            f"delete them from {settings.control_database}.acl: a tenant of that slug cannot be created before",
        )


async def indexes(client: Client, database: str, collection: str) -> list[tuple[str, ...]]:
    """The fields of each index of a collection."""
    information = await client[database][collection].index_information()
    return [tuple(field for field, _ in index["key"]) for index in information.values()]


async def collections(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    """What cannot be served of each tenant as it is now, or that all of it can."""
    tenants = await Tenants(client, settings.control_database).all()
    if not tenants:
        yield Finding("no tenant is registered", "run: livedocs tenant create SLUG --collection NAME")
    for finding in alias_findings(tenants):
        yield finding
    for tenant in tenants:
        async for finding in _tenant(client, tenant):
            yield finding


def alias_findings(tenants: Collection[Tenant]) -> Iterator[Finding]:
    """A problem for each name that two tenants have in tokens; two commands at once do not see each other."""
    slugs = {tenant.slug for tenant in tenants}
    holders: dict[str, list[str]] = {}
    for tenant in tenants:
        for name in tenant.aliases:
            holders.setdefault(name, []).append(tenant.slug)
    for name, named in sorted(holders.items()):
        meant = sorted({*named, *({name} & slugs)})
        if len(meant) > 1:
            yield Finding(
                f"the name {escaped(name)} in a token means several tenants: {', '.join(meant)}",
                f"run: livedocs tenant alias {named[0]}, with all aliases of {named[0]} but this one",
            )


async def _tenant(client: Client, tenant: Tenant) -> AsyncIterator[Finding]:
    """Each collection that cannot be served as it is now: MongoDB may have changed since it was registered."""
    database = client[tenant.database]
    listed = {found["name"]: found async for found in await database.list_collections()}
    problems = False
    for name, key in sorted(tenant.collections.items()):
        found = listed.get(name)
        # A view has none, and must not be asked.
        has_indexes = found is not None and unsuitable(found) is None
        fields = await indexes(client, tenant.database, name) if has_indexes else []
        finding = collection_finding(tenant.slug, name, key, found, fields)
        if not finding.advice:
            legacy = await count_legacy(database[name], key, most=_MOST_LEGACY)
            finding = legacy_finding(tenant.slug, name, key, legacy)
        if finding.advice:
            problems = True
            yield finding
    if not problems:
        yield Finding(f"tenant {tenant.slug}: its {len(tenant.collections)} collections can be streamed")


def collection_finding(
    slug: str,
    name: str,
    key: CollectionKey,
    listed: Mapping[str, Any] | None,
    indexes: Collection[tuple[str, ...]],
) -> Finding:
    """What to say of a registered collection.

    Args:
        slug: the tenant's.
        name: the collection's.
        key: where its documents hold their UUID.
        listed: the collection as `listCollections` shows it; None: it is not there.
        indexes: the fields of each of its indexes.
    """
    what, again = f"tenant {slug}: {name}", f"run: livedocs tenant register {slug} {name} --key {key}"
    if listed is None:
        return Finding(f"{what} does not exist", again)
    reason = unsuitable(listed)
    if reason is not None:
        return Finding(f"{what} cannot be streamed ({reason})", "replace it by a collection that is none")
    if key == "uuid" and not any(fields[:1] == ("uuid",) for fields in indexes):
        return Finding(f"{what} has no index on uuid", again)
    if key == "uuid" and not listed["options"].get("changeStreamPreAndPostImages", {}).get("enabled"):
        return Finding(f"{what} keeps no pre-images: a delete may not reach its room", again)
    return Finding(f"{what} can be streamed")


def legacy_finding(slug: str, name: str, key: CollectionKey, count: int) -> Finding:
    """What to say of a registered collection with so many legacy UUIDs; counted up to `_MOST_LEGACY`."""
    what = f"tenant {slug}: {name}"
    if not count:
        return Finding(f"{what} can be streamed")
    many = f"{count:,}{' or more' if count == _MOST_LEGACY else ''}"
    return Finding(
        f"{what} holds {many} legacy UUIDs (Binary subtype 3) in {key}: those documents are not streamed",
        "write them as Binary subtype 4, as drivers do with the UUID representation `standard`",
    )
