"""What an introspection answer (RFC 7662, 2.2) says about a token.

Pure: an answer and a moment in, a verdict out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from livedocs.access.principal import Principal
from livedocs.config import Settings
from livedocs.errors import InvalidSubject
from livedocs.model import parse_subject
from livedocs.names import is_name

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
_CLIENT = ("client_id", "azp", "appid", "cid")
_SCOPES = ("scope", "scp", "roles")


@dataclass(frozen=True, slots=True)
class Refused:
    """The token is of no use here, and why."""

    reason: Reason

    def claim(self, expected: Expectations) -> str | None:
        """The claim that is to blame, by the name that the settings give it; None when none is."""
        named = {
            "tenant": expected.tenant_claim,
            "groups": expected.groups_claim,
            "subject": expected.subject_claim,
            "audience": "aud",
            "issuer": "iss",
            "expired": "exp",
            "bound": "cnf",
            "inactive": "active",
            "claims": "sub, client_id",
        }
        of_that_name = self.reason if self.reason in {"exp", "nbf", "iat", "scope", "token_type"} else None
        return named.get(self.reason, of_that_name)


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a token must say to be meant for this server, where in the answer it says it, and how much of it."""

    issuer: str
    audience: str
    login_client: str
    tenant_claim: str
    groups_claim: str
    subject_claim: str
    service_claims: Sequence[str] = ()
    max_groups: int = 1000

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
            service_claims=settings.oauth_service_claims,
            max_groups=settings.max_groups,
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
    tenant = _tenant(claim(answer, expected.tenant_claim))
    if tenant is None:
        return Refused("tenant")
    subject = _subject(answer, expected)
    if subject is None:
        return Refused("subject")
    groups = _groups(claim(answer, expected.groups_claim), expected.max_groups)
    if groups is None:
        return Refused("groups")
    scopes = _scopes(answer)
    if scopes is None:
        return Refused("scope")
    return Principal(
        tenant=tenant,
        subject=subject,
        name=_name(answer, subject),
        groups=_one(groups),
        scopes=_one(scopes),
        expires_at=expires_at,
        client_id=client_of(answer) or "",
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
    if answer.get("nbf") is not None:
        not_before = instant(answer["nbf"])
        if not_before is None or now < not_before - SKEW:
            return "nbf"
    return None


def _addressee(answer: Mapping[str, Any], expected: Expectations) -> Reason | None:
    # A DPoP token without its proof may be a stolen one (RFC 9449, 7.2); this server checks bearer tokens only.
    kind = _or(answer.get("token_type"), "Bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return "token_type"
    # RFC 7662 is for refresh tokens too: one that lives for months is no access token, though it is active.
    if str(_or(answer.get("token_use"), "access")) not in _ACCESS or str(answer.get("typ", "")).lower() in _OTHERS:
        return "token_type"
    # The same of a token bound to a client certificate or key (RFC 8705, 3.1; RFC 7800).
    if answer.get("cnf") is not None:
        return "bound"
    if answer.get("iss") not in (None, expected.issuer):
        return "issuer"
    # Required: a token for another service of the same issuer would open this one (RFC 9700, 2.3).
    audience = answer.get("aud")
    meant_for = audience if isinstance(audience, list) else [audience]
    return None if expected.audience in meant_for else "audience"


def _subject(answer: Mapping[str, Any], expected: Expectations) -> str | None:
    """`client:<client_id>` when the token speaks for a program, else `user:<sub>`.

    A provider gives a client's own token the client id as its `sub`, or none, or says in a claim of its own that
    nobody is behind it (`oauth_service_claims`). The prefix keeps a user who picked a service's name from being
    taken for it. A token that names somebody in another way than the settings expect (a number as its `sub`, a
    `username` alone) is nobody's: else every user of a client would be that client.
    """
    client_id = client_of(answer)
    if client_id is not None and not is_name(client_id):
        # Shown beside what a user does as well.
        return None
    named, sub, username = claim(answer, expected.subject_claim), answer.get("sub"), answer.get("username")
    person = _text(named)
    nameless = all(value in (None, "", client_id) for value in (named, sub, username))
    own_token = client_id is not None and (
        nameless or client_id in (person, sub) or _says_so(answer, client_id, expected.service_claims)
    )
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


def client_of(answer: Mapping[str, Any]) -> str | None:
    """The client that the token was issued to: `client_id` (RFC 7662, RFC 9068), or what some call it instead."""
    return next(filter(None, (_text(answer.get(name)) for name in _CLIENT)), None)


def _says_so(answer: Mapping[str, Any], client_id: str, service_claims: Sequence[str]) -> bool:
    """Whether one of these claims has the value by which the provider marks a client's own token."""
    wanted = (one.partition("=") for one in service_claims)
    return any(claim(answer, name) == value.replace("{client_id}", client_id) for name, _, value in wanted)


def _tenant(value: object) -> str | None:
    """The tenant's name as the provider has it: a slug, an id of its own, or a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    name = _text(value)
    return name if name is not None and is_name(name) else None


def _scopes(answer: Mapping[str, Any]) -> frozenset[str] | None:
    """What the token may do, of every claim that says it; None when one of them is no list of words.

    `scope` is text with spaces (RFC 7662, RFC 9068); some have an array, or `scp`, and `roles` for programs.
    """
    scopes: set[str] = set()
    for name in _SCOPES:
        value = _or(answer.get(name), "")
        words = value.split() if isinstance(value, str) else value
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            return None
        scopes.update(words)
    return frozenset(scopes)


def _or(value: Any, otherwise: Any) -> Any:
    """A member's value; JSON's null is as good as none."""
    return otherwise if value is None else value


@lru_cache(maxsize=1000)
def _one(names: frozenset[str]) -> frozenset[str]:
    """One object for all who have the same: tokens are many, sets of groups and of scopes are few."""
    return names


def _groups(value: object, most: int) -> frozenset[str] | None:
    """The group names; None when the claim is not a list of at most so many names that a grant could hold.

    None of too many is left out: which ones would be chance, and a grant could be for any of them.
    """
    if value is None:
        return frozenset()
    if isinstance(value, str):
        # Some write a list of one as its item.
        value = [value]
    if not isinstance(value, list) or len(value) > most:
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
    """What people are shown; the subject's own where a provider's is no name."""
    names = (_text(answer.get(claimed)) for claimed in ("name", "username"))
    shown = (name.strip()[:_NAME_LENGTH].rstrip() for name in names if name is not None)
    return next(filter(is_name, shown), subject.partition(":")[2][:_NAME_LENGTH])


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
