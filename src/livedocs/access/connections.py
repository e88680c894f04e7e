"""How much one address may have at once, whoever it is: connections, requests that nobody is known for. Pure.

A limit of rates alone does not bound memory: what stays open adds up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from livedocs.access.limits import Limits, address_key
from livedocs.config import Settings
from livedocs.errors import LivedocsError, TooManyConnections
from livedocs.telemetry import Metrics

_RETRY_AFTER = 1.0

Peer = tuple[str, int]
"""Address and port of whoever has opened a connection: no two open ones have the same."""


class Quota:
    """How many of something there may be, by address and in all.

    Args:
        what: they are, as `limits_hit` and the refusal call them.
        per_address: at most.
        in_all: at most; None is no limit.
        error: of those that are too many.
    """

    def __init__(
        self,
        what: str,
        metrics: Metrics,
        *,
        per_address: int,
        in_all: int | None = None,
        error: type[LivedocsError] = TooManyConnections,
    ) -> None:
        self._what = what
        self._error = error
        self._metrics = metrics
        self._per_address = per_address
        self._most = in_all
        self._all = 0
        # No count is ever kept at zero: it is as large as what it counts.
        self._addresses: Counter[str] = Counter()

    def check(self, address: str | None, count: int = 1) -> None:
        """Whether there may be so many more.

        Args:
            address: whose; None is somebody who counts for many others, a proxy: only the sum counts.
            count: how many.

        Raises:
            LivedocsError: there may not; `limit` says which.
        """
        if self._most is not None and self._all + count > self._most:
            self._refuse("server", self._most)
        if address is not None and self._addresses[address_key(address)] + count > self._per_address:
            self._refuse("address", self._per_address)

    def add(self, address: str | None, count: int = 1) -> None:
        """There are so many more."""
        self._all += count
        if address is not None:
            self._addresses[address_key(address)] += count

    def remove(self, address: str | None, count: int = 1) -> None:
        """There are so many fewer."""
        self._all -= count
        if address is not None:
            key = address_key(address)
            self._addresses[key] -= count
            if not self._addresses[key]:
                del self._addresses[key]

    def _refuse(self, scope: str, most: int) -> None:
        self._metrics.limits_hit.labels(self._what, scope).inc()
        detail = f"This {scope} has {most} {self._what} at most; wait until there are fewer, then retry."
        raise self._error(detail, retry_after=_RETRY_AFTER, limit=f"{self._what} per {scope}")


class Connections:
    """The TCP connections of one process that are no WebSockets: those are counted as sockets.

    Args:
        settings: `max_connections*`.
        metrics: `limits_hit`.
        limits: how many may come in a second.
        trusts: whether an address is a proxy's, which counts for many others. Requests that come through it are
            counted one by one, by the address that it names.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, limits: Limits, trusts: Callable[[str], bool]
    ) -> None:
        self._limits = limits
        self._trusts = trusts
        self._quota = Quota(
            "connections",
            metrics,
            per_address=settings.max_connections_per_address,
            in_all=settings.max_connections,
        )
        # Whose quota each of them counts against.
        self._open: dict[Peer, str | None] = {}

    def opened(self, peer: Peer) -> None:
        """Count one that was opened.

        Raises:
            RateLimited: they come too fast from its address.
            TooManyConnections: of the address, or of the process. Then it is not counted.
        """
        address = None if self._trusts(peer[0]) else peer[0]
        if address is not None:
            self._limits.address("connections", address)
        self._quota.check(address)
        self._quota.add(address)
        self._open[peer] = address

    def ended(self, peer: Peer) -> None:
        """It was closed, or has become a WebSocket; may be said more than once."""
        if peer in self._open:
            self._quota.remove(self._open.pop(peer))
