"""A connection that is taken over from Hypercorn: what is left of Hypercorn's part, over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypercorn.asyncio import serve
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from livedocs import front
from livedocs.live import transport
from livedocs.live.frames import Frame
from livedocs.live.outbox import DirectOutbox

ROOT = Path(__file__).parents[3]

_TIMEOUT = 1
_GREETING = b"\x81\x05hello"


class Echo(asyncio.Protocol):
    """Gives back each byte, the frames' masks among them, as the payload of a frame of its own."""

    def __init__(self, connection):
        self.connection = connection
        self.lost = asyncio.Event()

    def data_received(self, data):
        if data[:1] == b"\x88":
            self.connection.close()
            return
        for byte in data:
            self.connection.write(b"\x82\x01" + bytes([byte]))

    def connection_lost(self, exc):
        self.lost.set()


class Server:
    """Hypercorn, with an application that takes over every WebSocket, or the ones before `keeps`."""

    def __init__(self, port):
        self.port = port
        self.keeps = False
        self.meanwhile = None
        self.echoes = []
        # Held up, it does not accept.
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    async def app(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        await receive()
        self.asked.set()
        await self.gate.wait()
        connection = send.__self__.send.__self__.send.__self__
        match self.meanwhile:
            # In this turn of the loop:
            case "a frame has arrived":
                connection.reader.feed_data(b"\x81\x81" + bytes(4) + b"x")
            case "the peer has left":
                connection.reader.feed_eof()
            case "the answer has to wait":
                await connection.send_lock.acquire()
                asyncio.get_running_loop().call_soon(connection.send_lock.release)
        if self.keeps:
            await send({"type": "websocket.accept"})
        elif (connection := await transport.accept(send, [])) is not None:
            echo = Echo(connection)
            connection.set_protocol(echo)
            connection.write(_GREETING)
            self.echoes.append(echo)
            return
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": "kept"})

    async def connect(self):
        async with asyncio.timeout(10):
            while True:
                try:
                    socket = await connect(f"ws://127.0.0.1:{self.port}/socket.io/", compression=None, proxy=None)
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        if not self.keeps:
            assert await socket.recv() == "hello"
        return socket


@pytest.fixture
async def server(free_ports):
    [port] = free_ports(1)
    config = front.listener(f"127.0.0.1:{port}")
    config.read_timeout = _TIMEOUT
    stop, made = asyncio.Event(), Server(port)
    serving = asyncio.create_task(serve(made.app, config, shutdown_trigger=stop.wait))
    yield made
    stop.set()
    async with asyncio.timeout(10):
        await serving
    for echo in made.echoes:
        echo.connection.abort()


def of_hypercorn():
    """The objects that Hypercorn and asyncio's streams make for a connection."""
    kinds = {TCPServer, transport.Http1, H11Protocol, WSStream}
    kinds |= {asyncio.StreamReader, asyncio.StreamWriter, asyncio.StreamReaderProtocol}
    return [one for one in gc.get_objects() if type(one) in kinds]


async def test_nothing_of_the_server_is_left_for_a_connection_that_is_taken_over(server):
    await (await server.connect()).close()
    gc.collect()
    gc.disable()
    try:
        before, tasks = len(of_hypercorn()), len(asyncio.all_tasks())
        sockets = [await server.connect() for _ in range(5)]
        async with asyncio.timeout(10):
            while len(of_hypercorn()) > before:
                await asyncio.sleep(0.01)
        # Each of this test's own ends has one task.
        assert len(asyncio.all_tasks()) - tasks == 5
    finally:
        gc.enable()
    gc.collect()
    for socket in sockets:
        await socket.send("x")
        assert len([await socket.recv() for _ in range(7)]) == 7
        await socket.close()


async def test_a_socket_that_says_nothing_is_for_the_timer_wheel_to_judge(server):
    socket = await server.connect()
    with pytest.raises(TimeoutError):
        # The read time-out is over, and nothing has ended.
        await asyncio.wait_for(socket.recv(), 2 * _TIMEOUT)
    await socket.send("later")
    assert await socket.recv()
    await socket.close()


async def test_otherwise_the_server_ends_it_itself(server):
    server.keeps = True
    socket = await server.connect()
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(socket.recv(), 5 * _TIMEOUT)


async def test_the_end_of_the_connection_reaches_whoever_took_it_over(server):
    socket = await server.connect()
    socket.transport.abort()
    async with asyncio.timeout(10):
        await server.echoes[-1].lost.wait()


def request(port):
    return (
        f"GET /socket.io/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


async def asked(server):
    """A peer whose handshake is held up."""
    await (await server.connect()).close()
    server.gate.clear()
    server.asked.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request(server.port))
    await server.asked.wait()
    return reader, writer


async def test_a_peer_that_has_gone_before_it_was_accepted_is_no_connection_to_take_over(server):
    reader, writer = await asked(server)
    writer.write_eof()
    # Its end has been read before the application goes on.
    await asyncio.sleep(0.1)
    server.gate.set()
    async with asyncio.timeout(10):
        await reader.read()
    assert len(server.echoes) == 1
    writer.close()


async def test_a_peer_that_talks_before_it_was_accepted_is_not_listened_to(server):
    reader, writer = await asked(server)
    writer.write(b"\x81\x81" + bytes(4) + b"x")
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    server.gate.set()
    await asyncio.sleep(0.1)
    assert len(server.echoes) == 1
    writer.close()


@pytest.mark.parametrize("meanwhile", ["a frame has arrived", "the peer has left", "the answer has to wait"])
async def test_a_connection_on_which_something_else_has_happened_stays_with_the_server(server, meanwhile):
    await (await server.connect()).close()
    server.meanwhile = meanwhile
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request(server.port))
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(10):
            await reader.read()
    assert len(server.echoes) == 1
    writer.close()


async def test_under_tls_frames_are_never_written_past_it(free_ports, tmp_path):
    """What goes to the socket there is not what was written; the descriptor is left alone."""
    spec = importlib.util.spec_from_file_location("certificate", ROOT / "ops" / "tls" / "certificate.py")
    certificate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(certificate)
    certificate.ensure(tmp_path, ("localhost",), datetime.now(UTC))
    [port] = free_ports(1)
    config = front.listener(f"127.0.0.1:{port}")
    config.certfile, config.keyfile = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    stop, offered, left = asyncio.Event(), [], asyncio.Event()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        await receive()
        connection = await transport.accept(send, [])
        outbox = DirectOutbox(connection)
        echo = Echo(connection)
        connection.set_protocol(echo)
        for number in range(3):
            frame = Frame(f'42["n",{number}]'.encode())
            offered.append(outbox.offer(frame))
            outbox.write(frame)
        outbox.close(1001)
        await asyncio.sleep(0)
        left.set()

    serving = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
    trusting = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    async with asyncio.timeout(10):
        while True:
            try:
                socket = await connect(
                    f"wss://localhost:{port}/socket.io/", ssl=trusting, compression=None, proxy=None
                )
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
        assert [await socket.recv() for _ in range(3)] == [f'42["n",{number}]' for number in range(3)]
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1001
        await left.wait()
        assert offered == [-1, -1, -1]
        stop.set()
        await serving
