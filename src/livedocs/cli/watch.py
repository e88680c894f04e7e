"""`livedocs watch`: a document's changes in the terminal, a line for each event."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from livedocs.errors import InvalidUuid
from livedocs.model import parse_uuid


@click.command()
@click.argument("uuids", metavar="UUID...", nargs=-1, required=True)
@click.option("--url", default="http://localhost:8000", show_default=True, help="The server.")
@click.option("--token", envvar="LIVEDOCS_TOKEN", required=True, help="An access token.  [env: LIVEDOCS_TOKEN]")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
def watch(uuids: tuple[str, ...], url: str, token: str, count: int | None) -> None:
    """Follow documents: print a snapshot, then each change as it arrives, until Ctrl-C.

    A line is the event's name and its arguments as JSON. After a lost connection it goes on where it was.
    """
    try:
        rooms = [str(parse_uuid(uuid)) for uuid in uuids]
    except InvalidUuid as error:
        raise click.BadParameter(error.detail, param_hint="UUID") from None
    try:
        import aiohttp  # noqa: F401, PLC0415 - the transport of the client, an extra
    except ImportError:
        raise click.ClickException("this needs the `client` extra: pip install 'livedocs[client]'") from None
    try:
        asyncio.run(_Watch(rooms, url, token, count).run())
    except KeyboardInterrupt:
        raise SystemExit(130) from None


class _Watch:
    """One connection, made again when it is lost, and the rooms it is to be in."""

    def __init__(self, rooms: list[str], url: str, token: str, count: int | None) -> None:
        self._rooms = rooms
        self._url = url
        self._token = token
        self._left = count
        # A room's newest cursor, from which a new connection goes on.
        self._cursors: dict[str, str] = {}
        self._refused_with = ""

    async def run(self) -> None:
        """Until enough events have come, or the server refuses.

        Raises:
            ClickException: why the server refuses.
        """
        import socketio  # noqa: PLC0415 - half a second that the other commands need not wait

        self._ended = asyncio.Event()
        self._client = client = socketio.AsyncClient(handle_sigint=False)
        client.on("connect", self._join)
        client.on("connect_error", self._not_connected)
        client.on("*", self._event)
        try:
            await client.connect(self._url, auth={"token": self._token}, transports=["websocket"])
            await self._ended.wait()
        except socketio.exceptions.ConnectionError as error:
            self._refused_with = self._refused_with or str(error) or "no connection"
        finally:
            await client.disconnect()
        if self._refused_with:
            raise click.ClickException(f"{self._url}: {self._refused_with}")

    async def _join(self) -> None:
        for room in self._rooms:
            since = self._cursors.get(room)
            options: dict[str, Any] = {"since": since} if since else {"snapshot": True}
            # A callback, not a call that is awaited: it runs before the events that follow the ack.
            await self._client.emit("JoinRoom", ([room], options), callback=self._joined)

    def _joined(self, ack: Any) -> None:
        for uuid, room in ack["joined"].items():
            self._cursors[uuid] = room["cursor"]
            _print("$joined", {"uuid": uuid, **room})
        for uuid, refusal in ack["refused"].items():
            _print("$refused", {"uuid": uuid, **refusal})
            self._leave(uuid, refusal["code"])

    def _event(self, name: str, *arguments: Any) -> None:
        _print(name, *arguments)
        match name, arguments:
            case "$revoked", ({"uuid": str(uuid)}, *_):
                self._leave(uuid, "revoked")
            case _, ({"uuid": str(uuid)}, {"id": str(cursor)}, *_):
                self._cursors[uuid] = cursor
                self._count()
            case "$resync", ({"uuid": str(uuid), "cursor": str(cursor)}, *_):
                self._cursors[uuid] = cursor

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._ended.set()

    def _leave(self, uuid: str, code: str) -> None:
        """Do not join that room again; without any left there is nothing to wait for."""
        if uuid in self._rooms:
            self._rooms.remove(uuid)
        if not self._rooms:
            self._refused_with = code
            self._ended.set()

    def _not_connected(self, data: Any = None) -> None:
        match data:
            case {"data": {"code": str(code)}} | {"code": str(code)}:
                self._refused_with = code
                self._ended.set()


def _print(name: str, *arguments: Any) -> None:
    click.echo(" ".join([name, *(json.dumps(argument, ensure_ascii=False) for argument in arguments)]))
