"""Reading what a request brings and writing what an answer carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quart import Response, request

from livedocs import extjson
from livedocs.errors import InvalidJson, UnsupportedMediaType

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
