"""The route that takes any number of documents, a line each, in bounded memory, and can go on after a cut."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_response, tag

from livedocs.access.budgets import Hold
from livedocs.access.principal import Principal
from livedocs.config import Settings
from livedocs.errors import BadRequest, DocumentTooLarge, LivedocsError, RateLimited, Unavailable
from livedocs.http import backpressure, bulk_items, document_rules, grant_rules
from livedocs.http import bulk_rules as rules
from livedocs.http.bodies import check_media_type, document_limit, in_flight, json_answer, parse_key
from livedocs.http.bulk_items import Batch, Bounds, Load
from livedocs.http.caller import Caller, caller
from livedocs.http.confinement import granting
from livedocs.http.documents import tenant_collection
from livedocs.http.freshness import recheck
from livedocs.http.shapes import ImportDone, ImportPosition, ImportQuery
from livedocs.model import Role
from livedocs.runtime import slices
from livedocs.store.batches import Batches, Writer
from livedocs.store.documents import Documents
from livedocs.store.idempotency import IdempotencyKeys, Once
from livedocs.telemetry import Metrics

MEDIA_TYPES = frozenset({"application/x-ndjson", "application/jsonl"})
SILENCE = 30.0
"""Seconds that an import may be waited for, beyond those that `SLOWEST` allows for what it has brought."""
SLOWEST = 1024
"""Bytes a second that an import brings at least: one that trickles would stay for ever."""
_MOST_ERRORS = 100
_RETRY_AFTER = 5.0


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


class Running:
    """The imports that are under way in this process, by user and tenant: each holds a connection and a buffer."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._per_user = settings.max_imports_per_user
        self._per_tenant = settings.max_imports_per_tenant
        self._metrics = metrics
        self._users: Counter[tuple[str, str]] = Counter()
        self._tenants: Counter[str] = Counter()

    @contextmanager
    def one_more(self, principal: Principal) -> Iterator[None]:
        """An import, for as long as it takes.

        Raises:
            RateLimited: its user or tenant has as many as allowed.
        """
        tenant, user = principal.tenant, (principal.tenant, principal.subject)
        if self._users[user] >= self._per_user:
            self._refuse("user", self._per_user)
        if self._tenants[tenant] >= self._per_tenant:
            self._refuse("tenant", self._per_tenant)
        self._users[user] += 1
        self._tenants[tenant] += 1
        try:
            yield
        finally:
            # No zeros: these are as large as what they count.
            self._users -= Counter({user: 1})
            self._tenants -= Counter({tenant: 1})

    def _refuse(self, scope: str, limit: int) -> None:
        self._metrics.limits_hit.labels("imports", scope).inc()
        detail = f"This {scope} has {limit} imports under way, the most there may be; wait for one to end."
        raise RateLimited(detail, retry_after=_RETRY_AFTER, limit=f"imports per {scope}")


def blueprint(
    batches: Batches, documents: Documents, idempotency: IdempotencyKeys, settings: Settings, metrics: Metrics
) -> Blueprint:
    """`/v1/docs/{collection}:import`.

    Args:
        batches: the store's writes of many items.
        documents: the store's documents.
        idempotency: remembers how far an import has come.
        settings: `max_document_bytes`, `max_shown_elements`, `max_grants_per_uuid`, `max_imports_*`.
        metrics: `limits_hit`.
    """
    running = Running(settings, metrics)
    routes = Blueprint("imports", __name__, url_prefix="/v1/docs")

    @routes.get("/<collection>:import")
    @tag(["documents"])
    @document_response(ImportPosition)
    async def import_position(collection: str) -> Response:
        """How many lines of the import with this `Idempotency-Key` are done: the `first` to go on with."""
        who, once = _import(collection)
        if once is None:
            raise BadRequest("An import needs an Idempotency-Key header.")
        return json_answer({"lines": await idempotency.position(who.tenant.slug, once)})

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
        check_media_type(MEDIA_TYPES)
        report = _Report(_first(request.args.get("first")))
        if once is not None:
            await idempotency.claim(who.tenant.slug, once)
        most = who.limit("max_document_bytes", settings.max_document_bytes)
        seed = _seed(who, collection, once)
        with running.one_more(who.principal):
            try:
                async for batch in _batches(_chunks(), document_limit(most, 0).bytes, report.lines, in_flight()):
                    await write(collection, batch, most, seed, report)
                    if once is not None:
                        await idempotency.advance(who.tenant.slug, once, report.lines)
            except LivedocsError as error:
                error.data["lines"] = report.lines
                raise
        return json_answer(report.members)

    async def write(collection: str, batch: Batch, most: int, seed: str | None, report: _Report) -> None:
        # Nothing else here need wait for anything: thousands of blank lines would keep everybody waiting.
        await asyncio.sleep(0)
        # An import may outlive its token, its sender's groups and the tenant's good standing.
        who = await recheck()
        tenant_collection(who, collection)
        hold, elements = in_flight(), settings.max_shown_elements
        before = hold.bytes
        bounds = Bounds(most, elements, who.tenant.collections[collection])
        steps = bulk_items.lines(batch, datetime.now(UTC), bounds, seed, hold)
        parsed = await slices.run(steps, sum(map(len, batch.texts)))  # type: ignore[arg-type]  # all are lines
        parsed = [rules.keeping_ownership(item, who.principal) for item in parsed]
        items = [item for item in parsed if isinstance(item, rules.UpsertItem)]
        granter = await granting(documents, who, [item.uuid for item in items if item.grants])
        upserts = [rules.upsert(item, who.tenant.slug, who.principal, granter(item.uuid), most) for item in items]
        access = document_rules.access(who.principal, Role.WRITER)
        manager = grant_rules.manager(
            who.principal, granter, who.limit("max_grants_per_uuid", settings.max_grants_per_uuid)
        )
        results = await batches.upsert(who.tenant, collection, Writer(access, manager, who.actor), upserts)
        gone = next((result for result in results if isinstance(result, Unavailable)), None)
        if gone is not None:
            # Some of the batch may be written; sent again it writes the same.
            raise Unavailable(gone.detail, retry_after=gone.retry_after)
        hold.shrink(hold.bytes - before)
        report.add(_results(parsed, results))

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
        raise BadRequest("`first` must be a line number, counted from 0.", first=text)
    return int(text)


async def _chunks() -> AsyncIterator[bytes]:
    """The body as it comes. Only the time that is spent waiting for it counts."""
    chunks, patience = backpressure.chunks(), SILENCE
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            async with asyncio.timeout(patience):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            detail = f"An import brings at least {SLOWEST} bytes a second. Send the rest with `first`: `lines`."
            raise BadRequest(detail, limit=SLOWEST) from None
        patience = min(SILENCE, patience - (clock() - began) + len(chunk) / SLOWEST)
        yield chunk


async def _batches(chunks: AsyncIterator[bytes], longest: int, first: int, hold: Hold) -> AsyncIterator[Batch]:
    """Lines in batches that a transaction and the memory can hold; what waits counts as in flight."""
    rest, lines, load = bytearray(), list[bytes](), Load()
    async for chunk in chunks:
        hold.grow(len(chunk))
        rest += chunk
        if b"\n" in chunk:
            *whole, rest = rest.split(b"\n")
            for line in whole:
                if not await slices.run(load.takes(line), len(line)):
                    yield Batch(first, lines)
                    hold.shrink(sum(map(len, lines)) + len(lines))
                    first, lines = first + len(lines), []
                lines.append(bytes(line))
        if load.full:
            yield Batch(first, lines)
            hold.shrink(sum(map(len, lines)) + len(lines))
            first, lines = first + len(lines), []
            load.begin()
        if len(rest) > longest:
            raise DocumentTooLarge(f"Each line must be at most {longest} bytes.", limit=longest)
    if rest:
        lines.append(bytes(rest))
    if lines:
        yield Batch(first, lines)


def _results(parsed: Sequence[Any], results: Sequence[Any]) -> list[dict[str, Any]]:
    """A result for each line; a blank one has gone well."""
    woven = iter(rules.woven([item for item in parsed if item is not None], results, rules.written)["results"])
    return [{} if item is None else next(woven) for item in parsed]
