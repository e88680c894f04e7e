"""The routes that take many items at once: each is decided, and answered, as if it had come alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from quart import Blueprint, Response, request
from quart_schema import document_request, document_response, tag

from livedocs.errors import UnsupportedMediaType
from livedocs.http import bulk_rules as rules
from livedocs.http.bodies import JSON, json_answer, parse_key
from livedocs.http.caller import caller
from livedocs.http.documents import tenant_collection
from livedocs.http.shapes import BulkDocuments, BulkGrants, BulkResults
from livedocs.store.batches import Batches

MAX_BYTES = 16 * 2**20
"""Most bytes of a bulk request's body."""


def blueprint(batches: Batches, max_bytes: int) -> Blueprint:
    """`/v1/docs/{collection}:bulk` and `/v1/grants:bulk`.

    Args:
        batches: the store.
        max_bytes: most bytes of a document as BSON.
    """
    routes = Blueprint("bulk", __name__, url_prefix="/v1")

    @routes.post("/docs/<collection>:bulk")
    @tag(["documents"])
    @document_request(BulkDocuments)
    @document_response(BulkResults)
    async def write_documents(collection: str) -> Response:
        """Create, replace or merge up to 1,000 documents, each with grants of its own.

        The answer is 200 whatever becomes of the items; each has a result in the request's order, with the
        `status` and, where it was refused, the `code` that a single request would have had. An item is written
        whole, its grants too, or not at all. With an `Idempotency-Key` items without a `uuid` get the same one
        when the same request is sent again.
        """
        who = caller()
        tenant_collection(who, collection)
        most = who.limit("max_document_bytes", max_bytes)
        key = parse_key(request.headers.get("Idempotency-Key"))
        seed = None if key is None else "\n".join((who.tenant.slug, collection, who.principal.subject, key))
        parsed = await _parsed(lambda data: rules.parse_upserts(data, datetime.now(UTC), most, seed))
        upserts = [
            rules.upsert(item, who.tenant.slug, who.principal, most)
            for item in parsed
            if isinstance(item, rules.UpsertItem)
        ]
        results = await batches.upsert(who.tenant, collection, who.principal.subjects, who.actor, upserts)
        return json_answer(rules.woven(parsed, results, rules.written))

    @routes.post("/grants:bulk")
    @tag(["grants"])
    @document_request(BulkGrants)
    @document_response(BulkResults)
    async def change_grants() -> Response:
        """Put up to 1,000 grants into force, or take them away with a `role` of null.

        Items are applied in order; each has a result, as with documents.
        """
        who = caller()
        parsed = await _parsed(lambda data: rules.parse_grants(data, datetime.now(UTC)))
        changes = [
            rules.grant_change(item, who.tenant.slug, who.principal)
            for item in parsed
            if isinstance(item, rules.GrantItem)
        ]
        results = await batches.change_grants(who.tenant.slug, who.actor, changes)
        return json_answer(rules.woven(parsed, results, rules.granted))

    return routes


async def _parsed(parse: Callable[[bytes | str], list[Any]]) -> list[Any]:
    """The request's items. In a thread: a body as large as this one may be would hold everyone else up."""
    if request.mimetype not in JSON:
        raise UnsupportedMediaType(accepts=sorted(JSON))
    data = await request.get_data(cache=False)
    return await asyncio.to_thread(parse, data)
