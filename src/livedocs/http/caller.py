"""Who sends this request, as the hook of `app.py` has found out before any view runs."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from quart import g

from livedocs.access.principal import Principal
from livedocs.errors import Forbidden, InsufficientScope
from livedocs.model import Tenant
from livedocs.store.audit import Actor

_MOST_HOPS = 20


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated principal of a request, its tenant, and the address it comes from."""

    principal: Principal
    tenant: Tenant
    address: str

    @property
    def actor(self) -> Actor:
        """The caller as the audit log names it."""
        return Actor(self.principal.subject, self.address)

    @property
    def confined_to(self) -> frozenset[str] | None:
        """The collections that the caller, a service, is confined to; None for all others."""
        return self.tenant.confines(self.principal.subject, self.principal.client_id)

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
            raise Forbidden("A service that is confined to some collections cannot administer the whole tenant.")

    def limit(self, name: str, setting: int) -> int:
        """The server's setting, or the tenant's own limit of that name if it is tighter."""
        own = self.tenant.limit(name)
        return setting if own is None else min(setting, own)


def set_address(address: str) -> None:
    """Say where this request comes from."""
    g.address = address


def address() -> str:
    """The address that this request comes from, behind trusted proxies; empty where no hook has said so."""
    found: str = g.get("address", "")
    return found


def set_caller(caller: Caller) -> None:
    """Say who sends this request."""
    g.caller = caller


def caller() -> Caller:
    """Who sends this request; only for views behind the hook that authenticates."""
    found: Caller = g.caller
    return found


# Proxies that a request may have come through; a chain longer than that is made up.
_MOST_HOPS = 20


class Proxies:
    """The proxies whose word about others is believed.

    Args:
        trusted: their addresses and networks.
    """

    def __init__(self, trusted: tuple[str, ...]) -> None:
        self._networks = [ip_network(network, strict=False) for network in trusted]

    def trusts(self, address: str) -> bool:
        """Whether an address is that of one of them."""
        if not self._networks:
            return False
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded: list[str]) -> str:
        """The address of the client behind the proxies that are trusted.

        Args:
            peer: address of whoever opened the connection.
            forwarded: the values of the X-Forwarded-For headers, in order.

        Returns:
            Seen from this end, the first address that is no trusted proxy: what stands further left, the client
            may have written itself.
        """
        if not forwarded or not self.trusts(peer):
            return peer
        hops = ",".join(forwarded).rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]
        address = peer
        while hops and self.trusts(address):
            hop = hops.pop().strip()
            if _parsed(hop) is None:
                break
            address = hop
        return address


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """An address; that of a peer over IPv4 on a socket for both as the one of IPv4 that it is."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
