"""A circuit breaker: a service that fails again and again is left alone for a moment.

Pure; the clock is passed in.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta


class Breaker:
    """Closed until `limit` failures in a row, then open for a jittered rest, then half open: one call may try.

    Args:
        limit: failures in a row that open it.
        rest: seconds of the first rest; each failed trial doubles it.
        longest: seconds no rest goes beyond.
        jitter: a number between its two arguments, so that processes do not all come back at once.
    """

    def __init__(
        self,
        *,
        limit: int = 5,
        rest: float = 1.0,
        longest: float = 15.0,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._limit = limit
        self._first_rest = rest
        self._longest = longest
        self._jitter = jitter
        # In a row, while closed.
        self._failures = 0
        # The next rest's length.
        self._rest = rest
        # None while closed. Past it, the next call is the trial.
        self._resting_until: datetime | None = None
        # Whether a trial of this rest is in the air.
        self._trying = False

    def allows(self, now: datetime) -> bool:
        """Whether to call now. While open, True makes the caller the one trial of this rest."""
        if self._resting_until is None:
            return True
        if now < self._resting_until:
            return False
        # A trial that never reports back must not shut the door for ever: the next rest starts already.
        self._resting_until = now + timedelta(seconds=self._rest)
        self._trying = True
        return True

    def wait(self, now: datetime) -> float:
        """Seconds until a call is worth while; 0 when it is now."""
        if self._resting_until is None:
            return 0.0
        return max(0.0, (self._resting_until - now).total_seconds())

    def succeeded(self) -> None:
        """The service answered."""
        self._failures = 0
        self._rest = self._first_rest
        self._resting_until = None
        self._trying = False

    def failed(self, now: datetime) -> None:
        """The service did not answer, or with nothing one can use."""
        if self._resting_until is None:
            self._failures += 1
            if self._failures >= self._limit:
                self._open(now)
        elif self._trying:
            self._rest = min(self._longest, self._rest * 2)
            self._open(now)
        # Else a straggler from before it opened: it says nothing new.

    def _open(self, now: datetime) -> None:
        self._trying = False
        self._resting_until = now + timedelta(seconds=self._rest * self._jitter(0.5, 1.0))
