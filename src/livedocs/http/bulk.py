"""The routes that take many items at once: each is decided, and answered, as if it had come alone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

from quart import Blueprint, Response, request
from quart_schema import document_request, document_response, tag

from livedocs.errors import Forbidden, UnsupportedMediaType
from livedocs.http import bulk_rules as rules
from livedocs.http.bodies import JSON, json_answer, parse_key
from livedocs.http.caller import caller
from livedocs.http.confinement import granting
from livedocs.http.documents import tenant_collection
from livedocs.http.shapes import BulkDocuments, BulkGrants, BulkResults
from livedocs.store.batches import Batches
from livedocs.store.documents import Documents
from livedocs.store.replays import Once, Replays

MAX_BYTES = 16 * 2**20
"""Most bytes of a bulk request's body."""


def blueprint(
    batches: Batches,
    documents: Documents,
    replays: Replays,
    max_bytes: int,
    refused: Callable[[Forbidden], None],
) -> Blueprint:
    """`/v1/docs/{collection}:bulk` and `/v1/grants:bulk`.

    Args:
        batches: the store's writes of many items.
        documents: the store's documents.
        replays: remembers what a key stands for.
        max_bytes: most bytes of a document as BSON.
        refused: told of a request in which a change of a grant was not allowed.
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
        when the same request is sent again; another request with that key is refused with 422.
        """
        who = caller()
        tenant_collection(who, collection)
        most = who.limit("max_document_bytes", max_bytes)
        key, data = parse_key(request.headers.get("Idempotency-Key")), await _body()
        seed = None if key is None else "\n".join((who.tenant.slug, collection, who.principal.subject, key))
        # In a thread: a body as large as this one may be would hold everyone else up.
        parsed = await asyncio.to_thread(rules.parse_upserts, data, datetime.now(UTC), most, seed)
        if key is not None:
            once = Once(who.principal.subject, key, await asyncio.to_thread(_fingerprint, collection, data))
            await replays.claim(who.tenant.slug, once)
        items = [item for item in parsed if isinstance(item, rules.UpsertItem)]
        granter = await granting(documents, who, [item.uuid for item in items if item.grants])
        upserts = [rules.upsert(item, who.tenant.slug, who.principal, granter(item.uuid), most) for item in items]
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
        parsed = await asyncio.to_thread(rules.parse_grants, await _body(), datetime.now(UTC))
        items = [item for item in parsed if isinstance(item, rules.GrantItem)]
        granter = await granting(documents, who, [item.uuid for item in items])
        changes = [rules.grant_change(item, who.tenant.slug, granter(item.uuid)) for item in items]
        results = await batches.change_grants(who.tenant.slug, who.actor, changes)
        forbidden = next((result for result in results if isinstance(result, Forbidden)), None)
        if forbidden is not None:
            # The answer is 200, but somebody tried: once for the request, as with a single grant.
            refused(forbidden)
        return json_answer(rules.woven(parsed, results, rules.granted))

    return routes


async def _body() -> bytes:
    if request.mimetype not in JSON:
        raise UnsupportedMediaType(accepts=sorted(JSON))
    return await request.get_data(cache=False, as_text=False, parse_form_data=False)


def _fingerprint(collection: str, data: bytes) -> str:
    """What tells the request from any other that might bear the same key."""
    digest = hashlib.sha256(f"bulk {collection}\n".encode())
    digest.update(data)
    return digest.hexdigest()
