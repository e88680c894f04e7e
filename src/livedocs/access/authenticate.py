"""From a token, or a request's headers, to a principal and its tenant."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from livedocs.access.credentials import Credential, Headers, from_headers
from livedocs.access.principal import Principal
from livedocs.errors import TenantSuspended, TenantUnknown
from livedocs.model import Tenant
from livedocs.names import escaped
from livedocs.telemetry import get_logger

log = get_logger(__name__)


class TenantLookup(Protocol):
    """What is needed of the tenants: an answer from memory."""

    def named(self, name: str) -> Tenant | None:
        """The tenant of that slug or alias, or None."""


class Tokens(Protocol):
    """What is needed of whoever understands tokens."""

    async def principal(self, token: str, *, fresh: bool = False, address: str = "") -> Principal:
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

    async def token(self, token: str, *, fresh: bool = False, address: str = "") -> tuple[Principal, Tenant]:
        """Who a token speaks for, and the tenant it belongs to: the token's own, never one that a request names.

        Args:
            token: as it came.
            fresh: do not rely on what is remembered of it.
            address: of whoever has brought it. Empty with `fresh` for a token that nobody has brought: the OAuth
                service has just issued it, or has vouched for it before.

        Raises:
            InvalidToken: not a token for this server.
            AuthUnavailable: nobody could say.
            TenantUnknown: its tenant is not registered here.
            TenantSuspended: its tenant is suspended.
        """
        principal = await self._tokens.principal(token, fresh=fresh, address=address)
        tenant = self._tenants.named(principal.tenant)
        if tenant is None:
            # The name is the provider's; whoever sets the two up needs to see it.
            told = {"reason": "tenant_unknown", "tenant": escaped(principal.tenant)}
            log.info("token_refused", token_id=principal.token_id, **told)
            raise TenantUnknown
        if not tenant.active:
            raise TenantSuspended
        return principal if principal.tenant == tenant.slug else replace(principal, tenant=tenant.slug), tenant

    async def request(self, headers: Headers, *, address: str = "") -> tuple[Principal, Tenant, Credential] | None:
        """Who sent these headers, from that address; None when they bring no credential.

        Raises:
            LivedocsError: those of `token` and of `credentials.from_headers`.
        """
        credential = from_headers(headers, secure=self._secure)
        if credential is None:
            return None
        principal, tenant = await self.token(credential.token, address=address)
        return principal, tenant, credential

    def forget(self, token_id: str) -> None:
        """Take a token for ended, as its owner has logged out."""
        self._tokens.forget(token_id)
