"""Reading what a request brings and writing what an answer carries."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quart import Response, request
from werkzeug.exceptions import RequestTimeout

from livedocs.access.budgets import Hold
from livedocs.codec import extjson
from livedocs.codec.json_text import count
from livedocs.errors import (
    BadRequest,
    DocumentTooLarge,
    InvalidJson,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from livedocs.http import backpressure
from livedocs.http.caller import caller
from livedocs.http.etags import tagged
from livedocs.http.written import Written, writing
from livedocs.model import CollectionKey
from livedocs.runtime import slices
from livedocs.runtime.slices import Steps

_KEY = re.compile(r'(?:"([\x21\x23-\x7e]{1,255})"|([\x21\x23-\x2b\x2d-\x7e]{1,255}))\Z')
_RETURN = re.compile(r"\s*return\s*=\s*\"?(\w+)\"?\s*\Z", re.IGNORECASE)
JSON = frozenset({"application/json"})
MERGE_PATCH = frozenset({"application/merge-patch+json", "application/json"})

SECONDS = 20
"""Seconds in which a body has to be there."""

# JSON is longer than the BSON it stands for: every number, date and binary is text.
_JSON_PER_BSON = 3
# Bytes of memory that an element of a text may become: a list in a list is 80, and has a bracket and a comma.
_PER_ELEMENT = 128
# Shorter answers do not count: how many there may be is limited already.
_SHORT_ANSWER = 2**14
# Of a list nobody knows how long it will be.
_LONG = 2**20


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a body may be.

    Attributes:
        bytes: of its text.
        elements: commas and opening brackets outside of its strings.
        error: what one that is more is refused with.
    """

    bytes: int
    elements: int
    error: type[PayloadTooLarge] = PayloadTooLarge


SMALL = Limit(2**18, 10_000)
"""Of a body that is no document."""


def document_limit(max_bytes: int, max_elements: int) -> Limit:
    """Of a document of at most so many bytes as BSON."""
    return Limit(_JSON_PER_BSON * max_bytes + 65536, max_elements, DocumentTooLarge)


async def read_body(limit: Limit) -> bytearray:
    """The request's body, which its caller has in flight from now on.

    Raises:
        PayloadTooLarge: it is longer; where its length is told, nothing of it is read.
        TooManyBytes: the caller, or its tenant, has too much in flight; nothing of it is read.
        RequestTimeout: it takes too long.
    """
    told, body, hold = request.content_length, bytearray(), in_flight()
    if told is not None and told > limit.bytes:
        raise _too_long(limit, told)
    hold.grow(told or 0)
    try:
        async with asyncio.timeout(request.body_timeout):
            async for chunk in backpressure.chunks():
                if told is None:
                    hold.grow(len(chunk))
                body += chunk
                if len(body) > limit.bytes:
                    raise _too_long(limit, len(body))
    except TimeoutError:
        raise RequestTimeout from None
    return body


def _too_long(limit: Limit, length: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"A body has at most {limit.bytes} bytes here; this one has {length} or more. Send less at a time.",
        limit=limit.bytes,
    )


def in_flight() -> Hold:
    """What the caller has in flight for this request."""
    return backpressure.current().hold(caller().principal)


def decoding(
    body: bytes | bytearray,
    limit: Limit,
    hold: Hold,
    *,
    aware: bool = True,
    documents: Callable[[Any], Iterable[Any]] = lambda _: (),
) -> Steps[Any]:
    """The BSON values of a JSON text, in steps: counted before it is decoded. What they take is held.

    `aware` and `documents` are those of `extjson.loading`.

    Raises:
        PayloadTooLarge: it has too many elements.
        TooManyBytes: the caller, or its tenant, has too much in flight for what it becomes.
        InvalidJson: it is not JSON, or nested beyond reading.
    """
    found = yield from count(body, limit.elements)
    if found > limit.elements:
        raise limit.error(
            f"At most {limit.elements} elements: commas and opening brackets outside of strings.",
            limit=limit.elements,
        )
    hold.grow(_PER_ELEMENT * found)
    return (yield from extjson.loading(body, aware=aware, documents=documents))


async def read_json(media_types: frozenset[str] = JSON, limit: Limit = SMALL) -> Any:
    """The request's body as BSON values.

    Raises:
        UnsupportedMediaType: the body is of another type; `accepts` lists those taken.
        LivedocsError: those of `read_body` and `decoding`.
    """
    check_media_type(media_types)
    body = await read_body(limit)
    return await slices.run(decoding(body, limit, in_flight()), len(body))


def check_media_type(media_types: frozenset[str]) -> None:
    """Refuse a body of another type.

    Raises:
        UnsupportedMediaType: `accepts` lists those taken.
    """
    if request.mimetype not in media_types:
        raise UnsupportedMediaType(accepts=sorted(media_types))


async def read_object(media_types: frozenset[str] = JSON, limit: Limit = SMALL) -> dict[str, Any]:
    """The request's body, which must be a JSON object.

    Raises:
        InvalidJson: it is another JSON value, or one of the errors of `read_json`.
    """
    return _object(await read_json(media_types, limit))


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidJson("The body must be a JSON object.")
    return body


async def read_written(
    key: CollectionKey, max_bytes: int, max_elements: int, media_types: frozenset[str] = JSON
) -> Written:
    """A document, or a merge patch, that is to be stored.

    Args:
        key: the collection's.
        max_bytes: most bytes as BSON.
        max_elements: most fields and items of arrays.
        media_types: those taken.

    Raises:
        LivedocsError: those of `read_json` and of `written.writing`.
    """
    check_media_type(media_types)
    limit = document_limit(max_bytes, max_elements)
    body = await read_body(limit)

    def steps() -> Steps[Written]:
        decoded = yield from decoding(body, limit, in_flight(), aware=False, documents=lambda sent: (sent,))
        return (yield from writing(_object(decoded), key, max_bytes=max_bytes, max_elements=max_elements))

    return await slices.run(steps(), len(body))


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer of Extended JSON."""
    return _answer(extjson.dumps(value), status, headers)


async def list_answer(members: Mapping[str, Any]) -> Response:
    """An answer with lists that may be long: each iterator among the members is one, encoded in slices."""

    def steps() -> Steps[bytes]:
        parts = []
        for name, value in members.items():
            if not isinstance(value, Iterator):
                parts.append(extjson.dumps(name) + b":" + extjson.dumps(value))
                continue
            items = []
            for item in value:
                items.append(extjson.dumps(item))
                yield
            parts.append(extjson.dumps(name) + b":[" + b",".join(items) + b"]")
        return b"{" + b",".join(parts) + b"}"

    return _answer(await slices.run(steps(), _LONG), 200, None)


async def document_answer(
    value: dict[str, Any], size: int, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """The same, of something large that is used up; `size` is in bytes of BSON."""
    return _answer(await slices.run(extjson.dumping(value), size), status, headers)


def _answer(body: bytes, status: int, headers: dict[str, str] | None) -> Response:
    """An answer that counts as in flight until it is sent.

    Raises:
        TooManyBytes: the caller, or its tenant, has too much in flight to read this. What a write has done cannot
            be refused any more: it counts for the next request.
    """
    if len(body) > _SHORT_ANSWER:
        hold = in_flight()
        if request.method in {"GET", "HEAD"}:
            hold.grow(len(body))
        else:
            hold.keep(len(body))
    return Response(body, status, headers, content_type="application/json")


def tagged_answer(value: Any) -> Response:
    """An answer of Extended JSON with the entity tag of its body, or 304 to who has that body already."""
    body = extjson.dumps(value)
    headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}
    tags = request.headers.getlist("If-None-Match")
    if tags and tagged(headers["ETag"], ", ".join(tags)):
        return Response(b"", 304, headers)
    return _answer(body, 200, headers)


def wants_minimal() -> bool:
    """Whether the request prefers an answer without the representation (RFC 7240, 4.2)."""
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    found = (_RETURN.match(preference.split(";")[0]) for preference in preferences)
    # Of several the first counts (RFC 7240, 2).
    return next((one[1].lower() == "minimal" for one in found if one), False)


MINIMAL: Mapping[str, str] = {"Preference-Applied": "return=minimal"}
"""What the answer to such a request says of it."""


def parse_key(header: str | None) -> str | None:
    """The key in an Idempotency-Key header, with its quotation marks or without; None without a header. Pure.

    Raises:
        BadRequest: it is empty, longer than 255 characters or holds anything but visible ASCII.
    """
    if header is None:
        return None
    found = _KEY.match(header.strip())
    if found is None:
        raise BadRequest("Idempotency-Key must be 1 to 255 visible ASCII characters.")
    return found[1] or found[2]
