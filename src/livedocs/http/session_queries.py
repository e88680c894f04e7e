"""What the routes need to know of live sockets, and nobody's sockets for an application that has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from livedocs.store.inquiries import Answer, Question
from livedocs.store.processes import Process

Answers = tuple[Sequence[tuple[Process, Answer]], Sequence[Process]]
"""The answers, each with the process that gave it; and the processes that did not answer in time."""


class SessionQueries(Protocol):
    """The sockets of all server processes."""

    @property
    def process(self) -> Process | None:
        """The process that asks; None when it has no sockets at all."""

    async def ask(self, question: Question, *, by: str = "") -> Answers:
        """Put a question to every process, for that subject of the tenant.

        Raises:
            RateLimited: too many questions of that subject are waiting.
            Unavailable: nobody can say which processes there are, or too many ask.
        """


class NoSessions:
    """An application without sockets."""

    process: Process | None = None

    async def ask(self, question: Question, *, by: str = "") -> Answers:  # noqa: ARG002 - there is none
        """Nobody answers, and nobody is missed."""
        return (), ()


def named(process: Process) -> dict[str, Any]:
    """A process as answers name it."""
    return {"process": process.id, "host": process.host, "pid": process.pid}
