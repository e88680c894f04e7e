"""How often somebody may do something: token buckets by address, user and tenant. Pure; the clock is passed in.

A bucket that is full again is forgotten, which loses nothing, so memory is bounded without forgetting anybody who
is being held back. Where even that is not enough, whoever is new shares one bucket: it fails closed.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from livedocs.access.principal import Principal
from livedocs.config import Settings
from livedocs.errors import RateLimited
from livedocs.model import Tenant
from livedocs.telemetry import Metrics

Kind = Literal["connections", "handshakes", "joins", "events", "requests", "probes"]
Scope = Literal["address", "user", "tenant"]

_BUCKETS = 20_000
_STRANGERS = "strangers"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second in the long run, and so many at once after a rest."""

    per_second: float
    burst: float


PROBES = Rate(per_second=100, burst=1000)
"""Of `/healthz`, `/readyz` and `/metrics`, per address and process. They have a bucket of their own: no flood of
other requests has a server taken for dead. Whoever watches it asks once a second or less."""


class Buckets:
    """One token bucket per key.

    Kept as the moment at which the bucket would be full again (the generic cell rate algorithm): one number a key,
    which also says what it has to say when the key's rate has changed meanwhile.

    Args:
        rate: of each bucket that has none of its own; None is no limit.
        size: buckets at most.
    """

    def __init__(self, rate: Rate | None, *, size: int = _BUCKETS) -> None:
        self._rate = rate
        self._size = size
        # Least recently used first; never more than `_size`, and one for the strangers.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str, now: float, count: int = 1, own: Rate | None = None) -> float:
        """Take so many out of a bucket.

        Args:
            key: whose bucket.
            now: monotonic seconds.
            count: how many; more than a full bucket holds need a full one, and are made up for afterwards.
            own: the bucket's own rate, in place of that of the others.

        Returns:
            0 when they were there; else nothing is taken, and these are the seconds until they will be.
        """
        rate = own or self._rate
        if rate is None:
            return 0.0
        key = self._bucket(key, now)
        full_at = max(self._full_at.get(key, now), now)
        wait = full_at - now + (min(count, rate.burst) - rate.burst) / rate.per_second
        # A rounding error is no reason to send anybody away.
        if wait > 1e-9:
            return wait
        # All of them count, else a thousand at once would cost no more than a burst, again and again.
        self._full_at[key] = full_at + count / rate.per_second
        self._full_at.move_to_end(key)
        return 0.0

    def _bucket(self, key: str, now: float) -> str:
        if key in self._full_at or len(self._full_at) < self._size:
            return key
        oldest, full_at = next(iter(self._full_at.items()))
        if full_at <= now:
            del self._full_at[oldest]
            return key
        return _STRANGERS

    def __len__(self) -> int:
        return len(self._full_at)


# Asked several times for each request; of those that are pushed out it is computed again.
@lru_cache(maxsize=4096)
def address_key(address: str) -> str:
    """What counts as one address: of IPv6 the network of 64 bits, all of which one customer has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class Limits:
    """Every limit of one process.

    Args:
        settings: `limit_*`; a rate of 0 is no limit. A tenant may have rates of its own in their place.
        metrics: `rate_limited`.
        clock: monotonic seconds.
    """

    def __init__(self, settings: Settings, metrics: Metrics, *, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._burst = settings.limit_burst
        # The settings are this worker's share already; a tenant's own limits are for the whole server.
        self._workers = settings.workers
        self._buckets: dict[tuple[Kind, Scope], Buckets] = {}
        kinds: tuple[Kind, ...] = ("handshakes", "joins", "events", "requests")
        scopes: tuple[Scope, ...] = ("address", "user", "tenant")
        for kind in kinds:
            for scope in scopes:
                self._buckets[kind, scope] = Buckets(self._rate(getattr(settings, _setting(kind, scope))))
        self._buckets["connections", "address"] = Buckets(self._rate(settings.limit_connections_per_address))
        self._buckets["probes", "address"] = Buckets(PROBES)

    def address(self, kind: Kind, address: str, count: int = 1) -> None:
        """Count what comes from an address; asked before anything is done for it.

        Raises:
            RateLimited: too much of it, with the time to wait.
        """
        self._take(kind, "address", address_key(address), count)

    def caller(self, kind: Kind, principal: Principal, tenant: Tenant, count: int = 1) -> None:
        """Count what a user or service does, and its tenant's together.

        Args:
            kind: of what.
            principal: who does it.
            tenant: the principal's, with the limits it has now.
            count: how many at once.

        Raises:
            RateLimited: too much of it, with the time to wait.
        """
        self._take(kind, "user", f"{principal.tenant} {principal.subject}", count, tenant)
        self._take(kind, "tenant", principal.tenant, count, tenant)

    def _rate(self, per_second: float | None) -> Rate | None:
        return Rate(per_second, max(1.0, per_second * self._burst)) if per_second else None

    def _take(self, kind: Kind, scope: Scope, key: str, count: int, tenant: Tenant | None = None) -> None:
        whole = tenant.limit(_setting(kind, scope)) if tenant is not None else None
        own = self._rate(whole / self._workers) if whole is not None else None
        wait = self._buckets[kind, scope].take(key, self._clock(), count, own)
        if wait:
            self._metrics.rate_limited.labels(kind, scope).inc()
            raise RateLimited(f"Too many {kind} of this {scope}.", retry_after=wait, limit=f"{kind} per {scope}")


def _setting(kind: Kind, scope: Scope) -> str:
    """The name of the limit, as a setting of the server's and among the limits of a tenant."""
    return f"limit_{kind}_per_{scope}"
