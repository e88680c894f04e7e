"""`livedocs watch`: a document's changes in the terminal, a line for each event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import click
import orjson

from livedocs.cli import service
from livedocs.client import Change, Client, Event, Refused, Retries, Revoked, Snapshot
from livedocs.codec import extjson
from livedocs.errors import ClientError, InvalidUuid, LivedocsError
from livedocs.model import parse_uuid


@click.command()
@click.argument("uuids", metavar="UUID...", nargs=-1, required=True)
@service.url
@service.token
@click.option("--count", type=click.IntRange(1), help="Exit after this many events.")
def watch(uuids: tuple[str, ...], url: str, token: str, count: int | None) -> None:
    """Follow documents: print a snapshot, then each change as it arrives, until Ctrl-C.

    A line is the event's name and its arguments as JSON. After a lost connection it goes on where it was.
    """
    try:
        rooms = [parse_uuid(uuid) for uuid in uuids]
    except InvalidUuid as error:
        raise click.BadParameter(error.detail, param_hint="UUID") from None
    try:
        import websockets  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise click.ClickException(
            "this needs the `client` extra: pip install 'CHECKOUT[client]', with the path of a livedocs checkout"
        ) from None
    try:
        left = asyncio.run(_follow(url, token, rooms, count))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except LivedocsError as error:
        raise click.ClickException(f"{url}: {error.on_socket()}") from None
    except ClientError as error:
        raise click.ClickException(f"{url}: {error}") from None
    if left is not None:
        raise click.ClickException(f"{url}: {left}")


async def _follow(url: str, token: str, rooms: Sequence[UUID], count: int | None) -> str | None:
    """Until enough changes have come; why, if it was before."""
    reason = ""
    # Somebody is looking on: a server that is not there is better said at once.
    async with Client(url, token, retries=Retries(attempts=1)) as client, client.subscribe(rooms) as events:
        async for event in events:
            name, arguments = _told(event)
            click.echo(" ".join([name, *map(_json, arguments)]))
            match event:
                case Change() if count is not None:
                    count -= 1
                    if count == 0:
                        return None
                case Revoked():
                    reason = "revoked"
                case Refused(error=LivedocsError() as error):
                    reason = error.on_socket()
    return reason


def _told(event: Event) -> tuple[str, tuple[dict[str, Any], ...]]:
    """The event's name and its arguments, as docs/socket-protocol.md has them."""
    uuid = {"uuid": str(event.uuid)}
    match event:
        case Change():
            shortened = [{"field": one.field, "newSize": one.size} for one in event.truncated]
            meta = {"op": event.op, "id": event.cursor, "at": event.at, "removed": list(event.removed)}
            return event.collection, (dict(event.fields), {**meta, "truncated": shortened})
        case Snapshot():
            told = {"cursor": event.cursor, "snapshot": event.documents}
            if event.reason == "joined":
                role = {"role": event.role.label} if event.role is not None else {}
                return "$joined", ({**uuid, **role, **told},)
            return "$resync", ({**uuid, "reason": event.reason, **told},)
        case Revoked():
            return "$revoked", ({**uuid, "reason": event.reason},)
        case Refused():
            code = event.error.on_socket() if isinstance(event.error, LivedocsError) else event.error.code
            return "$refused", ({**uuid, "code": code},)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(orjson.loads(extjson.dumps(value)), ensure_ascii=False)
