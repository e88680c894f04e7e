"""What an introspection answer (RFC 7662, 2.2) says about a token.

Pure: an answer and a moment in, a verdict out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from livedocs.access.principal import Principal
from livedocs.config import Settings
from livedocs.errors import InvalidSubject
from livedocs.model import SLUG, parse_subject

Reason = Literal[
    "inactive",
    "token_type",
    "bound",
    "exp",
    "expired",
    "nbf",
    "issuer",
    "audience",
    "tenant",
    "subject",
    "groups",
    "scope",
    # Logged out here.
    "ended",
    # Of tokens that are checked here (jwt_tokens.py).
    "malformed",
    "type",
    "algorithm",
    "key",
    "signature",
    "claims",
    "iat",
]

# Clocks differ by a little, and a token that was issued this second must not be refused for it.
SKEW = timedelta(seconds=5)
_NAME_LENGTH = 200
# What services that vouch for other tokens as well call them (`token_use` and `typ` are members of their own).
_ACCESS = frozenset({"access", "access_token"})
_OTHERS = frozenset({"refresh", "refresh_token", "offline", "id", "id_token"})


@dataclass(frozen=True, slots=True)
class Refused:
    """The token is of no use here, and why."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a token must say to be meant for this server, and where in the answer it says it."""

    issuer: str
    audience: str
    login_client: str
    tenant_claim: str
    groups_claim: str
    subject_claim: str

    @classmethod
    def of(cls, settings: Settings) -> Expectations:
        """Those of the settings."""
        return cls(
            issuer=settings.oauth_issuer,
            audience=settings.oauth_audience,
            login_client=settings.oauth_client_id,
            tenant_claim=settings.oauth_tenant_claim,
            groups_claim=settings.oauth_groups_claim,
            subject_claim=settings.oauth_subject_claim,
        )


def is_answer(body: object) -> bool:
    """Whether this is an introspection answer at all: an object whose `active` is a boolean (RFC 7662, 2.2)."""
    return isinstance(body, dict) and isinstance(body.get("active"), bool)


def judge(
    answer: Mapping[str, Any], expected: Expectations, *, token_id: str, now: datetime
) -> Principal | Refused:
    """The principal that an answer names, or why there is none."""
    expires_at = instant(answer.get("exp"))
    refusal = _lifetime(answer, expires_at, now) or _addressee(answer, expected)
    if refusal is not None or expires_at is None:
        return Refused(refusal or "exp")
    tenant = claim(answer, expected.tenant_claim)
    if not isinstance(tenant, str) or not SLUG.match(tenant):
        return Refused("tenant")
    subject = _subject(answer, expected)
    if subject is None:
        return Refused("subject")
    groups = _groups(claim(answer, expected.groups_claim))
    if groups is None:
        return Refused("groups")
    scope = answer.get("scope", "")
    if not isinstance(scope, str):
        return Refused("scope")
    return Principal(
        tenant=tenant,
        subject=subject,
        name=_name(answer, subject),
        groups=_one(groups),
        scopes=_one(frozenset(scope.split())),
        expires_at=expires_at,
        client_id=_text(answer.get("client_id")) or "",
        token_id=token_id,
    )


def claim(answer: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, None when there is none. A claim whose very name has dots comes first."""
    if path in answer:
        return answer[path]
    value: Any = answer
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _lifetime(answer: Mapping[str, Any], expires_at: datetime | None, now: datetime) -> Reason | None:
    # Identity, not truth: "true" and 1 are not `true`.
    if answer.get("active") is not True:
        return "inactive"
    if expires_at is None:
        return "exp"
    if now >= expires_at:
        return "expired"
    if "nbf" in answer:
        not_before = instant(answer["nbf"])
        if not_before is None or now < not_before - SKEW:
            return "nbf"
    return None


def _addressee(answer: Mapping[str, Any], expected: Expectations) -> Reason | None:
    # A DPoP token without its proof may be a stolen one (RFC 9449, 7.2); this server checks bearer tokens only.
    kind = answer.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return "token_type"
    # RFC 7662 is for refresh tokens too: one that lives for months is no access token, though it is active.
    if str(answer.get("token_use", "access")) not in _ACCESS or str(answer.get("typ", "")).lower() in _OTHERS:
        return "token_type"
    # The same of a token bound to a client certificate or key (RFC 8705, 3.1; RFC 7800).
    if answer.get("cnf") is not None:
        return "bound"
    if "iss" in answer and answer["iss"] != expected.issuer:
        return "issuer"
    # Required: a token for another service of the same issuer would open this one (RFC 9700, 2.3).
    audience = answer.get("aud")
    meant_for = audience if isinstance(audience, list) else [audience]
    return None if expected.audience in meant_for else "audience"


def _subject(answer: Mapping[str, Any], expected: Expectations) -> str | None:
    """`client:<client_id>` when the token speaks for a program, else `user:<sub>`.

    A provider gives a client's own token the client id as its `sub`, or none. The prefix keeps a user who picked a
    service's name from being taken for it. A token that names somebody in another way than the settings expect (a
    number as its `sub`, a `username` alone) is nobody's: else every user of a client would be that client.
    """
    client_id = _text(answer.get("client_id"))
    named, sub, username = claim(answer, expected.subject_claim), answer.get("sub"), answer.get("username")
    person = _text(named)
    nameless = all(value in (None, "", client_id) for value in (named, sub, username))
    own_token = client_id is not None and (nameless or client_id in (person, sub))
    if own_token and client_id != expected.login_client:
        subject = f"client:{client_id}"
    elif person is not None:
        subject = f"user:{person}"
    else:
        return None
    try:
        return parse_subject(subject)
    except InvalidSubject:
        return None


@lru_cache(maxsize=1000)
def _one(names: frozenset[str]) -> frozenset[str]:
    """One object for all who have the same: tokens are many, sets of groups and of scopes are few."""
    return names


def _groups(value: object) -> frozenset[str] | None:
    """The group names; None when the claim is not a list of names that a grant could hold."""
    if value is None:
        return frozenset()
    if not isinstance(value, list):
        return None
    try:
        return frozenset(parse_subject(f"group:{_required(name)}").removeprefix("group:") for name in value)
    except InvalidSubject:
        return None


def _required(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidSubject(value=value)
    return value


def _name(answer: Mapping[str, Any], subject: str) -> str:
    name = _text(answer.get("name")) or _text(answer.get("username")) or subject.partition(":")[2]
    return name[:_NAME_LENGTH]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def instant(value: object) -> datetime | None:
    """The moment of a NumericDate (RFC 7519, 2), rounded down; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(math.floor(value), UTC)
    except (OverflowError, ValueError, OSError):
        return None
