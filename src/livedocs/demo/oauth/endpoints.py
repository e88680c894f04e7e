"""The endpoints beside the grants: introspection, revocation, logging out, and the bearer check of userinfo."""

from __future__ import annotations

from typing import Any

from authlib.integrations.flask_oauth2 import ResourceProtector
from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Request
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oidc.rpinitiated import EndSessionEndpoint
from authlib.oidc.rpinitiated.end_session import EndSessionRequest
from joserfc.jwk import KeySet

from livedocs.demo import people
from livedocs.demo.oauth.clients import Client
from livedocs.demo.oauth.keys import ALGORITHM
from livedocs.demo.oauth.records import AccessToken, RefreshToken
from livedocs.demo.oauth.server import Server, subject_claims
from livedocs.demo.profiles import shaped

_CONFIDENTIAL = ["client_secret_basic", "client_secret_post"]


def register(server: Server) -> None:
    """Offer every endpoint."""
    server.register_endpoint(Introspection(server))
    server.register_endpoint(Revocation(server))
    server.register_endpoint(EndSession(server))


def access_token(server: Server, token: str) -> AccessToken | None:
    """The access token with that text, whatever has become of it; None when it is not one of ours."""
    claims = server.key.access_claims(token)
    return server.state.access_token(str(claims.get("jti"))) if claims else None


def _require_token(request: OAuth2Request) -> None:
    # Authlib refuses unknown hints with a 401, which a resource server reads as its own misconfiguration; RFC 7662
    # (2.1) and RFC 7009 (2.1) let a hint be ignored.
    if not request.form.get("token"):
        raise InvalidRequestError("token is missing")


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]  # Authlib ships no types
    """RFC 7662, for access tokens only: a refresh token must never pass for one at a resource server."""

    CLIENT_AUTH_METHODS = _CONFIDENTIAL

    server: Server

    def check_params(self, request: OAuth2Request, _client: Client) -> None:
        """Refuse a request without a token."""
        _require_token(request)

    def check_permission(self, _token: AccessToken, client: Client, _request: OAuth2Request) -> bool:
        """Whether the client may know; to others every token is inactive (RFC 7662, 2.2)."""
        return client.data.introspects

    def query_token(self, token_string: str, _token_type_hint: str | None) -> AccessToken | None:
        """The token, if it is an access token of ours."""
        return access_token(self.server, token_string)

    def introspect_token(self, token: AccessToken) -> dict[str, Any]:
        """What the token means now: tenant and groups as they are today, not as they were at its issue."""
        standing = self.server.state.standing(token.person) if token.person else None
        if token.person and (standing is None or standing.disabled):
            return {"active": False}
        client = self.server.clients[token.client_id]
        claims = {
            "active": True,
            "iss": self.server.issuer,
            "aud": people.AUDIENCE,
            "client_id": token.client_id,
            "scope": token.scope,
            "iat": token.issued_at,
            "nbf": token.issued_at,
            "exp": token.expires_at,
            "jti": token.jti,
            "token_type": "Bearer",
            **subject_claims(client, standing.person if standing else None),
        }
        return shaped(self.server.profile, claims, token.client_id, service=standing is None)


class Revocation(RevocationEndpoint):  # type: ignore[misc]  # Authlib ships no types
    """RFC 7009: an access token ends alone, a refresh token with everything of its login."""

    CLIENT_AUTH_METHODS = [*_CONFIDENTIAL, "none"]  # noqa: RUF012 - Authlib tells a list's members apart

    server: Server

    def check_params(self, request: OAuth2Request, _client: Client) -> None:
        """Refuse a request without a token."""
        _require_token(request)

    def query_token(self, token_string: str, _token_type_hint: str | None) -> AccessToken | RefreshToken | None:
        """The token of either kind; their forms tell them apart without the hint."""
        return access_token(self.server, token_string) or self.server.state.refresh_token(token_string)

    def revoke_token(self, token: AccessToken | RefreshToken, _request: OAuth2Request) -> None:
        """Take it back."""
        if isinstance(token, AccessToken):
            self.server.state.revoke_access_token(token.jti)
        else:
            self.server.state.end_login(token.login.id)


class EndSession(EndSessionEndpoint):  # type: ignore[misc]  # Authlib ships no types
    """OpenID Connect RP-Initiated Logout 1.0. There is no session here but the logins of applications."""

    server: Server

    def get_server_jwks(self) -> KeySet:
        """The keys an id token may be signed with."""
        return KeySet([self.server.key.key])

    def get_algorithms(self) -> list[str]:
        """The algorithms it may be signed with."""
        return [ALGORITHM]

    def is_post_logout_redirect_uri_legitimate(
        self, _request: OAuth2Request, _uri: str, _client: Client, _logout_hint: str | None
    ) -> bool:
        """A request without an id token ends nothing, so that sending it on to a registered URI does no harm."""
        return True

    def end_session(self, end_session_request: EndSessionRequest) -> None:
        """End the login that the id token names."""
        claims = end_session_request.id_token_claims or {}
        login = self.server.state.login(str(claims.get("sid", "")))
        if login is not None and login.client_id == claims.get("aud"):
            self.server.state.end_login(login.id)


class _Bearer(BearerTokenValidator):  # type: ignore[misc]  # Authlib ships no types
    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def authenticate_token(self, token_string: str) -> AccessToken | None:
        return access_token(self._server, token_string)


def bearer_check(server: Server) -> ResourceProtector:
    """What userinfo asks for the access token of a request."""
    protector = ResourceProtector()
    protector.register_token_validator(_Bearer(server))
    return protector
