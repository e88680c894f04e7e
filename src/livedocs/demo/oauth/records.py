"""What the provider remembers, in the shape in which Authlib's grants and endpoints ask for it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from livedocs.demo.oauth.clients import Client
from livedocs.demo.people import Person


@dataclass(frozen=True, slots=True)
class Login:
    """One login of one person at one client; every token that came of it ends with it.

    Attributes:
        at: when the person logged in, seconds since 1970.
        ttl: lifetime of its access tokens in seconds.
        scope: what was granted, separated by spaces.
    """

    id: str
    person: str
    client_id: str
    scope: str
    ttl: int
    at: int
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code (RFC 6749, 4.1.2) with what RFC 7636 and OpenID Connect bind to it."""

    hash: str
    login: Login
    redirect_uri: str
    code_challenge: str
    nonce: str | None
    expires_at: float
    used: bool = False

    # The one method allowed; Authlib would take a missing one for `plain`.
    code_challenge_method: str = "S256"

    def get_redirect_uri(self) -> str:
        """The redirect URI of the authorization request, which the token request must repeat."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """The scope granted."""
        return self.login.scope

    def get_nonce(self) -> str | None:
        """The nonce of the authorization request, to be repeated in the id token."""
        return self.nonce

    def get_auth_time(self) -> int:
        """When the person logged in."""
        return self.login.at

    def get_acr(self) -> None:
        """No authentication context class: nobody proves anything here."""

    def get_amr(self) -> None:
        """No authentication methods either."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token. `ended` says that its login has ended, `revoked` that the token itself was revoked."""

    jti: str
    client_id: str
    scope: str
    issued_at: int
    expires_at: int
    person: str | None = None
    login: str | None = None
    revoked: bool = False
    ended: bool = False

    def check_client(self, client: Client) -> bool:
        """Whether it was issued to that client."""
        return self.client_id == client.client_id

    def get_scope(self) -> str:
        """The scope granted."""
        return self.scope

    def is_expired(self) -> bool:
        """Whether its time is over."""
        return time.time() >= self.expires_at

    def is_revoked(self) -> bool:
        """Whether it was revoked, alone or with its login."""
        return self.revoked or self.ended


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token. Once `rotated`, seeing it again means that two parties hold it (RFC 9700, 4.14.2)."""

    hash: str
    login: Login
    expires_at: float
    rotated: bool = False

    def check_client(self, client: Client) -> bool:
        """Whether it was issued to that client."""
        return self.login.client_id == client.client_id

    def get_scope(self) -> str:
        """The scope granted."""
        return self.login.scope

    def is_usable(self) -> bool:
        """Whether it may be exchanged, its rotation aside."""
        return not self.login.ended and time.time() < self.expires_at


@dataclass(frozen=True, slots=True)
class Standing:
    """A person as things are now, and whether they may log in."""

    person: Person
    disabled: bool = False
