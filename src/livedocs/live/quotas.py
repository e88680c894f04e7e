"""How many sockets there are, and of whom: what is counted to say when there are enough. Pure."""

from __future__ import annotations

import math
from collections import Counter
from typing import TypeVar

from livedocs.access.limits import address_key
from livedocs.access.principal import Principal
from livedocs.config import Settings
from livedocs.errors import TooManyConnections
from livedocs.model import Tenant

K = TypeVar("K")


class Arrival:
    """An accepted WebSocket. `waiting`: nobody has vouched for it yet."""

    __slots__ = ("address", "waiting")

    def __init__(self, address: str, *, waiting: bool) -> None:
        self.address = address
        self.waiting = waiting


class SocketQuotas:
    """The accepted WebSockets of this process, by address, and the connected ones by user and tenant.

    Args:
        settings: `max_sockets*` and `max_waiting_sockets*`. A tenant may have its own in place of those of users
            and of the tenant.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Every accepted WebSocket, CONNECTed or not, and those among them that nobody has vouched for yet.
        self.open = 0
        self.waiting = 0
        # No count is ever kept at zero: these are as large as what they count.
        self._addresses: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._users: Counter[tuple[str, str]] = Counter()
        self._tenants: Counter[str] = Counter()

    def check_open(self, address: str, *, vouched: bool) -> None:
        """Whether one more WebSocket may be accepted.

        Raises:
            TooManyConnections: of the process, of the address, or of those that have not said who they are;
                `limit` says which.
        """
        settings, key = self._settings, address_key(address)
        bounds = [
            ("sockets per server", self.open, settings.max_sockets),
            ("sockets per address", self._addresses[key], settings.max_sockets_per_address),
        ]
        if not vouched:
            bounds += [
                ("waiting sockets per server", self.waiting, settings.max_waiting_sockets),
                # Else one address could take the place of every program that says who it is in CONNECT.
                ("waiting sockets per address", self._waiting[key], settings.max_waiting_sockets_per_address),
            ]
        for limit, count, most in bounds:
            if count >= most:
                raise TooManyConnections(retry_after=1, limit=limit)

    def opened(self, address: str, *, vouched: bool) -> Arrival:
        """A WebSocket was accepted."""
        arrival = Arrival(address_key(address), waiting=not vouched)
        self.open += 1
        self._addresses[arrival.address] += 1
        if arrival.waiting:
            self.waiting += 1
            self._waiting[arrival.address] += 1
        return arrival

    def vouched(self, arrival: Arrival) -> None:
        """Somebody has: its CONNECT was good, and another one may wait in its place."""
        if arrival.waiting:
            arrival.waiting = False
            self.waiting -= 1
            _less(self._waiting, arrival.address)

    def ended(self, arrival: Arrival) -> None:
        """It has ended."""
        self.vouched(arrival)
        self.open -= 1
        _less(self._addresses, arrival.address)

    def connected(self, principal: Principal, tenant: Tenant) -> None:
        """Count a socket's CONNECT.

        Raises:
            TooManyConnections: of the user or of the tenant, as `limit` says; then it is not counted.
        """
        user, settings = (principal.tenant, principal.subject), self._settings
        of_user = self._own(tenant, "max_sockets_per_user") or settings.max_sockets_per_user
        of_tenant = self._own(tenant, "max_sockets_per_tenant") or settings.max_sockets_per_tenant
        if self._users[user] >= of_user:
            raise TooManyConnections(limit="sockets per user")
        if self._tenants[principal.tenant] >= of_tenant:
            raise TooManyConnections(limit="sockets per tenant")
        self._users[user] += 1
        self._tenants[principal.tenant] += 1

    def _own(self, tenant: Tenant, name: str) -> int | None:
        """This worker's share of a limit that the tenant has for the whole server, if it has one."""
        whole = tenant.limit(name)
        return math.ceil(whole / self._settings.workers) if whole is not None else None

    def disconnected(self, principal: Principal) -> None:
        """Its end."""
        _less(self._users, (principal.tenant, principal.subject))
        _less(self._tenants, principal.tenant)


def _less(counts: Counter[K], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
