"""`livedocs doctor`: does what the settings name exist, is it fit, and what is to be done when not."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import click
from pymongo.errors import OperationFailure, PyMongoError

from livedocs.access.issuer import Answer, Issuer
from livedocs.access.keys import KeySet
from livedocs.cli.doctor_tenants import Client, collections, grants, indexes
from livedocs.cli.doctor_tokens import given_token, own_token
from livedocs.cli.findings import Finding
from livedocs.cli.settings import load, log_errors
from livedocs.config import Settings
from livedocs.errors import AuthUnavailable, Unavailable
from livedocs.model import Tenant
from livedocs.mongodb_uri import ignored
from livedocs.store import migrate
from livedocs.store.connection import ACL, connect
from livedocs.store.tenants import Tenants
from livedocs.telemetry import redact

_OLDEST = (6, 0)
# Least seconds that are advised for keeping pre-images: a server that was away for so long still finds them.
_IMAGES_KEPT = 3600
_UNAUTHORIZED = 13
_ACL_INDEXES = (("_id.tenant", "_id.uuid"), ("_id.tenant", "_id.subject"), ("expires_at",))

_NOT_CHECKED = (
    "not checked: LIVEDOCS_OAUTH_AUDIENCE and the claims of tokens; the OAuth service issues none to this client."
    " Give one with --token."
)


@click.command()
@click.option(
    "--token",
    envvar="LIVEDOCS_TOKEN",
    help="Check this access token as the server does.  [env: LIVEDOCS_TOKEN]",
)
def doctor(token: str | None) -> None:
    """Check the configuration, MongoDB and OAuth; say what to do. Ends with status 1 when there is a problem.

    Whether LIVEDOCS_OAUTH_AUDIENCE and the claims are right shows only in a token. Without --token, doctor asks
    the OAuth service for one with the server's own credentials; many services issue none to a client for logins.
    """
    settings = load()
    click.echo(Finding("the configuration is complete"))
    log_errors(settings)
    raise SystemExit(asyncio.run(_examine(settings, token)))


async def _examine(settings: Settings, token: str | None) -> int:
    problems = 0
    for part in (_mongodb(settings), _oauth(settings, token)):
        async for finding in part:
            click.echo(finding)
            problems += bool(finding.advice)
    return 1 if problems else 0


# --- MongoDB ---


def connection_finding(uri: str) -> Finding:
    """What to say of a connection string; it may hold a password, so it is not repeated."""
    found = ignored(uri)
    if not found:
        return Finding("the connection string leaves reads and writes to livedocs")
    return Finding(
        f"the connection string has options that are ignored: {', '.join(found)}",
        "take them out; livedocs reads from the primary what a majority has, and writes to a majority",
    )


async def _mongodb(settings: Settings) -> AsyncIterator[Finding]:
    yield connection_finding(settings.mongodb_uri.get_secret_value())
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
        for check in (_stream, _oplog, _pre_images, _control_database, grants, collections):
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


async def _pre_images(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    try:
        reply = await client.admin.command({"getClusterParameter": "changeStreamOptions"})
    except OperationFailure as error:
        if error.code != _UNAUTHORIZED:
            raise
        yield Finding(
            "whether pre-images expire cannot be read",
            "grant the server's MongoDB user getClusterParameter, as ops/mongodb/roles.json does",
        )
        return
    expiry = reply["clusterParameters"][0]["preAndPostImages"]["expireAfterSeconds"]
    yield pre_images_finding(expiry, settings.history_window)


def pre_images_finding(expiry: object, window: float) -> Finding:
    """What to say of `changeStreamOptions.preAndPostImages.expireAfterSeconds`: seconds, or `off`.

    The parameter is the whole cluster's, and other applications may read pre-images: doctor says what is there.
    """
    enough = max(_IMAGES_KEPT, int(2 * window))
    if not isinstance(expiry, int | float) or isinstance(expiry, bool):
        return Finding(
            "pre-images never expire by age: small changes of large documents fill the disk",
            f"set changeStreamOptions.preAndPostImages.expireAfterSeconds to {enough} or more; it is the whole"
            " cluster's, so ask whoever else reads pre-images there (docs/how-to/operator.md)",
        )
    what = f"pre-images expire after {expiry:,.0f} s, the history window is {window:g} s"
    if expiry >= 2 * window:
        return Finding(what)
    return Finding(
        what, f"raise changeStreamOptions.preAndPostImages.expireAfterSeconds to {enough}, or lower the window"
    )


async def _control_database(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    pending = [name for name, applied in await asyncio.to_thread(migrate.status, settings) if not applied]
    yield Finding(
        f"migrations pending: {', '.join(pending)}" if pending else "every migration is applied",
        "run: livedocs migrate" if pending else "",
    )
    if pending:
        return
    there = await indexes(client, settings.control_database, ACL)
    missing = [fields for fields in _ACL_INDEXES if not any(index[: len(fields)] == fields for index in there)]
    yield Finding(
        "the acl collection lacks indexes" if missing else "the indexes of the control database are there",
        f"recreate those on {missing}; migration 0001 shows how" if missing else "",
    )


# --- OAuth ---


async def _oauth(settings: Settings, token: str | None) -> AsyncIterator[Finding]:
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
        if token is not None:
            for finding in await given_token(settings, issuer, token, await _known_tenants(settings)):
                yield finding
        elif own := await own_token(settings, issuer, metadata):
            yield own
        else:
            click.echo(_NOT_CHECKED, err=True)
    finally:
        await issuer.aclose()


async def _known_tenants(settings: Settings) -> list[Tenant] | None:
    """Every tenant; None when MongoDB cannot be read, of which there is a finding already."""
    client = connect(settings, appname="livedocs-doctor")
    try:
        return await Tenants(client, settings.control_database).all()
    except Unavailable:
        return None
    finally:
        await client.close()


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
