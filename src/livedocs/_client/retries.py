"""When a failed request is sent again. Pure, but for the dice that spread clients in time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from livedocs._client import answers


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how late.

    Attributes:
        attempts: tries in all; 1 for no second one.
        first: the longest wait before the second try, in seconds; doubled for each further one.
        longest: the longest of these waits.
        patience: a `Retry-After` longer than this is not waited for: the error is raised with it.
        dice: a number from 0 to 1.
    """

    attempts: int = 5
    first: float = 0.2
    longest: float = 10.0
    patience: float = 60.0
    dice: Callable[[], float] = random.random

    def backoff(self, failures: int) -> float:
        """The wait after so many failures in a row: the whole of it is left to chance, but for a tenth."""
        most = min(self.longest, self.first * 2.0 ** min(failures - 1, 32))
        return most * (0.1 + 0.9 * self.dice())

    def wait(self, error: Exception, failures: int, *, repeatable: bool) -> float | None:
        """The seconds until the next try after `failures` in a row, or None when there is none.

        Args:
            error: of the last try.
            failures: with that one.
            repeatable: whether doing it twice is as good as once.
        """
        if failures >= self.attempts or not answers.passing(error):
            return None
        if answers.uncertain(error) and not repeatable:
            return None
        asked = answers.wait_of(error) or 0.0
        return None if asked > self.patience else asked + self.backoff(failures)
