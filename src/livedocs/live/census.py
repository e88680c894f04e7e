"""How many sockets there are, and of whom: what is counted to say when there are enough."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from livedocs.access.limits import address_key
from livedocs.access.principal import Principal
from livedocs.config import Settings
from livedocs.errors import TooManyConnections

K = TypeVar("K")


class Census:
    """The accepted WebSockets of this process, by address, and the connected ones by user and tenant.

    Args:
        settings: `max_sockets*` and `max_waiting_sockets`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Every accepted WebSocket, CONNECTed or not, and those among them that nobody has vouched for yet.
        self.open = 0
        self.waiting = 0
        # No count is ever kept at zero: these are as large as what they count.
        self._addresses: Counter[str] = Counter()
        self._users: Counter[tuple[str, str]] = Counter()
        self._tenants: Counter[str] = Counter()

    def check_open(self, address: str, *, vouched: bool) -> None:
        """Whether one more WebSocket may be accepted.

        Raises:
            TooManyConnections: of the process, of the address, or of those that have not said who they are.
        """
        settings = self._settings
        enough = (
            self.open >= settings.max_sockets
            or self._addresses[address_key(address)] >= settings.max_sockets_per_address
            or (not vouched and self.waiting >= settings.max_waiting_sockets)
        )
        if enough:
            raise TooManyConnections(retry_after=1)

    def opened(self, address: str, *, vouched: bool) -> None:
        """A WebSocket was accepted."""
        self.open += 1
        self.waiting += not vouched
        self._addresses[address_key(address)] += 1

    def ended(self, address: str, *, vouched: bool) -> None:
        """It has ended."""
        self.open -= 1
        self.waiting -= not vouched
        _less(self._addresses, address_key(address))

    def connected(self, principal: Principal) -> None:
        """Count a socket's CONNECT.

        Raises:
            TooManyConnections: of the user or of the tenant; then it is not counted.
        """
        user = (principal.tenant, principal.subject)
        settings = self._settings
        if (
            self._users[user] >= settings.max_sockets_per_user
            or self._tenants[principal.tenant] >= settings.max_sockets_per_tenant
        ):
            raise TooManyConnections
        self._users[user] += 1
        self._tenants[principal.tenant] += 1

    def disconnected(self, principal: Principal) -> None:
        """Its end."""
        _less(self._users, (principal.tenant, principal.subject))
        _less(self._tenants, principal.tenant)


def _less(counts: Counter[K], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
