"""What a client may send, read strictly. Pure: text in, a packet or a refusal out.

The Socket.IO packet is parsed by python-socketio's own codec, with strict JSON and without binary attachments,
of which one packet could announce ten thousand million.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qs

import orjson
from socketio import packet as socketio_packet

from livedocs.codec.json_text import count
from livedocs.errors import BadRequest
from livedocs.runtime.slices import at_once

# An answer repeats what was sent, and what encodes it must not run out of stack.
_DEEPEST = 64
# Commas and opening brackets of one packet: a JoinRoom of a hundred UUIDs has two hundred.
_MOST_ELEMENTS = 4_000
# Characters of a namespace: the refusal of one repeats it.
_LONGEST_NAMESPACE = 200


class ProtocolError(Exception):
    """The peer does not speak the protocol. There is nothing to answer: the socket is closed."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to our ping, or a ping of the peer's own, which is a sign of life as good."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The peer says goodbye, at either layer."""


@dataclass(frozen=True, slots=True)
class Connect:
    """CONNECT to a namespace, with the client's `auth`."""

    namespace: str
    auth: Any


@dataclass(frozen=True, slots=True)
class Call:
    """An event; `ack` is the number to acknowledge it with, if the client wants that."""

    name: str
    arguments: tuple[Any, ...]
    ack: int | None


@dataclass(frozen=True, slots=True)
class Nothing:
    """A packet that asks for nothing: a noop, or an acknowledgement that nobody waits for."""


Packet = Pong | Leave | Connect | Call | Nothing


class _StrictJson:
    """JSON without NaN and with a bounded depth."""

    @staticmethod
    def loads(text: str) -> Any:
        # An answer may repeat it, and somebody decodes a hundred of these a second.
        if at_once(count(text.encode(), _MOST_ELEMENTS)) > _MOST_ELEMENTS:
            msg = "too many elements"
            raise ValueError(msg)
        value = orjson.loads(text)
        level = [value]
        for _ in range(_DEEPEST):
            level = [
                inner
                for item in level
                for inner in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
            ]
        if level:
            msg = "nested too deeply"
            raise ValueError(msg)
        return value

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        return orjson.dumps(value).decode()


class _Packet(socketio_packet.Packet):  # type: ignore[misc]
    uses_binary_events = False
    json: ClassVar[Any] = _StrictJson


def check_handshake(query: bytes) -> None:
    """Whether the handshake's query asks for what is spoken here: Engine.IO 4 over WebSocket.

    Raises:
        BadRequest: another version or transport, an upgrade of a session (its `sid` alone would be a credential),
            or a token where it would end up in logs.
    """
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    if "token" in values or "access_token" in values:
        detail = "A token never belongs in a URL."
        raise BadRequest(detail)
    if values.get("EIO") != ["4"]:
        detail = "Engine.IO protocol 4 is spoken here (EIO=4)."
        raise BadRequest(detail)
    if values.get("transport") != ["websocket"] or "sid" in values:
        detail = "Only the WebSocket transport is spoken here (transport=websocket, no sid)."
        raise BadRequest(detail)


def parse(text: str) -> Packet:
    """The packet of a text message.

    Raises:
        ProtocolError: anything that is not a packet this server takes.
    """
    match text[:1]:
        case "4":
            return _socketio(text[1:])
        case "2" | "3":
            return Pong()
        case "1":
            return Leave()
        case "6":
            return Nothing()
    msg = "unknown packet type"
    raise ProtocolError(msg)


def _socketio(text: str) -> Packet:
    if text[:1] not in {"0", "1", "2", "3"}:
        msg = "binary and unknown packets are refused"
        raise ProtocolError(msg)
    try:
        packet = _Packet(encoded_packet=text)
    except (ValueError, TypeError, IndexError, RecursionError) as error:
        msg = "malformed packet"
        raise ProtocolError(msg) from error
    namespace = packet.namespace or "/"
    if len(namespace) > _LONGEST_NAMESPACE:
        msg = "a namespace of that length"
        raise ProtocolError(msg)
    match packet.packet_type:
        case socketio_packet.CONNECT:
            return Connect(namespace, packet.data)
        case _ if namespace != "/":
            # Whatever is said in a namespace that was refused.
            return Nothing()
        case socketio_packet.DISCONNECT:
            return Leave()
        case socketio_packet.EVENT:
            return _call(packet)
    return Nothing()


def _call(packet: _Packet) -> Call:
    data = packet.data
    if packet.attachment_count or not isinstance(data, list) or not data:
        msg = "malformed event"
        raise ProtocolError(msg)
    name, *arguments = data
    if not isinstance(name, str):
        msg = "an event's name is a string"
        raise ProtocolError(msg)
    return Call(name, tuple(arguments), packet.id)
