from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.contextvars import bound_contextvars, get_contextvars

from livedocs.errors import AuthUnavailable, Forbidden, InvalidToken, TenantSuspended, TenantUnknown
from livedocs.live.sessions import Sessions
from livedocs.live.timers import TimerWheel

INTERVAL, GRACE = 30.0, 60.0


class Tokens:
    """The authenticator's answers: a principal, or an error to raise."""

    def __init__(self):
        self.answer = None
        self.asked = []
        # The fields that a log line would have had.
        self.contexts = []

    async def token(self, token, *, fresh=False):
        assert fresh
        self.asked.append(token)
        self.contexts.append(get_contextvars())
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, None


class Watched:
    def __init__(self, stage):
        self.stage, self.tokens = stage, Tokens()
        self.regranted, self.trouble = [], None
        self.wheel = TimerWheel(clock=asyncio.get_running_loop().time)
        self.sessions = Sessions(
            self.tokens,
            self.regrant,
            stage.tickets,
            self.wheel,
            interval=INTERVAL,
            grace=GRACE,
            now=stage.clock,
        )

    async def regrant(self, client, principal):
        if self.trouble is not None:
            raise self.trouble
        self.regranted.append((client, principal.groups))
        client.principal = principal

    def connect(self, *, lasts=3600.0, groups=(), known_as="t", login=None):
        client = self.stage.client()
        principal = self.stage.principal(groups=groups, known_as=known_as)
        client.principal = replace(principal, expires_at=self.stage.clock.now + timedelta(seconds=lasts))
        if self.tokens.answer is None:
            self.tokens.answer = client.principal
        self.sessions.attach(client, f"secret {known_as}", login)
        return client

    async def pass_time(self, seconds, step=1.0):
        for _ in range(int(seconds / step)):
            await self.stage.clock.advance(step)


@pytest.fixture
async def watched(stage):
    watched = Watched(stage)
    turning = asyncio.create_task(watched.wheel.run(), name="timers")
    yield watched
    await watched.sessions.aclose()
    assert not watched.sessions._tasks
    turning.cancel()
    await asyncio.wait([turning])


def said(client):
    return [message[0] for message in client.outbox.messages]


async def test_a_token_is_announced_and_ended_on_time(watched):
    client = watched.connect(lasts=600)
    await watched.pass_time(539)
    assert said(client) == []
    await watched.pass_time(1)
    assert said(client) == ["$expiring"]
    await watched.pass_time(59)
    assert client.closed is None
    await watched.pass_time(1)
    assert client.closed == "expired"
    assert said(client) == ["$expiring", "$goaway"]


async def test_a_token_is_not_asked_about_in_the_name_of_the_request_that_brought_it(watched):
    with bound_contextvars(request_id="of the handshake", socket="the first of many"):
        watched.connect()
    await watched.pass_time(2 * INTERVAL)
    assert watched.tokens.contexts
    assert not any(watched.tokens.contexts)


async def test_a_short_token_is_announced_a_fifth_ahead(watched):
    client = watched.connect(lasts=10)
    await watched.pass_time(7)
    assert said(client) == []
    await watched.pass_time(1)
    assert said(client) == ["$expiring"]
    await watched.pass_time(2)
    assert client.closed == "expired"


async def test_a_token_that_is_over_already_ends_at_once(watched):
    client = watched.connect(lasts=-5)
    await watched.stage.clock.advance(0)
    assert client.closed == "expired"


async def test_a_token_that_lasts_for_weeks_does_not_overrun_the_timers(watched):
    watched.tokens.answer = AuthUnavailable()
    watched.sessions._grace = 10**9
    client = watched.connect(lasts=5 * 86_400)
    for _ in range(5):
        assert client.closed is None
        await watched.stage.clock.advance(86_399)
    await watched.pass_time(10)
    assert client.closed == "expired"


async def test_however_many_sockets_hold_a_token_it_is_asked_about_once_per_interval(watched):
    clients = [watched.connect() for _ in range(20)]
    await watched.pass_time(300)
    assert 10 <= len(watched.tokens.asked) <= 12
    assert set(watched.tokens.asked) == {"secret t"}
    assert all(client.closed is None for client in clients)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (InvalidToken(), "token_revoked"),
        (TenantSuspended(), "tenant_suspended"),
        (TenantUnknown(), "tenant_suspended"),
        (Forbidden(), "token_revoked"),
    ],
)
async def test_a_token_that_is_refused_ends_all_its_sockets_within_the_interval(watched, answer, reason):
    clients = [watched.connect() for _ in range(3)]
    other = watched.connect(known_as="other")
    await watched.pass_time(31)
    watched.sessions.detach(other)
    watched.tokens.answer = answer
    await watched.pass_time(31)
    assert [client.closed for client in clients] == [reason] * 3
    assert other.closed is None


async def test_while_nobody_can_say_everyone_stays_for_the_grace_and_then_leaves(watched):
    client = watched.connect()
    watched.tokens.answer = AuthUnavailable()
    await watched.pass_time(31)
    assert client.closed is None
    await watched.pass_time(GRACE + INTERVAL)
    assert client.closed == "auth_unavailable"


async def test_an_answer_in_between_starts_the_grace_anew(watched):
    client = watched.connect(lasts=10_000)
    good = watched.tokens.answer
    for _ in range(5):
        watched.tokens.answer = AuthUnavailable()
        await watched.pass_time(45)
        watched.tokens.answer = good
        await watched.pass_time(31)
    assert client.closed is None


async def test_a_token_that_speaks_for_somebody_else_now_is_over(watched):
    client = watched.connect()
    watched.tokens.answer = replace(watched.tokens.answer, subject="user:bob")
    await watched.pass_time(31)
    assert client.closed == "token_revoked"


async def test_a_later_end_puts_the_end_off_and_an_earlier_one_brings_it_forward(watched):
    client = watched.connect(lasts=100)
    watched.tokens.answer = replace(client.principal, expires_at=watched.stage.clock.now + timedelta(seconds=200))
    await watched.pass_time(150)
    assert client.closed is None
    await watched.pass_time(50)
    assert client.closed == "expired"


async def test_an_earlier_end_is_kept_though_the_later_one_was_near_already(watched):
    client = watched.connect(lasts=55)
    watched.tokens.answer = replace(client.principal, expires_at=watched.stage.clock.now + timedelta(seconds=33))
    await watched.pass_time(32)
    assert client.closed is None
    await watched.pass_time(2)
    assert client.closed == "expired"


async def test_changed_groups_are_applied_to_every_socket_of_the_token(watched):
    clients = {watched.connect(groups=["staff"]) for _ in range(2)}
    watched.tokens.answer = replace(watched.tokens.answer, groups=frozenset({"guests"}))
    await watched.pass_time(31)
    assert {client for client, _ in watched.regranted} == clients
    await watched.pass_time(60)
    assert len(watched.regranted) == 2


async def test_a_check_that_fails_in_a_way_nobody_foresaw_ends_the_socket_and_no_other_check(watched):
    first, second = watched.connect(known_as="first"), watched.connect(known_as="second")
    watched.tokens.answer = replace(watched.tokens.answer, groups=frozenset({"guests"}))
    watched.trouble = OverflowError()
    await watched.pass_time(31)
    assert {first.closed, second.closed} == {"auth_unavailable"}


async def test_a_logout_closes_that_tokens_sockets_only(watched):
    mine, other = watched.connect(), watched.connect(known_as="other")
    assert watched.sessions.logged_out("t", None) == ["t"]
    assert watched.sessions.logged_out("nobody's", "nobody's") == []
    assert watched.sessions.logged_out(None, None) == []
    assert (mine.closed, other.closed) == ("logout", None)


async def test_a_logout_closes_the_sockets_of_every_token_that_the_login_has_had(watched):
    first, second = watched.connect(known_as="first", login="a"), watched.connect(known_as="second", login="a")
    elsewhere, program = watched.connect(known_as="other", login="b"), watched.connect(known_as="program")
    # The newest token holds no socket yet, or is not known any more.
    assert sorted(watched.sessions.logged_out("third", "a")) == ["first", "second"]
    assert [one.closed for one in (first, second, elsewhere, program)] == ["logout", "logout", None, None]
    assert watched.sessions.of("first") is None


async def test_a_token_without_sockets_is_forgotten_and_not_asked_about(watched):
    client = watched.connect()
    session = watched.sessions.of("t")
    assert "secret" not in repr(session)
    watched.sessions.detach(client)
    watched.sessions.detach(client)
    assert watched.sessions.of("t") is None
    await watched.pass_time(120)
    assert watched.tokens.asked == []
    assert not watched.sessions._tasks


async def test_sockets_that_do_nothing_have_no_task_and_no_timer_of_their_own(watched):
    before = asyncio.all_tasks()
    clients = [watched.connect(known_as=str(number)) for number in range(50)]
    sessions = [client.session for client in clients]
    await watched.stage.clock.advance(1)
    assert asyncio.all_tasks() == before
    assert {session.timer for session in sessions} == {None}


async def test_tokens_are_asked_about_a_few_at_a_time(watched):
    stop, most = asyncio.Event(), 0

    async def token(token, *, fresh):
        nonlocal most
        watched.tokens.asked.append(token)
        most = max(most, len(watched.tokens.asked))
        await stop.wait()
        raise InvalidToken

    watched.tokens.token = token
    clients = [watched.connect(known_as=str(number)) for number in range(50)]
    await watched.pass_time(60)
    assert most == 8
    stop.set()
    await watched.stage.clock.advance(1)
    assert sorted(watched.tokens.asked) == sorted(f"secret {number}" for number in range(50))
    assert {client.closed for client in clients} == {"token_revoked"}


async def test_a_call_that_takes_long_is_not_made_again_meanwhile(watched):
    stop = asyncio.Event()

    async def token(token, *, fresh):
        watched.tokens.asked.append(token)
        await stop.wait()
        return watched.tokens.answer, None

    watched.tokens.token = token
    client = watched.connect()
    await watched.pass_time(INTERVAL + GRACE - 1)
    assert len(watched.tokens.asked) == 1
    assert client.closed is None
    stop.set()
    await watched.pass_time(31)
    assert len(watched.tokens.asked) == 2


async def test_a_token_that_nobody_has_answered_for_within_the_grace_ends_its_sockets(watched):
    stop = asyncio.Event()

    async def token(token, *, fresh):
        await stop.wait()

    watched.tokens.token = token
    # More than are asked about at a time: most of them wait without a question.
    clients = [watched.connect(known_as=str(number)) for number in range(20)]
    await watched.pass_time(3 * INTERVAL + GRACE)
    assert {client.closed for client in clients} == {"auth_unavailable"}


async def test_a_token_ends_on_time_while_nobody_answers_for_the_others(watched):
    stop = asyncio.Event()

    async def token(token, *, fresh):
        await stop.wait()

    watched.tokens.token = token
    clients = [watched.connect(lasts=80, known_as=str(number)) for number in range(20)]
    await watched.pass_time(79)
    assert {client.closed for client in clients} == {None}
    await watched.pass_time(1)
    assert {client.closed for client in clients} == {"expired"}


async def test_what_is_found_out_about_a_token_is_held_once(watched):
    clients = [watched.connect(groups=["staff"]) for _ in range(3)]
    watched.tokens.answer = replace(watched.tokens.answer, name="Alice B.", groups=frozenset(["staff"]))
    await watched.pass_time(31)
    assert all(client.principal is watched.tokens.answer for client in clients)
    assert watched.regranted == []


async def test_an_interval_that_is_under_way_does_not_touch_a_session_that_came_after(watched):
    first = watched.connect()
    await watched.pass_time(10)
    watched.sessions.detach(first)
    second = watched.connect()
    await watched.pass_time(300)
    assert len(watched.tokens.asked) <= 12
    assert second.closed is None


async def test_at_a_stop_nothing_goes_on(watched):
    watched.connect(lasts=20)
    await watched.sessions.aclose()
    await watched.pass_time(60)
    assert watched.tokens.asked == []
    assert {task for task in asyncio.all_tasks() if task.get_name() != "timers"} == {asyncio.current_task()}
