"""One socket of the client, against servers that behave in ways a real one seldom does."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

from livedocs._client.connection import Connection
from livedocs._client.wire import Acked, Received
from livedocs.errors import RateLimited, ServerUnreachable, Unauthenticated, UnexpectedAnswer

OPEN = '0{"sid":"a","upgrades":[],"pingInterval":100,"pingTimeout":100,"maxPayload":1000}'
PATIENT = OPEN.replace("100,", "20000,")
CONNECTED = '40{"sid":"b"}'


@pytest.fixture
async def start():
    """`start(conversation)` is the URL of a server that holds that conversation with each client."""
    async with contextlib.AsyncExitStack() as stack:

        async def of(conversation, **options):
            async def talk(socket):
                with contextlib.suppress(ConnectionClosed):
                    await conversation(socket)
                    await socket.wait_closed()

            server = await stack.enter_async_context(serve(talk, "127.0.0.1", 0, **options))
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield of


async def welcome(socket, opening=PATIENT):
    await socket.send(opening)
    assert await socket.recv() == "40"
    await socket.send(CONNECTED)


async def test_the_token_is_in_the_handshake_and_nowhere_else(start):
    seen = []

    async def conversation(socket):
        seen.extend([socket.request.headers["Authorization"], socket.request.path])
        await welcome(socket)

    connection = await Connection.opened(await start(conversation), "secret")
    await connection.close()
    assert seen == ["Bearer secret", "/socket.io/?EIO=4&transport=websocket"]


async def test_what_comes_is_given_in_its_order_and_pings_are_answered(start):
    async def conversation(socket):
        await welcome(socket)
        await socket.send('42["notes",{"n":1},{}]')
        await socket.send("2")
        assert await socket.recv() == "3"
        await socket.send('42["notes",{"n":2},{}]')
        assert await socket.recv() == '421["JoinRoom",["a"]]'
        await socket.send('431[{"joined":{}}]')
        await socket.send('42["notes",{"n":3},{}]')

    connection = await Connection.opened(await start(conversation), "t")
    assert await connection.receive() == Received("notes", ({"n": 1}, {}))
    assert await connection.receive() == Received("notes", ({"n": 2}, {}))
    assert await connection.receive(0.01) is None
    assert await connection.emit("JoinRoom", ["a"]) == 1
    assert await connection.receive() == Acked(1, {"joined": {}})
    assert await connection.receive() == Received("notes", ({"n": 3}, {}))
    await connection.close()
    with pytest.raises(ServerUnreachable):
        await connection.receive()
    with pytest.raises(ServerUnreachable):
        await connection.emit("JoinRoom", [])


async def test_a_server_that_keeps_still_is_given_up(start):
    connection = await Connection.opened(await start(lambda socket: welcome(socket, OPEN)), "t")
    async with asyncio.timeout(5):
        with pytest.raises(ServerUnreachable, match="too long"):
            await connection.receive()
    await connection.close()


async def test_the_time_in_which_nobody_reads_is_no_silence(start):
    async def conversation(socket):
        await welcome(socket, OPEN)
        await socket.send('42["notes",{},{}]')

    connection = await Connection.opened(await start(conversation), "t")
    await asyncio.sleep(0.4)
    assert await connection.receive() == Received("notes", ({}, {}))
    await connection.close()


@pytest.mark.parametrize("goodbye", ["1", "41"])
async def test_a_goodbye_is_the_end(start, goodbye):
    async def conversation(socket):
        await welcome(socket)
        await socket.send(goodbye)

    connection = await Connection.opened(await start(conversation), "t")
    async with asyncio.timeout(5):
        with pytest.raises(ServerUnreachable, match="closed by the server"):
            await connection.receive()
    await connection.close()


async def test_a_refused_connect_is_the_error_of_its_code(start):
    async def conversation(socket):
        await socket.send(OPEN)
        await socket.send('44{"message":"m","data":{"code":"rate_limited","retry_after_ms":2500}}')

    with pytest.raises(RateLimited) as caught:
        await Connection.opened(await start(conversation), "t")
    assert caught.value.retry_after == 2.5


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b'{"code": "unauthenticated"}', Unauthenticated),
        (429, b'{"code": "rate_limited"}', RateLimited),
        (502, b"<html>", ServerUnreachable),
        (404, b"", UnexpectedAnswer),
    ],
)
async def test_a_refused_handshake_is_the_error_of_its_body(start, status, body, kind):
    def refuse(connection, _request):
        response = connection.respond(status, body.decode())
        response.headers["Retry-After"] = "3"
        return response

    with pytest.raises(kind) as caught:
        await Connection.opened(await start(welcome, process_request=refuse), "t")
    assert getattr(caught.value, "retry_after", 3) == 3


async def test_the_token_is_not_sent_on_to_where_a_server_points(start):
    asked = []

    async def conversation(socket):
        asked.append(socket.request.path)
        await welcome(socket)

    other = await start(conversation)

    def point(connection, _request):
        response: Response = connection.respond(307, "")
        response.headers["Location"] = other.replace("http", "ws") + "/socket.io/"
        return response

    with pytest.raises(UnexpectedAnswer, match="307"):
        await Connection.opened(await start(welcome, process_request=point), "t")
    assert asked == []


async def test_a_server_that_is_not_there_is_unreachable():
    with pytest.raises(ServerUnreachable):
        await Connection.opened("http://127.0.0.1:1", "t")
