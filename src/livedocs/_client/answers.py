"""What an answer of the server means: the error in a problem body, and whether to ask again. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from livedocs.errors import ClientError, LivedocsError, ServerUnreachable, UnexpectedAnswer

Failure = LivedocsError | ClientError
"""Everything that a call of the client may raise."""

_STANDARD = frozenset({"type", "title", "status", "detail", "code", "instance", "retry_after"})
# Refused before anything was done: asking again repeats nothing.
_NOT_DONE = frozenset({"rate_limited", "auth_unavailable", "too_many_connections"})
# Answers of what stands between us and the server.
_GATEWAY = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def success(self) -> bool:
        """Whether the server did what was asked for; 304 says that nothing had to be done."""
        return 200 <= self.status < 300 or self.status == 304


def _kinds(kind: type[LivedocsError] = LivedocsError) -> Iterator[type[LivedocsError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


_OF_CODE: Mapping[str, type[LivedocsError]] = {kind.code: kind for kind in _kinds()}


def refusal(told: Mapping[str, Any], status: int = 0, retry_after: float | None = None) -> Failure:
    """The error that a problem body, an item's result or a refusal on a socket names by its `code`."""
    code, detail = told.get("code"), told.get("detail")
    detail = detail if isinstance(detail, str) else ""
    milliseconds = told.get("retry_after_ms")
    if isinstance(milliseconds, int | float):
        retry_after = milliseconds / 1000
    kind = _OF_CODE.get(code) if isinstance(code, str) else None
    if kind is None:
        return UnexpectedAnswer(status, f"{code}: {detail}" if detail else str(code))
    members = {name: value for name, value in told.items() if name not in _STANDARD}
    return kind(detail, retry_after=retry_after, **members)


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The error of an answer that is no success."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        told = None
    if isinstance(told, dict) and isinstance(told.get("code"), str):
        return refusal(told, status, seconds(headers.get("retry-after")))
    if status in _GATEWAY:
        return ServerUnreachable(f"status {status}", uncertain=True)
    return UnexpectedAnswer(status)


def seconds(retry_after: str | None) -> float | None:
    """The seconds of a Retry-After header (RFC 9110, 10.2.3); None for a date, which this server never sends."""
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return None
    return float(retry_after)


def passing(error: Exception) -> bool:
    """Whether the same request may be taken later."""
    if isinstance(error, ServerUnreachable):
        return True
    return isinstance(error, LivedocsError) and (error.status == 503 or error.code == "rate_limited")


def uncertain(error: Exception) -> bool:
    """Whether what was asked for may have been done all the same."""
    if isinstance(error, ServerUnreachable):
        return error.uncertain
    return isinstance(error, LivedocsError) and error.status >= 500 and error.code not in _NOT_DONE


def wait_of(error: Exception) -> float | None:
    """The seconds that the server asks to wait, if it does."""
    if isinstance(error, LivedocsError) and error.retry_after is not None:
        return error.retry_after if math.isfinite(error.retry_after) else None
    return None
