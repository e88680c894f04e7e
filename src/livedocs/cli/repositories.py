"""What the commands that look after tenants and grants share: a connection, and refusals as plain sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
from pymongo import AsyncMongoClient

from livedocs.cli.settings import load, log_errors
from livedocs.errors import LivedocsError
from livedocs.store.connection import connect

Result = TypeVar("Result")


def use(work: Callable[[AsyncMongoClient[dict[str, Any]], str], Awaitable[Result]]) -> Result:
    """The result of `work`, called with a client and the name of the control database.

    Raises:
        ClickException: for what the repositories refuse.
    """
    settings = load()
    log_errors(settings)

    async def with_client() -> Result:
        client = connect(settings, appname="livedocs-cli")
        try:
            return await work(client, settings.control_database)
        finally:
            await client.close()

    try:
        return asyncio.run(with_client())
    except LivedocsError as error:
        named = ", ".join(f"{name} {value}" for name, value in error.data.items())
        raise click.ClickException(f"{error.detail} ({named})" if named else error.detail) from None
