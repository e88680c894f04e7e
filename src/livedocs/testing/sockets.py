"""Sockets of the people in a test, and what each of them is shown."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

from livedocs._client import answers
from livedocs._client.answers import Failure
from livedocs._client.connection import Connection
from livedocs._client.wire import Acked, Received
from livedocs.errors import ClientError, LivedocsError
from livedocs.testing.deployment import Deployment
from livedocs.testing.oauth import Identity

WITHIN = 5.0
Tickets = dict[Identity, str]
"""The newest one of each person; returned with every join, as the clients do."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An event that a socket was shown.

    Attributes:
        name: the collection, or a control event's name with its `$`.
        data: the document, the changed fields, or what a control event says; values as BSON.
        meta: as in docs/socket-protocol.md; empty for control events.
    """

    name: str
    data: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """As failures show it."""
        op = f" {self.meta['op']}" if "op" in self.meta else ""
        return f"{self.name}{op} {dict(self.data)}"


@dataclass(frozen=True, slots=True)
class Joined:
    """A room that somebody is in now.

    Attributes:
        documents: by collection, as they were at `cursor`.
    """

    uuid: UUID
    role: str
    cursor: str
    documents: Mapping[str, Sequence[Mapping[str, Any]]]


class Listener:
    """One socket. Everything about it happens in one event loop.

    Attributes:
        name: whose it is, for failures.
        ended: why the server has ended it; None while it lives.
    """

    def __init__(
        self, connection: Connection, identity: Identity, deployment: Deployment, tickets: Tickets | None = None
    ) -> None:
        self.name = identity.name
        self._identity = identity
        self._tickets: Tickets = {} if tickets is None else tickets
        self.ended: str | None = None
        self._connection = connection
        self._deployment = deployment
        # Shown and not yet expected, in order.
        self._events: deque[Seen] = deque()
        self._answers: dict[int, Any] = {}
        self._changed = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connected(
        cls, deployment: Deployment, identity: Identity, token: str, tickets: Tickets | None = None
    ) -> Self:
        """A socket that the server has let in; with the tickets of sockets before it.

        Raises:
            LivedocsError: it has not.
        """
        return cls(await Connection.opened(deployment.url, token), identity, deployment, tickets)

    async def _read(self) -> None:
        ended = "gone"
        with contextlib.suppress(LivedocsError, ClientError):
            while True:
                packet = await self._connection.receive()
                async with self._changed:
                    if isinstance(packet, Acked):
                        self._answers[packet.number] = packet.answer
                    elif packet is not None:
                        ended = self._take(packet) or ended
                    self._changed.notify_all()
        async with self._changed:
            self.ended = ended
            self._changed.notify_all()

    def _take(self, packet: Received) -> str | None:
        """Note an event. Returns the reason when it is the server's goodbye."""
        data, meta = (*packet.arguments, {}, {})[:2]
        if packet.name == "Check" or not isinstance(data, dict):
            # The echo that comes as an event beside the acknowledgement.
            return None
        if packet.name == "$ticket":
            # As the clients do: kept, and nothing to be shown.
            self._tickets[self._identity] = data["ticket"]
            return None
        self._events.append(Seen(packet.name, data, meta))
        return str(data.get("reason")) if packet.name == "$goaway" else None

    async def _until(self, condition: Callable[[], bool], within: float) -> bool:
        """Whether it is so within that time; the end of the socket ends the wait."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(lambda: condition() or self.ended is not None)
        return condition()

    async def call(self, name: str, *arguments: Any, within: float = WITHIN) -> Any:
        """Send an event and wait for its acknowledgement.

        Raises:
            AssertionError: none came.
        """
        number = await self._connection.emit(name, *arguments)
        if not await self._until(lambda: number in self._answers, within):
            raise AssertionError(f"{self.name} got no answer to {name} within {within:g} s{self._circumstances()}")
        return self._answers.pop(number)

    async def join(
        self, uuid: UUID | str, since: str | None, collections: Sequence[str] | None, within: float
    ) -> Joined | Failure:
        """The room, or why the server refuses."""
        options: dict[str, Any] = {"snapshot": True} if since is None else {"since": since}
        options |= {} if collections is None else {"collections": list(collections)}
        options |= {"ticket": self._tickets[self._identity]} if self._identity in self._tickets else {}
        answer = await self.call("JoinRoom", [str(uuid)], options, within=within)
        if "ticket" in answer:
            self._tickets[self._identity] = answer["ticket"]
        told = answer["joined"].get(str(uuid))
        if told is None:
            return answers.refusal(answer["refused"].get(str(uuid)) or answer)
        return Joined(UUID(str(uuid)), told["role"], told["cursor"], told.get("snapshot", {}))

    async def leave(self, uuid: UUID | str) -> None:
        """Out of the room."""
        await self.call("LeaveRoom", [str(uuid)])

    async def expect(self, name: str, data: Mapping[str, Any] | None, op: str | None, within: float) -> Seen:
        """The next event, which has to be this one.

        Raises:
            AssertionError: it is another one, or none came.
        """
        wanted = _wanted(name, data, op)
        if not await self._until(lambda: bool(self._events), within):
            raise AssertionError(f"{self.name} was not shown {wanted} within {within:g} s{self._circumstances()}")
        seen = self._events.popleft()
        if not _fits(seen, name, data, op):
            behind = "".join(f"\n  then {event}" for event in self._events)
            raise AssertionError(f"{self.name} was to be shown {wanted} next\n  but was shown {seen}{behind}")
        return seen

    async def echoed(self) -> None:
        """Wait until all that the server has written until now has been read; the end of the socket is one way.

        Raises:
            AssertionError: the server does not answer.
        """
        if self.ended is None:
            with contextlib.suppress(ClientError):
                number = await self._connection.emit("Check")
                await self._until(lambda: number in self._answers, WITHIN)
                if self.ended is None and number not in self._answers:
                    raise AssertionError(f"{self.name} is not heard any more{self._circumstances()}")

    def expect_nothing(self) -> None:
        """Nothing waits to be expected.

        Raises:
            AssertionError: something does.
        """
        if self._events:
            shown = "".join(f"\n  {event}" for event in self._events)
            raise AssertionError(f"{self.name} was to be shown nothing\n  but was shown{shown}")

    async def expect_closed(self, reason: str | None, within: float) -> None:
        """The server ends the socket.

        Raises:
            AssertionError: it does not, or for another reason.
        """
        if not await self._until(lambda: self.ended is not None, within):
            raise AssertionError(f"{self.name} is still connected after {within:g} s")
        if reason not in (None, self.ended):
            raise AssertionError(f"{self.name} was to be disconnected with {reason!r}, not with {self.ended!r}")
        self._events = deque(event for event in self._events if event.name != "$goaway")

    def _circumstances(self) -> str:
        self._deployment.check()
        return f"; the socket has ended: {self.ended}" if self.ended is not None else ""

    async def close(self) -> None:
        """Away."""
        await self._connection.close()
        await self._reader


def _fits(seen: Seen, name: str, data: Mapping[str, Any] | None, op: str | None) -> bool:
    fields = _plain(data or {})
    return (
        seen.name == name
        and (op is None or seen.meta.get("op") == op)
        and all(key in seen.data and seen.data[key] == value for key, value in fields.items())
    )


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """What is expected, with the document's UUID as it is on the wire: a plain string."""
    uuid = {"uuid": str(data["uuid"])} if "uuid" in data else {}
    return {**data, **uuid}


def _wanted(name: str, data: Mapping[str, Any] | None, op: str | None) -> str:
    return " ".join([name, *([op] if op else []), *([str(dict(data))] if data else [])])
