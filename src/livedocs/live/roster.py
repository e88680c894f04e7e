"""Who is connected to this process, for those who administer it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol
from uuid import UUID

from livedocs.changes.event import RoomKey
from livedocs.live.client import Client
from livedocs.live.rooms import Rooms
from livedocs.store.inquiries import Answer, Disconnection, Holders, Listing, Place, Question, Session, place

_MOST_ROOMS = 100
# Of those that were disconnected, as many are named.
_MOST_NAMED = 1000
# Sockets that are looked at before whatever else is waiting gets its turn.
_SLICE = 500


class Connected(Protocol):
    """What is needed of the sockets."""

    @property
    def clients(self) -> Iterable[Client]:
        """The connected clients."""


class Roster:
    """The sockets of this process.

    Args:
        sockets: every socket.
        rooms: who is in which room.
    """

    def __init__(self, sockets: Connected, rooms: Rooms) -> None:
        self._sockets = sockets
        self._rooms = rooms

    async def answer(self, question: Question) -> Answer:
        """What this process has to say to a question. A disconnection is done then."""
        match question:
            case Listing():
                return await self._list(question)
            case Holders():
                return await self._holders(question)
            case Disconnection():
                return await self._disconnect(question)

    async def _list(self, question: Listing) -> Answer:
        subject = question.subject
        in_room = None if question.uuid is None else set(self._in_room(question.tenant, question.uuid))

        def asked_for(client: Client) -> bool:
            return subject in {None, client.principal.subject} and (in_room is None or client in in_room)

        found = await self._select(question.tenant, asked_for)
        rest = [client for client in found if question.after is None or _place(client) > question.after]
        listed = heapq.nsmallest(question.limit, rest, key=_place)
        return Answer(tuple(self._session(client, question.uuid) for client in listed), len(found))

    async def _holders(self, question: Holders) -> Answer:
        subject = question.subject
        of_subject = await self._select(question.tenant, lambda client: client.principal.subject == subject)
        in_room = list(self._in_room(question.tenant, question.uuid))
        found = [client for client in in_room if _answers_to(client, subject)]
        listed = heapq.nsmallest(question.limit, found, key=_place)
        return Answer(
            tuple(self._session(client, question.uuid) for client in listed),
            matching=len(found),
            in_room=len(in_room),
            groups=frozenset().union(*(client.principal.groups for client in of_subject)) if of_subject else None,
        )

    async def _disconnect(self, question: Disconnection) -> Answer:
        sid, subject = question.sid, question.subject
        # Neither is everybody.
        found = await self._select(
            question.tenant,
            lambda client: client.sid == sid if sid is not None else client.principal.subject == subject,
        )
        ended = [self._session(client) for client in found[:_MOST_NAMED]]
        for client in found:
            client.close("disconnected")
        return Answer(tuple(ended), len(found))

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

    def _session(self, client: Client, first: UUID | None = None) -> Session:
        """A socket with its rooms, but not those it is still being let into; that one first, if it is in it."""
        principal = client.principal
        held = self._rooms.of_member(client)
        roles = {key.uuid: membership.role for key, membership in held.items() if membership.active}
        if first in roles:
            roles = {first: roles[first], **roles}
        return Session(
            client.sid,
            principal.subject,
            principal.name,
            principal.groups,
            principal.client_id,
            client.address,
            client.since,
            principal.expires_at,
            len(roles),
            dict(islice(roles.items(), _MOST_ROOMS)),
        )


def _place(client: Client) -> Place:
    return place(client.since, client.sid)


def _answers_to(client: Client, subject: str) -> bool:
    """Whether a grant to the subject is one for this socket."""
    principal = client.principal
    return subject in {principal.subject, "tenant:*", *(f"group:{name}" for name in principal.groups)}
