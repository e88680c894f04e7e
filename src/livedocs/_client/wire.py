"""Socket.IO packets over Engine.IO, as a client sends and reads them. Pure: text in, a packet out.

Sources: https://socket.io/docs/v4/engine-io-protocol; https://socket.io/docs/v4/socket-io-protocol
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from livedocs._client import codec
from livedocs.errors import UnexpectedAnswer

_NUMBERED = re.compile(r"(\d*)(.*)\Z", re.DOTALL)

_MESSAGE = "4"
PONG = "3"
CONNECT = "40"
DISCONNECT = "41"


@dataclass(frozen=True, slots=True)
class Opened:
    """The transport is open. `silence` is the longest, in seconds, that a server which lives keeps still."""

    silence: float


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered, or the server gives the socket up."""


@dataclass(frozen=True, slots=True)
class Connected:
    """CONNECT was accepted."""


@dataclass(frozen=True, slots=True)
class ConnectRefused:
    """CONNECT was not. `told` has the `code`."""

    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Received:
    """An event from the server."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Acked:
    """The server's answer to the event of that number."""

    number: int
    answer: Any


@dataclass(frozen=True, slots=True)
class Ended:
    """The server says goodbye."""


Packet = Opened | Ping | Connected | ConnectRefused | Received | Acked | Ended


def parse(text: str) -> Packet | None:
    """The packet of a message; None for one that means nothing to a client.

    Raises:
        UnexpectedAnswer: it is no packet.
    """
    kind = text[:2] if text[:1] == _MESSAGE else text[:1]
    read = _READERS.get(kind)
    return None if read is None else read(text[len(kind) :])


def _opened(text: str) -> Opened:
    told = _json(text, dict)
    return Opened((told.get("pingInterval", 25000) + told.get("pingTimeout", 20000)) / 1000)


def _event(text: str) -> Received | None:
    _, arguments = _numbered(text)
    if not arguments or not isinstance(arguments[0], str):
        return None
    return Received(arguments[0], tuple(arguments[1:]))


def _acked(text: str) -> Acked | None:
    number, arguments = _numbered(text)
    return Acked(int(number), arguments[0] if arguments else None) if number else None


def _refused(text: str) -> ConnectRefused:
    told = _json(text, dict)
    data = told.get("data")
    return ConnectRefused(data if isinstance(data, dict) else {"code": told.get("message")})


def _numbered(text: str) -> tuple[str, list[Any]]:
    found = _NUMBERED.match(text)
    number, rest = (found[1], found[2]) if found else ("", text)
    return number, _json(rest, list)


def _json(text: str, kind: type[Any]) -> Any:
    value = codec.loads(text, 101)
    if not isinstance(value, kind):
        raise UnexpectedAnswer(101, "not a Socket.IO packet")
    return value


_READERS: Mapping[str, Callable[[str], Packet | None]] = {
    "0": _opened,
    "1": lambda _: Ended(),
    "2": lambda _: Ping(),
    "40": lambda _: Connected(),
    "41": lambda _: Ended(),
    "42": _event,
    "43": _acked,
    "44": _refused,
}


def event(name: str, *arguments: Any, number: int | None = None) -> str:
    """An event; with a number it is acknowledged."""
    return f"42{'' if number is None else number}" + codec.dumps([name, *arguments]).decode()
