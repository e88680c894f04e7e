"""Refusals as answers: `application/problem+json` (RFC 9457) with the challenge of RFC 6750. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from werkzeug.exceptions import HTTPException

from livedocs.errors import (
    BadRequest,
    DuplicateCookie,
    Forbidden,
    InsufficientScope,
    InvalidToken,
    LivedocsError,
    MethodNotAllowed,
    MultipleCredentials,
    NotFound,
    PayloadTooLarge,
    TokenTooLarge,
    Unauthenticated,
    UnsupportedMediaType,
)

MEDIA_TYPE = "application/problem+json"
MERGE_PATCH = "application/merge-patch+json"
REALM = "livedocs"

_OF_STATUS: Mapping[int, type[LivedocsError]] = {
    400: BadRequest,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer: status, headers, body."""

    status: int
    headers: dict[str, str]
    body: bytes


def problem(error: LivedocsError, **more: Any) -> Problem:
    """The answer to a request that was refused with that error; `more` are further members of its body."""
    headers = {"Content-Type": MEDIA_TYPE}
    challenge = _challenge(error)
    if challenge:
        headers["WWW-Authenticate"] = challenge
    if isinstance(error, UnsupportedMediaType) and "accepts" in error.data:
        # RFC 9110, 15.5.16, and RFC 5789, 2.2, for a PATCH.
        accepts = error.data["accepts"]
        headers["Accept-Patch" if MERGE_PATCH in accepts else "Accept"] = ", ".join(accepts)
    if error.retry_after is not None:
        # Whole seconds (RFC 9110, 10.2.3), and never sooner than meant.
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    members = {
        # What an error says about the request comes first, so that nothing of it can pose as a standard member.
        **error.data,
        **more,
        "type": f"/docs#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    return Problem(error.status, headers, orjson.dumps(members))


def of_http_exception(exception: HTTPException) -> Problem | None:
    """The answer to a request that the framework refused: no such path, wrong method, too large, ...

    None when the exception is no refusal but a finished answer, such as a redirect.
    """
    status = exception.code
    if status is None or status < 400 or exception.response is not None:
        return None
    kind = _OF_STATUS.get(status)
    if kind is not None:
        answer = problem(kind())
        kept = {name: value for name, value in exception.get_headers() if name in {"Allow", "Retry-After"}}
        return Problem(status, {**answer.headers, **kept}, answer.body)
    code = exception.name.lower().replace(" ", "_")
    members: dict[str, Any] = {
        "type": "about:blank",
        "title": exception.name,
        "status": status,
        "detail": exception.name + ".",
        "code": code,
    }
    return Problem(status, {"Content-Type": MEDIA_TYPE}, orjson.dumps(members))


def _challenge(error: LivedocsError) -> str:
    """The WWW-Authenticate header (RFC 6750, 3): an error code only for a request that brought a credential."""
    realm = f'Bearer realm="{REALM}"'
    match error:
        case InvalidToken():
            return f'{realm}, error="invalid_token", error_description="{error.title}"'
        case Unauthenticated():
            return realm
        case InsufficientScope():
            scope = str(error.data.get("scope", ""))
            return f'{realm}, error="insufficient_scope"' + (f', scope="{scope}"' if scope else "")
        case MultipleCredentials() | DuplicateCookie() | TokenTooLarge():
            return f'{realm}, error="invalid_request", error_description="{error.title}"'
    return ""
