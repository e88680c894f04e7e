"""What is written to a socket, encoded once for everyone. Pure.

A server's WebSocket frames are not masked (RFC 6455, 5.1), so the bytes of an event are the same for every
recipient: the Socket.IO packet and the frame around it are made once and written many times.

Sources: RFC 6455, section 5.2; https://socket.io/docs/v4/engine-io-protocol; .../socket-io-protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from livedocs.codec import extjson

# Engine.IO packet types, then Socket.IO's behind Engine.IO's "message".
_OPEN, _PING = b"0", b"2"
_CONNECT, _DISCONNECT, _EVENT, _ACK, _CONNECT_ERROR = b"40", b"41", b"42", b"43", b"44"
_FINAL_TEXT, _FINAL_CLOSE = 0x81, 0x88


class Frame:
    """One message to clients.

    Attributes:
        wire: the finished WebSocket text frame.
    """

    __slots__ = ("_head", "wire")

    def __init__(self, text: bytes) -> None:
        self.wire = _framed(_FINAL_TEXT, text)
        self._head = len(self.wire) - len(text)

    @property
    def text(self) -> bytes:
        """The Engine.IO packet, UTF-8, for a server that frames it itself."""
        return self.wire[self._head :]


def _framed(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", opcode, size)
    elif size < 2**16:
        head = struct.pack("!BBH", opcode, 126, size)
    else:
        head = struct.pack("!BBQ", opcode, 127, size)
    return head + payload


def close(code: int) -> bytes:
    """A finished WebSocket close frame."""
    return _framed(_FINAL_CLOSE, struct.pack("!H", code))


PING = Frame(_PING)
DISCONNECT = Frame(_DISCONNECT)


def opened(sid: str, *, ping_interval: float, ping_timeout: float, max_payload: int) -> Frame:
    """Engine.IO's open packet; times in seconds here, milliseconds on the wire."""
    return Frame(
        _OPEN
        + extjson.dumps(
            {
                "sid": sid,
                "upgrades": [],
                "pingInterval": int(ping_interval * 1000),
                "pingTimeout": int(ping_timeout * 1000),
                "maxPayload": max_payload,
            }
        )
    )


def connected(sid: str) -> Frame:
    """Socket.IO's answer to CONNECT."""
    return Frame(_CONNECT + extjson.dumps({"sid": sid}))


def connect_error(message: str, data: Mapping[str, Any], namespace: str = "/") -> Frame:
    """Socket.IO's refusal of CONNECT."""
    prefix = b"" if namespace == "/" else namespace.encode() + b","
    return Frame(_CONNECT_ERROR + prefix + extjson.dumps({"message": message, "data": data}))


def event(name: str, *arguments: Any) -> Frame:
    """An event and its arguments, values as relaxed Extended JSON."""
    return Frame(_EVENT + extjson.dumps([name, *arguments]))


def ack(identifier: int, *arguments: Any) -> Frame:
    """The acknowledgement of a client's event."""
    return Frame(_ACK + str(identifier).encode() + extjson.dumps(list(arguments)))
