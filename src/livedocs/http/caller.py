"""Who sends this request, as the hook of `app.py` has found out before any view runs."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from quart import g

from livedocs.access.principal import Principal
from livedocs.errors import Forbidden, InsufficientScope
from livedocs.model import Tenant
from livedocs.store.audit import Actor


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated principal of a request, its tenant, and the address it comes from."""

    principal: Principal
    tenant: Tenant
    address: str

    @property
    def actor(self) -> Actor:
        """The caller as the audit trail names it."""
        return Actor(self.principal.subject, self.address)

    @property
    def confined_to(self) -> frozenset[str] | None:
        """The collections that the caller, a service, is confined to; None for all others."""
        return self.tenant.confines(self.principal.subject)

    def require(self, scope: str) -> None:
        """Refuse a caller whose token lacks the scope.

        Raises:
            InsufficientScope: it does.
        """
        if scope not in self.principal.scopes:
            raise InsufficientScope(scope=scope)

    def require_unconfined(self, scope: str) -> None:
        """The same, for what concerns every collection of the tenant, such as who is connected and what was done.

        Raises:
            InsufficientScope: the token lacks the scope.
            Forbidden: the caller is a service that is confined to some collections.
        """
        self.require(scope)
        if self.confined_to is not None:
            raise Forbidden("A service that is confined to collections does no administrator's work beyond them.")

    def limit(self, name: str, setting: int) -> int:
        """The server's setting, or the tenant's own limit of that name if it is tighter."""
        own = self.tenant.limit(name)
        return setting if own is None else min(setting, own)


def set_caller(caller: Caller) -> None:
    """Say who sends this request."""
    g.caller = caller


def caller() -> Caller:
    """Who sends this request; only for views behind the hook that authenticates."""
    found: Caller = g.caller
    return found


def client_address(peer: str, forwarded: list[str], trusted: tuple[str, ...]) -> str:
    """The address of the client behind the proxies that are trusted. Pure.

    Args:
        peer: address of whoever opened the connection.
        forwarded: the values of the X-Forwarded-For headers, in order.
        trusted: addresses and networks of the proxies.

    Returns:
        Seen from this end, the first address that is no trusted proxy: what stands further left, the client may
        have written itself.
    """
    networks = [ip_network(network, strict=False) for network in trusted]
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    address = peer
    while hops:
        try:
            if not any(ip_address(address) in network for network in networks):
                break
            ip_address(hops[-1])
        except ValueError:
            break
        address = hops.pop()
    return address
