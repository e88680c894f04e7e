"""The grants: authorization code with PKCE, refresh with rotation, client credentials."""

from __future__ import annotations

import time
from typing import Any

from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidRequestError, InvalidScopeError, OAuth2Request
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, ClientCredentialsGrant, RefreshTokenGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core.grants import OpenIDCode
from joserfc.jwk import RSAKey

from livedocs.demo import people
from livedocs.demo.oauth.clients import Client
from livedocs.demo.oauth.keys import ALGORITHM
from livedocs.demo.oauth.records import Code, RefreshToken
from livedocs.demo.oauth.server import Server
from livedocs.demo.oauth.state import CODE_SECONDS, digest, new_login
from livedocs.demo.people import Person

_CONFIDENTIAL = ["client_secret_basic", "client_secret_post"]


def register(server: Server) -> None:
    """Offer every grant."""
    server.register_grant(CodeGrant, [S256(), OpenID(server), check_ttl])
    server.register_grant(RefreshGrant)
    server.register_grant(ServiceGrant)


def asked_ttl(request: OAuth2Request) -> int | None:
    """The lifetime in seconds that a request asks for its access token: this provider's extension for tests.

    Raises:
        InvalidRequestError: when it is not a whole number of seconds within bounds.
    """
    text = request.payload.data.get("ttl")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) in people.TTL_SECONDS):
        raise InvalidRequestError(f"ttl is a number of seconds from 1 to {people.TTL_SECONDS[-1]}")
    return int(text)


def check_ttl(grant: CodeGrant) -> None:
    """Grant extension: refuse a bad `ttl` while there is still an application to tell it to."""
    grant.register_hook("after_validate_authorization_request_payload", lambda it, _uri: asked_ttl(it.request))


class S256(CodeChallenge):  # type: ignore[misc]  # Authlib ships no types
    """PKCE for every client, by S256 alone (RFC 9700, 2.1.1); Authlib lets a request without a challenge pass."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    def validate_code_challenge(self, grant: CodeGrant, redirect_uri: str) -> None:
        """Refuse an authorization request without an S256 challenge."""
        super().validate_code_challenge(grant, redirect_uri)
        if grant.request.payload.data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("PKCE with code_challenge_method S256 is required")


class OpenID(OpenIDCode):  # type: ignore[misc]  # Authlib ships no types
    """The id token (OpenID Connect Core 1.0, 2)."""

    def __init__(self, server: Server) -> None:
        super().__init__(require_nonce=False)
        self._server = server

    def exists_nonce(self, _nonce: str, _request: OAuth2Request) -> bool:
        """A nonce is the client's to check against its own login; here any is as good as another."""
        return False

    def resolve_client_private_key(self, _client: Client) -> RSAKey:
        """The key for every client."""
        return self._server.key.key

    def get_encode_header(self, _client: Client) -> dict[str, str]:
        """The JOSE header."""
        return {"alg": ALGORITHM, "typ": "JWT", "kid": self._server.key.kid}

    def get_client_claims(self, client: Client) -> dict[str, str]:
        """Who says it to whom."""
        return {"iss": self._server.issuer, "aud": client.client_id}

    def get_authorization_code_claims(self, authorization_code: Code) -> dict[str, Any]:
        """The nonce, the time of the login, and the login itself so that logging out can end it."""
        claims: dict[str, Any] = super().get_authorization_code_claims(authorization_code)
        return {**claims, "sid": authorization_code.login.id}

    def generate_user_info(self, user: Person, scope: str) -> dict[str, Any]:
        """The claims about the person."""
        return user_info(user, scope)


def user_info(person: Person, scope: str) -> dict[str, Any]:
    """The claims about a person that the scope lets an application see (OpenID Connect Core 1.0, 5.4)."""
    about = {"sub": person.name, "tenant": person.tenant, "groups": list(person.groups)}
    if "profile" in scope.split():
        about |= {"name": person.title, "preferred_username": person.name}
    return about


class CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]  # Authlib ships no types
    """Authorization code (RFC 6749, 4.1)."""

    TOKEN_ENDPOINT_AUTH_METHODS = [*_CONFIDENTIAL, "none"]  # noqa: RUF012 - Authlib tells a list's members apart

    server: Server

    @staticmethod
    def validate_authorization_redirect_uri(request: OAuth2Request, client: Client) -> str:
        """The redirect URI, registered exactly so. Authlib would repeat a foreign one in its message."""
        asked = request.payload.redirect_uri
        uri = asked or client.get_default_redirect_uri()
        if not uri or not client.check_redirect_uri(uri):
            raise InvalidRequestError("redirect_uri is not one that this client registered")
        return str(uri)

    def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
        """Remember the login and its code, narrowed to what the person may have (RFC 6749, 3.3)."""
        person: Person = request.user
        scope = " ".join(name for name in request.scope.split() if name in person.scopes)
        if not scope:
            raise InvalidScopeError(redirect_uri=self.redirect_uri)
        ttl = asked_ttl(request) or people.ACCESS_TOKEN_SECONDS
        login = new_login(person.name, request.client.client_id, scope, ttl)
        parameters = request.payload.data
        self.server.state.add_login(login)
        self.server.state.add_code(
            Code(
                digest(code),
                login,
                request.payload.redirect_uri or "",
                parameters["code_challenge"],
                parameters.get("nonce"),
                time.time() + CODE_SECONDS,
            )
        )

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        """The code, if it is this client's and good; a used one ends its login (RFC 6749, 4.1.2)."""
        found = self.server.state.code(code)
        if found is None or found.login.client_id != client.client_id:
            return None
        if found.used:
            self.server.state.end_login(found.login.id)
            return None
        return found if time.time() < found.expires_at and not found.login.ended else None

    def authenticate_user(self, authorization_code: Code) -> Person | None:
        """The person who logged in. Using the code up is part of it: of two requests at once, one gets through."""
        if not self.server.state.use_code(authorization_code):
            self.server.state.end_login(authorization_code.login.id)
            return None
        return _person_in_good_standing(self.server, authorization_code.login.person)

    def delete_authorization_code(self, authorization_code: Code) -> None:
        """Nothing: a used code is kept, to be recognised."""

    def generate_token(self, **asked: Any) -> dict[str, Any]:
        """A token as long-lived as the login asked, with a refresh token if `offline_access` was granted."""
        login = self.request.authorization_code.login
        asked["include_refresh_token"] &= "offline_access" in login.scope.split()
        asked["expires_in"] = _lifetime(self.server, self.request, login.id, login.ttl)
        return dict(super().generate_token(**asked))


class RefreshGrant(RefreshTokenGrant):  # type: ignore[misc]  # Authlib ships no types
    """Refresh (RFC 6749, 6) with rotation; using a token twice ends the login (RFC 9700, 4.14.2)."""

    TOKEN_ENDPOINT_AUTH_METHODS = [*_CONFIDENTIAL, "none"]  # noqa: RUF012
    INCLUDE_NEW_REFRESH_TOKEN = True

    server: Server

    def authenticate_refresh_token(self, refresh_token: str) -> RefreshToken | None:
        """The refresh token, if it is this client's and good."""
        found = self.server.state.refresh_token(refresh_token)
        if found is None or not found.check_client(self.request.client):
            return None
        if found.rotated:
            self.server.state.end_login(found.login.id)
            return None
        return found if found.is_usable() else None

    def authenticate_user(self, refresh_token: RefreshToken) -> Person:
        """The person who logged in. Rotating is part of it: of two requests at once, one gets through."""
        if not self.server.state.rotate(refresh_token):
            self.server.state.end_login(refresh_token.login.id)
            raise InvalidGrantError
        person = _person_in_good_standing(self.server, refresh_token.login.person)
        if person is None:
            raise InvalidGrantError
        return person

    def revoke_old_credential(self, refresh_token: RefreshToken) -> None:
        """Nothing: rotated already."""

    def generate_token(self, **asked: Any) -> dict[str, Any]:
        """A token as long-lived as the login asked."""
        login = self.request.refresh_token.login
        asked["expires_in"] = _lifetime(self.server, self.request, login.id, login.ttl)
        return dict(super().generate_token(**asked))


class ServiceGrant(ClientCredentialsGrant):  # type: ignore[misc]  # Authlib ships no types
    """Client credentials (RFC 6749, 4.4)."""

    TOKEN_ENDPOINT_AUTH_METHODS = _CONFIDENTIAL

    def generate_token(self, **asked: Any) -> dict[str, Any]:
        """A token that lives as long as asked."""
        asked["expires_in"] = asked_ttl(self.request)
        return dict(super().generate_token(**asked))


def _lifetime(server: Server, request: OAuth2Request, login: str, remembered: int) -> int:
    """What this request asks for, remembered from now on, or what an earlier one of the login did."""
    asked = asked_ttl(request)
    if asked is None:
        return remembered
    server.state.set_ttl(login, asked)
    return asked


def _person_in_good_standing(server: Server, name: str) -> Person | None:
    standing = server.state.standing(name)
    return None if standing is None or standing.disabled else standing.person
