"""The two ways out. That the direct one is taken under the installed Hypercorn is tested over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from livedocs.live.frames import Frame
from livedocs.live.outbox import AsgiOutbox, DirectOutbox
from livedocs.live.transport import direct_transport


def frame(number):
    return Frame(f'42["n",{number}]'.encode())


class Socket(asyncio.WriteTransport):
    """A transport whose peer takes nothing until the test says so."""

    def __init__(self):
        super().__init__()
        self.written, self.taken, self.state = b"", 0, "open"

    def write(self, data):
        self.written += data

    def get_write_buffer_size(self):
        return len(self.written) - self.taken

    def drain(self):
        self.taken = len(self.written)

    def is_closing(self):
        return self.state != "open"

    def close(self):
        self.state = "closed"

    def abort(self):
        self.state = "aborted"


class Asgi:
    """ASGI's `send`; blocked until the test lets it through."""

    def __init__(self):
        self.sent, self.open = [], asyncio.Event()
        self.failure = None

    async def __call__(self, message):
        await self.open.wait()
        if self.failure:
            raise self.failure
        self.sent.append(message)

    @property
    def texts(self):
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]


# -- straight to the socket --


async def test_finished_frames_are_written_as_they_are_and_counted_until_taken():
    socket = Socket()
    outbox = DirectOutbox(socket)
    assert outbox.backlog() == (0, 0)
    outbox.write(frame(1))
    outbox.write(frame(2))
    assert socket.written == frame(1).wire + frame(2).wire
    assert outbox.backlog() == (len(socket.written), 2)
    socket.drain()
    assert outbox.backlog() == (0, 0)
    outbox.write(frame(3))
    assert outbox.backlog()[1] == 1


async def test_a_closed_socket_gets_its_close_frame_last_and_nothing_after(clock):
    socket = Socket()
    outbox = DirectOutbox(socket)
    outbox.write(frame(1))
    outbox.close(1008)
    outbox.write(frame(2))
    outbox.close(1001)
    assert socket.written == frame(1).wire + b"\x88\x02\x03\xf0"
    assert socket.state == "closed"
    await clock.advance(1.9)
    assert socket.state == "closed"
    await clock.advance(0.2)
    assert socket.state == "aborted"


async def test_an_aborted_socket_gets_nothing_more():
    socket = Socket()
    outbox = DirectOutbox(socket)
    outbox.abort()
    outbox.write(frame(1))
    outbox.close(1000)
    assert (socket.written, socket.state) == (b"", "aborted")


async def test_anothers_servers_send_is_no_way_to_a_transport():
    async def send(_):
        """Of an ASGI server that is not Hypercorn."""

    assert direct_transport(send) is None
    assert direct_transport(Asgi().__call__) is None


# -- through ASGI --


@pytest.fixture
async def asgi():
    return Asgi()


async def test_what_is_queued_is_sent_in_order_and_counted_until_it_is(asgi, settled):
    outbox = AsgiOutbox(asgi, None)
    frames = [frame(number) for number in range(3)]
    for one in frames:
        outbox.write(one)
    await settled()
    assert outbox.backlog() == (sum(len(one.text) for one in frames), 3)
    asgi.open.set()
    await settled()
    assert asgi.texts == [one.text.decode() for one in frames]
    assert outbox.backlog() == (0, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_close_comes_behind_everything_that_waits(asgi, settled):
    outbox = AsgiOutbox(asgi, None)
    outbox.write(frame(1))
    outbox.close(1008)
    outbox.write(frame(2))
    asgi.open.set()
    await settled()
    assert [message["type"] for message in asgi.sent] == ["websocket.send", "websocket.close"]
    assert asgi.sent[-1]["code"] == 1008


async def test_a_peer_that_does_not_take_the_close_in_time_is_cut_off(asgi, clock):
    owner = asyncio.create_task(asyncio.Event().wait())
    outbox = AsgiOutbox(asgi, owner)
    outbox.write(frame(1))
    outbox.close(1008)
    await clock.advance(1.9)
    assert not owner.done()
    await clock.advance(0.2)
    assert owner.cancelled()
    assert outbox.backlog() == (0, 0)


async def test_an_abort_loses_what_waits_and_ends_the_connections_task(asgi, settled):
    owner = asyncio.create_task(asyncio.Event().wait())
    outbox = AsgiOutbox(asgi, owner)
    outbox.write(frame(1))
    await settled()
    outbox.abort()
    outbox.write(frame(2))
    asgi.open.set()
    await settled()
    assert owner.cancelled()
    assert asgi.sent == []
    assert outbox.backlog() == (0, 0)


@pytest.mark.parametrize("failure", [OSError("gone"), RuntimeError("closed")])
async def test_a_connection_that_is_gone_is_no_error(asgi, settled, failure):
    asgi.failure = failure
    asgi.open.set()
    outbox = AsgiOutbox(asgi, None)
    outbox.write(frame(1))
    outbox.write(frame(2))
    await settled()
    assert outbox.backlog() == (0, 0)
