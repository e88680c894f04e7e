"""`livedocs grant`: who may see what, set by whoever holds the settings of the server."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click
from pymongo import AsyncMongoClient

from livedocs.access.ownership import transfer
from livedocs.cli.grant_requests import bulk, explain
from livedocs.cli.repositories import ACTOR, as_json, dry_run, json_line, listed, use
from livedocs.cli.settings import load
from livedocs.errors import Conflict, InvalidSubject, InvalidUuid
from livedocs.model import Grant, GrantKey, Role, parse_stored_subject, parse_subject, parse_uuid
from livedocs.names import escaped
from livedocs.store.grant_book import GrantBook
from livedocs.store.grant_reads import Manager
from livedocs.store.grants import Grants

_PAGE = 500

force = click.option(
    "--force",
    is_flag=True,
    help="Allow removing the last owner, and more grants than LIVEDOCS_MAX_GRANTS_PER_UUID.",
)
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


def stored_subject_argument(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The subject of a grant that there may be, also one that could not be set any more."""
    try:
        return None if value is None else parse_stored_subject(value)
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
@click.option(
    "--for", "seconds", type=click.FloatRange(min=0, min_open=True), help="Seconds until the grant expires."
)
@force
def set_(tenant: str, uuid: UUID, subject: str, role: Role, seconds: float | None, *, force: bool) -> None:
    """Give SUBJECT (user:NAME, client:ID, group:NAME, tenant:*) the role ROLE on UUID, replacing any other."""
    now = datetime.now(UTC)
    ends = now + timedelta(seconds=seconds) if seconds is not None else None
    new = Grant(GrantKey(tenant, uuid, subject), role, ends, ACTOR.subject, now)

    def decide(book: GrantBook) -> Grant:
        book.require_room(subject)
        _keep_an_owner(book, subject, new, force=force)
        return new

    operator = _operator(force=force)
    use(lambda client, control: Grants(client, control).set(new.key, operator, ACTOR, decide), tenant=tenant)
    click.echo(f"{subject} is {role.label} of {uuid}")


@grant.command()
@click.argument("tenant")
@click.argument("uuid", callback=uuid_argument)
@click.argument("subject", callback=stored_subject_argument)
@force
@dry_run
def revoke(tenant: str, uuid: UUID, subject: str, *, force: bool, dry_run: bool) -> None:
    """Remove SUBJECT's grant on UUID. Exits with status 1 if there is none."""
    key = GrantKey(tenant, uuid, subject)

    def check(book: GrantBook) -> None:
        _keep_an_owner(book, subject, None, force=force)
        # Else it is refused for that.
        if dry_run and book.get(subject) is not None:
            raise _OnlyAskedError

    async def others(client: AsyncMongoClient[dict[str, Any]], control: str) -> int:
        return sum([one.key != key async for one in _all(Grants(client, control), tenant, uuid)])

    operator = _operator(force=force)
    try:
        use(lambda client, control: Grants(client, control).remove(key, operator, ACTOR, check), tenant=tenant)
    except _OnlyAskedError:
        click.echo(f"{escaped(subject)} would have no grant on {uuid}; {use(others)} others would stay")
    else:
        click.echo(f"{escaped(subject)} has no grant on {uuid}")


class _OnlyAskedError(Exception):
    """Nothing has refused what was only asked about: the transaction ends without it."""


def _operator(*, force: bool = False) -> Manager:
    """Whoever holds the settings manages every grant."""
    most = sys.maxsize if force else load().max_grants_per_uuid
    return Manager((), lambda _book: None, counts=False, most=most)


async def _all(grants: Grants, tenant: str, uuid: UUID) -> AsyncIterator[Grant]:
    """Every grant on the UUID, page by page."""
    after: str | None = None
    while page := await grants.of_uuid(tenant, uuid, after=after, limit=_PAGE):
        for found in page:
            yield found
        after = page[-1].key.subject


def _keep_an_owner(book: GrantBook, subject: str, grant: Grant | None, *, force: bool) -> None:
    if not force and book.ownership_after(subject, grant) < book.ownership:
        raise Conflict(
            "The UUID would be left without an owner that lasts; name another one first, or use --force."
        )


@grant.command("transfer")
@click.argument("tenant")
@click.argument("uuid", callback=uuid_argument)
@click.argument("giver", callback=stored_subject_argument)
@click.argument("taker", callback=subject_argument)
@click.option("--keep", type=_KEPT, help="Role that GIVER keeps.  [default: none]")
@dry_run
def transfer_(tenant: str, uuid: UUID, giver: str, taker: str, keep: Role | None, *, dry_run: bool) -> None:
    """Make TAKER the owner of UUID in place of GIVER, in one step."""
    giver_key, taker_key = GrantKey(tenant, uuid, giver), GrantKey(tenant, uuid, taker)
    operator = _operator()

    def decide(book: GrantBook) -> list[Grant | GrantKey]:
        changes = transfer(book.get(giver), giver_key, taker_key, keep, by=ACTOR.subject, now=book.now)
        book.require_room(taker)
        if dry_run:
            raise _OnlyAskedError
        return changes

    with suppress(_OnlyAskedError):
        use(
            lambda client, control: Grants(client, control).change(
                tenant, uuid, operator, ACTOR, decide, subjects=(giver, taker)
            ),
            tenant=tenant,
        )
    kept = f"; {giver} {'would stay' if dry_run else 'is'} {keep.label}" if keep is not None else ""
    click.echo(f"{taker} {'would own' if dry_run else 'owns'} {uuid}{kept}")


@grant.command("list")
@click.argument("tenant")
@click.argument("uuid", required=False, callback=uuid_argument)
@click.option("--subject", callback=stored_subject_argument, help="List the grants of this subject instead.")
@as_json
def list_(tenant: str, uuid: UUID | None, subject: str | None, *, as_json: bool) -> None:
    """List the grants on UUID, or of a subject: subject or UUID, role, expiry, who granted it."""
    if (uuid is None) == (subject is None):
        raise click.UsageError("Name a UUID, or --subject.")
    now, shown = datetime.now(UTC), 0

    async def every(client: AsyncMongoClient[dict[str, Any]], control: str) -> None:
        nonlocal shown
        grants = Grants(client, control)
        if uuid is not None:
            async for found in _all(grants, tenant, uuid):
                _show(found, escaped(found.key.subject), now, as_json=as_json)
                shown += 1
            return
        after, more = None, True
        while more:
            page = await grants.of_subjects(tenant, [str(subject)], after=after, limit=_PAGE)
            for after, held in page.grants:
                for found in held:
                    _show(found, str(after), now, as_json=as_json)
                    shown += 1
            more = page.more

    use(every, tenant=tenant)
    listed(shown, "grants", as_json=as_json)


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
    click.echo(f"{what:<36} {found.role.label:<8} {ends:<34} by {escaped(found.granted_by)}{state}")
