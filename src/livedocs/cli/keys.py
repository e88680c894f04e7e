"""`livedocs keys`: the keys that cursors and tickets are sealed with. What they are is never shown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from pymongo import AsyncMongoClient

from livedocs.cli.repositories import as_json, json_line, use
from livedocs.model import SealingKey
from livedocs.store.keys import Keys


@click.group()
def keys() -> None:
    """List and rotate the keys that seal cursors and tickets."""


@keys.command("list")
@as_json
def list_(*, as_json: bool) -> None:
    """List the sealing keys: number, when each was made, and when it takes effect."""
    read = use(lambda client, control: Keys(client, control).read())
    for key in read.keys:
        if as_json:
            json_line({"number": key.number, "made": _time(key.made), "begins": _time(key.begins)})
        else:
            click.echo(_line(key))


@keys.command()
def rotate() -> None:
    """Make the next sealing key; it counts from 20 minutes later on, in every server at once.

    Cursors and tickets sealed before stay good. Servers do this by themselves once a week.
    """

    async def next_key(client: AsyncMongoClient[dict[str, Any]], control: str) -> SealingKey:
        stored = Keys(client, control)
        return await stored.rotate(await stored.current())

    click.echo(_line(use(next_key)))


def _line(key: SealingKey) -> str:
    return f"{key.number:<8} made {_time(key.made)}  counts from {_time(key.begins)}"


def _time(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat(timespec="seconds")
