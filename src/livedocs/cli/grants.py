"""`livedocs grant`: who may see what, set by whoever holds the settings of the server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import click

from livedocs.cli.repositories import ACTOR, as_json, dry_run, json_line, use
from livedocs.errors import InvalidSubject, InvalidUuid
from livedocs.model import Grant, GrantKey, Role, parse_subject, parse_uuid
from livedocs.store.grants import Grants


def uuid_argument(_context: click.Context, _parameter: click.Parameter, value: str) -> UUID:
    """The UUID that an argument is."""
    try:
        return parse_uuid(value)
    except InvalidUuid as error:
        raise click.BadParameter(error.detail) from None


def subject_argument(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """The subject that an argument is."""
    try:
        return parse_subject(value)
    except InvalidSubject as error:
        raise click.BadParameter(error.detail) from None


@click.group()
def grant() -> None:
    """Put, remove and list grants."""


@grant.command()
@click.argument("tenant")
@click.argument("uuid", callback=uuid_argument)
@click.argument("subject", callback=subject_argument)
@click.argument("role", type=click.Choice(Role, case_sensitive=False))
@click.option("--for", "seconds", type=click.FloatRange(min=0, min_open=True), help="Seconds until it ends.")
def put(tenant: str, uuid: UUID, subject: str, role: Role, seconds: float | None) -> None:
    """Give SUBJECT (user:NAME, client:ID, group:NAME, tenant:*) that ROLE on UUID, in place of any other."""
    now = datetime.now(UTC)
    ends = now + timedelta(seconds=seconds) if seconds is not None else None
    new = Grant(GrantKey(tenant, uuid, subject), role, ends, ACTOR.subject, now)
    use(lambda client, control: Grants(client, control).put(new, ACTOR))
    click.echo(f"{subject} is {role.label} of {uuid}")


@grant.command()
@click.argument("tenant")
@click.argument("uuid", callback=uuid_argument)
@click.argument("subject", callback=subject_argument)
@dry_run
def remove(tenant: str, uuid: UUID, subject: str, *, dry_run: bool) -> None:
    """Take SUBJECT's grant on UUID away. Ends with status 1 when there is none."""
    key = GrantKey(tenant, uuid, subject)
    if dry_run:
        held = use(lambda client, control: Grants(client, control).of_uuid(tenant, uuid))
        if key not in {grant.key for grant in held}:
            raise click.ClickException("The subject has no grant on this UUID.")
        click.echo(f"{subject} would have no grant on {uuid}; {len(held) - 1} others would stay")
        return
    use(lambda client, control: Grants(client, control).remove(key, ACTOR))
    click.echo(f"{subject} has no grant on {uuid}")


@grant.command("list")
@click.argument("tenant")
@click.argument("uuid", callback=uuid_argument)
@as_json
def list_(tenant: str, uuid: UUID, *, as_json: bool) -> None:
    """Every grant on UUID: subject, role, end, who granted it."""
    now = datetime.now(UTC)
    for found in use(lambda client, control: Grants(client, control).of_uuid(tenant, uuid)):
        if as_json:
            json_line(
                {
                    "subject": found.key.subject,
                    "role": found.role.label,
                    "expires_at": found.expires_at.isoformat() if found.expires_at else None,
                    "in_force": found.in_force(now),
                    "granted_by": found.granted_by,
                }
            )
            continue
        ends = found.expires_at.isoformat() if found.expires_at else "no end"
        state = "" if found.in_force(now) else "  (ended)"
        click.echo(f"{found.key.subject:<32} {found.role.label:<8} {ends:<34} by {found.granted_by}{state}")
