"""What a request brings along to say who is asking, and the checks that need nothing but its headers. Pure.

A credential is the access token in our cookie or in `Authorization: Bearer` (RFC 6750, 2.1), never both and never
in a query string. Headers come as ASGI has them: pairs of bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from livedocs.errors import (
    BadRequest,
    CsrfRejected,
    DuplicateCookie,
    ForbiddenOrigin,
    InvalidToken,
    MultipleCredentials,
    TokenTooLarge,
    Unauthenticated,
)

Headers = Iterable[tuple[bytes, bytes]]

MAX_TOKEN = 4096
"""Octets of the longest token taken. A cookie's name and value have no more together (RFC 6265bis, 5.7)."""

# RFC 6750, 2.1: b64token.
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z")
# RFC 9110, 9.2.1, without TRACE, which nobody answers.
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Credential:
    """An access token, not yet believed, and the way it came."""

    token: str = field(repr=False)
    source: Literal["cookie", "bearer"]


def cookie_name(secure: bool) -> str:  # noqa: FBT001 - the one thing the name depends on
    """The name of the cookie that holds the access token.

    Browsers take a `__Host-` cookie only over https, from this very host, for the whole of it: no sibling
    subdomain can plant one (RFC 6265bis, 4.1.3.2).
    """
    return "__Host-livedocs_token" if secure else "livedocs_token"


def login_cookie_name(secure: bool) -> str:  # noqa: FBT001 - as above
    """The name of the cookie that stays the same for a browser's login, from refresh to refresh."""
    return "__Host-livedocs_session" if secure else "livedocs_session"


def login_id(headers: Headers, *, secure: bool) -> str | None:
    """Which login of a browser a request belongs to, as the SHA-256 of its cookie; None when it does not say.

    It opens nothing: it only says which sockets end together.

    Raises:
        DuplicateCookie: the cookie is there twice.
    """
    value = read_cookie(headers, login_cookie_name(secure))
    return hashlib.sha256(value.encode("latin-1")).hexdigest() if value else None


def well_formed(token: str) -> bool:
    """Whether the text can be a bearer token at all, in the one spelling that is accepted of it."""
    return len(token) <= MAX_TOKEN and _TOKEN.match(token) is not None and _is_only_spelling(token)


def _is_only_spelling(token: str) -> bool:
    """Whether nobody would read another text as the same signed token (RFC 7515, 2: base64url without padding).

    Decoders take padding, characters of no alphabet and bits that mean nothing. Each such spelling would be a
    token of its own here, which the logout of the other does not reach.
    """
    first, *others = token.split(".")
    if len(others) < 2 or not _decoded(first).lstrip().startswith(b"{"):
        # Opaque: what it is the same as, only its issuer knows.
        return True
    return all(base64.urlsafe_b64encode(_decoded(part)).rstrip(b"=") == part.encode() for part in (first, *others))


def _decoded(part: str) -> bytes:
    """What a lenient decoder makes of a part of a token; nothing where even that fails."""
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return b""


def from_headers(headers: Headers, *, secure: bool) -> Credential | None:
    """The one credential of a request; None when it brings none.

    Args:
        headers: all of the request's.
        secure: whether browsers reach the server over https; decides the cookie's name.

    Raises:
        MultipleCredentials: a cookie and an Authorization header, or two of the latter.
        DuplicateCookie: our cookie twice.
        TokenTooLarge: a token of more than `MAX_TOKEN` octets.
        BadRequest: `Authorization: Bearer` with something that is no token (RFC 6750, 3.1: invalid_request).
        InvalidToken: our cookie with something that is no token; another spelling of a signed token.
        Unauthenticated: an Authorization header of another scheme.
    """
    held = list(headers)
    cookie = read_cookie(held, cookie_name(secure))
    authorization = _values(held, b"authorization")
    if len(authorization) + (cookie is not None) > 1:
        raise MultipleCredentials
    if authorization:
        return Credential(_bearer(authorization[0]), "bearer")
    if cookie is None:
        return None
    if len(cookie) > MAX_TOKEN:
        raise TokenTooLarge
    if not well_formed(cookie):
        raise InvalidToken
    return Credential(cookie, "cookie")


def read_cookie(headers: Headers, name: str) -> str | None:
    """The value of the cookie of exactly that name, or None.

    HTTP/2 may spread the pairs over several header fields (RFC 9113, 8.2.3).

    Raises:
        DuplicateCookie: it is there twice, so one of them may have been planted by a sibling domain.
    """
    values = [value for key, value in _cookies(headers) if key == name]
    if len(values) > 1:
        raise DuplicateCookie(cookie=name)
    return values[0] if values else None


def cookie_names(headers: Headers) -> list[str]:
    """The names of all cookies of a request, in its order."""
    return [key for key, _ in _cookies(headers)]


def _cookies(headers: Headers) -> Iterator[tuple[str, str]]:
    for header in _values(list(headers), b"cookie"):
        for pair in header.split(";"):
            key, equals, value = pair.strip(" \t").partition("=")
            if equals:
                yield key, value


def origin_from(headers: Headers) -> str | None:
    """The origin (RFC 6454) of the page that sent the request; None when the header is absent.

    Raises:
        ForbiddenOrigin: two Origin headers, of which a proxy may have checked the other one.
    """
    origins = _values(list(headers), b"origin")
    if len(origins) > 1:
        raise ForbiddenOrigin
    return origins[0] if origins else None


def check_origin(origin: str | None, credential: Credential | None, allowed: frozenset[str]) -> None:
    """Refuse a WebSocket handshake that a foreign page may have started (cross-site WebSocket hijacking).

    A present origin must be one of ours, whatever the credential, and `null` is foreign. An absent one is a
    program, which has no business with a browser's cookie.

    Raises:
        ForbiddenOrigin: the origin is foreign, or absent beside a cookie.
    """
    if origin is None:
        if credential is not None and credential.source == "cookie":
            raise ForbiddenOrigin("A request with a cookie must have an Origin header.")
        return
    if origin not in allowed:
        raise ForbiddenOrigin(origin=origin)


def check_csrf(method: str, headers: Headers, credential: Credential | None, origins: frozenset[str]) -> None:
    """Refuse a state change that a foreign page had the browser send (cross-site request forgery).

    SameSite does not stop a sibling subdomain, so an unsafe method with a cookie needs two proofs: the Origin is
    ours (or, when the browser sends none, Sec-Fetch-Site says `same-origin`), and the header X-Requested-With is
    there, which a form cannot send and a foreign script only after a CORS preflight.

    Raises:
        CsrfRejected: a proof is missing.
    """
    if method.upper() in _SAFE_METHODS or credential is None or credential.source != "cookie":
        return
    held = list(headers)
    origin = _values(held, b"origin")
    fetch_site = _values(held, b"sec-fetch-site")
    ours = (len(origin) == 1 and origin[0] in origins) if origin else fetch_site == ["same-origin"]
    if not ours or not _values(held, b"x-requested-with"):
        raise CsrfRejected


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _bearer(header: str) -> str:
    scheme, _, rest = header.strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("The Authorization header must use the Bearer scheme.")
    token = rest.strip(" \t")
    if len(token) > MAX_TOKEN:
        raise TokenTooLarge
    if _TOKEN.match(token) is None:
        raise BadRequest("The Authorization header holds no bearer token.")
    if not well_formed(token):
        raise InvalidToken
    return token
