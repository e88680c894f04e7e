"""Tokens of live sockets: told ahead of their end, ended on time, introspected again once per interval.

However many sockets hold a token, it is one session: one timer, one call.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Protocol

from livedocs.access.principal import Principal
from livedocs.errors import InvalidToken, LivedocsError, TenantSuspended, TenantUnknown, Unavailable
from livedocs.live import frames
from livedocs.live.client import Client
from livedocs.live.timers import TimerWheel
from livedocs.model import Tenant
from livedocs.runtime import tasks
from livedocs.telemetry import get_logger

log = get_logger(__name__)

# `$expiring` comes that many seconds ahead, or a fifth of what is left, whichever is less.
_WARNING = 60.0
# A token has a timer of its own from that many intervals before its warning: one would do if the wheel were exact.
_AHEAD = 2
# Introspections under way at once.
_CALLS = 8


class Tokens(Protocol):
    """What is needed of the authenticator."""

    async def token(self, token: str, *, fresh: bool = False) -> tuple[Principal, Tenant]:
        """Who a token speaks for."""


class Observer(Protocol):
    """Who keeps account of callers' groups (tickets.py)."""

    def seen(self, client: Client, principal: Principal) -> None:
        """Note what an introspection has just said of a socket's caller."""

    def renew(self, client: Client) -> None:
        """Send a newer ticket to a client that knows what to do with one."""


class Session:
    """One token and the sockets that hold it. `login` is the browser's login that it was issued to, if known."""

    __slots__ = ("_due", "ahead", "asking", "clients", "failing_since", "login", "principal", "timer", "token")

    def __init__(self, token: str, principal: Principal, due: Callable[[Session], float]) -> None:
        self._due = due
        self.token = token
        self.principal = principal
        self.login: str | None = None
        self.clients: set[Client] = set()
        # Monotonic time of the first of the introspections that have failed in a row.
        self.failing_since: float | None = None
        # Whether it waits for an introspection, or one is under way.
        self.asking = False
        # Seconds before its end at which its sockets are told.
        self.ahead = 0.0
        # What does that, and then ends them; None while that is far away.
        self.timer: asyncio.TimerHandle | None = None

    def tick(self) -> float:
        """What the timer wheel calls once per interval."""
        return self._due(self)

    def __repr__(self) -> str:
        return f"Session({self.principal.subject!r}, {len(self.clients)} sockets)"


class Sessions:
    """Every token that has a live socket in this process.

    Args:
        regrant: applies a caller's changed groups to a client's rooms.
        tickets: is told what each introspection says of a socket's caller.
        wheel: says when an interval is over.
        interval: seconds between introspections of one token.
        grace: seconds that sockets stay while nobody can say whether their token is still good.
    """

    def __init__(
        self,
        tokens: Tokens,
        regrant: Callable[[Client, Principal], Awaitable[None]],
        tickets: Observer,
        wheel: TimerWheel,
        *,
        interval: float,
        grace: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tokens = tokens
        self._regrant = regrant
        self._observer = tickets
        self._wheel = wheel
        self._interval = interval
        self._grace = grace
        self._now = now
        self._sessions: dict[str, Session] = {}
        self._context = copy_context()
        # Sessions whose token is to be introspected now, and the tasks that do it: there only while there are any.
        self._waiting: deque[Session] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        # One for all sessions.
        self._due = self._turn

    def of(self, token_id: str) -> Session | None:
        """The session of a token."""
        return self._sessions.get(token_id)

    def attach(self, client: Client, token: str, login: str | None = None) -> None:
        """Watch the client's token from now on; `login` says which of a browser's logins it belongs to."""
        principal = client.principal
        session = self._sessions.get(principal.token_id)
        if session is None:
            session = self._sessions[principal.token_id] = Session(token, principal, self._due)
            self._arm(session)
            self._wheel.put(session, self._interval * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
        session.clients.add(client)
        session.login = session.login or login
        client.session = session

    def detach(self, client: Client) -> None:
        """The client has gone."""
        session: Session | None = client.session
        client.session = None
        if session is None:
            return
        session.clients.discard(client)
        if not session.clients:
            self._end(session)

    def logged_out(self, token_id: str | None, login: str | None) -> list[str]:
        """Close every socket of a login, also those that hold a token from before a refresh.

        Args:
            token_id: the login's present token, if known.
            login: which login of a browser, if known.

        Returns:
            The ids of the tokens that the sockets held.
        """
        ended = [
            session
            for held, session in self._sessions.items()
            if held == token_id or (login is not None and session.login == login)
        ]
        for session in ended:
            self._close(session, "logout")
        return [session.principal.token_id for session in ended]

    def _close(self, session: Session, reason: str) -> None:
        for client in tuple(session.clients):
            client.close(reason)
        self._end(session)

    def _end(self, session: Session) -> None:
        self._wheel.take(session)
        if session.timer is not None:
            session.timer.cancel()
        if self._sessions.get(session.principal.token_id) is session:
            del self._sessions[session.principal.token_id]

    # -- the end of a token, on time --

    def _left(self, session: Session) -> float:
        return (session.principal.expires_at - self._now()).total_seconds()

    def _arm(self, session: Session) -> None:
        """See to the end of a token that has come, or has got another end."""
        if session.timer is not None:
            session.timer.cancel()
            session.timer = None
        session.ahead = min(_WARNING, self._left(session) / 5)
        self._arm_warning(session)

    def _arm_warning(self, session: Session) -> None:
        delay = self._left(session) - session.ahead
        if delay <= _AHEAD * self._interval:
            session.timer = asyncio.get_running_loop().call_later(max(0.0, delay), self._warn, session)

    def _warn(self, session: Session) -> None:
        frame = frames.event("$expiring", {"at": session.principal.expires_at})
        for client in session.clients:
            client.send(frame)
        delay = max(0.0, self._left(session))
        session.timer = asyncio.get_running_loop().call_later(delay, self._close, session, "expired")

    # -- introspection, again and again --

    def _turn(self, session: Session) -> float:
        """Once per interval, spread in time, for as long as a socket holds the token."""
        if session.timer is None:
            self._arm_warning(session)
        if session.asking:
            # It has waited for a whole interval: whoever cannot be asked in time has not been asked.
            self._stay_for_now(session)
        else:
            session.asking = True
            self._waiting.append(session)
            if len(self._tasks) < _CALLS:
                self._own(self._ask())
        return self._interval * random.uniform(0.9, 1.0)  # noqa: S311 - spreads load

    def _own(self, work: Awaitable[None]) -> None:
        # A token's session outlives the handshake that began it, and is not that one's in logs and traces.
        task = self._context.copy().run(asyncio.ensure_future, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self) -> None:
        """Introspect what waits for it, one after the other."""
        while self._waiting:
            session = self._waiting.popleft()
            try:
                if self._sessions.get(session.principal.token_id) is session:
                    await self._check(session)
            except Exception:
                # Nobody knows whether it may stay: then it may not.
                log.exception("session_check_failed", token_id=session.principal.token_id)
                self._close(session, "auth_unavailable")
            finally:
                session.asking = False

    async def _check(self, session: Session) -> None:
        try:
            principal, _ = await self._tokens.token(session.token, fresh=True)
        except InvalidToken:
            self._close(session, "token_revoked")
        except (TenantSuspended, TenantUnknown):
            self._close(session, "tenant_suspended")
        except Unavailable:
            self._stay_for_now(session)
        except LivedocsError as error:
            log.warning("live_token_refused", code=error.code)
            self._close(session, "token_revoked")
        else:
            session.failing_since = None
            await self._apply(session, principal)

    def _stay_for_now(self, session: Session) -> None:
        """Nobody can say: stay for the grace, then leave."""
        now = asyncio.get_running_loop().time()
        session.failing_since = session.failing_since or now
        if now - session.failing_since >= self._grace:
            self._close(session, "auth_unavailable")

    async def _apply(self, session: Session, principal: Principal) -> None:
        before = session.principal
        if (principal.tenant, principal.subject) != (before.tenant, before.subject):
            self._close(session, "token_revoked")
            return
        if principal.expires_at != before.expires_at:
            session.principal = principal
            self._arm(session)
        session.principal = principal
        for client in tuple(session.clients):
            # First of all: whatever becomes of the rooms, what was lost does not count any more.
            self._observer.seen(client, principal)
            if client.principal.groups == principal.groups:
                # One for all of them, instead of a new one per interval beside the old.
                client.principal = principal
                self._observer.renew(client)
                continue
            # What was lost has no effect any more when this returns, whatever can be read now.
            await self._regrant(client, principal)
            self._observer.renew(client)

    async def aclose(self) -> None:
        """Stop watching."""
        for session in tuple(self._sessions.values()):
            self._end(session)
        self._waiting.clear()
        await tasks.end(self._tasks)
