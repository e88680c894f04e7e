"""Who is connected to this process, for those who administer it. Satisfies `http.roster.Roster`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from livedocs.changes.event import RoomKey
from livedocs.live.client import Client
from livedocs.live.rooms import Rooms
from livedocs.model import Role
from livedocs.store.processes import Process
from livedocs.telemetry import Metrics


class Connected(Protocol):
    """What is needed of the sockets."""

    @property
    def clients(self) -> Iterable[Client]:
        """The connected clients."""


class SocketView:
    """A socket as it is at the moment each attribute is read."""

    __slots__ = ("_client", "_rooms")

    def __init__(self, client: Client, rooms: Rooms) -> None:
        self._client = client
        self._rooms = rooms

    @property
    def sid(self) -> str:
        """Its id among all sockets."""
        return self._client.sid

    @property
    def subject(self) -> str:
        """Who it is."""
        return self._client.principal.subject

    @property
    def name(self) -> str:
        """The same for people to read."""
        return self._client.principal.name

    @property
    def groups(self) -> frozenset[str]:
        """The groups of who it is, as last introspected."""
        return self._client.principal.groups

    @property
    def client_id(self) -> str:
        """The OAuth client its token was issued to."""
        return self._client.principal.client_id

    @property
    def address(self) -> str:
        """Where it comes from."""
        return self._client.address

    @property
    def since(self) -> datetime:
        """When it connected, aware UTC."""
        return datetime.fromtimestamp(self._client.since, UTC)

    @property
    def expires_at(self) -> datetime:
        """When its token ends, aware UTC."""
        return self._client.principal.expires_at

    @property
    def rooms(self) -> Mapping[UUID, Role]:
        """The rooms it is in, with its role in each; those it is still being let into are not among them."""
        held = self._rooms.of_member(self._client)
        return {key.uuid: membership.role for key, membership in held.items() if membership.active}


class Roster:
    """The sockets of this process.

    Args:
        process: this one.
        sockets: every socket.
        rooms: who is in which room.
        metrics: counts the disconnects.
    """

    def __init__(self, process: Process, sockets: Connected, rooms: Rooms, metrics: Metrics) -> None:
        self.process: Process | None = process
        self._sockets = sockets
        self._rooms = rooms
        self._metrics = metrics

    def _of_tenant(self, tenant: str) -> Iterator[Client]:
        return (
            client
            for client in self._sockets.clients
            if client.principal.tenant == tenant and client.closed is None
        )

    def of_tenant(self, tenant: str) -> Iterable[SocketView]:
        """Every socket of a tenant."""
        return [SocketView(client, self._rooms) for client in self._of_tenant(tenant)]

    def in_room(self, tenant: str, uuid: UUID) -> Iterable[SocketView]:
        """The sockets that are in a room now."""
        return [
            SocketView(membership.member, self._rooms)
            for membership in self._rooms.of_room(RoomKey(tenant, uuid))
            if membership.active
        ]

    def disconnect(self, tenant: str, sid: str) -> SocketView | None:
        """End a socket of that tenant for good; None when there is none of that id."""
        for client in self._of_tenant(tenant):
            if client.sid == sid:
                self._metrics.disconnects.labels("disconnected").inc()
                client.close("disconnected")
                return SocketView(client, self._rooms)
        return None
