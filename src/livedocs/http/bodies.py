"""Reading what a request brings and writing what an answer carries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from quart import Response, request

from livedocs import extjson
from livedocs.errors import BadRequest, InvalidJson, UnsupportedMediaType
from livedocs.http.etags import tagged

_KEY = re.compile(r'(?:"([\x21\x23-\x7e]{1,255})"|([\x21\x23-\x2b\x2d-\x7e]{1,255}))\Z')
_RETURN = re.compile(r"\s*return\s*=\s*\"?(\w+)\"?\s*\Z", re.IGNORECASE)
JSON = frozenset({"application/json"})
MERGE_PATCH = frozenset({"application/merge-patch+json", "application/json"})


async def read_json(media_types: frozenset[str] = JSON) -> Any:
    """The request's body as BSON values.

    Raises:
        UnsupportedMediaType: the body is of another type; `accepts` lists those taken.
        InvalidJson: it is not JSON, or nested beyond reading.
        RequestEntityTooLarge: it is longer than the server reads.
    """
    if request.mimetype not in media_types:
        raise UnsupportedMediaType(accepts=sorted(media_types))
    return extjson.loads(await request.get_data(cache=False))


async def read_object(media_types: frozenset[str] = JSON) -> Mapping[str, Any]:
    """The request's body, which must be a JSON object.

    Raises:
        InvalidJson: it is another JSON value, or one of the errors of `read_json`.
    """
    body = await read_json(media_types)
    if not isinstance(body, dict):
        raise InvalidJson("The body must be a JSON object.")
    return body


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer of Extended JSON."""
    return Response(extjson.dumps(value), status, headers, content_type="application/json")


def tagged_answer(value: Any) -> Response:
    """An answer of Extended JSON with the entity tag of its body, or 304 to who has that body already."""
    body = extjson.dumps(value)
    headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}
    tags = request.headers.getlist("If-None-Match")
    if tags and tagged(headers["ETag"], ", ".join(tags)):
        return Response(b"", 304, headers)
    return Response(body, 200, headers, content_type="application/json")


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
        raise BadRequest("An Idempotency-Key is 1 to 255 visible ASCII characters.")
    return found[1] or found[2]
