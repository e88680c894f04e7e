"""Who is connected to this process, for those who administer it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Protocol
from uuid import UUID

from livedocs.changes.event import RoomKey
from livedocs.live.client import Client
from livedocs.live.rooms import Rooms
from livedocs.model import Role
from livedocs.store.inquiries import Answer, Disconnection, Holders, Listing, Place, Question, Session, place

# Rooms of a session in a list of sessions.
_MOST_ROOMS = 100
# Characters of a client id that are shown: nobody else bounds what the OAuth service takes for one.
_MOST_CHARACTERS = 256
# Of those that were disconnected, as many are named.
_MOST_NAMED = 1000
# Sockets that are looked at before whatever else is waiting gets its turn.
_SLICE = 500
# The same of sockets whose rooms are looked at: each may be in a thousand.
_ROOMY_SLICE = 20


class Connected(Protocol):
    """What is needed of the sockets."""

    @property
    def clients(self) -> Iterable[Client]:
        """The connected clients."""


class LocalSessions:
    """The sockets of this process.

    Args:
        sockets: every socket.
        rooms: who is in which room.
    """

    def __init__(self, sockets: Connected, rooms: Rooms) -> None:
        self._sockets = sockets
        self._rooms = rooms

    async def answer(self, question: Question) -> Answer:
        """What this process has to say to a question. A disconnection is done then, whoever gives up waiting."""
        match question:
            case Listing():
                return await self._list(question)
            case Holders():
                return await self._holders(question)
            case Disconnection():
                return await asyncio.shield(asyncio.ensure_future(self._disconnect(question)))

    async def _list(self, question: Listing) -> Answer:
        subject = question.subject
        in_room = None if question.uuid is None else set(self._in_room(question.tenant, question.uuid))

        def asked_for(client: Client) -> bool:
            return subject in {None, client.principal.subject} and (in_room is None or client in in_room)

        found = await self._select(question.tenant, asked_for)
        rest = [client for client in found if question.after is None or _place(client) > question.after]
        listed = heapq.nsmallest(question.limit, rest, key=_place)
        return Answer(await self._sessions(listed, _first_rooms(question.uuid)), len(found))

    async def _holders(self, question: Holders) -> Answer:
        subject = question.subject
        of_subject = await self._select(question.tenant, lambda client: client.principal.subject == subject)
        in_room = list(self._in_room(question.tenant, question.uuid))
        found = [client for client in in_room if _answers_to(client, subject)]
        listed = heapq.nsmallest(question.limit, found, key=_place)
        return Answer(
            await self._sessions(listed, _only_room(question.uuid)),
            matching=len(found),
            in_room=len(in_room),
            groups=frozenset().union(*(client.principal.groups for client in of_subject)) if of_subject else None,
            scopes=frozenset().union(*(_ours(client.principal.scopes) for client in of_subject)),
        )

    async def _disconnect(self, question: Disconnection) -> Answer:
        sid, subject = question.sid, question.subject
        # Neither is everybody.
        found = await self._select(
            question.tenant,
            lambda client: client.sid == sid if sid is not None else client.principal.subject == subject,
        )
        # First: whatever becomes of the answer, it is done.
        waiting = iter(found)
        while some := list(islice(waiting, _ROOMY_SLICE)):
            for client in some:
                client.close("disconnected")
            await asyncio.sleep(0)
        return Answer(await self._sessions(found[:_MOST_NAMED], _no_rooms), len(found))

    async def _select(self, tenant: str, asked_for: Callable[[Client], bool]) -> list[Client]:
        """Those of the sockets of a tenant, as they are now. Looks at them in slices."""
        found: list[Client] = []
        waiting = iter(tuple(self._sockets.clients))
        while some := list(islice(waiting, _SLICE)):
            found += [client for client in some if client.principal.tenant == tenant and asked_for(client)]
            await asyncio.sleep(0)
        return [client for client in found if client.closed is None]

    def _in_room(self, tenant: str, uuid: UUID) -> Iterator[Client]:
        return (
            membership.member
            for membership in self._rooms.of_room(RoomKey(tenant, uuid))
            if membership.active and membership.member.closed is None
        )

    async def _sessions(self, clients: Iterable[Client], shown: _Shown) -> tuple[Session, ...]:
        """Sockets with the rooms that are shown. Looks at them in slices, as each may have many rooms."""
        sessions: list[Session] = []
        waiting = iter(clients)
        while some := list(islice(waiting, _ROOMY_SLICE)):
            sessions += [self._session(client, shown) for client in some]
            await asyncio.sleep(0)
        return tuple(sessions)

    def _session(self, client: Client, shown: _Shown) -> Session:
        principal = client.principal
        # Not those it is still being let into.
        roles = {key.uuid: held.role for key, held in self._rooms.of_member(client).items() if held.active}
        return Session(
            client.sid,
            principal.subject,
            principal.name,
            principal.client_id[:_MOST_CHARACTERS],
            client.address,
            client.since,
            principal.expires_at,
            len(roles),
            shown(roles),
        )


_Roles = Mapping[UUID, Role]
_Shown = Callable[[_Roles], _Roles]


def _first_rooms(first: UUID | None) -> _Shown:
    """As many rooms as a list shows; that one first, if the socket is in it."""

    def shown(roles: _Roles) -> _Roles:
        ahead = {first: roles[first]} if first is not None and first in roles else {}
        return dict(islice({**ahead, **roles}.items(), _MOST_ROOMS))

    return shown


def _only_room(uuid: UUID) -> _Shown:
    return lambda roles: {uuid: roles[uuid]} if uuid in roles else {}


def _no_rooms(_: _Roles) -> _Roles:
    return {}


def _place(client: Client) -> Place:
    return place(client.since, client.sid)


def _ours(scopes: frozenset[str]) -> frozenset[str]:
    """Those of a token's scopes that mean something here."""
    return frozenset(scope for scope in scopes if scope.startswith("livedocs:"))


def _answers_to(client: Client, subject: str) -> bool:
    """Whether a grant to the subject is one for this socket."""
    principal = client.principal
    group = subject.removeprefix("group:") if subject.startswith("group:") else None
    return subject in {principal.subject, "tenant:*"} or group in principal.groups
