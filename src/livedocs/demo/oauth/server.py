"""Authlib's authorization server with this provider's clients, tokens and memory."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import InvalidClientError, InvalidScopeError, OAuth2Request

from livedocs.demo import people
from livedocs.demo.oauth.clients import Client
from livedocs.demo.oauth.keys import ACCESS_TOKEN_TYPE, SigningKey
from livedocs.demo.oauth.records import AccessToken, Login
from livedocs.demo.oauth.state import State
from livedocs.demo.people import Person
from livedocs.demo.profiles import shaped


class Server(AuthorizationServer):  # type: ignore[misc]  # Authlib ships no types
    """The one object that grants and endpoints reach everything through."""

    def __init__(self, issuer: str, key: SigningKey, state: State, clients: Mapping[str, Client]) -> None:
        super().__init__()
        self.issuer = issuer
        self.key = key
        self.state = state
        self.clients = clients
        # In whose shape tokens are: one of `PROFILES`; for tests.
        self.profile = "friendly"
        # What Authlib's Flask integration would take from an application's configuration.
        self.scopes_supported = tuple(people.SCOPES)
        self.register_token_generator("default", self.issue)

    def query_client(self, client_id: str) -> Client | None:
        """The client of that id."""
        return self.clients.get(client_id)

    def authenticate_client(self, request: OAuth2Request, methods: list[str], endpoint: str = "token") -> Client:
        """The client that sent the request; 401 for every failure, where Authlib tells unknown clients apart."""
        try:
            client: Client = super().authenticate_client(request, methods, endpoint)
        except InvalidClientError as error:
            raise InvalidClientError("Client authentication failed", status_code=401) from error
        return client

    def issue(  # noqa: PLR0917 - Authlib's signature of a token generator
        self,
        grant_type: str,  # noqa: ARG002
        client: Client,
        user: Person | None = None,
        scope: str | None = None,
        expires_in: int | None = None,
        include_refresh_token: bool = True,  # noqa: FBT001, FBT002
    ) -> dict[str, Any]:
        """A token response (RFC 6749, 5.1) with a JWT access token (RFC 9068).

        Authlib has a generator of its own, but its tokens carry no key id and all live equally long.
        """
        allowed = client.get_allowed_scope(scope)
        if allowed is None:
            raise InvalidScopeError
        seconds = expires_in or people.ACCESS_TOKEN_SECONDS
        now = time.time()
        claims = {
            "iss": self.issuer,
            "aud": people.AUDIENCE,
            "client_id": client.client_id,
            "iat": int(now),
            "nbf": int(now),
            # Rounded up: a token asked for one second must live for one.
            "exp": math.ceil(now) + seconds,
            "jti": secrets.token_urlsafe(16),
            "scope": allowed,
            **subject_claims(client, user),
        }
        claims = shaped(self.profile, claims, client.client_id, service=user is None)
        token = {
            "access_token": self.key.sign(claims, typ=ACCESS_TOKEN_TYPE),
            "token_type": "Bearer",
            "expires_in": seconds,
            "scope": allowed,
        }
        if include_refresh_token:
            token["refresh_token"] = secrets.token_urlsafe(32)
        return token

    def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        """Remember what `issue` made for the request."""
        claims = self.key.access_claims(token["access_token"]) or {}
        origin = request.authorization_code or request.refresh_token
        login: Login | None = origin.login if origin else None
        self.state.add_access_token(
            AccessToken(
                claims["jti"],
                request.client.client_id,
                token["scope"],
                claims["iat"],
                claims["exp"],
                login.person if login else None,
                login.id if login else None,
            )
        )
        if login and "refresh_token" in token:
            self.state.add_refresh_token(token["refresh_token"], login.id)


def subject_claims(client: Client, user: Person | None) -> dict[str, Any]:
    """Whom a token speaks for: a person, or the client itself (RFC 9068, 2.2: then `sub` is its id)."""
    if user is not None:
        return {"sub": user.name, "username": user.name, "tenant": user.tenant, "groups": list(user.groups)}
    tenant = {"tenant": client.data.tenant} if client.data.tenant else {}
    return {"sub": client.client_id, **tenant, "groups": []}
