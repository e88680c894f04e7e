"""`livedocs import`: a file of documents, a line each, into a running server; after an interruption it goes on."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click
import orjson

from livedocs.cli import service
from livedocs.cli.repositories import Unreachable
from livedocs.errors import InvalidSubject
from livedocs.model import Role, parse_subject

_CHUNK = 2**16
_TRIES = 5
_LONG = re.compile(rb"[0-9]{19}")


def _grant(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> list[dict[str, str]]:
    grants = []
    for value in values:
        subject, _, role = value.rpartition("=")
        if Role.parse(role) is None:
            raise click.BadParameter(f"{value}: SUBJECT=reader, SUBJECT=writer or SUBJECT=owner")
        try:
            grants.append({"subject": parse_subject(subject), "role": role})
        except InvalidSubject as error:
            raise click.BadParameter(error.detail) from None
    return grants


@click.command("import")
@click.argument("collection")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@service.url
@service.token
@click.option(
    "--grant", "grants", multiple=True, callback=_grant, metavar="SUBJECT=ROLE", help="Grant on every document."
)
@click.option("--items", is_flag=True, help="Each line is an item of a bulk request, not a document.")
@click.option("--key", help="Name of the import.  [default: derived from the file's beginning]")
def import_(**options: Any) -> None:
    """Write each line of FILE, a JSON document, into COLLECTION.

    A document's `uuid` says which one it is; without one it gets a new one. The same command, run again after an
    interruption, goes on where the server was; run again after the end, it sends what has been added to the file.
    The server remembers for a day. Ends with status 1 when lines were refused.
    """
    _Import(**options).run()


class _Import:
    """One file on its way."""

    def __init__(
        self,
        collection: str,
        file: Path,
        url: str,
        token: str,
        grants: list[dict[str, str]],
        *,
        items: bool,
        key: str | None,
    ) -> None:
        self._file = file
        self._grants = grants
        self._items = items
        self._path = f"/v1/docs/{collection}:import"
        self._headers = {"Idempotency-Key": key or _key(file, collection)}
        self._client = service.connect(url, token)
        self._refused = 0

    def run(self) -> None:
        """Send what the server does not have yet.

        Raises:
            ClickException: the server refuses, or is out of reach time and again.
            SystemExit: with status 1, when lines were refused.
        """
        lines = None
        with self._client:
            for left in reversed(range(_TRIES)):
                try:
                    lines = self._send(self._position())
                    break
                except Unreachable:
                    if not left:
                        raise
        if lines is None:
            click.echo("nothing is left to do")
            return
        click.echo(f"{lines} lines done, {self._refused} refused")
        if self._refused:
            raise SystemExit(1)

    def _position(self) -> int:
        found = service.ask(self._client, "GET", self._path, headers=self._headers)
        return int(found["lines"])

    def _send(self, first: int) -> int | None:
        """The number of lines done; None when none was left."""
        with self._file.open("rb") as source:
            for _ in range(first):
                source.readline()
            left = self._file.stat().st_size - source.tell()
            if left <= 0:
                return None
            with click.progressbar(length=left, label=self._file.name) as bar:
                done = service.ask(
                    self._client,
                    "POST",
                    self._path,
                    params={"first": first},
                    headers={**self._headers, "Content-Type": "application/x-ndjson"},
                    content=self._body(source, bar),
                )
        for error in done["errors"]:
            # The server counts from 0; people, and their editors, from 1.
            path = f" ({error['path']})" if error.get("path") else ""
            click.echo(f"line {error['line'] + 1}: {error['code']}: {error['detail']}{path}", err=True)
        self._refused += done["failed"]
        return int(done["lines"])

    def _body(self, source: BinaryIO, bar: Any) -> Iterator[bytes]:
        chunk = bytearray()
        for line in source:
            # Some programs begin a file with a byte order mark; the server, too, passes over it.
            text = line.removeprefix(codecs.BOM_UTF8)
            chunk += text if self._items else self._item(text)
            bar.update(len(line))
            if len(chunk) >= _CHUNK:
                yield bytes(chunk)
                chunk.clear()
        yield bytes(chunk)

    def _item(self, line: bytes) -> bytes:
        """The item of a bulk request that a document is; what is no document is for the server to name."""
        try:
            document = orjson.loads(line)
            # orjson makes a double of an integer past 64 bits, which the server is to see, and to refuse.
            long = _LONG.search(line)
            document = json.loads(line) if long else document
        except (orjson.JSONDecodeError, RecursionError):
            return line
        if not isinstance(document, dict):
            return line
        item = {"uuid": document.pop("uuid", None), "document": document, "grants": self._grants}
        return (json.dumps(item).encode() if long else orjson.dumps(item)) + b"\n"


def _key(file: Path, collection: str) -> str:
    """The same for a file that has only grown."""
    with file.open("rb") as source:
        first = source.readline()
    return hashlib.sha256(b"\0".join([collection.encode(), str(file.resolve()).encode(), first])).hexdigest()
