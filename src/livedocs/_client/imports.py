"""Imports: any number of documents in one request, a line each, and on from where one was cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from livedocs._client import answers, batches, codec
from livedocs._client.answers import Failure
from livedocs._client.requests import Request, Requests
from livedocs._client.retries import Retries
from livedocs._client.values import Imported, Item
from livedocs.errors import ClientError, LivedocsError, UnexpectedAnswer

_CHUNK = 2**16
_NDJSON = {"Content-Type": "application/x-ndjson"}

Items = Iterable[Item] | AsyncIterable[Item]


@dataclass(slots=True)
class _Tally:
    lines: int = 0
    succeeded: int = 0
    failed: int = 0
    refused: dict[int, Failure] = field(default_factory=dict)

    def add(self, told: dict[str, Any]) -> None:
        self.lines = told["lines"]
        self.succeeded += told["succeeded"]
        self.failed += told["failed"]
        self.refused |= {one["line"]: answers.refusal(one, one.get("status", 0)) for one in told["errors"]}


class Imports:
    """Writes streams of documents."""

    def __init__(self, requests: Requests, retries: Retries) -> None:
        self._requests = requests
        self._retries = retries

    async def run(self, collection: str, items: Items, *, key: str | None = None) -> Imported:
        """`Client.import_documents`; neither side holds more than a few MiB of the documents."""
        path = f"/v1/docs/{quote(collection, safe='')}:import"
        headers = {"Idempotency-Key": key or str(uuid4())}
        tally, failures = _Tally(), 0
        again = items is not _begun(items)
        while True:
            try:
                if key is not None or failures:
                    tally.lines = await self._position(path, headers)
                tally.add(await self._send(path, headers, items, tally.lines, once=not again))
            except (LivedocsError, ClientError) as error:
                failures += 1
                wait = self._retries.wait(error, failures, repeatable=True) if again else None
                if wait is None:
                    raise
            else:
                return Imported(tally.lines, tally.succeeded, tally.failed, tally.refused)
            await asyncio.sleep(wait)

    async def _send(
        self, path: str, headers: dict[str, str], items: Items, first: int, *, once: bool
    ) -> dict[str, Any]:
        body = partial(lines, items, first)
        request = Request("POST", path, {**headers, **_NDJSON}, body, {"first": first}, once=once)
        answer = await self._requests.once(request)
        told = codec.loads(answer.body)
        if not isinstance(told, dict):
            raise UnexpectedAnswer(answer.status, "not an object")
        return told

    async def _position(self, path: str, headers: dict[str, str]) -> int:
        answer = await self._requests.send(Request("GET", path, headers))
        return int(codec.loads(answer.body)["lines"])


def _begun(items: Items) -> object:
    """The iterator of the items; those that are one themselves can be gone through once only."""
    return aiter(items) if isinstance(items, AsyncIterable) else iter(items)


async def lines(items: Items, first: int) -> AsyncIterator[bytes]:
    """The body of an import: the items from that number on, a line each, in chunks.

    What cannot be written as JSON goes as a line that the server refuses under its number: the others are not
    held up by it.
    """
    chunk, place = bytearray(), 0
    async for item in batches.each(items):
        if place >= first:
            chunk += _line(item) + b"\n"
        place += 1
        if len(chunk) >= _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def _line(item: Item) -> bytes:
    try:
        return codec.dumps(batches.item_members(item))
    except (TypeError, LivedocsError) as error:
        return codec.dumps({"not_sent": str(error)})
