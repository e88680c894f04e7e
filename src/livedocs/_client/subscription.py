"""Following documents: one socket at a time, made again when it is lost, and a bounded buffer behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from livedocs._client import answers
from livedocs._client.connection import Connection
from livedocs._client.events import Change, Event, Refused, Revoked, Snapshot
from livedocs._client.retries import Retries
from livedocs._client.rooms import Join, Rooms
from livedocs._client.tokens import TokenSource
from livedocs._client.wire import Acked, Received
from livedocs.errors import (
    ClientError,
    Disconnected,
    LivedocsError,
    ServerUnreachable,
    TokenUnavailable,
    Unauthenticated,
)
from livedocs.runtime import tasks

_log = logging.getLogger("livedocs.client")

# An acknowledgement that takes longer does not come.
_ANSWER = 30.0
# Reasons of `$goaway` behind which nothing more can come. Whether a token has ended shows at the next CONNECT.
_FINAL = frozenset({"tenant_suspended", "disconnected"})
# Those that are over only later: waited for as after so many failures.
_LATER = frozenset({"auth_unavailable", "rate_limited"})
_AFTER = 4
# A server that stops says so to all its sockets at once: they come back spread over this part of the time.
_SPREAD = 0.5


class _Away(Exception):
    """The server asks to come back later, or elsewhere, after so many seconds."""

    def __init__(self, reason: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(reason)


class Subscription:
    """An asynchronous iterator of events, and the context in which it lives.

    It ends when no room is left: each was refused or revoked. Every change comes once, in the order of the stream,
    however often the connection is lost. At most `buffer` events wait for the caller; then nothing more is read,
    and a server that finds the socket too slow puts a `Snapshot` in the place of what it had to drop.
    """

    def __init__(self, url: str, tokens: TokenSource, rooms: Rooms, retries: Retries, *, buffer: int) -> None:
        self._url = url
        self._tokens = tokens
        self._rooms = rooms
        self._retries = retries
        # None is the end.
        self._buffer: asyncio.Queue[Event | None] = asyncio.Queue(buffer)
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._cursors = rooms.cursors
        self._token = ""
        # Calls under way on the present connection, and when the first of them is overdue.
        self._joins: dict[int, Join] = {}
        self._overdue = 0.0
        # Whether the rooms have been joined on the present connection.
        self._settled = False
        self._over = False
        self._error: Exception | None = None

    @property
    def cursors(self) -> Mapping[UUID, str]:
        """By UUID, the last event that the caller was given; `since` for another subscription."""
        return dict(self._cursors)

    @property
    def ticket(self) -> str | None:
        """The newest one, for another subscription of the same caller that goes on from `cursors`; None before.

        Without it, what was missed of documents that the caller sees through a group is not told change by change.
        """
        return self._rooms.ticket

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            LivedocsError: the server refuses.
            ClientError: it does not answer, after the tries that `Retries` allows.
        """
        failures = 0
        while True:
            try:
                self._connection = await self._opened()
                break
            except (LivedocsError, ClientError) as error:
                failures += 1
                wait = self._retries.wait(error, failures, repeatable=True)
                if wait is None:
                    raise
            await asyncio.sleep(wait)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        if self._task is not None:
            self._over = True
            await tasks.end([self._task])
            # A task that is cancelled before its first step has closed nothing.
            await self._leave()
            # Whoever waits for an event is not left waiting.
            if self._buffer.full():
                self._buffer.get_nowait()
            self._buffer.put_nowait(None)

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> Event:
        """The next event.

        Raises:
            LivedocsError, ClientError: why nothing more can come.
        """
        if self._task is None:
            msg = "use it as a context: async with client.subscribe(..) as events"
            raise RuntimeError(msg)
        event = None if self._over else await self._buffer.get()
        match event:
            case Snapshot() | Change():
                # Not what waits in the buffer: whoever goes on elsewhere has not seen it.
                self._cursors[event.uuid] = event.cursor
                return event
            case Revoked() | Refused():
                self._cursors.pop(event.uuid, None)
                return event
        self._over = True
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    # -- connections --

    async def _run(self) -> None:
        try:
            await self._follow()
        except Exception as error:  # noqa: BLE001 - raised where the caller waits, or it would wait for ever
            self._error = error
        await self._leave()
        await self._buffer.put(None)

    async def _follow(self) -> None:
        """Until no room is left, or nothing more can come."""
        failures = 0
        while self._rooms:
            self._settled = False
            try:
                self._connection = self._connection or await self._opened()
                await self._converse(self._connection)
            except _Away as away:
                wait, failures = away.seconds, 0
            except (LivedocsError, ClientError) as error:
                if not answers.passing(error) and not isinstance(error, TokenUnavailable):
                    raise
                failures = 1 if self._settled else failures + 1
                wait = (answers.wait_of(error) or 0.0) + self._retries.backoff(failures)
                _log.warning("%s: %s; again in %.1f s", self._url, error, wait)
            else:
                return
            await self._leave()
            await asyncio.sleep(wait)

    async def _leave(self) -> None:
        """Away from the present connection, if there is one."""
        if self._renewal is not None:
            await tasks.end([self._renewal])
            self._renewal = None
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _opened(self) -> Connection:
        """A connection, with another token where the present one is refused and there is one."""
        self._token = await self._tokens.token()
        try:
            return await Connection.opened(self._url, self._token)
        except Unauthenticated:
            other = await self._tokens.token(refused=self._token)
            if other == self._token:
                raise
        self._token = other
        return await Connection.opened(self._url, other)

    async def _converse(self, connection: Connection) -> None:
        """Join the rooms and pass on what comes, until none is left.

        Raises:
            _Away: the server asks to go.
            ServerUnreachable: the connection is lost.
            LivedocsError, ClientError: nothing more can come.
        """
        self._rooms.disconnected()
        self._joins.clear()
        clock = asyncio.get_running_loop().time
        while self._rooms:
            for join in self._rooms.joins(clock()):
                self._joins[
                    await connection.emit("JoinRoom", [str(uuid) for uuid in join.uuids], join.options)
                ] = join
                self._overdue = clock() + _ANSWER
            packet = await connection.receive(self._patience(clock()))
            if isinstance(packet, Acked) and packet.number in self._joins:
                for event in self._rooms.answered(self._joins.pop(packet.number), packet.answer, clock()):
                    await self._buffer.put(event)
                self._settled = True
            elif isinstance(packet, Received):
                await self._take(connection, packet)
            elif self._joins and clock() >= self._overdue:
                raise ServerUnreachable("a join was not answered")

    def _patience(self, now: float) -> float | None:
        """How long to wait for the next packet before something else is to be done."""
        due = self._rooms.due()
        times = [due] if due is not None else []
        times += [self._overdue] if self._joins else []
        return max(0.0, min(times) - now) if times else None

    async def _take(self, connection: Connection, packet: Received) -> None:
        match packet.name, packet.arguments:
            case "$expiring", _:
                self._renewal = self._renewal or asyncio.create_task(self._renew(connection))
            case "$goaway", ({"reason": str() as reason, **told}, *_):
                self._go(reason, told.get("within_ms"))
            case _:
                event = self._rooms.received(packet.name, packet.arguments)
                if event is not None:
                    await self._buffer.put(event)

    def _go(self, reason: str, within: Any) -> None:
        if reason in _FINAL:
            raise answers.refusal({"code": reason}) if reason == "tenant_suspended" else Disconnected(reason)
        spread = self._retries.dice() * _SPREAD * within / 1000 if isinstance(within, int | float) else 0.0
        raise _Away(reason, spread + self._retries.backoff(_AFTER if reason in _LATER else 1))

    async def _renew(self, connection: Connection) -> None:
        """Put the socket under a new token; where there is none it ends with the old one."""
        try:
            token = await self._tokens.token(refused=self._token)
            if token != self._token:
                await connection.emit("Reauth", {"token": token})
                self._token = token
        except (TokenUnavailable, ServerUnreachable) as error:
            _log.warning("%s: the token could not be renewed: %s", self._url, error)
        finally:
            self._renewal = None
