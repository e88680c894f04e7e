"""An OAuth service that does as tests say: a request in, an answer out; `oauth_http.py` gives it a port.

It speaks discovery, client credentials, introspection (RFC 7662) and revocation (RFC 7009). People have no
password and no login page: a test asks for their tokens.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

from livedocs.demo.profiles import PROFILES, shaped

AUDIENCE = "livedocs"
SERVER_ID = "livedocs"


_Credentials = tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token speaks for.

    Attributes:
        name: the `sub` of a person, the client id of a service.
        service: a program that speaks for itself.
        profile: the OAuth service in whose shape its tokens are introspected.
    """

    name: str
    tenant: str
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    service: bool = False
    profile: str = "friendly"

    @property
    def subject(self) -> str:
        """As grants name it."""
        return f"{'client' if self.service else 'user'}:{self.name}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: JSON, unless the body is empty."""

    status: int
    body: bytes = b""


@dataclass(slots=True)
class _Issued:
    identity: Identity
    client: str
    expires_at: float
    active: bool = True


class OAuth:
    """The service.

    Args:
        issuer: its URL.
        tenant: of identities that are given by their name alone.
    """

    def __init__(self, issuer: str, tenant: str, *, clock: Callable[[], float] = time.time) -> None:
        self.issuer = issuer
        self.server_secret = secrets.token_urlsafe(16)
        self._tenant = tenant
        self._clock = clock
        # Everything below belongs to this lock: the service answers in a thread of its own.
        self._lock = threading.Lock()
        self._tokens: dict[str, _Issued] = {}
        self._clients: dict[str, tuple[str, Identity]] = {}
        self._groups: dict[tuple[str, str], tuple[str, ...]] = {}
        self._fault: int | None = None
        self._asked = 0

    # -- what a test says --

    def person(
        self, name: str, *, tenant: str | None = None, groups: Iterable[str] = (), scopes: Iterable[str] = ()
    ) -> Identity:
        """Somebody, for `token` and for sockets."""
        return Identity(name, tenant or self._tenant, tuple(groups), tuple(scopes))

    def service(
        self,
        client_id: str,
        *,
        tenant: str | None = None,
        scopes: Iterable[str] = ("livedocs:write",),
        profile: str = "friendly",
    ) -> Identity:
        """A program that speaks for itself.

        Args:
            client_id: its id at the OAuth service.
            tenant: whose program it is; the first tenant's if nobody's is named.
            scopes: what its tokens may do.
            profile: the OAuth service in whose shape its tokens are introspected: keycloak, auth0, entra, zitadel.
        """
        if profile not in PROFILES:
            raise ValueError(f"profile is one of {', '.join(PROFILES)}, not {profile}")
        return Identity(client_id, tenant or self._tenant, (), tuple(scopes), service=True, profile=profile)

    def identity(self, who: str | Identity) -> Identity:
        """Who is meant: a name is a person of the first tenant."""
        return self.person(who) if isinstance(who, str) else who

    def token(self, who: str | Identity, *, ttl: float = 3600, client: str = "livedocs-tests") -> str:
        """An access token.

        Args:
            who: a person by name, or an identity.
            ttl: its life, in seconds.
            client: the program it was given to; a service's token is its own.
        """
        identity = self.identity(who)
        token = secrets.token_urlsafe(32)
        with self._lock:
            client = identity.name if identity.service else client
            self._tokens[token] = _Issued(identity, client, self._clock() + ttl)
        return token

    def client(self, who: Identity) -> str:
        """Let a service ask for its tokens itself, with client credentials. Returns its secret."""
        secret = secrets.token_urlsafe(16)
        with self._lock:
            self._clients[who.name] = (secret, who)
        return secret

    def revoke(self, token: str) -> None:
        """End a token before its time."""
        with self._lock:
            self._tokens[token].active = False

    def revoke_all(self, who: str | Identity) -> None:
        """End every token of somebody."""
        identity = self.identity(who)
        with self._lock:
            for issued in self._tokens.values():
                if (issued.identity.subject, issued.identity.tenant) == (identity.subject, identity.tenant):
                    issued.active = False

    def expire(self, token: str) -> None:
        """Bring a token to its end now. Who has asked about it before finds out when asking again."""
        with self._lock:
            self._tokens[token].expires_at = self._clock()

    def set_groups(self, who: str | Identity, groups: Iterable[str]) -> None:
        """Put somebody into these groups and no others; told at the next introspection, of older tokens too."""
        identity = self.identity(who)
        with self._lock:
            self._groups[(identity.subject, identity.tenant)] = tuple(groups)

    def fail(self, status: int = 500) -> None:
        """Answer every request with that status from now on."""
        with self._lock:
            self._fault = status

    def recover(self) -> None:
        """Answer again."""
        with self._lock:
            self._fault = None

    @property
    def introspections(self) -> int:
        """How often a server has asked about a token."""
        return self._asked

    def reset(self, *, tenant: str | None = None) -> None:
        """Forget tokens, services, groups and faults; but not the tokens of that tenant."""
        with self._lock:
            self._tokens = {
                token: issued for token, issued in self._tokens.items() if issued.identity.tenant == tenant
            }
            self._clients.clear()
            self._groups.clear()
            self._fault = None
            self._asked = 0

    # -- what it answers --

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a request; header names in lower case."""
        path = urlsplit(url).path
        with self._lock:
            if self._fault is not None:
                return Answer(self._fault, b"{}")
            if method == "GET" and path.startswith("/.well-known/"):
                return _json(self._metadata())
            form = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
            endpoint = self._endpoints.get((method, path))
            return Answer(404) if endpoint is None else endpoint(form, _credentials(headers, form))

    @property
    def _endpoints(self) -> Mapping[tuple[str, str], Callable[[Mapping[str, str], _Credentials], Answer]]:
        return {
            ("POST", "/token"): self._token,
            ("POST", "/introspect"): self._introspect,
            ("POST", "/revoke"): self._revoke,
        }

    def _metadata(self) -> dict[str, Any]:
        endpoints = {"token": "token", "introspection": "introspect", "revocation": "revoke"}
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            **{f"{name}_endpoint": f"{self.issuer}/{path}" for name, path in endpoints.items()},
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "grant_types_supported": ["client_credentials"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        }

    def _token(self, form: Mapping[str, str], credentials: _Credentials) -> Answer:
        """Client credentials (RFC 6749, 4.4)."""
        client_id, secret = credentials or ("", "")
        known = self._clients.get(client_id)
        if known is None or not secrets.compare_digest(known[0], secret):
            return _json({"error": "invalid_client"}, 401)
        if form.get("grant_type") != "client_credentials":
            return _json({"error": "unsupported_grant_type"}, 400)
        identity = known[1]
        scopes = tuple(form.get("scope", " ".join(identity.scopes)).split())
        if not set(scopes) <= set(identity.scopes):
            return _json({"error": "invalid_scope"}, 400)
        token, life = secrets.token_urlsafe(32), 3600
        self._tokens[token] = _Issued(replace(identity, scopes=scopes), client_id, self._clock() + life)
        return _json(
            {"access_token": token, "token_type": "Bearer", "expires_in": life, "scope": " ".join(scopes)}
        )

    def _introspect(self, form: Mapping[str, str], credentials: _Credentials) -> Answer:
        if credentials != (SERVER_ID, self.server_secret):
            return _json({"error": "invalid_client"}, 401)
        self._asked += 1
        issued = self._tokens.get(form.get("token", ""))
        if issued is None or not issued.active or issued.expires_at <= self._clock():
            return _json({"active": False})
        who = issued.identity
        claims = {
            "active": True,
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": who.name,
            "client_id": issued.client,
            "username": who.name,
            "token_type": "Bearer",
            "exp": int(issued.expires_at),
            "scope": " ".join(who.scopes),
            "tenant": who.tenant,
            "groups": list(self._groups.get((who.subject, who.tenant), who.groups)),
        }
        return _json(shaped(who.profile, claims, issued.client, service=who.service))

    def _revoke(self, form: Mapping[str, str], _credentials: _Credentials) -> Answer:
        issued = self._tokens.get(form.get("token", ""))
        if issued is not None:
            issued.active = False
        return Answer(200)


def _credentials(headers: Mapping[str, str], form: Mapping[str, str]) -> _Credentials:
    """The client's id and secret, by either of the usual ways (RFC 6749, 2.3.1)."""
    kind, _, encoded = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return unquote_plus(name), unquote_plus(secret)
    return (form["client_id"], form["client_secret"]) if {"client_id", "client_secret"} <= form.keys() else None


def _json(value: Mapping[str, Any], status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode())
