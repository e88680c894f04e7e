"""What is asked of other processes, and which questions a process answers."""

from __future__ import annotations

import asyncio

import pytest
from bson.objectid import ObjectId
from bson.timestamp import Timestamp

from livedocs.changes.event import InquiryMade
from livedocs.cluster import sessions as cluster_sessions
from livedocs.cluster.sessions import ClusterSessions
from livedocs.errors import Unavailable
from livedocs.store.inquiries import Answer, Disconnection, Listing, Logout, parse_question
from livedocs.store.processes import Process
from livedocs.telemetry import Metrics

ME, YOU = Process("me", "here", 1, ""), Process("you", "there", 2, "")
BEGAN, LATER = Timestamp(100, 1), Timestamp(100, 2)


class LocalSessions:
    def __init__(self):
        self.asked = []

    async def answer(self, question):
        self.asked.append(question)
        return Answer(matching=len(self.asked))


class Store:
    """The leases and the inquiries; `answering` are the processes that answer at once."""

    def __init__(self, *live, answering=()):
        self.live_now, self.answering = live, answering
        self.asked, self.closed, self.given = [], [], []
        self.answered = asyncio.Event()

    async def committed(self):
        return BEGAN

    async def live(self):
        return list(self.live_now)

    async def ask(self, process_id, question):
        self.asked.append((process_id, question))
        return ObjectId()

    async def answers(self, inquiry, known):
        return {name: Answer(matching=10) for name in self.answering if name not in known}

    async def close(self, inquiry):
        self.closed.append(inquiry)

    async def answer(self, inquiry, process_id, answer):
        self.given.append((inquiry, process_id, answer))
        self.answered.set()


async def begun(store, log_out=None):
    made = ClusterSessions(
        ME, LocalSessions(), store, store, log_out=log_out or (lambda _: None), metrics=Metrics()
    )
    await made.begin()
    return made


def nothing_waits(made):
    return all(waiting.empty() for waiting in made._waiting.values())


def inquiry(question, *, at=LATER, by="you"):
    return InquiryMade("token", at, ObjectId(), by, question)


LISTING = {"kind": "listing", "tenant": "acme", "subject": None, "uuid": None, "after": None, "limit": 10}


async def test_a_process_that_is_alone_writes_nothing():
    store = Store(ME)
    answers, silent = await (await begun(store)).ask(Listing("acme"))
    assert [process for process, _ in answers] == [ME]
    assert (silent, store.asked) == ([], [])


async def test_every_process_is_asked_once_and_the_question_is_taken_away():
    store = Store(ME, YOU, answering=("you",))
    answers, silent = await (await begun(store)).ask(Listing("acme"))
    assert [(process, answer.matching) for process, answer in answers] == [(ME, 1), (YOU, 10)]
    assert (silent, len(store.asked), len(store.closed)) == ([], 1, 1)


async def test_a_process_that_does_not_answer_in_time_is_named(monkeypatch):
    monkeypatch.setattr(cluster_sessions, "_PATIENCE", 0.1)
    store = Store(ME, YOU)
    answers, silent = await (await begun(store)).ask(Disconnection("acme", subject="user:bob"))
    assert ([process for process, _ in answers], silent) == ([ME], [YOU])
    assert len(store.closed) == 1


async def test_when_the_question_cannot_be_put_to_everybody_nothing_is_done_here_either():
    store = Store(ME, YOU)

    async def refuse(process_id, question):
        raise Unavailable

    store.ask = refuse
    asks = await begun(store)
    with pytest.raises(Unavailable):
        await asks.ask(Disconnection("acme", subject="user:bob"))
    assert asks._local.asked == []


async def test_answers_that_cannot_be_read_are_missing():
    store = Store(ME, YOU)

    async def refuse(inquiry, known):
        raise Unavailable

    store.answers = refuse
    answers, silent = await (await begun(store)).ask(Listing("acme"))
    assert ([process for process, _ in answers], silent) == ([ME], [YOU])
    assert len(store.closed) == 1


async def test_a_question_in_the_stream_is_answered_in_the_processs_name():
    store = Store(ME, YOU)
    answers = await begun(store)
    running = asyncio.create_task(answers.run())
    made = inquiry(LISTING)
    answers.made(made)
    async with asyncio.timeout(5):
        await store.answered.wait()
    running.cancel()
    assert [(one, name) for one, name, _ in store.given] == [(made.id, "me")]


@pytest.mark.parametrize(
    "made",
    [
        inquiry(LISTING, by="me"),
        inquiry(LISTING, at=BEGAN),
        inquiry({**LISTING, "kind": "of a later version"}),
    ],
    ids=["its own", "older than its sockets", "unknown"],
)
async def test_questions_that_are_not_for_this_process_are_left_alone(made):
    store = Store(ME, YOU)
    answers = await begun(store)
    running = asyncio.create_task(answers.run())
    answers.made(made)
    answers.made(inquiry({**LISTING, "tenant": "globex"}))
    async with asyncio.timeout(5):
        await store.answered.wait()
    running.cancel()
    # The one behind it was the first to be answered.
    assert [question.tenant for question in answers._local.asked] == ["globex"]


async def test_nothing_is_answered_before_the_process_can_have_sockets():
    store = Store(ME, YOU)
    answers = ClusterSessions(ME, LocalSessions(), store, store, log_out=lambda _: None, metrics=Metrics())
    answers.made(inquiry(LISTING))
    assert nothing_waits(answers)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        {},
        {"kind": "disconnection", "tenant": "acme"},
        {"kind": "disconnection", "tenant": "acme", "sid": None, "subject": None},
        {"kind": "disconnection", "tenant": "acme", "sid": {"$ne": None}, "subject": None},
        {"kind": "disconnection", "tenant": None, "sid": "x", "subject": None},
        {"kind": "listing", "tenant": "acme", "limit": "all"},
        {"kind": "listing", "tenant": "acme", "uuid": "x"},
    ],
)
def test_a_question_that_is_not_well_formed_is_none(stored):
    assert parse_question(stored) is None


LOGOUT = Logout("acme", "a" * 64, "b" * 64)
STORED_LOGOUT = {"kind": "logout", "tenant": "acme", "token_id": "a" * 64, "login": "b" * 64}


async def announced(made, store, logouts, settled):
    """What the others were told of these logouts."""
    for logout in logouts:
        made.tell(logout)
    announcing = asyncio.create_task(made.announce())
    await settled()
    announcing.cancel()
    await asyncio.wait([announcing])
    return store.asked


async def test_a_logout_is_told_to_the_others_and_not_kept(settled):
    store = Store(ME, YOU)
    assert await announced(await begun(store), store, [LOGOUT], settled) == [("me", LOGOUT)]
    assert len(store.closed) == 1


async def test_a_process_that_is_alone_has_nobody_to_tell(settled):
    store = Store(ME)
    assert await announced(await begun(store), store, [LOGOUT], settled) == []


async def test_a_logout_that_cannot_be_told_does_not_keep_the_next_one_from_being(settled):
    store = Store(ME, YOU)
    made, ask, failures = await begun(store), store.ask, [Unavailable()]

    async def failing(*arguments):
        if failures:
            raise failures.pop()
        return await ask(*arguments)

    store.ask = failing
    second = Logout("acme", "c" * 64, None)
    assert await announced(made, store, [LOGOUT, second], settled) == [("me", second)]


async def test_logouts_that_cannot_be_told_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(cluster_sessions, "_MOST_WAITING", 2)
    made = await begun(Store(ME, YOU))
    for _ in range(5):
        made.tell(LOGOUT)
    assert made._logouts.qsize() == 2


async def test_a_logout_at_another_process_is_done_as_it_comes_by_and_not_answered():
    ended, store = [], Store(ME, YOU)
    made = await begun(store, ended.append)
    made.made(inquiry(STORED_LOGOUT, by="me"))
    made.made(inquiry(STORED_LOGOUT))
    assert ended == [LOGOUT]
    assert nothing_waits(made)


@pytest.mark.parametrize("member", ["tenant", "token_id", "login"])
async def test_a_logout_that_is_not_well_formed_ends_nothing(member):
    assert parse_question({**STORED_LOGOUT, member: 1}) is None
