"""The operations that ask nobody who they are, login and health: what they answer. Data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from livedocs import errors as e
from livedocs.http.contract import Errors, refusals
from livedocs.http.parameters import described

_TIME = "2026-01-02T03:19:05.678Z"
_SESSION = {
    "authenticated": True,
    "tenant": "acme",
    "subject": "user:alice",
    "name": "Alice",
    "groups": ["staff"],
    "scopes": ["openid"],
    "expires_at": _TIME,
    "refresh_at": _TIME,
    "can_refresh": True,
}
_SESSION_SCHEMA = {
    "type": "object",
    "description": "Who is logged in, and when to renew; nobody when `authenticated` is false.",
    "required": ["authenticated", "can_refresh"],
    "properties": {
        "authenticated": {"type": "boolean"},
        "can_refresh": {"type": "boolean"},
        **{name: {"type": "string"} for name in ("tenant", "subject", "name")},
        **{name: {"type": "array", "items": {"type": "string"}} for name in ("groups", "scopes")},
        **{name: {"type": "string", "format": "date-time"} for name in ("expires_at", "refresh_at")},
    },
}
_LOGGED_OUT_SCHEMA = {
    "type": "object",
    "description": "Where to go next, where the login service ends its own session; null without one.",
    "required": ["post_logout_redirect"],
    "properties": {"post_logout_redirect": {"type": ["string", "null"]}},
}


@dataclass(frozen=True, slots=True)
class PublicContract:
    """One operation.

    Attributes:
        tag: what it belongs to.
        errors: what it may be refused with.
        answer: an example of its answer.
        schema: of its answer, where the view does not say.
        redirects: where a browser is sent, if it is.
        query: parameters that the signature does not show.
        cookie: whether the cookies of a session mean something.
    """

    tag: str
    errors: Errors = ()
    answer: Any = None
    schema: Mapping[str, Any] | None = None
    redirects: str | None = None
    query: tuple[str, ...] = ()
    cookie: bool = False


PUBLIC: Mapping[str, PublicContract] = {
    "auth.begin": PublicContract(
        "login",
        (e.BadRequest, e.RateLimited, e.AuthUnavailable),
        redirects="To the login service.",
        query=("return_to",),
    ),
    "auth.finish": PublicContract(
        "login",
        (e.LoginFailed, e.TokenTooLarge, e.TenantUnknown, e.TenantSuspended, e.RateLimited, e.AuthUnavailable),
        redirects="To the page that the login began on; the tokens are in cookies.",
        query=("code", "state", "iss", "error"),
    ),
    "auth.refresh": PublicContract(
        "login",
        (
            e.MultipleCredentials,
            e.DuplicateCookie,
            e.TokenTooLarge,
            e.Unauthenticated,
            e.InvalidToken,
            e.CsrfRejected,
            e.TenantUnknown,
            e.TenantSuspended,
            e.RateLimited,
            e.AuthUnavailable,
            e.Unavailable,
        ),
        answer=_SESSION,
        schema=_SESSION_SCHEMA,
        cookie=True,
    ),
    "auth.logout": PublicContract(
        "login",
        (e.DuplicateCookie, e.CsrfRejected, e.RateLimited),
        answer={"post_logout_redirect": None},
        schema=_LOGGED_OUT_SCHEMA,
        cookie=True,
    ),
    "auth.session": PublicContract(
        "login",
        (
            e.BadRequest,
            e.MultipleCredentials,
            e.DuplicateCookie,
            e.TokenTooLarge,
            e.Unauthenticated,
            e.TenantUnknown,
            e.TenantSuspended,
            e.RateLimited,
            e.AuthUnavailable,
        ),
        answer=_SESSION,
        schema=_SESSION_SCHEMA,
        cookie=True,
    ),
    "health.alive": PublicContract("health", answer={"status": "ok"}),
    "health.ready": PublicContract(
        "health",
        (e.Unavailable,),
        answer={"ready": True, "checks": {"mongodb": True, "stream": True, "introspection": True}, "age": 0.7},
    ),
}


def complete_public(operation: dict[str, Any], contract: PublicContract) -> None:
    """Add to an operation of the description what its contract says."""
    responses: dict[str, Any] = operation["responses"]
    operation["tags"] = [contract.tag]
    operation["security"] = [{"cookie": []}, {}] if contract.cookie else []
    if contract.redirects is not None:
        location = {"description": contract.redirects, "schema": {"type": "string", "format": "uri-reference"}}
        responses["303"] = {"description": contract.redirects, "headers": {"Location": location}}
    if contract.schema is not None:
        content = {"application/json": {"schema": dict(contract.schema)}}
        responses["200"] = {"description": str(contract.schema["description"]), "content": content}
    if contract.answer is not None:
        responses["200"]["content"]["application/json"]["example"] = contract.answer
    for status, refusal in refusals(contract.errors).items():
        responses.setdefault(status, refusal)
    operation["parameters"] = [
        *operation["parameters"],
        *(
            described({"name": name, "in": "query", "required": False, "schema": {"type": "string"}})
            for name in contract.query
        ),
    ]
