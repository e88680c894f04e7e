"""`livedocs grant`: who may see what, set by whoever holds the settings of the server."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click
from pymongo import AsyncMongoClient

from livedocs.access.ownership import ownership, transfer
from livedocs.cli.grant_requests import bulk, explain
from livedocs.cli.repositories import ACTOR, as_json, dry_run, json_line, use
from livedocs.errors import Conflict, InvalidSubject, InvalidUuid
from livedocs.model import Grant, GrantKey, Role, parse_subject, parse_uuid
from livedocs.store.grants import Grants, GrantState

_PAGE = 500

force = click.option("--force", is_flag=True, help="Even if nobody is left to own it.")
_KEPT = click.Choice([Role.READER, Role.WRITER], case_sensitive=False)


def uuid_argument(_context: click.Context, _parameter: click.Parameter, value: str | None) -> UUID | None:
    """The UUID that an argument is."""
    try:
        return None if value is None else parse_uuid(value)
    except InvalidUuid as error:
        raise click.BadParameter(error.detail) from None


def subject_argument(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The subject that an argument is."""
    try:
        return None if value is None else parse_subject(value)
    except InvalidSubject as error:
        raise click.BadParameter(error.detail) from None


@click.group()
def grant() -> None:
    """Set, revoke, list, explain and transfer grants."""


grant.add_command(explain)
grant.add_command(bulk)


@grant.command("set")
@click.argument("tenant")
@click.argument("uuid", callback=uuid_argument)
@click.argument("subject", callback=subject_argument)
@click.argument("role", type=click.Choice(Role, case_sensitive=False))
@click.option("--for", "seconds", type=click.FloatRange(min=0, min_open=True), help="Seconds until it ends.")
@force
def set_(tenant: str, uuid: UUID, subject: str, role: Role, seconds: float | None, *, force: bool) -> None:
    """Give SUBJECT (user:NAME, client:ID, group:NAME, tenant:*) that ROLE on UUID, in place of any other."""
    now = datetime.now(UTC)
    ends = now + timedelta(seconds=seconds) if seconds is not None else None
    new = Grant(GrantKey(tenant, uuid, subject), role, ends, ACTOR.subject, now)

    def decide(state: GrantState) -> Grant:
        others = [grant for grant in state.grants if grant.key != new.key]
        _keep_an_owner(state, [*others, new], force=force)
        return new

    use(lambda client, control: Grants(client, control).set(new.key, ACTOR, decide))
    click.echo(f"{subject} is {role.label} of {uuid}")


@grant.command()
@click.argument("tenant")
@click.argument("uuid", callback=uuid_argument)
@click.argument("subject", callback=subject_argument)
@force
@dry_run
def revoke(tenant: str, uuid: UUID, subject: str, *, force: bool, dry_run: bool) -> None:
    """Take SUBJECT's grant on UUID away. Ends with status 1 when there is none."""
    key = GrantKey(tenant, uuid, subject)

    def check(state: GrantState) -> None:
        _keep_an_owner(state, [grant for grant in state.grants if grant.key != key], force=force)

    if dry_run:
        held = use(lambda client, control: Grants(client, control).of_uuid(tenant, uuid))
        if key not in {grant.key for grant in held}:
            raise click.ClickException("The subject has no grant on this UUID.")
        click.echo(f"{subject} would have no grant on {uuid}; {len(held) - 1} others would stay")
        return
    use(lambda client, control: Grants(client, control).remove(key, ACTOR, check))
    click.echo(f"{subject} has no grant on {uuid}")


def _keep_an_owner(state: GrantState, after: Sequence[Grant], *, force: bool) -> None:
    if not force and ownership(after, state.now) < ownership(state.grants, state.now):
        raise Conflict(
            "The UUID would be left without an owner that lasts; name another one first, or use --force."
        )


@grant.command("transfer")
@click.argument("tenant")
@click.argument("uuid", callback=uuid_argument)
@click.argument("giver", callback=subject_argument)
@click.argument("taker", callback=subject_argument)
@click.option("--keep", type=_KEPT, help="What GIVER keeps.  [default: nothing]")
@dry_run
def transfer_(tenant: str, uuid: UUID, giver: str, taker: str, keep: Role | None, *, dry_run: bool) -> None:
    """Make TAKER the owner of UUID in place of GIVER, in one step."""

    def decide(state: GrantState) -> list[Grant | GrantKey]:
        giver_key, taker_key = GrantKey(tenant, uuid, giver), GrantKey(tenant, uuid, taker)
        return transfer(state.grants, giver_key, taker_key, keep, by=ACTOR.subject, now=state.now)

    async def carry_out(client: AsyncMongoClient[dict[str, Any]], control: str) -> None:
        grants = Grants(client, control)
        if dry_run:
            decide(GrantState(await grants.of_uuid(tenant, uuid), datetime.now(UTC)))
        else:
            await grants.change(tenant, uuid, ACTOR, decide)

    use(carry_out)
    kept = f"; {giver} {'would stay' if dry_run else 'is'} {keep.label}" if keep is not None else ""
    click.echo(f"{taker} {'would own' if dry_run else 'owns'} {uuid}{kept}")


@grant.command("list")
@click.argument("tenant")
@click.argument("uuid", required=False, callback=uuid_argument)
@click.option("--subject", callback=subject_argument, help="Every grant of this subject instead.")
@as_json
def list_(tenant: str, uuid: UUID | None, subject: str | None, *, as_json: bool) -> None:
    """Every grant on UUID, or of a subject: who, or on what, role, end, who granted it."""
    if (uuid is None) == (subject is None):
        raise click.UsageError("Name a UUID, or --subject.")
    now = datetime.now(UTC)

    async def listed(client: AsyncMongoClient[dict[str, Any]], control: str) -> None:
        grants = Grants(client, control)
        if uuid is not None:
            for found in await grants.of_uuid(tenant, uuid):
                _show(found, found.key.subject, now, as_json=as_json)
            return
        after: UUID | None = None
        while page := await grants.of_subjects(tenant, [str(subject)], after=after, limit=_PAGE):
            for found in page:
                _show(found, str(found.key.uuid), now, as_json=as_json)
            after = page[-1].key.uuid

    use(listed)


def _show(found: Grant, what: str, now: datetime, *, as_json: bool) -> None:
    if as_json:
        json_line(
            {
                "uuid": str(found.key.uuid),
                "subject": found.key.subject,
                "role": found.role.label,
                "expires_at": found.expires_at.isoformat() if found.expires_at else None,
                "in_force": found.in_force(now),
                "granted_by": found.granted_by,
            }
        )
        return
    ends = found.expires_at.isoformat() if found.expires_at else "no end"
    state = "" if found.in_force(now) else "  (ended)"
    click.echo(f"{what:<36} {found.role.label:<8} {ends:<34} by {found.granted_by}{state}")
