"""The routes about the caller: who am I, what may I see."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_response, tag

from livedocs.access.acl import Allowed, decide
from livedocs.errors import InvalidCursor
from livedocs.http.bodies import json_answer
from livedocs.http.caller import caller
from livedocs.http.documents import tenant_collection
from livedocs.http.pagination import page_limit
from livedocs.http.shapes import Me, MyDocuments, MyDocumentsQuery
from livedocs.http.times import rfc3339
from livedocs.store.documents import Documents
from livedocs.store.grants import Grants, Held


def blueprint(grants: Grants, documents: Documents) -> Blueprint:
    """The routes under `/v1/me`."""
    routes = Blueprint("me", __name__, url_prefix="/v1/me")

    @routes.get("")
    @tag(["me"])
    @document_response(Me)
    async def who_am_i() -> Response:
        """The caller as the access token names them."""
        principal = caller().principal
        return json_answer(
            {
                "tenant": principal.tenant,
                "subject": principal.subject,
                "name": principal.name,
                "groups": sorted(principal.groups),
                "scopes": sorted(principal.scopes),
                "client_id": principal.client_id,
                "expires_at": rfc3339(principal.expires_at),
            }
        )

    @routes.get("/documents")
    @tag(["me"])
    @document_querystring(MyDocumentsQuery)
    @document_response(MyDocuments)
    async def my_documents() -> Response:
        """The UUIDs the caller has a grant on, in their order.

        `next` is the `cursor` of the next page, null on the last one. With `collection`, only those that have a
        document there. A page may hold fewer than `limit`, and even none, though another one follows.
        """
        who = caller()
        collection = request.args.get("collection")
        if collection is not None:
            tenant_collection(who, collection)
        limit, after = page_limit(request.args.get("limit")), parse_cursor(request.args.get("cursor"))
        held = await grants.of_subjects(who.tenant.slug, who.principal.subjects, after=after, limit=limit)
        found = page(held, datetime.now(UTC))
        if collection is not None:
            there = await documents.having(
                who.tenant, collection, [UUID(one["uuid"]) for one in found["documents"]]
            )
            found["documents"] = [one for one in found["documents"] if UUID(one["uuid"]) in there]
        return json_answer(found)

    return routes


def page(held: Held, now: datetime) -> dict[str, Any]:
    """One page of UUIDs, with the highest role in force on each. Pure."""
    documents = []
    for uuid, group in held.grants:
        decision = decide(group, now)
        if isinstance(decision, Allowed):
            documents.append({"uuid": str(uuid), "role": decision.role.label})
    return {"documents": documents, "next": cursor(held.grants[-1][0]) if held.more else None}


def cursor(uuid: UUID) -> str:
    """Where the next page begins: behind this UUID. Opaque to clients."""
    return base64.urlsafe_b64encode(uuid.bytes).decode().rstrip("=")


def parse_cursor(text: str | None) -> UUID | None:
    """The UUID in a cursor.

    Raises:
        InvalidCursor: it is none of ours.
    """
    if text is None:
        return None
    try:
        return UUID(bytes=base64.b64decode(text + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise InvalidCursor from None
