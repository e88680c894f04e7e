"""`livedocs audit`: what was done in a tenant, read by whoever holds the settings of the server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click
from pymongo import AsyncMongoClient

from livedocs.cli.repositories import as_json, listed, use
from livedocs.codec import extjson
from livedocs.errors import InvalidUuid, NotFound
from livedocs.model import parse_uuid
from livedocs.store.audit import ACTIONS
from livedocs.store.audit_log import AuditLog, Recorded, Search
from livedocs.store.tenants import Tenants

_PAGE = 500
_FORMS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"]


def _uuid(_context: click.Context, _parameter: click.Parameter, value: str | None) -> UUID | None:
    try:
        return None if value is None else parse_uuid(value)
    except InvalidUuid as error:
        raise click.BadParameter(error.detail) from None


def _utc(_context: click.Context, _parameter: click.Parameter, value: datetime | None) -> datetime | None:
    if value is None:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


@click.command()
@click.argument("tenant")
@click.option("--actor", help="Actor: user:NAME or client:ID.")
@click.option("--action", type=click.Choice(ACTIONS), help="Action.")
@click.option("--uuid", callback=_uuid, help="UUID whose grants or documents were changed.")
@click.option("--subject", help="Subject of the grant or session.")
@click.option(
    "--since",
    type=click.DateTime(_FORMS),
    metavar="TIME",
    callback=_utc,
    help="At or after this time: 2026-01-02 or 2026-01-02T03:04:05; UTC unless it has an offset.",
)
@click.option("--until", type=click.DateTime(_FORMS), metavar="TIME", callback=_utc, help="Before this time.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Maximum number of entries."
)
@as_json
def audit(tenant: str, limit: int, *, as_json: bool, **members: Any) -> None:
    """Print the audit log of TENANT, newest first: time, actor, action, object."""
    shown = _members if as_json else _line

    async def search(client: AsyncMongoClient[dict[str, Any]], control: str) -> None:
        audit, before, left = AuditLog(client, control), None, limit
        # What was done in a tenant is on record after its end.
        known = bool(await audit.search(tenant, Search(), before=None, limit=1))
        if not known and await Tenants(client, control).get(tenant) is None:
            raise NotFound("There is no tenant with this slug, and never was.", slug=tenant)
        while left > 0:
            # A page at a time: neither a long log nor a slow terminal has all of it in memory.
            page = await audit.search(tenant, Search(**members), before=before, limit=min(_PAGE, left))
            for entry in page:
                click.echo(shown(entry))
            if left == limit:
                listed(len(page), "entries", as_json=as_json)
            if len(page) < _PAGE:
                return
            before, left = page[-1].cursor, left - len(page)

    use(search)


def _line(entry: Recorded) -> str:
    what = " ".join(str(part) for part in (entry.uuid, entry.subject) if part is not None)
    more = " ".join(f"{name}={value}" for name, value in entry.detail.items())
    at = entry.at.isoformat(timespec="milliseconds")
    return f"{at}  {entry.actor:<24} {entry.action:<24} {what}  {more}".rstrip()


def _members(entry: Recorded) -> str:
    members = {
        "at": entry.at.isoformat(timespec="milliseconds"),
        "actor": entry.actor,
        "address": entry.address,
        "action": entry.action,
        "uuid": str(entry.uuid) if entry.uuid is not None else None,
        "subject": entry.subject,
        "detail": entry.detail,
    }
    return extjson.dumps(members).decode()
