"""Which pages of other origins may read our answers: the CORS protocol of the Fetch standard, section 3.2. Pure.

Only the configured origins, each by its name: never `*`, which would be everybody. This lets a page read; what may
be *done* with a cookie is decided by `access/credentials.py`, whatever stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
# What a page may send beyond what any form can.
_REQUEST_HEADERS = ", ".join(
    (
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "If-Match",
        "If-None-Match",
        "Prefer",
        "Traceparent",
        "X-Request-Id",
        "X-Requested-With",
    )
)
# What a page may read beyond the few headers that are safe for everybody.
_ANSWER_HEADERS = ", ".join(
    (
        "ETag",
        "Idempotency-Replayed",
        "Location",
        "Preference-Applied",
        "Retry-After",
        "WWW-Authenticate",
        "X-Request-Id",
    )
)
# Seconds for which a browser need not ask again; a new list of origins counts after that at the latest.
_MAX_AGE = 600


def cors_headers(origins: Sequence[str], allowed: frozenset[str], *, preflight: bool = False) -> Mapping[str, str]:
    """What the browser is told about the page that asks; nothing about a page that is none of ours.

    Args:
        origins: the values of the request's Origin headers; with two of them it is nobody's.
        allowed: the origins whose pages may read the answer, and may bring the cookie along.
        preflight: whether the request only asks what may be sent.
    """
    if len(origins) != 1 or origins[0] not in allowed:
        return {}
    [origin] = origins
    headers = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
    if not preflight:
        return {**headers, "Access-Control-Expose-Headers": _ANSWER_HEADERS}
    return {
        **headers,
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": _REQUEST_HEADERS,
        "Access-Control-Max-Age": str(_MAX_AGE),
    }
