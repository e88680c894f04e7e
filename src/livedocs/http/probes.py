"""Whether everything is there that the server needs: asked in the background, known when somebody wants to know.

Whoever asks for `/readyz` would otherwise decide how often MongoDB and the OAuth service are asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from livedocs.telemetry import get_logger

_log = get_logger(__name__)

INTERVAL = 2.0
"""Seconds between the end of one round of questions and the next."""
PATIENCE = 4.0
"""Seconds for all the questions of a round."""
STALE = 10.0
"""Seconds after which an answer counts no more: a round, its patience and some air."""


@dataclass(frozen=True, slots=True)
class State:
    """What is known.

    Attributes:
        checks: by name, whether it is so.
        age: seconds since the last round of questions ended; None while there was none.
    """

    checks: Mapping[str, bool]
    age: float | None

    @property
    def ready(self) -> bool:
        """Whether all of it is so, and known recently enough."""
        return self.age is not None and self.age <= STALE and all(self.checks.values())


class Probes:
    """What must be so for the server to be of use.

    Args:
        asked: by name, questions that take their time; they are asked by `run`.
        known: by name, what is known at once.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        asked: Mapping[str, Callable[[], Awaitable[bool]]],
        known: Mapping[str, Callable[[], bool]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._asked = asked
        self._known = known
        self._clock = clock
        # Until its first answer, everything that is asked is not so.
        self._answers = dict.fromkeys(asked, False)
        self._at: float | None = None

    async def run(self) -> None:
        """Ask, again and again, until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(INTERVAL)

    async def ask(self) -> None:
        """Ask once, everything at the same time."""
        answers = await asyncio.gather(*(_ask(name, question) for name, question in self._asked.items()))
        self._answers = dict(zip(self._asked, answers, strict=True))
        self._at = self._clock()

    def state(self) -> State:
        """What is known now. Cheap, and asks nobody."""
        known = {name: check() for name, check in self._known.items()}
        return State({**self._answers, **known}, None if self._at is None else self._clock() - self._at)


async def _ask(name: str, question: Callable[[], Awaitable[bool]]) -> bool:
    """The answer to a question; one that fails or takes too long has said no."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await question()
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the answer is no
        _log.warning("probe_failed", probe=name, error=type(error).__name__)
        return False
