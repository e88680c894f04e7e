"""A listening socket that counts its connections, before anything is kept or done for them.

For one that is let in the server has two tasks and some 25 KiB, before its first byte: they are refused here.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Protocol

# Connections that are taken or refused in one turn of the event loop: asyncio would take the whole backlog.
_IN_ONE_TURN = 64

# Bytes that are read of a connection at once.
_READ = 2**14

Peer = tuple[str, int]


class Gate(Protocol):
    """Who may have a connection."""

    def refusal(self, peer: Peer) -> bytes | None:
        """What the peer is told in place of having one; None counts it as open."""

    def ended(self, peer: Peer) -> None:
        """It was closed."""


class Listening(socket.socket):
    """A listening socket in place of another."""

    def __init__(self, listening: socket.socket, gate: Gate) -> None:
        family, kind, protocol = listening.family, listening.type, listening.proto
        super().__init__(family, kind, protocol, fileno=listening.detach())
        self.settimeout(0)
        self._gate = gate
        self._taken = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that is let in.

        Raises:
            BlockingIOError: there is none now, or others have to get their turn first.
        """
        while True:
            self._taken += 1
            if self._taken % _IN_ONE_TURN == 0:
                # The event loop comes back at once if there are more.
                raise BlockingIOError
            accepted, address = super().accept()
            if not isinstance(address, tuple):
                # Of a Unix socket, whose peers the file system chooses.
                return accepted, address
            refused = self._gate.refusal(_peer(address))
            if refused is None:
                return Accepted(accepted, self._gate, address), address
            with accepted, suppress(OSError):
                accepted.settimeout(0)
                accepted.send(refused)


class Accepted(socket.socket):
    """A connection that says when it is closed, and of which little is read at once."""

    __slots__ = ("_address", "_gate")

    def __init__(self, accepted: socket.socket, gate: Gate, address: tuple[Any, ...]) -> None:
        family, kind, protocol = accepted.family, accepted.type, accepted.proto
        super().__init__(family, kind, protocol, fileno=accepted.detach())
        self._gate = gate
        # The very tuple that asyncio keeps, and no other: sockets are many.
        self._address = address

    def recv(self, most: int, flags: int = 0) -> bytes:
        """What has come. asyncio asks for 256 KiB, and keeps them before its reader can say that it is enough."""
        return super().recv(min(most, _READ), flags)

    def close(self) -> None:
        """Close it."""
        super().close()
        self._gate.ended(_peer(self._address))


def _peer(address: tuple[Any, ...]) -> Peer:
    """Of an address of IPv4 or IPv6."""
    return address[0], address[1]
