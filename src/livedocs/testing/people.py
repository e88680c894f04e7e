"""What a test does with sockets: the same for asynchronous tests and for synchronous ones."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from livedocs._client.answers import Failure
from livedocs.errors import ClientError, LivedocsError
from livedocs.testing.background import Background
from livedocs.testing.barrier import Barrier
from livedocs.testing.deployment import Deployment
from livedocs.testing.oauth import Identity
from livedocs.testing.sockets import WITHIN, Joined, Listener, Seen, Tickets

T = TypeVar("T")


class _Somebodys:
    """What is known of somebody's socket, however its tests are written."""

    def __init__(self, background: Background, barrier: Barrier, listener: Listener, token: str) -> None:
        self.name = listener.name
        self.token = token
        self._background = background
        self._barrier = barrier
        self.listener = listener


class Socket(_Somebodys):
    """Somebody's socket. `WITHIN` seconds is how long it waits unless told otherwise."""

    async def join(
        self,
        uuid: UUID | str,
        *,
        since: str | None = None,
        collections: Sequence[str] | None = None,
        within: float = WITHIN,
    ) -> Joined:
        """Into the room of a document, with a snapshot; or on from a cursor.

        Raises:
            AssertionError: the server refuses.
        """
        found = await self._run(self.listener.join(uuid, since, collections, within))
        return entered(self.name, uuid, found)

    async def join_refused(self, uuid: UUID | str, code: str = "forbidden", *, within: float = WITHIN) -> None:
        """The server refuses the room.

        Raises:
            AssertionError: it does not, or for another reason.
        """
        kept_out(self.name, uuid, code, await self._run(self.listener.join(uuid, None, None, within)))

    async def leave(self, uuid: UUID | str) -> None:
        """Out of a room."""
        await self._run(self.listener.leave(uuid))

    async def expect(
        self, name: str, data: Mapping[str, Any] | None = None, *, op: str | None = None, within: float = WITHIN
    ) -> Seen:
        """The next event that the socket is shown, which has to be this one.

        Args:
            name: the collection, or `$revoked` and so on.
            data: fields that it has to have; it may have others.
            op: insert, update, replace or delete.
            within: seconds to wait for it.

        Raises:
            AssertionError: it is another one, or none came.
        """
        return await self._run(self.listener.expect(name, data, op, within))

    async def expect_nothing(self) -> None:
        """Whatever has been committed until now shows nothing that was not expected. Waits for nothing to happen.

        Raises:
            AssertionError: it does.
        """
        await self._run(self._barrier.settle([self.listener]))
        self.listener.expect_nothing()

    async def expect_closed(self, reason: str | None = None, *, within: float = WITHIN) -> None:
        """The server ends the socket, with that `$goaway` reason if one is given.

        Raises:
            AssertionError: it does not, or for another reason.
        """
        await self._run(self.listener.expect_closed(reason, within))

    async def call(self, name: str, *arguments: Any, within: float = WITHIN) -> Any:
        """Send any event and wait for its acknowledgement."""
        return await self._run(self.listener.call(name, *arguments, within=within))

    async def close(self) -> None:
        """Away."""
        await self._run(self.listener.close())

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return await self._background.run(work)


class BlockingSocket(_Somebodys):
    """The same for synchronous tests."""

    def join(
        self,
        uuid: UUID | str,
        *,
        since: str | None = None,
        collections: Sequence[str] | None = None,
        within: float = WITHIN,
    ) -> Joined:
        """As `Socket.join`."""
        found = self._background.wait(self.listener.join(uuid, since, collections, within))
        return entered(self.name, uuid, found)

    def join_refused(self, uuid: UUID | str, code: str = "forbidden", *, within: float = WITHIN) -> None:
        """As `Socket.join_refused`."""
        found = self._background.wait(self.listener.join(uuid, None, None, within))
        kept_out(self.name, uuid, code, found)

    def leave(self, uuid: UUID | str) -> None:
        """As `Socket.leave`."""
        self._background.wait(self.listener.leave(uuid))

    def expect(
        self, name: str, data: Mapping[str, Any] | None = None, *, op: str | None = None, within: float = WITHIN
    ) -> Seen:
        """As `Socket.expect`."""
        return self._background.wait(self.listener.expect(name, data, op, within))

    def expect_nothing(self) -> None:
        """As `Socket.expect_nothing`."""
        self._background.wait(self._barrier.settle([self.listener]))
        self.listener.expect_nothing()

    def expect_closed(self, reason: str | None = None, *, within: float = WITHIN) -> None:
        """As `Socket.expect_closed`."""
        self._background.wait(self.listener.expect_closed(reason, within))

    def call(self, name: str, *arguments: Any, within: float = WITHIN) -> Any:
        """As `Socket.call`."""
        return self._background.wait(self.listener.call(name, *arguments, within=within))

    def close(self) -> None:
        """As `Socket.close`."""
        self._background.wait(self.listener.close())


class Sockets:
    """Opens sockets, and looks at several of them at once."""

    def __init__(self, background: Background, deployment: Deployment, barrier: Barrier) -> None:
        self._background = background
        self._deployment = deployment
        self._barrier = barrier
        self._open: list[Listener] = []
        self._tickets: Tickets = {}

    async def connect(self, who: str | Identity, *, token: str | None = None) -> Socket:
        """A socket of somebody: a person by name, or an identity; with a token of their own unless one is given.

        Raises:
            AssertionError: the server refuses.
        """
        identity, token = _credential(self._deployment, who, token)
        listener = await self._background.run(connected(self._deployment, identity, token, self._tickets))
        self._open.append(listener)
        return Socket(self._background, self._barrier, listener, token)

    async def expect(
        self,
        name: str,
        data: Mapping[str, Any] | None = None,
        *,
        op: str | None = None,
        seen_by: Iterable[Socket] = (),
        unseen_by: Iterable[Socket] = (),
        within: float = WITHIN,
    ) -> None:
        """These are shown the event next, and those are shown nothing.

        Raises:
            AssertionError: it is otherwise.
        """
        await self._background.run(
            audience(self._barrier, (name, data, op), _listeners(seen_by), _listeners(unseen_by), within=within)
        )

    def close(self) -> None:
        """Close every socket."""
        self._background.wait(_close(self._open))


class BlockingSockets:
    """The same for synchronous tests."""

    def __init__(self, background: Background, deployment: Deployment, barrier: Barrier) -> None:
        self._background = background
        self._deployment = deployment
        self._barrier = barrier
        self._open: list[Listener] = []
        self._tickets: Tickets = {}

    def connect(self, who: str | Identity, *, token: str | None = None) -> BlockingSocket:
        """As `Sockets.connect`."""
        identity, token = _credential(self._deployment, who, token)
        listener = self._background.wait(connected(self._deployment, identity, token, self._tickets))
        self._open.append(listener)
        return BlockingSocket(self._background, self._barrier, listener, token)

    def expect(
        self,
        name: str,
        data: Mapping[str, Any] | None = None,
        *,
        op: str | None = None,
        seen_by: Iterable[BlockingSocket] = (),
        unseen_by: Iterable[BlockingSocket] = (),
        within: float = WITHIN,
    ) -> None:
        """As `Sockets.expect`."""
        self._background.wait(
            audience(self._barrier, (name, data, op), _listeners(seen_by), _listeners(unseen_by), within=within)
        )

    def close(self) -> None:
        """Close every socket."""
        self._background.wait(_close(self._open))


def _credential(deployment: Deployment, who: str | Identity, token: str | None) -> tuple[Identity, str]:
    identity = deployment.oauth.identity(who)
    return identity, token or deployment.oauth.token(identity)


async def connected(deployment: Deployment, identity: Identity, token: str, tickets: Tickets) -> Listener:
    """A socket that was let in.

    Raises:
        AssertionError: it was not.
    """
    try:
        return await Listener.connected(deployment, identity, token, tickets)
    except LivedocsError as error:
        raise AssertionError(f"{identity.name} cannot connect: {error}") from error
    except ClientError as error:
        deployment.check()
        raise AssertionError(f"{identity.name} cannot connect: {error}") from error


async def audience(
    barrier: Barrier,
    event: tuple[str, Mapping[str, Any] | None, str | None],
    seen_by: Sequence[Listener],
    unseen_by: Sequence[Listener],
    *,
    within: float,
) -> None:
    """These are shown the event next, and those are shown nothing."""
    name, data, op = event
    for listener in seen_by:
        await listener.expect(name, data, op, within)
    await barrier.settle(unseen_by)
    for listener in unseen_by:
        listener.expect_nothing()


def entered(name: str, uuid: UUID | str, found: Joined | Failure) -> Joined:
    """The room that was to be entered."""
    match found:
        case Joined():
            return found
        case _:
            raise AssertionError(f"{name} was not let into {uuid}: {found}")


def kept_out(name: str, uuid: UUID | str, code: str, found: Joined | Failure) -> None:
    """The room that was not to be entered."""
    match found:
        case Joined(role=role):
            raise AssertionError(f"{name} was let into {uuid} as {role}")
        case LivedocsError():
            actual = found.on_socket()
        case _:
            actual = found.code
    if actual != code:
        raise AssertionError(f"{name} was to be kept out of {uuid} with {code!r}, not with {actual!r}")


def _listeners(people: Iterable[Socket | BlockingSocket]) -> list[Listener]:
    return [one.listener for one in people]


async def _close(listeners: list[Listener]) -> None:
    for listener in listeners:
        await listener.close()
    listeners.clear()
