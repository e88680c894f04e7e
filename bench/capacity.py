"""Whether the load generator takes more than a server can give: it reads what a server of only frames sends.

    python capacity.py measure [--together 8]

`firehose` speaks just enough Engine.IO to let sockets in, then writes finished frames to each socket, round and
round, as fast as the sockets take them. One frame a write is what a server does, and such a firehose is as fast
as any server of one thread can be: the kernel's part of a write is nearly all of it. Eight a write is what a
generator that has fallen behind finds in its sockets: what it takes of that is its capacity.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from load import generator
from systems import HERE, HOST, free_ports

from livedocs.demo.leash import leashed

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BODY = 420


def _frame(payload: bytes) -> bytes:
    size = len(payload)
    return (b"\x81" + bytes((size,)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + payload


def _event() -> bytes:
    text = b'42["test",{"t":%d,"text":"' % (time.time_ns() // 1000)
    return _frame(text + b"x" * (_BODY - len(text) - 3) + b'"}]')


def firehose(port: int, together: int) -> None:
    """Let sockets in; once one of them has asked for `Go`, write to all of them."""
    listener = socket.create_server((HOST, port), backlog=4096)
    listener.settimeout(0)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    quiet_since = time.monotonic()
    while not peers or time.monotonic() - quiet_since < 1.0:
        for fd, _ in epoll.poll(0.1):
            quiet_since = time.monotonic()
            if fd == listener.fileno():
                peer, _ = listener.accept()
                peers[peer.fileno()] = peer
                epoll.register(peer, select.EPOLLIN)
            else:
                _answer(peers[fd], peers[fd].recv(65536))
    for peer in peers.values():
        epoll.unregister(peer)
        peer.settimeout(0)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _blast(list(peers.values()), together)


def _answer(peer: socket.socket, data: bytes) -> None:
    if data.startswith(b"GET "):
        key = data.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        peer.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + _frame(b'0{"sid":"x"}')
        )
    elif data[6:8] == b"40":
        peer.sendall(_frame(b'40{"sid":"x"}'))
    elif b"JoinRoom" in data:
        peer.sendall(_frame(b"430[]"))


def _blast(peers: list[socket.socket], together: int) -> None:
    while peers:
        frame = _event() * together
        for peer in tuple(peers):
            try:
                if peer.send(frame) < len(frame):
                    # The rest of it would have to come first: this one has had enough.
                    peers.remove(peer)
            except BlockingIOError:
                continue
            except OSError:
                peers.remove(peer)


def measure(together: int, *, sockets: int = 1000, seconds: float = 4.0, sample: int = 10) -> dict[str, Any]:
    """Deliveries that one generator process takes per second of its CPU."""
    (port,) = free_ports(1)
    server = subprocess.Popen(
        leashed(
            [sys.executable, HERE / "capacity.py", "firehose", "--port", str(port), "--together", str(together)],
            signal.SIGKILL,
        ),
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        with generator() as load:
            load.open(port, sockets, ["x"])
            load.ask("record", sample=sample)
            # The firehose begins when nobody has said anything for a second.
            load.ask("await", deliveries=sockets, within=20)
            load.ask("record", sample=sample)
            began = time.monotonic()
            load.ask("await", deliveries=10**9, within=seconds)
            taken = time.monotonic() - began
            report = load.ask("report")
    finally:
        server.kill()
        server.wait()
    return {
        "sockets": sockets,
        "frames_per_write": together,
        "deliveries_per_s": round(report["deliveries"] / taken),
        "deliveries_per_cpu_s": round(report["deliveries"] / report["cpu"]),
        "frames_per_read": round(report["deliveries"] / max(1, report["reads"]), 1),
        "cpu_share": round(report["cpu"] / taken, 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("firehose", "measure"))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--together", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.what == "firehose":
        firehose(arguments.port, arguments.together)
    else:
        print(measure(arguments.together))
