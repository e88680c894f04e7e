"""The routes that take many items at once: each is decided, and answered, as if it had come alone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from quart import Blueprint, Response, request
from quart_schema import document_request, document_response, tag

from livedocs.access.budgets import Hold
from livedocs.config import Settings
from livedocs.errors import Forbidden, LivedocsError, Unavailable
from livedocs.http import bulk_items, document_rules, grant_rules
from livedocs.http import bulk_rules as rules
from livedocs.http.bodies import JSON, check_media_type, in_flight, json_answer, parse_key, read_body
from livedocs.http.bulk_items import Batch, Bounds
from livedocs.http.caller import Caller, caller
from livedocs.http.confinement import granting
from livedocs.http.document_turns import DocumentTurns
from livedocs.http.documents import tenant_collection
from livedocs.http.freshness import recheck
from livedocs.http.shapes import BulkDocuments, BulkGrants, BulkResults
from livedocs.model import Role
from livedocs.runtime import slices
from livedocs.store.batches import Batches, Writer
from livedocs.store.documents import Documents
from livedocs.store.idempotency import IdempotencyKeys, Once

Written = tuple[Sequence[Any], Sequence[Any]]
"""The items of a batch, and the results of those that were no `Refused`."""


def blueprint(
    batches: Batches,
    documents: Documents,
    idempotency: IdempotencyKeys,
    settings: Settings,
    *,
    turns: DocumentTurns,
    refused: Callable[[Forbidden], None],
) -> Blueprint:
    """`/v1/docs/{collection}:bulk` and `/v1/grants:bulk`.

    Args:
        batches: the store's writes of many items.
        documents: the store's documents.
        idempotency: remembers what a key stands for.
        settings: `max_document_bytes`, `max_shown_elements`, `max_grants_per_uuid`.
        turns: at reading and writing documents.
        refused: told of a request in which a change of a grant was not allowed.
    """
    routes = Blueprint("bulk", __name__, url_prefix="/v1")

    def grants_allowed(who: Caller) -> int:
        return who.limit("max_grants_per_uuid", settings.max_grants_per_uuid)

    @routes.post("/docs/<collection>:bulk")
    @tag(["documents"])
    @document_request(BulkDocuments)
    @document_response(BulkResults)
    async def write_documents(collection: str) -> Response:
        """Create, replace or merge up to 1,000 documents, each with grants of its own.

        The answer is 200 whatever becomes of the items; each has a result in the request's order, with the
        `status` and, where it was refused, the `code` that a single request would have had. An item is written
        whole, its grants too, or not at all. With an `Idempotency-Key` items without a `uuid` get the same one
        when the same request is sent again; another request with that key is refused with 422.
        """
        who = caller()
        tenant_collection(who, collection)
        most = who.limit("max_document_bytes", settings.max_document_bytes)
        key = parse_key(request.headers.get("Idempotency-Key"))
        body = await _body()
        planned = await slices.run(bulk_items.batches(body), len(body))
        seed = None if key is None else "\n".join((who.tenant.slug, collection, who.principal.subject, key))
        if key is not None:
            # Without the interpreter's lock, so that it holds nobody up.
            fingerprint = await asyncio.to_thread(_fingerprint, collection, body)
            await idempotency.claim(who.tenant.slug, Once(who.principal.subject, key, fingerprint))

        async def write(who: Caller, batch: Batch, hold: Hold) -> Written:
            tenant_collection(who, collection)
            bounds = Bounds(most, settings.max_shown_elements, who.tenant.collections[collection])
            steps = bulk_items.upserts(batch, datetime.now(UTC), bounds, seed, hold)
            parsed = await slices.run(steps, len(body))
            parsed = [rules.keeping_ownership(item, who.principal) for item in parsed]
            items = [item for item in parsed if isinstance(item, rules.UpsertItem)]
            granter = await granting(documents, who, [item.uuid for item in items if item.grants])
            tenant, principal = who.tenant, who.principal
            upserts = [rules.upsert(item, tenant.slug, principal, granter(item.uuid), most) for item in items]
            access = document_rules.access(principal, Role.WRITER)
            manager = grant_rules.manager(principal, granter, grants_allowed(who))
            writer = Writer(access, manager, who.actor)
            async with turns.turn(who):
                return parsed, await batches.upsert(tenant, collection, writer, upserts)

        return json_answer(joined([part async for part in _parts(planned, write, rules.written)]))

    @routes.post("/grants:bulk")
    @tag(["grants"])
    @document_request(BulkGrants)
    @document_response(BulkResults)
    async def change_grants() -> Response:
        """Put up to 1,000 grants into force, or take them away with a `role` of null.

        Items are applied in order; each has a result, as with documents.
        """
        body = await _body()
        planned = await slices.run(bulk_items.batches(body), len(body))

        async def write(who: Caller, batch: Batch, hold: Hold) -> Written:
            parsed = await slices.run(bulk_items.grants(batch, datetime.now(UTC), hold), len(body))
            items = [item for item in parsed if isinstance(item, rules.GrantItem)]
            granter = await granting(documents, who, [item.uuid for item in items])
            changes = [rules.grant_change(item, who.tenant.slug, granter(item.uuid)) for item in items]
            manager = grant_rules.manager(who.principal, granter, grants_allowed(who))
            results = await batches.change_grants(who.tenant.slug, manager, who.actor, changes)
            tried.extend(result for result in results if isinstance(result, Forbidden))
            return parsed, results

        tried: list[Forbidden] = []
        answer = joined([part async for part in _parts(planned, write, rules.granted)])
        if tried:
            # The answer is 200, but somebody tried: once for the request, as with a single grant.
            refused(tried[0])
        return json_answer(answer)

    return routes


async def _body() -> bytearray:
    check_media_type(JSON)
    return await read_body(bulk_items.WHOLE)


async def _parts(
    planned: Sequence[Batch],
    write: Callable[[Caller, Batch, Hold], Awaitable[Written]],
    shown: Callable[[Any, Any], dict[str, Any]],
) -> AsyncIterator[dict[str, Any]]:
    """The answer to each batch. Before each but the first it is asked whether the sender may still go on.

    Once somebody may not, or MongoDB is out of reach, that is the result of everything that is left.
    """
    hold = in_flight()
    stopped: LivedocsError | None = None
    for number, batch in enumerate(planned):
        try:
            if stopped is None:
                who = await recheck() if number else caller()
                before = hold.bytes
                parsed, results = await write(who, batch, hold)
                hold.shrink(hold.bytes - before)
                stopped = next((result for result in results if isinstance(result, Unavailable)), None)
                yield rules.woven(parsed, results, shown)
                continue
        except LivedocsError as error:
            if not number:
                # Nothing is done: it is the answer to the whole.
                raise
            stopped = error
        left: list[Any] = [rules.Refused(stopped) for _ in batch.texts]
        yield rules.woven(left, [], shown)


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The answer to the whole. Pure."""
    return {
        "succeeded": sum(part["succeeded"] for part in parts),
        "failed": sum(part["failed"] for part in parts),
        "results": [result for part in parts for result in part["results"]],
    }


def _fingerprint(collection: str, data: bytearray) -> str:
    """What tells the request from any other that might bear the same key."""
    digest = hashlib.sha256(f"bulk {collection}\n".encode())
    digest.update(data)
    return digest.hexdigest()
