"""The sockets of all server processes, for those who administer them.

A question is a document that every process sees in its change stream; each answers for its own sockets. So a
process whose stream stands still is not passed over: it is named as one that has not answered, and it does what it
was told to as soon as it reads on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bson.objectid import ObjectId
from bson.timestamp import Timestamp

from livedocs.access.turns import NoTurn, Turns
from livedocs.changes.event import InquiryMade
from livedocs.cluster.local_sessions import LocalSessions
from livedocs.errors import RateLimited, Unavailable
from livedocs.store.inquiries import Answer, Disconnection, Inquiries, Logout, Question, parse_question
from livedocs.store.processes import Process, Processes
from livedocs.telemetry import Metrics, get_logger

log = get_logger(__name__)

# Seconds in which a process answers, if its stream does not lag.
_PATIENCE = 3.0
_POLL = 0.03
# Questions of this process at a time: each one is a write for every process. Disconnections have as many of their
# own, so that no flood of other questions delays one.
_MOST_ASKED = 4
# Those of one caller, and how many of a caller's may wait.
_ASKED_PER_CALLER = 2
_WAITING_PER_CALLER = 20
# Questions to this process that may wait.
_MOST_WAITING = 1000
_RETRY = 1.0


class _Put(NamedTuple):
    """A question to this process, and the loop's time at which it was seen."""

    inquiry: ObjectId
    question: Question
    at: float


class ClusterSessions:
    """Asks all processes, and answers for this one.

    Args:
        process: this one.
        local: its sockets.
        processes: the live processes.
        inquiries: the questions and answers in the store.
        log_out: ends the sockets of a login at this process.
        metrics: `inquiries` and `limits_hit`.
    """

    def __init__(
        self,
        process: Process,
        local: LocalSessions,
        processes: Processes,
        inquiries: Inquiries,
        *,
        log_out: Callable[[Logout], None],
        metrics: Metrics,
    ) -> None:
        self.process: Process | None = process
        self._own = process
        self._local = local
        self._processes = processes
        self._inquiries = inquiries
        self._log_out = log_out
        self._logouts: asyncio.Queue[Logout] = asyncio.Queue(_MOST_WAITING)
        self._metrics = metrics
        # By whether it is a disconnection: whose turn it is to ask, and what this process has been asked.
        self._turns = {urgent: _turns() for urgent in (True, False)}
        self._waiting: dict[bool, asyncio.Queue[_Put]] = {
            urgent: asyncio.Queue(_MOST_WAITING) for urgent in (True, False)
        }
        # Every socket of this process comes after this: an older question is not about them.
        self._since: Timestamp | None = None

    async def begin(self) -> None:
        """From now on this process may have sockets. Before it takes its lease, so that nobody waits in vain."""
        while self._since is None:
            try:
                self._since = await self._processes.committed()
            except Unavailable as error:
                log.warning("server_time_unknown", detail=error.detail)
                await asyncio.sleep(_RETRY)

    # -- asking --

    async def ask(
        self, question: Question, *, by: str = ""
    ) -> tuple[Sequence[tuple[Process, Answer]], Sequence[Process]]:
        """The answers, and the processes that did not answer in time.

        Args:
            question: what to ask.
            by: the subject of the tenant who wants to know; turns are shared by these.

        Raises:
            RateLimited: too many questions of that subject are waiting.
            Unavailable: MongoDB cannot put the question to everybody, and nothing was done here; or too many ask.
        """
        turns = self._turns[isinstance(question, Disconnection)]
        try:
            async with turns.turn(f"{question.tenant} {by}", within=_PATIENCE):
                return await self._ask(question)
        except NoTurn as refused:
            if refused.crowded:
                self._metrics.limits_hit.labels("session queries", "user").inc()
                detail = f"At most {_WAITING_PER_CALLER} session queries of one caller may wait; retry later."
                raise RateLimited(detail, retry_after=_PATIENCE, limit="session queries per user") from None
            detail = "Too many session queries in progress; retry later."
            raise Unavailable(detail, retry_after=_PATIENCE) from None

    async def _ask(self, question: Question) -> tuple[Sequence[tuple[Process, Answer]], Sequence[Process]]:
        # Those that begin after this have no socket that is older than the question.
        others = {one.id: one for one in await self._processes.live() if one.id != self._own.id}
        if not others:
            return [(self._own, await self._local.answer(question))], []
        # Put to all before this one acts: whoever does not answer will see it nevertheless.
        inquiry = await self._inquiries.ask(self._own.id, question)
        own = (self._own, await self._local.answer(question))
        answers = await self._gather(inquiry, set(others))
        heard = [(others[name], answer) for name, answer in answers.items() if name in others]
        return [own, *heard], [one for name, one in others.items() if name not in answers]

    async def _gather(self, inquiry: ObjectId, expected: set[str]) -> dict[str, Answer]:
        """What the other processes have answered in time."""
        answers: dict[str, Answer] = {}
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        try:
            while expected - answers.keys() and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(_POLL)
                answers |= await self._inquiries.answers(inquiry, answers.keys())
        except Unavailable as error:
            log.warning("answers_unreadable", detail=error.detail)
        finally:
            await self._inquiries.close(inquiry)
        return answers

    # -- telling --

    def tell(self, logout: Logout) -> None:
        """Have every other process end the sockets of a login, without waiting for it."""
        if self._logouts.full():
            # They end at the next introspection all the same.
            log.error("logout_dropped")
            return
        self._logouts.put_nowait(logout)

    async def announce(self) -> None:
        """Tell the other processes what there is to tell, until cancelled."""
        while True:
            logout = await self._logouts.get()
            try:
                if any(one.id != self._own.id for one in await self._processes.live()):
                    # Its insert is what they see.
                    await self._inquiries.close(await self._inquiries.ask(self._own.id, logout))
            except Unavailable as error:
                log.warning("logout_untold", detail=error.detail)
            except Exception:
                # The sockets of that login end at the next introspection all the same; later logouts are told.
                log.exception("logout_announcement_failed")

    # -- answering --

    def made(self, inquiry: InquiryMade) -> None:
        """A question has come by in the stream."""
        if self._since is None or inquiry.at <= self._since or inquiry.by == self._own.id:
            return
        question = parse_question(inquiry.question)
        if question is None:
            log.warning("inquiry_unknown", by=inquiry.by)
            self._count("unknown")
            return
        if isinstance(question, Logout):
            self._log_out(question)
            return
        waiting = self._waiting[isinstance(question, Disconnection)]
        if waiting.full():
            log.error("inquiry_dropped", by=inquiry.by)
            self._count("dropped")
            return
        waiting.put_nowait(_Put(inquiry.id, question, asyncio.get_running_loop().time()))

    async def run(self) -> None:
        """Answer until cancelled; disconnections do not wait for other questions."""
        async with asyncio.TaskGroup() as both:
            for urgent, waiting in self._waiting.items():
                both.create_task(self._answer(waiting, urgent=urgent), name=f"cluster {urgent=}")

    async def _answer(self, waiting: asyncio.Queue[_Put], *, urgent: bool) -> None:
        while True:
            put = await waiting.get()
            if not urgent and asyncio.get_running_loop().time() - put.at > _PATIENCE:
                # Whoever asked has gone. What is to be disconnected is disconnected, however late.
                self._count("dropped")
                continue
            try:
                await self._inquiries.answer(put.inquiry, self._own.id, await self._local.answer(put.question))
            except Unavailable as error:
                # What was asked for is done all the same; who has asked is told that nobody knows.
                log.warning("inquiry_unanswered", detail=error.detail)
                self._count("failed")
            except Exception:
                # Whatever it was, it is about this question; the next one may be a disconnection.
                log.exception("inquiry_failed", kind=type(put.question).__name__)
                self._count("failed")
            else:
                self._count("answered")

    def _count(self, result: str) -> None:
        self._metrics.inquiries.labels(result).inc()


def _turns() -> Turns:
    return Turns(_MOST_ASKED, per_key=_ASKED_PER_CALLER, most_waiting=_WAITING_PER_CALLER)
