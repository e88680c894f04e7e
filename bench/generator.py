"""The load generator: thousands of Socket.IO sockets in one process, told over standard input what to do.

It must cost far less than the server it measures, so it speaks just enough WebSocket over `epoll`, looks at frame
boundaries, and finds the writer's time stamp in a frame without decoding JSON. Commands and answers are one JSON
object a line; `Generator.commands` lists them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import socket
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any

MOST_READ = 65536
# Frames of a client are masked (RFC 6455, 5.3); a key of zeros leaves the payload as it is.
_MASK = b"\0\0\0\0"


def frame(text: str) -> bytes:
    """A client's text frame."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return bytes((0x81, 0x80 | size)) + _MASK + payload
    head = b"\x81\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\x81\xff" + size.to_bytes(8, "big")
    return head + _MASK + payload


_PONG = frame("3")
_CONNECT = frame("40")
_STAMP = b'"t":'
_DIGITS = 16
_TEXT, _CLOSE, _DOLLAR = 0x81, 0x88, 0x24
_INCOMPLETE = 1 << 60


def _bounds(data: bytes, position: int, total: int) -> tuple[int, int]:
    """Where the payload of the frame there begins and ends: past `total` when it has not all arrived."""
    start = position + 2
    if total < start:
        return start, _INCOMPLETE
    size = data[position + 1]
    if size < 126:
        return start, start + size
    width = 2 if size == 126 else 8
    if total < start + width:
        return start, _INCOMPLETE
    return start + width, start + width + int.from_bytes(data[start : start + width], "big")


class Socket:
    """One socket: `handle` is what takes the bytes that arrive next."""

    __slots__ = ("calls", "fd", "joined", "rest", "sampled", "sock", "upgraded")

    def __init__(self, sock: socket.socket, calls: list[bytes]) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        # JoinRoom calls still to be made, the last first.
        self.calls = calls
        self.rest = b""
        self.sampled = False
        self.upgraded = False
        self.joined = False


class Opening:
    """What an `open` command still has to do."""

    def __init__(self, command: dict[str, Any]) -> None:
        self.port: int = command["port"]
        self.left: int = command["count"]
        self.total: int = command["count"]
        self.done = 0
        self.failed = 0
        self.in_flight = 0
        self.most_in_flight: int = command.get("in_flight", 50)
        self.tokens: list[str] = command.get("tokens") or []
        self.rooms: list[str] = command["rooms"]
        self.rooms_each: int = command.get("rooms_each", 1)
        self.batch: int = command.get("batch", 100)
        self.options: dict[str, Any] | None = command.get("options")
        self.began = time.monotonic()

    def calls(self, index: int) -> list[bytes]:
        """The JoinRoom calls of the index-th socket, the last first."""
        first = index * self.rooms_each
        mine = [self.rooms[(first + i) % len(self.rooms)] for i in range(self.rooms_each)]
        extra = [] if self.options is None else [self.options]
        return [
            frame("420" + json.dumps(["JoinRoom", mine[start : start + self.batch], *extra]))
            for start in reversed(range(0, len(mine), self.batch))
        ]

    def handshake(self, index: int) -> bytes:
        """The upgrade request of the index-th socket."""
        token = f"Authorization: Bearer {self.tokens[index % len(self.tokens)]}\r\n" if self.tokens else ""
        key = base64.b64encode(os.urandom(16)).decode()
        return (
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{self.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{token}\r\n"
        ).encode()


class Generator:
    """All the sockets and what has been received. Single-threaded; nothing waits but `epoll`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, Socket] = {}
        self._opening: Opening | None = None
        self._commands = b""
        self._running = True
        self._deliveries = 0
        self._bytes = 0
        self._controls = 0
        self._lost = 0
        self._reads = 0
        self._latencies = array("q")
        self._cpu = 0.0
        # An answer that is due when so many deliveries have arrived, or at that time.
        self._awaited: tuple[int, float] | None = None
        self.commands: dict[str, Callable[[dict[str, Any]], None]] = {
            "open": self._open,
            "record": self._record,
            "await": self._await,
            "report": self._report,
            "close": self._close,
            "quit": self._quit,
        }

    def run(self) -> None:
        """Follow commands until `quit` or the end of the input."""
        os.set_blocking(0, False)
        self._epoll.register(0, select.EPOLLIN)
        poll, sockets, recv = self._epoll.poll, self._sockets, os.read
        while self._running:
            for fd, _ in poll(0.05 if self._awaited or self._opening else -1):
                peer = sockets.get(fd)
                if peer is None:
                    if fd == 0:
                        self._read_commands()
                    continue
                try:
                    data = recv(fd, MOST_READ)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if data:
                    self._reads += 1
                    self._take(peer, data)
                else:
                    self._drop(peer)
            self._check_awaited()
            if self._opening is not None:
                self._go_on_opening()

    # -- what arrives --

    def _take(self, peer: Socket, data: bytes) -> None:
        if peer.rest:
            data = peer.rest + data
            peer.rest = b""
        if not peer.upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                peer.rest = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                sys.stderr.write(data[:300].decode("latin-1") + "\n")
                self._drop(peer)
                return
            peer.upgraded = True
            data = data[end + 4 :]
        position, total = 0, len(data)
        while True:
            start, end = _bounds(data, position, total)
            if end > total:
                break
            if data[start : start + 2] == b"42" and data[position] == _TEXT:
                self._event(peer, data, start, end)
            else:
                self._control(peer, data[position], data[start:end])
            position = end
        self._bytes += position
        if position < total:
            peer.rest = data[position:]

    def _event(self, peer: Socket, data: bytes, start: int, end: int) -> None:
        if data[start + 4] == _DOLLAR:
            # A control event ($revoked, $resync ...): none is expected in a measurement.
            self._controls += 1
            return
        self._deliveries += 1
        if peer.sampled:
            at = data.find(_STAMP, start, end) + len(_STAMP)
            self._latencies.append(time.time_ns() // 1000 - int(data[at : at + _DIGITS]))

    def _control(self, peer: Socket, opcode: int, payload: bytes) -> None:
        if opcode == _CLOSE:
            self._drop(peer)
        elif payload[:1] == b"2":
            peer.sock.send(_PONG)
        elif payload[:1] == b"0":
            peer.sock.send(_CONNECT)
        elif payload[:2] == b"40" or (payload[:2] == b"43" and not peer.joined):
            self._joined(peer, payload)

    def _joined(self, peer: Socket, payload: bytes) -> None:
        refused = payload.find(b'"refused":')
        if refused >= 0 and payload[refused + 10 : refused + 12] != b"{}":
            sys.stderr.write(payload[:300].decode() + "\n")
            self._drop(peer)
        elif peer.calls:
            peer.sock.send(peer.calls.pop())
        else:
            peer.joined = True
            if self._opening is not None:
                self._opening.in_flight -= 1
                self._opening.done += 1

    def _drop(self, peer: Socket) -> None:
        self._epoll.unregister(peer.fd)
        del self._sockets[peer.fd]
        peer.sock.close()
        if not peer.joined and self._opening is not None:
            self._opening.in_flight -= 1
            self._opening.failed += 1
        self._lost += 1

    # -- what is asked for --

    def _read_commands(self) -> None:
        data = os.read(0, 1 << 20)
        if not data:
            self._running = False
            return
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            self.commands[command["do"]](command)

    def _answer(self, **values: Any) -> None:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()

    def _open(self, command: dict[str, Any]) -> None:
        """Open sockets; answered when all have joined their rooms or failed."""
        self._opening = Opening(command)

    def _go_on_opening(self) -> None:
        opening = self._opening
        if opening is None:
            return
        while opening.left and opening.in_flight < opening.most_in_flight:
            self._open_one(opening, opening.total - opening.left)
            opening.left -= 1
        if not opening.left and not opening.in_flight:
            self._opening = None
            seconds = time.monotonic() - opening.began
            self._answer(joined=opening.done, failed=opening.failed, seconds=round(seconds, 3))

    def _open_one(self, opening: Opening, index: int) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Connecting within the machine does not wait; the server's backlog is larger than what is in flight.
        sock.connect(("127.0.0.1", opening.port))
        sock.settimeout(0)
        peer = Socket(sock, opening.calls(index))
        self._sockets[peer.fd] = peer
        opening.in_flight += 1
        self._epoll.register(peer.fd, select.EPOLLIN)
        sock.send(opening.handshake(index))

    def _record(self, command: dict[str, Any]) -> None:
        """Count from now on; every `sample`-th socket is looked at for latency."""
        every = command.get("sample", 1)
        for number, peer in enumerate(self._sockets.values()):
            peer.sampled = bool(every) and number % every == 0
        self._deliveries = self._controls = self._bytes = self._lost = self._reads = 0
        self._latencies = array("q")
        self._cpu = time.process_time()
        self._answer(sockets=len(self._sockets))

    def _await(self, command: dict[str, Any]) -> None:
        """Answer when so many deliveries have been counted, or after `within` seconds."""
        self._awaited = command["deliveries"], time.monotonic() + command["within"]
        self._check_awaited()

    def _check_awaited(self) -> None:
        if self._awaited is not None:
            deliveries, deadline = self._awaited
            if self._deliveries >= deliveries or time.monotonic() > deadline:
                self._awaited = None
                self._answer(deliveries=self._deliveries)

    def _report(self, _: dict[str, Any]) -> None:
        values = sorted(self._latencies)
        self._answer(
            deliveries=self._deliveries,
            bytes=self._bytes,
            reads=self._reads,
            controls=self._controls,
            lost=self._lost,
            sockets=len(self._sockets),
            cpu=round(time.process_time() - self._cpu, 4),
            samples=len(values),
            latency_ms={name: _percentile(values, share) for name, share in _SHARES.items()},
        )

    def _close(self, _: dict[str, Any]) -> None:
        for peer in tuple(self._sockets.values()):
            peer.joined = True
            self._drop(peer)
        self._answer(closed=True)

    def _quit(self, _: dict[str, Any]) -> None:
        self._running = False


_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


def _percentile(values: list[int], share: float) -> float | None:
    """Of sorted microseconds, in milliseconds: the least value that so many are not above (nearest rank)."""
    if not values:
        return None
    rank = max(1, -(-int(share * 1_000_000) * len(values) // 1_000_000))
    return values[min(rank, len(values)) - 1] / 1000


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        Generator().run()
