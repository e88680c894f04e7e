"""`livedocs doctor`: does what the settings name exist, is it fit, and what is to be done when not."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import click
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from livedocs.access.issuer import Answer, Issuer
from livedocs.access.keys import KeySet
from livedocs.cli.settings import load, log_errors
from livedocs.config import Settings
from livedocs.errors import AuthUnavailable
from livedocs.model import Tenant
from livedocs.store import migrate
from livedocs.store.connection import ACL, connect
from livedocs.store.tenants import Tenants
from livedocs.telemetry import redact

_OLDEST = (6, 0)
_ACL_INDEXES = (("_id.tenant", "_id.uuid"), ("_id.tenant", "_id.subject"), ("expires_at",))

Client = AsyncMongoClient[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `advice` says what to do; empty when all is well."""

    what: str
    advice: str = ""

    def __str__(self) -> str:
        """A line for the terminal."""
        return f"problem  {self.what}\n         -> {self.advice}" if self.advice else f"ok       {self.what}"


@click.command()
def doctor() -> None:
    """Check the configuration, MongoDB and OAuth; say what to do. Ends with status 1 when there is a problem."""
    settings = load()
    click.echo(Finding("the configuration is complete"))
    log_errors(settings)
    raise SystemExit(asyncio.run(_examine(settings)))


async def _examine(settings: Settings) -> int:
    problems = 0
    for part in (_mongodb, _oauth):
        async for finding in part(settings):
            click.echo(finding)
            problems += bool(finding.advice)
    return 1 if problems else 0


# --- MongoDB ---


async def _mongodb(settings: Settings) -> AsyncIterator[Finding]:
    client = connect(settings, appname="livedocs-doctor")
    try:
        try:
            hello = await client.admin.command("hello")
        except PyMongoError as error:
            reason = redact(str(error)).split(" (configured timeouts", 1)[0]
            yield Finding(
                f"MongoDB does not answer: {reason}", "check LIVEDOCS_MONGODB_URI, the network and the servers"
            )
            return
        yield Finding("MongoDB answers")
        build = await client.admin.command("buildInfo")
        yield version_finding(build["versionArray"])
        yield topology_finding(hello)
        for check in (_stream, _oplog, _control_database, _collections):
            try:
                async for finding in check(client, settings):
                    yield finding
            except PyMongoError as error:
                name = check.__name__.strip("_").replace("_", " ")
                yield Finding(
                    f"{name}: {redact(str(error)).split(', full error', 1)[0]}",
                    "give the server's MongoDB user the roles that ops/README.md lists",
                )
    finally:
        await client.close()


def version_finding(version: list[int]) -> Finding:
    """What to say of MongoDB's `versionArray`."""
    what = f"MongoDB is version {'.'.join(map(str, version[:3]))}"
    return Finding(what, "" if tuple(version[:2]) >= _OLDEST else "livedocs needs 6.0 or newer")


def topology_finding(hello: Mapping[str, Any]) -> Finding:
    """What to say of MongoDB's `hello`: only replica sets and sharded clusters have change streams."""
    if hello.get("msg") == "isdbgrid":
        return Finding("it is a sharded cluster")
    if "setName" in hello:
        return Finding(f"it is the replica set {hello['setName']}")
    return Finding(
        "it is no replica set, or not one yet", "start mongod with --replSet, and run rs.initiate() once"
    )


async def _stream(client: Client, _settings: Settings) -> AsyncIterator[Finding]:
    async with await client.watch([{"$match": {"ns.db": "livedocs-doctor"}}], max_await_time_ms=1) as stream:
        await stream.try_next()
    yield Finding("the user may open a change stream over the whole deployment")


async def _oplog(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    if not (await client.admin.command("hello")).get("setName"):
        return  # a router has no oplog; the shards' is the operators' matter
    oplog = client.local["oplog.rs"]
    ends = [await oplog.find_one({}, {"ts": 1}, sort=[("$natural", order)]) for order in (1, -1)]
    held = ends[1]["ts"].time - ends[0]["ts"].time if ends[0] and ends[1] else 0
    size = await client.local.command("collStats", "oplog.rs")
    yield oplog_finding(held, settings.history_window, full=size["size"] > size["maxSize"] * 0.9)


def oplog_finding(held: float, window: float, *, full: bool) -> Finding:
    """What to say of an oplog that reaches `held` seconds back; one that is not full yet will reach further."""
    what = f"the oplog reaches {held:,.0f} s back, the history window is {window:g} s"
    if held >= window or not full:
        return Finding(what)
    return Finding(what, "enlarge it (replSetResizeOplog), or lower LIVEDOCS_HISTORY_WINDOW")


async def _control_database(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    pending = [name for name, applied in await asyncio.to_thread(migrate.status, settings) if not applied]
    yield Finding(
        f"migrations pending: {', '.join(pending)}" if pending else "every migration is applied",
        "run: livedocs migrate" if pending else "",
    )
    if pending:
        return
    there = await _indexes(client, settings.control_database, ACL)
    missing = [fields for fields in _ACL_INDEXES if not any(index[: len(fields)] == fields for index in there)]
    yield Finding(
        "the acl collection lacks indexes" if missing else "the indexes of the control database are there",
        f"recreate those on {missing}; migration 0001 shows how" if missing else "",
    )


async def _indexes(client: Client, database: str, collection: str) -> list[tuple[str, ...]]:
    information = await client[database][collection].index_information()
    return [tuple(field for field, _ in index["key"]) for index in information.values()]


async def _collections(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    tenants = await Tenants(client, settings.control_database).all()
    if not tenants:
        yield Finding("no tenant is registered", "run: livedocs tenant create SLUG --collection NAME")
    for tenant in tenants:
        yield await _tenant(client, tenant)


async def _tenant(client: Client, tenant: Tenant) -> Finding:
    missing = [
        name
        for name, key in sorted(tenant.collections.items())
        if key == "uuid" and not any(i[:1] == ("uuid",) for i in await _indexes(client, tenant.database, name))
    ]
    if not missing:
        return Finding(f"tenant {tenant.slug}: its {len(tenant.collections)} collections are indexed")
    again = "; ".join(f"livedocs tenant register {tenant.slug} {name}" for name in missing)
    return Finding(f"tenant {tenant.slug}: no index on uuid in {', '.join(missing)}", f"run: {again}")


# --- OAuth ---


async def _oauth(settings: Settings) -> AsyncIterator[Finding]:
    issuer = Issuer(settings, now=lambda: datetime.now(UTC))
    try:
        try:
            metadata = await issuer.metadata()
        except AuthUnavailable:
            yield Finding(
                "the OAuth service's metadata is not to be had, or names another issuer",
                "check LIVEDOCS_OAUTH_ISSUER, letter for letter: ISSUER/.well-known/openid-configuration",
            )
            return
        yield Finding("the OAuth service's metadata names the issuer")
        if settings.oauth_mode != "introspect":
            yield await _keys(settings, issuer)
        endpoint = settings.oauth_introspection_url or metadata.introspection_endpoint
        if settings.oauth_mode == "jwt":
            yield Finding("tokens are checked by signature alone: a revocation is not seen before they end")
        elif not endpoint:
            yield Finding(
                "the OAuth service names no introspection endpoint", "set LIVEDOCS_OAUTH_INTROSPECTION_URL"
            )
        else:
            # A token that nobody has.
            form = urlencode({"token": secrets.token_urlsafe(24), "token_type_hint": "access_token"})
            yield introspection_finding(await issuer.post(endpoint, form))
        complete = metadata.authorization_endpoint and metadata.token_endpoint
        yield Finding(
            "browser login: the endpoints are there" if complete else "browser login: endpoints are missing",
            "" if complete else "the provider's metadata must name authorization_endpoint and token_endpoint",
        )
    finally:
        await issuer.aclose()


async def _keys(settings: Settings, issuer: Issuer) -> Finding:
    keys = KeySet(issuer, now=lambda: datetime.now(UTC), url=settings.oauth_jwks_url)
    try:
        found = await keys.any()
    finally:
        await keys.aclose()
    return Finding(
        "the issuer's key set holds keys for signatures" if found else "the issuer's key set is not to be had",
        "" if found else "check LIVEDOCS_OAUTH_JWKS_URL, or jwks_uri in the provider's metadata",
    )


def introspection_finding(answer: object) -> Finding:
    """What to say of the answer about a token that nobody has."""
    match answer:
        case Answer(200, {"active": False}):
            return Finding("introspection answers to our own credentials")
        case Answer(401 | 403 as status):
            return Finding(
                f"introspection refuses our own credentials ({status})",
                "check LIVEDOCS_OAUTH_CLIENT_ID, _CLIENT_SECRET, _CLIENT_AUTH, and that it may introspect",
            )
        case Answer(status):
            what = f"introspection answers {status}, not that the token is inactive"
            return Finding(what, "check LIVEDOCS_OAUTH_INTROSPECTION_URL (RFC 7662)")
        case _:
            return Finding("introspection does not answer", "check the network and the OAuth service")
