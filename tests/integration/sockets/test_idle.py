"""What an accepted socket is relieved of under Hypercorn, over a real connection."""

from __future__ import annotations

import asyncio
import gc

import pytest
from hypercorn.asyncio import serve
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from livedocs import front
from livedocs.live import transport

_TIMEOUT = 1


async def echo(scope, receive, send, *, relieved):
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    if relieved:
        transport.open_outbox(send, 1000)
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


@pytest.fixture
async def open_socket(free_ports):
    """`await open_socket(relieved=...)` gives a connection to a server whose reads time out."""
    [port] = free_ports(1)
    config = front.listener(f"127.0.0.1:{port}")
    config.read_timeout = _TIMEOUT
    stop, relieves = asyncio.Event(), []

    async def app(scope, receive, send):
        await echo(scope, receive, send, relieved=bool(relieves))

    serving = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
    opened = []

    async def open_socket(*, relieved):
        relieves[:] = [True] * relieved
        async with asyncio.timeout(10):
            while True:
                try:
                    socket = await connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None)
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        opened.append(socket)
        await socket.send("first")
        assert await socket.recv() == "first"
        return socket

    yield open_socket
    for socket in opened:
        await socket.close()
    stop.set()
    await serving
    assert config.read_timeout == _TIMEOUT


async def test_a_socket_that_says_nothing_is_for_the_timer_wheel_to_judge(open_socket):
    socket = await open_socket(relieved=True)
    with pytest.raises(TimeoutError):
        # The read time-out is over, and nothing has ended.
        await asyncio.wait_for(socket.recv(), 2 * _TIMEOUT)
    await socket.send("later")
    assert await socket.recv() == "later"


async def test_without_that_the_server_starts_a_time_out_with_every_read(open_socket):
    socket = await open_socket(relieved=False)
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(socket.recv(), 5 * _TIMEOUT)


async def test_no_task_waits_for_an_accepted_sockets_next_message_alone(open_socket):
    await open_socket(relieved=True)
    running = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
    assert "StreamReader.read" not in running


def of_hypercorn():
    """How many objects there are that Hypercorn makes for a connection."""
    kinds = {TCPServer, ProtocolWrapper, H11Protocol, WSStream}
    return sum(type(one) in kinds for one in gc.get_objects())


async def test_an_ended_socket_is_gone_without_the_garbage_collector(open_socket):
    for relieved, left in ((True, 0), (False, 5)):
        await (await open_socket(relieved=relieved)).close()
        gc.collect()
        gc.disable()
        try:
            before = of_hypercorn()
            for _ in range(5):
                await (await open_socket(relieved=relieved)).close()
            async with asyncio.timeout(10):
                # What has come to its end is gone; without being relieved, each leaves its connection at least.
                while of_hypercorn() - before > 4 * left:
                    await asyncio.sleep(0.01)
            assert of_hypercorn() - before >= left
        finally:
            gc.enable()
