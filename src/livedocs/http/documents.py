"""The routes of documents: read the request, let `document_rules` decide in the store's transaction, answer."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import bson
from bson import ObjectId
from bson.errors import BSONError
from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_request, document_response, tag

from livedocs.codec import extjson
from livedocs.errors import BadRequest, Forbidden, InvalidDocument, LivedocsError, UnknownCollection
from livedocs.http import document_rules as rules
from livedocs.http.bodies import (
    JSON,
    MERGE_PATCH,
    MINIMAL,
    document_answer,
    parse_key,
    read_written,
    wants_minimal,
)
from livedocs.http.caller import Caller, caller
from livedocs.http.document_turns import DocumentTurns
from livedocs.http.etags import Conditions, conditions, entity_tag, etag
from livedocs.http.reference import media_type
from livedocs.http.shapes import Document, DocumentQuery, MergePatch, NoBody
from livedocs.http.written import Written
from livedocs.model import CollectionKey, Role, parse_uuid
from livedocs.presentation import present
from livedocs.store.documents import ANY, Access, Decision, Documents, DocumentState, Outcome, Place
from livedocs.store.idempotency import Once
from livedocs.store.shown import ShownDocument, version_of
from livedocs.store.validation import CODEC, validate

_LONGEST_ID = 4096
_OBJECT_ID = re.compile(r"[0-9A-Fa-f]{24}\Z")


def blueprint(documents: Documents, turns: DocumentTurns, max_bytes: int, max_elements: int) -> Blueprint:
    """The routes under `/v1/docs`.

    Args:
        documents: the store.
        turns: at reading and writing it.
        max_bytes: most bytes of a document as BSON.
        max_elements: most fields and items of arrays of one.
    """
    writing = _Writing(documents, turns, max_bytes, max_elements)
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
        sent = await writing.sent(who, collection)
        given = sent.given()
        place = Place(who.tenant, collection, given or uuid4())
        decide = partial(rules.create, principal=who.principal, sent=sent)
        access = rules.access(who.principal, Role.WRITER, Conditions())
        key = parse_key(_header("Idempotency-Key"))
        if key is None:
            return await writing.change(place, access, decide)
        once = Once(who.principal.subject, key, _fingerprint(collection, given, sent.fields))
        async with turns.turn(who):
            outcome = await documents.create_once(place, access, who.actor, decide, once)
            return await _created(place, outcome)

    @routes.get(path)
    @tag(["documents"])
    @document_querystring(DocumentQuery)
    @document_response(Document)
    async def read_document(collection: str, uuid: str) -> Response:
        """Read a document.

        The answer has an `ETag`; with it in `If-None-Match` the answer is 304 as long as nothing has changed.
        """
        who, place = _place(collection, uuid)
        wanted = _conditions()
        async with turns.turn(who):
            state = await documents.read(place, rules.access(who.principal, Role.READER))
            document = rules.read(state, who.principal)
            if wanted.not_modified(document):
                return Response(b"", 304, {"ETag": etag(document)})
            return await _shown(place, document, 200)

    @routes.put(path)
    @tag(["documents"])
    @document_querystring(DocumentQuery)
    @document_request(Document)
    @document_response(Document)
    @document_response(Document, 201)
    async def replace_document(collection: str, uuid: str) -> Response:
        """Replace a document, or create it.

        `If-Match` with an `ETag` replaces only that state of it; `If-None-Match: *` only creates.
        """
        who, place = _place(collection, uuid)
        sent = (await writing.sent(who, collection)).of(place.uuid)
        wanted = _conditions()
        decide = partial(rules.put, principal=who.principal, sent=sent, conditions=wanted)
        return await writing.write(place, wanted, decide)

    @routes.patch(path)
    @tag(["documents"])
    @document_querystring(DocumentQuery)
    @media_type("application/merge-patch+json")
    @document_request(MergePatch)
    @document_response(Document)
    @document_response(Document, 201)
    async def merge_document(collection: str, uuid: str) -> Response:
        """Change some fields of a document, or create it.

        The body is a JSON Merge Patch (RFC 7396): objects merge, null removes a field, everything else replaces.
        """
        who, place = _place(collection, uuid)
        sent = (await writing.sent(who, collection, MERGE_PATCH)).of(place.uuid)
        wanted = _conditions()
        decide = partial(
            rules.patch,
            principal=who.principal,
            sent=sent,
            conditions=wanted,
            max_bytes=_largest(who, max_bytes),
        )
        return await writing.write(place, wanted, decide)

    @routes.delete(path)
    @tag(["documents"])
    @document_querystring(DocumentQuery)
    @document_response(NoBody, 204)
    async def delete_document(collection: str, uuid: str) -> Response:
        """Delete a document. Its grants stay: other collections may have documents of the same UUID."""
        who, place = _place(collection, uuid)
        decide = partial(rules.delete, principal=who.principal, conditions=_conditions())
        return await writing.change(place, rules.access(who.principal, Role.WRITER), decide)

    return routes


@dataclass(frozen=True, slots=True)
class _Writing:
    """What the routes that write have in common."""

    documents: Documents
    turns: DocumentTurns
    max_bytes: int
    max_elements: int

    async def sent(self, who: Caller, collection: str, media_types: frozenset[str] = JSON) -> Written:
        """The document, or merge patch, in the request."""
        key = who.tenant.collections[collection]
        return await read_written(key, _largest(who, self.max_bytes), self.max_elements, media_types)

    async def write(
        self, place: Place, wanted: Conditions, decide: Callable[[DocumentState], Decision]
    ) -> Response:
        """Write the document of that place, or make it; one that is named by its `_id` is not made."""
        principal = caller().principal
        if place.id is ANY:
            return await self.change(place, rules.access(principal, Role.WRITER, wanted), decide)

        def decide_existing(state: DocumentState) -> Decision:
            rules.existing(state, principal)
            return decide(state)

        return await self.change(place, rules.access(principal, Role.WRITER), decide_existing)

    async def change(self, place: Place, access: Access, decide: Callable[[DocumentState], Decision]) -> Response:
        """Do what is decided, and answer with what has come of it."""
        who = caller()
        async with self.turns.turn(who):
            outcome = await self.documents.change(place, access, who.actor, decide)
            return await _answer(place, outcome)


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
    return who, Place(who.tenant, collection, parse_uuid(uuid), _identifier(who.tenant.collections[collection]))


def _identifier(key: CollectionKey) -> Any:
    """The `_id` in the query, which tells documents of one UUID apart; `ANY` without one."""
    given = request.args.getlist("_id")
    if not given:
        return ANY
    if key == "_id":
        raise BadRequest("In this collection the UUID is the _id; leave _id out of the query.", parameter="_id")
    if len(given) > 1 or len(given[0]) > _LONGEST_ID:
        raise BadRequest(f"`_id` must be given once, with at most {_LONGEST_ID} characters.", parameter="_id")
    try:
        identifier = ObjectId(given[0]) if _OBJECT_ID.match(given[0]) else extjson.loads(given[0])
        validate({"_id": identifier}, max_bytes=2 * _LONGEST_ID)
        bson.encode({"_id": identifier}, codec_options=CODEC)
    except (LivedocsError, BSONError, OverflowError, ValueError, TypeError) as error:
        detail = 'The _id is Extended JSON, such as {"$oid": ".."}, 5 or "text"; an ObjectId may be bare.'
        raise BadRequest(detail, parameter="_id") from error
    return identifier


def _conditions() -> Conditions:
    return conditions(_header("If-Match"), _header("If-None-Match"))


def _header(name: str) -> str | None:
    # A list may be spread over several header fields (RFC 9110, 5.3).
    values = request.headers.getlist(name)
    return ", ".join(values) if values else None


async def _answer(place: Place, outcome: Outcome) -> Response:
    if outcome.document is None:
        return Response(b"", 204)
    if not outcome.created:
        return await _shown(place, outcome.document, 200)
    location = f"/v1/docs/{place.collection}/{place.uuid}"
    return await _shown(place, outcome.document, 201, {"Location": location})


async def _created(place: Place, outcome: Outcome) -> Response:
    """The answer to a creation that may have happened before, under the UUID it got then."""
    uuid = (outcome.document or {}).get(place.key, place.uuid)
    answer = await _answer(replace(place, uuid=uuid), outcome)
    if outcome.replayed:
        answer.headers["Idempotency-Replayed"] = "true"
    return answer


def _fingerprint(collection: str, given: UUID | None, fields: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(extjson.dumps([collection, given]))
    digest.update(bson.encode(fields, codec_options=CODEC))
    return digest.hexdigest()


async def _shown(
    place: Place, document: Mapping[str, Any], status: int, more: dict[str, str] | None = None
) -> Response:
    if isinstance(document, ShownDocument):
        document.require()
    # The driver has just decoded it, in this very turn of the loop.
    await asyncio.sleep(0)
    raw = bson.encode(document, codec_options=CODEC)
    headers = {"ETag": entity_tag(version_of(raw)), **(more or {})}
    if request.method not in {"GET", "HEAD"} and wants_minimal():
        headers |= MINIMAL
        return Response(b"", 201 if status == 201 else 204, headers)
    try:
        return await document_answer(present(document, place.key, place.uuid), len(raw), status, headers)
    except TypeError as error:
        raise InvalidDocument("The stored document has no JSON form.") from error
