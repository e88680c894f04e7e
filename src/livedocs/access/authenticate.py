"""From a token, or a request's headers, to a principal and its tenant."""

from __future__ import annotations

from typing import Protocol

from livedocs.access.credentials import Credential, Headers, from_headers
from livedocs.access.principal import Principal
from livedocs.errors import TenantSuspended, TenantUnknown
from livedocs.model import Tenant


class TenantLookup(Protocol):
    """What is needed of the tenants: an answer from memory."""

    def get(self, slug: str) -> Tenant | None:
        """The tenant of that slug, or None."""


class Tokens(Protocol):
    """What is needed of whoever understands tokens."""

    async def principal(self, token: str, *, fresh: bool = False) -> Principal:
        """Who a token speaks for; raises InvalidToken or AuthUnavailable."""

    def forget(self, token_id: str) -> None:
        """Take that token for ended; after a logout."""


class Authenticator:
    """Says who is asking, for HTTP requests and for sockets alike.

    Args:
        tokens: understands tokens.
        tenants: knows the registered tenants.
        secure: whether browsers reach the server over https; decides the cookie's name.
    """

    def __init__(self, tokens: Tokens, tenants: TenantLookup, *, secure: bool) -> None:
        self._tokens = tokens
        self._tenants = tenants
        self._secure = secure

    async def token(self, token: str, *, fresh: bool = False) -> tuple[Principal, Tenant]:
        """Who a token speaks for, and the tenant it belongs to: the token's own, never one that a request names.

        Raises:
            InvalidToken: not a token for this server.
            AuthUnavailable: nobody could say.
            TenantUnknown: its tenant is not registered here.
            TenantSuspended: its tenant is suspended.
        """
        principal = await self._tokens.principal(token, fresh=fresh)
        tenant = self._tenants.get(principal.tenant)
        if tenant is None:
            raise TenantUnknown
        if not tenant.active:
            raise TenantSuspended
        return principal, tenant

    async def request(self, headers: Headers) -> tuple[Principal, Tenant, Credential] | None:
        """Who sent these headers; None when they bring no credential.

        Raises:
            LivedocsError: those of `token` and of `credentials.from_headers`.
        """
        credential = from_headers(headers, secure=self._secure)
        if credential is None:
            return None
        principal, tenant = await self.token(credential.token)
        return principal, tenant, credential

    def forget(self, token_id: str) -> None:
        """Take a token for ended, as its owner has logged out."""
        self._tokens.forget(token_id)
