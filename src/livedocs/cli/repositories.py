"""What the commands that look after tenants and grants share: a connection, and refusals as plain sentences."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import click
from pymongo import AsyncMongoClient

from livedocs.cli.settings import load, log_errors
from livedocs.codec import extjson
from livedocs.errors import LivedocsError, NotFound, Unavailable
from livedocs.store.audit import Actor
from livedocs.store.connection import connect
from livedocs.store.tenants import Tenants

Result = TypeVar("Result")

ACTOR: Final = Actor("client:livedocs-cli")
"""Who the audit says it was."""


class Unreachable(click.ClickException):
    """Nobody refused: there was nobody to ask. The same command may work later."""

    exit_code = os.EX_UNAVAILABLE


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
"""The option of every command that lists."""

dry_run = click.option("--dry-run", is_flag=True, help="Print what would be removed; change nothing.")
"""The option of every command that destroys."""


def listed(count: int, what: str, *, as_json: bool) -> None:
    """Say so when there was nothing to list; for a person, beside the list."""
    if not count and not as_json:
        click.echo(f"no {what}", err=True)


def json_line(members: Mapping[str, Any]) -> None:
    """Print something listed, for programs; values as everywhere else (Extended JSON)."""
    click.echo(extjson.dumps(members).decode())


def use(
    work: Callable[[AsyncMongoClient[dict[str, Any]], str], Awaitable[Result]], *, tenant: str | None = None
) -> Result:
    """The result of `work`, called with a client and the name of the control database.

    Args:
        work: what is to be done.
        tenant: the slug that the command has been given; nothing is done unless there is such a tenant.

    Raises:
        ClickException: for what the repositories refuse; `Unreachable` when MongoDB cannot be asked.
    """
    settings = load()
    log_errors(settings)

    async def with_client() -> Result:
        client = connect(settings, appname="livedocs-cli")
        try:
            if tenant is not None and await Tenants(client, settings.control_database).get(tenant) is None:
                raise NotFound("There is no tenant with this slug.", slug=tenant)
            return await work(client, settings.control_database)
        finally:
            await client.close()

    try:
        return asyncio.run(with_client())
    except Unavailable as error:
        raise Unreachable(error.detail) from None
    except LivedocsError as error:
        named = ", ".join(f"{name} {value}" for name, value in error.data.items())
        raise click.ClickException(f"{error.detail} ({named})" if named else error.detail) from None
