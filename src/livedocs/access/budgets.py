"""How many bytes somebody may have in flight: request bodies, imports, answers that were not read yet. Pure.

A budget of calls alone does not bound memory: a few calls may each hold megabytes. Over a budget nothing is
waited for; the caller is refused and told when to come back.
"""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Self

from livedocs.access.principal import Principal
from livedocs.config import Settings
from livedocs.errors import TooManyBytes
from livedocs.telemetry import Metrics

_RETRY_AFTER = 1.0


class Hold:
    """Bytes that somebody has in flight, until `release`. A context manager that releases."""

    __slots__ = ("_budgets", "_tenant", "_user", "bytes")

    def __init__(self, budgets: BytesInFlight, tenant: str, user: str) -> None:
        self._budgets = budgets
        self._tenant = tenant
        self._user = user
        self.bytes = 0

    def grow(self, count: int) -> None:
        """Hold so many more bytes.

        Raises:
            TooManyBytes: that would exceed the budget of the user or the tenant; nothing is added.
        """
        self._budgets.add(self._tenant, self._user, count)
        self.bytes += count

    def keep(self, count: int) -> None:
        """Hold so many more bytes that are there already, whatever the budget is: it refuses what comes next."""
        self._budgets.count(self._tenant, self._user, count)
        self.bytes += count

    def shrink(self, count: int) -> None:
        """Hold so many bytes less; no fewer than none."""
        count = max(0, min(count, self.bytes))
        self._budgets.give_back(self._tenant, self._user, count)
        self.bytes -= count

    def release(self) -> None:
        """Hold nothing any more. May be called again."""
        self.shrink(self.bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class BytesInFlight:
    """The bytes in flight of one process, by user and by tenant.

    Args:
        settings: `max_bytes_in_flight_*`.
        metrics: `limits_hit`.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._per_user = settings.max_bytes_in_flight_per_user
        self._per_tenant = settings.max_bytes_in_flight_per_tenant
        self._metrics = metrics
        # No count is ever kept at zero: these are as large as what they count.
        self._users: Counter[tuple[str, str]] = Counter()
        self._tenants: Counter[str] = Counter()

    def hold(self, principal: Principal, count: int = 0) -> Hold:
        """Begin to hold bytes for a caller.

        Raises:
            TooManyBytes: the budget of the user or the tenant does not allow them.
        """
        held = Hold(self, principal.tenant, principal.subject)
        held.grow(count)
        return held

    def add(self, tenant: str, user: str, count: int) -> None:
        """Count bytes; whoever calls this gives them back."""
        if self._users[tenant, user] + count > self._per_user:
            self._refuse("user", self._per_user)
        if self._tenants[tenant] + count > self._per_tenant:
            self._refuse("tenant", self._per_tenant)
        self.count(tenant, user, count)

    def count(self, tenant: str, user: str, count: int) -> None:
        """Count bytes that nobody can refuse any more."""
        self._users[tenant, user] += count
        self._tenants[tenant] += count

    def give_back(self, tenant: str, user: str, count: int) -> None:
        """Stop counting bytes."""
        self._users[tenant, user] -= count
        if not self._users[tenant, user]:
            del self._users[tenant, user]
        self._tenants[tenant] -= count
        if not self._tenants[tenant]:
            del self._tenants[tenant]

    def _refuse(self, scope: str, limit: int) -> None:
        self._metrics.limits_hit.labels("bytes", scope).inc()
        detail = f"This {scope} has {limit} bytes in flight at most; wait for what is under way, then retry."
        raise TooManyBytes(detail, retry_after=_RETRY_AFTER, limit=f"bytes per {scope}")
