"""How many requests for documents are carried out at a time; further ones wait, and hold nothing meanwhile.

A document of 2 MiB takes four times as much while it is read, compared and encoded. The process has one event
loop: more of them at once would not be done any sooner.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from livedocs.access.turns import NoTurn, Turns
from livedocs.errors import RateLimited, Unavailable
from livedocs.http.caller import Caller
from livedocs.telemetry import Metrics

AT_ONCE = 16
AT_ONCE_PER_CALLER = 4
WAITING_PER_CALLER = 500
_PATIENCE = 5.0
_RETRY_AFTER = 1.0


class DocumentTurns:
    """The turns of one process, shared fairly by users and services.

    Args:
        metrics: `limits_hit`.
        patience: seconds to wait for a turn; until then what is known of the token counts.
    """

    def __init__(self, metrics: Metrics, *, patience: float = _PATIENCE) -> None:
        self._metrics = metrics
        self._patience = patience
        self._turns = Turns(AT_ONCE, per_key=AT_ONCE_PER_CALLER, most_waiting=WAITING_PER_CALLER)

    @asynccontextmanager
    async def turn(self, who: Caller) -> AsyncIterator[None]:
        """Have a turn for as long as the block lasts. The body has been read by then: it may take its time.

        Raises:
            RateLimited: the caller has too many requests waiting.
            Unavailable: no turn came in time.
        """
        try:
            async with self._turns.turn(f"{who.tenant.slug} {who.principal.subject}", within=self._patience):
                yield
        except NoTurn as refused:
            if refused.crowded:
                self._metrics.limits_hit.labels("waiting documents", "user").inc()
                detail = f"At most {WAITING_PER_CALLER} requests of one caller may wait here; retry later."
                raise RateLimited(detail, retry_after=_RETRY_AFTER, limit="waiting documents per user") from None
            detail = "Too many requests for documents in progress; retry later."
            raise Unavailable(detail, retry_after=_RETRY_AFTER) from None
