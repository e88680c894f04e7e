"""Authorization of what outlives a request's beginning: asked anew, and only as good as its last answer.

An import, a bulk request of many transactions, a receipt or a question that is waited for: whoever has sent it may
have been logged out, removed from a group, confined or suspended since. Each asks before its next step, and before
it answers. Nobody's word is used for longer than `LIVEDOCS_INTROSPECTION_INTERVAL`; a logout counts at once.
"""

from __future__ import annotations

import asyncio

from quart import g

from livedocs.access.authenticate import Authenticator
from livedocs.errors import InsufficientScope, InvalidToken
from livedocs.http.caller import Caller, caller, set_caller
from livedocs.http.session_queries import Answers, SessionQueries
from livedocs.store.inquiries import Disconnection, Question
from livedocs.store.processes import Process


class Freshness:
    """How long ago the sender of a request was last asked about.

    Args:
        authenticator: says whom a token speaks for.
        token: the request's.
        who: its sender, as just found out.
        interval: seconds after which nothing that is remembered of the token counts any more.
    """

    def __init__(self, authenticator: Authenticator, token: str, who: Caller, interval: float) -> None:
        self._authenticator = authenticator
        self._token = token
        self._who = who
        self._interval = interval
        self._asked = asyncio.get_running_loop().time()

    async def check(self) -> Caller:
        """Who sends the request, with the groups, scopes and tenant of now.

        Raises:
            InvalidToken: the token has ended, or speaks for somebody else now.
            AuthUnavailable: nobody could say: that is a no.
            TenantUnknown, TenantSuspended: the tenant has gone.
        """
        now = asyncio.get_running_loop().time()
        fresh = now - self._asked >= self._interval
        principal, tenant = await self._authenticator.token(self._token, fresh=fresh)
        before = self._who.principal
        if (principal.tenant, principal.subject) != (before.tenant, before.subject):
            raise InvalidToken(reason="subject")
        if fresh:
            # From before the answer: a revocation while it was on its way must not be hidden for longer.
            self._asked = now
        self._who = Caller(principal, tenant, self._who.address)
        return self._who


def set_freshness(freshness: Freshness) -> None:
    """Say how the sender of this request is asked about again."""
    g.freshness = freshness


async def recheck() -> Caller:
    """Who sends this request, as of now; `caller()` is the same from here on.

    Raises:
        LivedocsError: those of `Freshness.check`.
    """
    freshness: Freshness = g.freshness
    set_caller(await freshness.check())
    return caller()


class CheckedQueries:
    """Asks about sessions, and gives the answers only to those who may still have them when they are in.

    Args:
        sessions: answers them.
    """

    def __init__(self, sessions: SessionQueries) -> None:
        self._sessions = sessions

    @property
    def process(self) -> Process | None:
        """The process that asks."""
        return self._sessions.process

    async def ask(self, question: Question, *, by: str = "") -> Answers:
        """Put a question to every process, for that subject of the tenant.

        Raises:
            RateLimited: too many questions of that subject are waiting.
            Unavailable: nobody can say which processes there are, or too many ask.
            LivedocsError: those of `recheck`, but where something was to be done and not only told.
            InsufficientScope: a scope was taken away meanwhile.
        """
        before = caller()
        answers = await self._sessions.ask(question, by=by)
        if not isinstance(question, Disconnection):
            lost = before.principal.scopes - (await recheck()).principal.scopes
            if lost:
                raise InsufficientScope(scope=min(lost))
        return answers
