"""A blocking Socket.IO client, for programs that measure: it knows when the kernel had each answer."""

from __future__ import annotations

import base64
import os
import socket
import struct
import time
from collections.abc import Iterator

HOST = "127.0.0.1"
_SO_TIMESTAMPNS = 35
TEXT, PING, PONG = 1, 9, 10


class Bare:
    """One WebSocket.

    Attributes:
        arrived: when the kernel had the last bytes read (epoch seconds): what the reader's own lateness, on a busy
            machine, does not change.
    """

    def __init__(self, port: int, token: str) -> None:
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._data = bytearray()
        self.arrived = 0.0
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            (
                "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
                f"Host: localhost:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nAuthorization: Bearer {token}\r\n\r\n"
            ).encode()
        )
        while b"\r\n\r\n" not in self._data:
            self._fill()
        head, _, rest = bytes(self._data).partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise ConnectionError(head.decode("latin-1"))
        self._data = bytearray(rest)
        self.send(b"40")
        self.until(b"40")

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def _fill(self) -> None:
        data, ancillary, _, _ = self._socket.recvmsg(262144, 64)
        if not data:
            raise ConnectionError("the server has ended the connection")
        self.arrived = time.time()
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("qq", value)
                self.arrived = seconds + nanoseconds / 1e9
        self._data += data

    def send(self, payload: bytes, opcode: int = TEXT) -> None:
        """One frame, masked with zeros."""
        size = len(payload)
        head = bytes([0x80 | opcode]) + (
            bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2)
        )
        self._socket.sendall(head + bytes(4) + payload)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """What the next bytes complete; the server's pings are answered and left out."""
        self._fill()
        while (frame := self._next()) is not None:
            if frame == (TEXT, b"2"):
                self.send(b"3")
            else:
                yield frame

    def _next(self) -> tuple[int, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        size, at = data[1] & 0x7F, 2
        if size >= 126:
            at += 2 if size == 126 else 8
            size = int.from_bytes(data[2:at])
        if len(data) < at + size:
            return None
        frame = data[0] & 0x0F, bytes(data[at : at + size])
        del data[: at + size]
        return frame

    def until(self, start: bytes) -> bytes:
        """The next text that starts so; whatever comes before it is dropped."""
        while True:
            for opcode, payload in self.frames():
                if opcode == TEXT and payload.startswith(start):
                    return payload

    def close(self) -> None:
        """Away."""
        self._socket.close()
