"""What the routes need to know of live sockets, and nobody's sockets for an application that has none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol
from uuid import UUID

from livedocs.model import Role
from livedocs.store.processes import Process


class Socket(Protocol):
    """A connected socket."""

    @property
    def sid(self) -> str:
        """Its id among all sockets; no credential."""

    @property
    def subject(self) -> str:
        """Who it is."""

    @property
    def name(self) -> str:
        """The same for people to read."""

    @property
    def groups(self) -> frozenset[str]:
        """The groups of who it is, as last introspected."""

    @property
    def client_id(self) -> str:
        """The OAuth client its token was issued to."""

    @property
    def address(self) -> str:
        """Where it comes from."""

    @property
    def since(self) -> datetime:
        """When it connected, aware UTC."""

    @property
    def expires_at(self) -> datetime:
        """When its token ends, aware UTC."""

    @property
    def rooms(self) -> Mapping[UUID, Role]:
        """The rooms it is in, with its role in each."""


class Roster(Protocol):
    """The sockets of one server process."""

    @property
    def process(self) -> Process | None:
        """Which process; None when it has no sockets at all."""

    def of_tenant(self, tenant: str) -> Iterable[Socket]:
        """Every socket of a tenant."""

    def in_room(self, tenant: str, uuid: UUID) -> Iterable[Socket]:
        """The sockets that are in a room now."""

    def disconnect(self, tenant: str, sid: str) -> Socket | None:
        """End a socket of that tenant for good; None when there is none of that id."""


class NoRoster:
    """The roster of an application without sockets."""

    process: Process | None = None

    def of_tenant(self, tenant: str) -> Iterable[Socket]:  # noqa: ARG002 - there is none, whoever asks
        """None."""
        return ()

    def in_room(self, tenant: str, uuid: UUID) -> Iterable[Socket]:  # noqa: ARG002
        """None."""
        return ()

    def disconnect(self, tenant: str, sid: str) -> Socket | None:  # noqa: ARG002
        """There is nothing to end."""
        return None
