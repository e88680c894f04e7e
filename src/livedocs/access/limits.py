"""How often somebody may do something: token buckets by address, user and tenant. Pure; the clock is passed in.

A bucket that is full again is forgotten, which loses nothing, so memory is bounded without forgetting anybody who
is being held back. Where even that is not enough, whoever is new shares one bucket: it fails closed.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from livedocs.access.principal import Principal
from livedocs.config import Settings
from livedocs.errors import RateLimited
from livedocs.telemetry import Metrics

Kind = Literal["handshakes", "joins", "events", "requests"]
Scope = Literal["address", "user", "tenant"]

_BUCKETS = 20_000
_STRANGERS = "strangers"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second in the long run, and so many at once after a rest."""

    per_second: float
    burst: float


class Buckets:
    """One token bucket per key, all of one rate.

    Kept as the moment at which the bucket would be full again (the generic cell rate algorithm): one number a key.

    Args:
        rate: of each bucket.
        size: buckets at most.
    """

    def __init__(self, rate: Rate, *, size: int = _BUCKETS) -> None:
        self._interval = 1 / rate.per_second
        self._burst = rate.burst
        self._size = size
        # Least recently used first; never more than `_size`, and one for the strangers.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str, now: float, count: int = 1) -> float:
        """Take so many out of a bucket.

        Args:
            key: whose bucket.
            now: monotonic seconds.
            count: how many; more than a full bucket holds counts as a full one.

        Returns:
            0 when they were there; else nothing is taken, and these are the seconds until they will be.
        """
        key = self._bucket(key, now)
        full_at = max(self._full_at.get(key, now), now) + min(count, self._burst) * self._interval
        wait = full_at - now - self._burst * self._interval
        # A rounding error is no reason to send anybody away.
        if wait > 1e-9:
            return wait
        self._full_at[key] = full_at
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
        settings: `limit_*`; a rate of 0 is no limit.
        metrics: `rate_limited`.
        clock: monotonic seconds.
    """

    def __init__(self, settings: Settings, metrics: Metrics, *, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._buckets: dict[tuple[Kind, Scope], Buckets] = {}
        kinds: tuple[Kind, ...] = ("handshakes", "joins", "events", "requests")
        scopes: tuple[Scope, ...] = ("address", "user", "tenant")
        for kind in kinds:
            for scope in scopes:
                per_second = getattr(settings, f"limit_{kind}_per_{scope}")
                if per_second:
                    rate = Rate(per_second, max(1.0, per_second * settings.limit_burst))
                    self._buckets[kind, scope] = Buckets(rate)

    def address(self, kind: Kind, address: str, count: int = 1) -> None:
        """Count what comes from an address; asked before anything is done for it.

        Raises:
            RateLimited: too much of it, with the time to wait.
        """
        self._take(kind, "address", address_key(address), count)

    def caller(self, kind: Kind, principal: Principal, count: int = 1) -> None:
        """Count what a user or service does, and its tenant's together.

        Raises:
            RateLimited: too much of it, with the time to wait.
        """
        self._take(kind, "user", f"{principal.tenant} {principal.subject}", count)
        self._take(kind, "tenant", principal.tenant, count)

    def _take(self, kind: Kind, scope: Scope, key: str, count: int) -> None:
        buckets = self._buckets.get((kind, scope))
        wait = buckets.take(key, self._clock(), count) if buckets is not None else 0.0
        if wait:
            self._metrics.rate_limited.labels(kind, scope).inc()
            raise RateLimited(f"Too many {kind} of this {scope}.", retry_after=wait, limit=f"{kind} per {scope}")
