"""The route that takes any number of documents, a line each, in bounded memory, and can go on after a cut."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_response, tag

from livedocs.access.authenticate import TenantLookup
from livedocs.errors import (
    BadRequest,
    DocumentTooLarge,
    Forbidden,
    InvalidToken,
    TenantSuspended,
    Unavailable,
    UnsupportedMediaType,
)
from livedocs.http import bulk_rules as rules
from livedocs.http import pacing
from livedocs.http.bodies import json_answer, parse_key
from livedocs.http.caller import Caller, caller
from livedocs.http.confinement import granting
from livedocs.http.documents import tenant_collection
from livedocs.http.shapes import ImportDone, ImportPosition, ImportQuery
from livedocs.store.batches import MOST, Batches
from livedocs.store.documents import Documents
from livedocs.store.replays import Once, Replays

MEDIA_TYPES = frozenset({"application/x-ndjson", "application/jsonl"})
_BATCH_BYTES = 4 * 2**20
_SILENCE = 30.0
_MOST_ERRORS = 100


@dataclass
class _Report:
    """What has become of the lines so far; `lines` is the number of the next one."""

    lines: int
    succeeded: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def members(self) -> dict[str, Any]:
        return {"lines": self.lines, "succeeded": self.succeeded, "failed": self.failed, "errors": self.errors}

    def add(self, results: Sequence[dict[str, Any]]) -> None:
        for result in results:
            if "code" not in result:
                self.succeeded += 1
            else:
                self.failed += 1
                if len(self.errors) < _MOST_ERRORS:
                    self.errors.append({"line": self.lines, **result})
            self.lines += 1


def blueprint(
    batches: Batches, documents: Documents, replays: Replays, max_bytes: int, tenants: TenantLookup
) -> Blueprint:
    """`/v1/docs/{collection}:import`.

    Args:
        batches: the store's writes of many items.
        documents: the store's documents.
        replays: remembers how far an import has come.
        max_bytes: most bytes of a document as BSON.
        tenants: as they are now; an import may take longer than a tenant's good standing.
    """
    routes = Blueprint("imports", __name__, url_prefix="/v1/docs")

    @routes.get("/<collection>:import")
    @tag(["documents"])
    @document_response(ImportPosition)
    async def import_position(collection: str) -> Response:
        """How many lines of the import with this `Idempotency-Key` are done: the `first` to go on with."""
        who, once = _import(collection)
        if once is None:
            raise BadRequest("Name the import with an Idempotency-Key.")
        return json_answer({"lines": await replays.position(who.tenant.slug, once)})

    @routes.post("/<collection>:import")
    @tag(["documents"])
    @document_querystring(ImportQuery)
    @document_response(ImportDone)
    async def import_documents(collection: str) -> Response:
        """Write any number of documents, one on each line, as they arrive.

        A line is an item of a bulk request; blank lines count and do nothing. With an `Idempotency-Key` an import
        that was cut off can go on: ask where with GET, and send the rest with `first`, the number of its first
        line, counted from 0. Lines sent twice write the same document, also those without a `uuid`. `errors` has
        the first 100 lines that were refused; a refusal of the whole has `lines`, what was done before it.
        """
        who, once = _import(collection)
        if request.mimetype not in MEDIA_TYPES:
            raise UnsupportedMediaType(accepts=sorted(MEDIA_TYPES))
        report = _Report(_first(request.args.get("first")))
        if once is not None:
            await replays.claim(who.tenant.slug, once)
        most = who.limit("max_document_bytes", max_bytes)
        async for lines in _batches(_chunks(), 3 * most + 65536, report):
            _still_welcome(who, collection, tenants, report)
            parsed = await asyncio.to_thread(_parse, lines, report.lines, most, _seed(who, collection, once))
            items = [item for item in parsed if isinstance(item, rules.UpsertItem)]
            granter = await granting(documents, who, [item.uuid for item in items if item.grants])
            upserts = [
                rules.upsert(item, who.tenant.slug, who.principal, granter(item.uuid), most) for item in items
            ]
            results = await batches.upsert(who.tenant, collection, who.principal.subjects, who.actor, upserts)
            gone = next((result for result in results if isinstance(result, Unavailable)), None)
            if gone is not None:
                # Some of the batch may be written; sent again it writes the same.
                raise Unavailable(gone.detail, retry_after=gone.retry_after, lines=report.lines)
            report.add(_results(parsed, results))
            if once is not None:
                await replays.advance(who.tenant.slug, once, report.lines)
        return json_answer(report.members)

    return routes


def _import(collection: str) -> tuple[Caller, Once | None]:
    who = caller()
    tenant_collection(who, collection)
    key = parse_key(request.headers.get("Idempotency-Key"))
    return who, None if key is None else Once(who.principal.subject, key, f"import {collection}")


def _seed(who: Caller, collection: str, once: Once | None) -> str | None:
    return None if once is None else "\n".join((who.tenant.slug, collection, once.subject, once.key))


def _first(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadRequest("first is the number of a line, counted from 0.", first=text)
    return int(text)


def _still_welcome(who: Caller, collection: str, tenants: TenantLookup, report: _Report) -> None:
    """An import may outlive its token and its tenant's good standing; what they allowed it must not."""
    tenant = tenants.get(who.tenant.slug)
    if tenant is None or not tenant.active:
        raise TenantSuspended(lines=report.lines)
    confined_to = tenant.confines(who.principal.subject)
    if confined_to is not None and collection not in confined_to:
        raise Forbidden("This service is confined to other collections.", lines=report.lines)
    if who.principal.expires_at <= datetime.now(UTC):
        raise InvalidToken(lines=report.lines)


async def _chunks() -> AsyncIterator[bytes]:
    """The body as it comes; what was taken makes room for more."""
    pace: pacing.Pace = cast("dict[str, Any]", request.scope)[pacing.KEY]
    body = aiter(request.body)
    while True:
        try:
            async with asyncio.timeout(_SILENCE):
                chunk = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise BadRequest("Nothing has come for too long.") from None
        pace.taken(len(chunk))
        yield chunk


async def _batches(chunks: AsyncIterator[bytes], longest: int, report: _Report) -> AsyncIterator[list[bytes]]:
    """Lines in batches that a transaction and the memory can hold."""
    rest, lines, size = b"", list[bytes](), 0
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            lines.append(line)
            size += len(line)
            if len(lines) == MOST or size >= _BATCH_BYTES:
                yield lines
                lines, size = [], 0
        if len(rest) > longest:
            raise DocumentTooLarge("A line is too long.", lines=report.lines)
    if rest:
        lines.append(rest)
    if lines:
        yield lines


def _parse(lines: Sequence[bytes], first: int, most: int, seed: str | None) -> list[Any]:
    now = datetime.now(UTC)
    if first == 0:
        # A file's byte order mark (RFC 8259, 8.1, lets us pass over it).
        lines = [lines[0].removeprefix(codecs.BOM_UTF8), *lines[1:]]
    return [
        rules.parse_line(line, now, most, rules.spare(seed, first + place)) for place, line in enumerate(lines)
    ]


def _results(parsed: Sequence[Any], results: Sequence[Any]) -> list[dict[str, Any]]:
    """A result for each line; a blank one has gone well."""
    woven = iter(rules.woven([item for item in parsed if item is not None], results, rules.written)["results"])
    return [{} if item is None else next(woven) for item in parsed]
