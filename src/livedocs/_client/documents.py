"""Documents over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID, uuid4

from livedocs._client import batches, codec
from livedocs._client.answers import Answer
from livedocs._client.batches import Entry
from livedocs._client.bulk import Bulk
from livedocs._client.requests import Request, Requests
from livedocs._client.values import Document, Item, NewGrant, Result, RoleName
from livedocs.errors import NotFound, UnexpectedAnswer
from livedocs.model import Role

_PAGE = 500
_JSON = {"Content-Type": "application/json"}
_MERGE = {"Content-Type": "application/merge-patch+json"}


class Documents:
    """Reads and writes documents. `fields` are BSON values: datetime, Decimal128, Int64, ObjectId, UUID, bytes, ..

    Every method raises `LivedocsError`s, by the code of the server's refusal, and `ClientError`s when there is no
    answer to raise one for. What can be sent again without harm is, see `Retries`.
    """

    def __init__(self, requests: Requests, bulk: Bulk) -> None:
        self._requests = requests
        self._bulk = bulk

    async def create(
        self,
        collection: str,
        fields: Mapping[str, Any],
        *,
        uuid: UUID | None = None,
        key: str | None = None,
        minimal: bool = False,
    ) -> Document:
        """Make a document; the caller becomes the owner of its UUID.

        Args:
            collection: a registered one.
            fields: of the document.
            uuid: a random one when None.
            key: the Idempotency-Key. Within a day the same call with the same key makes nothing further; by
                default every call has a key of its own, for its own repetitions.
            minimal: do without the document in the answer.

        Raises:
            Conflict: the UUID is taken.
            IdempotencyKeyReused: the key was used for another call.
        """
        named = {} if uuid is None else {"uuid": str(uuid)}
        headers = {**_JSON, **_prefer(minimal), "Idempotency-Key": key or str(uuid4())}
        body = codec.dumps({**fields, **named})
        answer = await self._requests.send(Request("POST", _path(collection), headers, body))
        return _document(collection, _created_uuid(answer), answer)

    async def get(self, collection: str, uuid: UUID, *, id: Any = None) -> Document:  # noqa: A002 - what it is
        """Read a document.

        Args:
            collection: a registered one.
            uuid: which document.
            id: the `_id` of the one that is meant, where several of the collection have the UUID.

        Raises:
            Forbidden: no grant; also where there is no such UUID.
            NotFound: the UUID has no document in this collection.
            Ambiguous: it has several, and `id` does not say which is meant.
        """
        return _document(collection, uuid, await self._requests.send(Request("GET", _path(collection, uuid, id))))

    async def get_if_changed(self, collection: str, uuid: UUID, etag: str) -> Document | None:
        """Read a document unless it is still in the state of that `etag`; None then."""
        headers = {"If-None-Match": etag}
        answer = await self._requests.send(Request("GET", _path(collection, uuid), headers))
        return None if answer.status == 304 else _document(collection, uuid, answer)

    async def replace(
        self,
        collection: str,
        uuid: UUID,
        fields: Mapping[str, Any],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        minimal: bool = False,
        id: Any = None,  # noqa: A002 - what it is
    ) -> Document:
        """Put these fields in place of the document's, or make it.

        Args:
            collection: a registered one.
            uuid: which document.
            fields: of the document.
            if_match: an `etag`: only if the document is still in that state.
            if_none_match: `*`: only if there is none.
            minimal: do without the document in the answer.
            id: the `_id` of the one that is meant, see `get`; then none is made.

        Raises:
            PreconditionFailed: the condition does not hold.
        """
        conditions = _conditions(if_match, if_none_match)
        headers = {**_JSON, **conditions, **_prefer(minimal)}
        request = Request(
            "PUT", _path(collection, uuid, id), headers, codec.dumps(fields), repeatable=not conditions
        )
        return _document(collection, uuid, await self._requests.send(request))

    async def merge(
        self,
        collection: str,
        uuid: UUID,
        changes: Mapping[str, Any],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        minimal: bool = False,
        id: Any = None,  # noqa: A002 - what it is
    ) -> Document:
        """Change some fields (RFC 7396), or make the document: mappings merge, None removes, all else replaces.

        Args and errors are those of `replace`.
        """
        conditions = _conditions(if_match, if_none_match)
        headers = {**_MERGE, **conditions, **_prefer(minimal)}
        body = codec.dumps(changes)
        request = Request("PATCH", _path(collection, uuid, id), headers, body, repeatable=not conditions)
        return _document(collection, uuid, await self._requests.send(request))

    async def delete(
        self,
        collection: str,
        uuid: UUID,
        *,
        if_match: str | None = None,
        id: Any = None,  # noqa: A002 - what it is
    ) -> None:
        """Delete a document; its grants stay.

        Raises:
            NotFound: there is none.
            PreconditionFailed: it is not in the state of that `etag`.
        """
        conditions = _conditions(if_match, None)
        request = Request("DELETE", _path(collection, uuid, id), conditions, repeatable=not conditions)
        await self._requests.send(request, gone=NotFound)

    async def upsert(
        self,
        collection: str,
        uuid: UUID,
        fields: Mapping[str, Any],
        *,
        grants: Mapping[str, Role | RoleName] | Sequence[NewGrant] = (),
        mode: Literal["replace", "merge"] = "replace",
    ) -> Result:
        """Write a document and its grants, both or neither.

        Raises:
            LivedocsError, ClientError: why they were not.
        """
        (result,) = await self.bulk(collection, [Item(fields, uuid, grants, mode)])
        if result.error is not None:
            raise result.error
        return result

    async def bulk(self, collection: str, items: Iterable[Item] | AsyncIterable[Item]) -> list[Result]:
        """Write any number of documents with their grants, up to 1,000 a request; items of one UUID in order.

        Never raises for an item: each has a result, in the items' order, with the UUID that it got. Items that
        could not be written for the moment are sent again.

        Raises:
            ItemsInterrupted: `items` itself raised, which is the cause; `results` has those of the items before.
        """
        return await self._bulk.send(f"{_path(collection)}:bulk", _entries(items))

    async def mine(self, collection: str | None = None) -> AsyncIterator[tuple[UUID, Role]]:
        """Every UUID that the caller has a grant on, with its role, page by page.

        Args:
            collection: only those that have a document there.
        """
        params: dict[str, Any] = {"limit": _PAGE} | ({} if collection is None else {"collection": collection})
        while True:
            answer = await self._requests.send(Request("GET", "/v1/me/documents", params=params))
            page = codec.loads(answer.body)
            for one in page["documents"]:
                yield UUID(one["uuid"]), Role[one["role"].upper()]
            if page["next"] is None:
                return
            params["cursor"] = page["next"]


async def _entries(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Entry]:
    place = 0
    async for item in batches.each(items):
        yield batches.item_entry(place, item)
        place += 1


def _path(collection: str, uuid: UUID | None = None, identifier: Any = None) -> str:
    path = f"/v1/docs/{quote(collection, safe='')}"
    if uuid is None:
        return path
    query = "" if identifier is None else f"?_id={quote(codec.dumps(identifier), safe='')}"
    return f"{path}/{uuid}{query}"


def _conditions(if_match: str | None, if_none_match: str | None) -> dict[str, str]:
    headers = {"If-Match": if_match, "If-None-Match": if_none_match}
    return {name: value for name, value in headers.items() if value is not None}


def _prefer(minimal: bool) -> dict[str, str]:  # noqa: FBT001 - the caller's own flag, handed on
    return {"Prefer": "return=minimal"} if minimal else {}


def _document(collection: str, uuid: UUID, answer: Answer) -> Document:
    fields = codec.loads(answer.body) if answer.body else {}
    if not isinstance(fields, dict):
        raise UnexpectedAnswer(answer.status, "not a document")
    fields.pop("uuid", None)
    return Document(collection, uuid, fields, answer.headers.get("etag", ""), answer.status == 201)


def _created_uuid(answer: Answer) -> UUID:
    """The UUID of a document that was made, from where it is."""
    try:
        return UUID(answer.headers.get("location", "").rpartition("/")[2])
    except ValueError:
        raise UnexpectedAnswer(answer.status, "no Location") from None
