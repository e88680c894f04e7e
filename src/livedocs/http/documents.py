"""The routes of documents: read the request, let `document_rules` decide in the store's transaction, answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

from quart import Blueprint, Response, request
from quart_schema import document_request, document_response, tag

from livedocs import extjson
from livedocs.errors import Forbidden, InvalidDocument, UnknownCollection
from livedocs.http import document_rules as rules
from livedocs.http.bodies import MERGE_PATCH, MINIMAL, json_answer, parse_key, read_object, wants_minimal
from livedocs.http.caller import Caller, caller
from livedocs.http.etags import Conditions, conditions, etag
from livedocs.http.reference import media_type
from livedocs.http.shapes import Document, MergePatch, NoBody
from livedocs.model import parse_uuid
from livedocs.presentation import present
from livedocs.store.documents import Decision, Documents, DocumentState, Outcome, Place
from livedocs.store.replays import Once
from livedocs.store.validation import RESERVED, validate


def blueprint(documents: Documents, max_bytes: int) -> Blueprint:
    """The routes under `/v1/docs`.

    Args:
        documents: the store.
        max_bytes: most bytes of a document as BSON.
    """
    routes = Blueprint("documents", __name__, url_prefix="/v1/docs")
    path = "/<collection>/<uuid>"

    @routes.post("/<collection>")
    @tag(["documents"])
    @document_request(Document)
    @document_response(Document, 201)
    async def create_document(collection: str) -> Response:
        """Create a document.

        A top-level `uuid` in the body is the UUID to use; without one it is random. The caller becomes the owner
        of a UUID that is new. 409 when the UUID is taken.

        With an `Idempotency-Key` the same request, sent again within a day, makes nothing and is answered as at
        first, with `Idempotency-Replayed: true`; another request with that key is refused with 422.
        """
        who = caller()
        tenant_collection(who, collection)
        body = dict(await read_object())
        given = body.pop("uuid", None)
        uuid = uuid4() if given is None else parse_uuid(given)
        validate(body, max_bytes=_largest(who, max_bytes), reserved=RESERVED)
        place = Place(who.tenant, collection, uuid)
        decide = partial(rules.create, principal=who.principal, fields=body)
        key = parse_key(_header("Idempotency-Key"))
        if key is None:
            return await _change(place, decide)
        once = Once(who.principal.subject, key, _fingerprint(collection, given, body))
        outcome = await documents.create_once(place, who.principal.subjects, who.actor, decide, once)
        return _created(place, outcome)

    @routes.get(path)
    @tag(["documents"])
    @document_response(Document)
    async def read_document(collection: str, uuid: str) -> Response:
        """Read a document.

        The answer has an `ETag`; with it in `If-None-Match` the answer is 304 as long as nothing has changed.
        """
        who, place = _place(collection, uuid)
        wanted = _conditions()
        state = await documents.read(place, who.principal.subjects)
        document = rules.read(state, who.principal)
        if wanted.not_modified(document):
            return Response(b"", 304, {"ETag": etag(document)})
        return _shown(place, document, 200)

    @routes.put(path)
    @tag(["documents"])
    @document_request(Document)
    @document_response(Document)
    @document_response(Document, 201)
    async def replace_document(collection: str, uuid: str) -> Response:
        """Replace a document, or create it.

        `If-Match` with an `ETag` replaces only that state of it; `If-None-Match: *` only creates.
        """
        who, place = _place(collection, uuid)
        body = await read_object()
        validate(body, max_bytes=_largest(who, max_bytes))
        decide = partial(rules.put, principal=who.principal, fields=body, conditions=_conditions())
        return await _change(place, decide)

    @routes.patch(path)
    @tag(["documents"])
    @media_type("application/merge-patch+json")
    @document_request(MergePatch)
    @document_response(Document)
    @document_response(Document, 201)
    async def merge_document(collection: str, uuid: str) -> Response:
        """Change some fields of a document, or create it.

        The body is a JSON Merge Patch (RFC 7396): objects merge, null removes a field, everything else replaces.
        """
        who, place = _place(collection, uuid)
        body = await read_object(MERGE_PATCH)
        validate(body, max_bytes=_largest(who, max_bytes))
        decide = partial(
            rules.patch,
            principal=who.principal,
            changes=body,
            conditions=_conditions(),
            max_bytes=_largest(who, max_bytes),
        )
        return await _change(place, decide)

    @routes.delete(path)
    @tag(["documents"])
    @document_response(NoBody, 204)
    async def delete_document(collection: str, uuid: str) -> Response:
        """Delete a document. Its grants stay: other collections may have documents of the same UUID."""
        who, place = _place(collection, uuid)
        return await _change(place, partial(rules.delete, principal=who.principal, conditions=_conditions()))

    async def _change(place: Place, decide: Callable[[DocumentState], Decision]) -> Response:
        who = caller()
        outcome = await documents.change(place, who.principal.subjects, who.actor, decide)
        return _answer(place, outcome)

    return routes


def tenant_collection(who: Caller, collection: str) -> None:
    """Refuse a collection that the caller is confined away from, or that its tenant has not registered.

    Raises:
        Forbidden: the caller is a service that is confined to others, whether there is such a collection or not.
        UnknownCollection: the tenant has no such collection.
    """
    if who.confined_to is not None and collection not in who.confined_to:
        raise Forbidden("This service is confined to other collections.", collection=collection)
    if collection not in who.tenant.collections:
        raise UnknownCollection(collection=collection)


def _largest(who: Caller, setting: int) -> int:
    """Most bytes of a document of the caller's tenant."""
    return who.limit("max_document_bytes", setting)


def _place(collection: str, uuid: str) -> tuple[Caller, Place]:
    who = caller()
    tenant_collection(who, collection)
    return who, Place(who.tenant, collection, parse_uuid(uuid))


def _conditions() -> Conditions:
    return conditions(_header("If-Match"), _header("If-None-Match"))


def _header(name: str) -> str | None:
    # A list may be spread over several header fields (RFC 9110, 5.3).
    values = request.headers.getlist(name)
    return ", ".join(values) if values else None


def _answer(place: Place, outcome: Outcome) -> Response:
    if outcome.document is None:
        return Response(b"", 204)
    if not outcome.created:
        return _shown(place, outcome.document, 200)
    location = f"/v1/docs/{place.collection}/{place.uuid}"
    return _shown(place, outcome.document, 201, {"Location": location})


def _created(place: Place, outcome: Outcome) -> Response:
    """The answer to a creation that may have happened before, under the UUID it got then."""
    uuid = (outcome.document or {}).get(place.key, place.uuid)
    answer = _answer(replace(place, uuid=uuid), outcome)
    if outcome.replayed:
        answer.headers["Idempotency-Replayed"] = "true"
    return answer


def _fingerprint(collection: str, given: Any, fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(extjson.dumps([collection, given, fields])).hexdigest()


def _shown(place: Place, document: Mapping[str, Any], status: int, more: dict[str, str] | None = None) -> Response:
    headers = {"ETag": etag(document), **(more or {})}
    if request.method not in {"GET", "HEAD"} and wants_minimal():
        headers |= MINIMAL
        return Response(b"", 201 if status == 201 else 204, headers)
    try:
        return json_answer(present(document, place.key, place.uuid), status, headers)
    except TypeError as error:
        raise InvalidDocument("The stored document has no JSON form.") from error
