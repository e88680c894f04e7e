"""What is made of the bytes of a socket, whatever pieces they come in. The peer's frames are wsproto's."""

from __future__ import annotations

import asyncio
import json
import struct
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from livedocs.live.link import Link
from livedocs.live.outbox import DirectOutbox

MOST = 1000


class Transport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.written, self.unread, self.state, self.reading = b"", 0, "open", True

    def write(self, data):
        self.written += data

    def get_write_buffer_size(self):
        return self.unread

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def abort(self):
        self.state = "aborted"

    def is_closing(self):
        return self.state != "open"


class Talk:
    """A conversation that keeps what it is told; `gate` holds it up."""

    def __init__(self):
        self.heard, self.left, self.over, self.ended = [], None, False, 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.quick = ()
        self.fails = False
        self.noops = 0

    def enter(self):
        self.entered = True

    def at_once(self, text):
        if text in self.quick:
            self.heard.append(("at once", text))
            return True
        return False

    async def take(self, text):
        assert self.entered
        await self.gate.wait()
        if self.fails:
            raise ValueError(text)
        if text == "6":
            self.noops += 1
        else:
            self.heard.append(text)

    def leave(self, code):
        self.over, self.left = True, int(code)

    def end(self):
        self.ended += 1


class Line:
    """A link with both its ends."""

    def __init__(self, most=MOST):
        self.transport, self.talk = Transport(), Talk()
        self.outbox = DirectOutbox(self.transport)
        self.link = Link(self.transport, self.talk, self.outbox, most)
        self.peer = Connection(ConnectionType.CLIENT)

    def say(self, *events):
        self.link.data_received(b"".join(self.peer.send(event) for event in events))

    async def heard(self, *, settled):
        await settled()
        return self.talk.heard

    @property
    def at_rest(self):
        names = ("_parser", "_parts", "_rest", "_waiting", "_task")
        return all(getattr(self.link, name) is None for name in names)


@pytest.fixture
async def line():
    return Line()


async def test_messages_of_one_read_are_taken_in_order_and_leave_nothing_behind(line, settled):
    line.say(TextMessage("one"), TextMessage("two"), TextMessage("x" * 500))
    assert await line.heard(settled=settled) == ["one", "two", "x" * 500]
    assert line.at_rest
    assert asyncio.all_tasks() == {asyncio.current_task()}


@given(
    messages=st.lists(st.lists(st.text(max_size=150), min_size=1, max_size=3), max_size=4),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
)
@example(messages=[["6"]], cuts=[])
def test_however_the_bytes_are_cut_the_messages_are_the_same(messages, cuts):
    async def run():
        line, sent = Line(2000), b""
        for parts in messages:
            for number, part in enumerate(parts):
                last = number == len(parts) - 1
                sent += line.peer.send(TextMessage(part, message_finished=last))
                # Control frames may come between the parts of a message.
                sent += line.peer.send(Ping(b"p"))
        places = sorted({0, len(sent), *(cut % (len(sent) + 1) for cut in cuts)})
        for begin, end in pairwise(places):
            line.link.data_received(sent[begin:end])
            await asyncio.sleep(0)
        while line.link._task is not None:
            await asyncio.sleep(0)
        # A noop is counted, not kept.
        assert line.talk.heard == [text for text in map("".join, messages) if text != "6"]
        assert line.transport.written.count(b"\x8a\x01p") == sum(len(parts) for parts in messages)
        assert line.talk.left is None

    asyncio.run(run())


async def test_a_message_of_the_greatest_length_is_taken_and_a_longer_one_ends_the_socket(line, settled):
    line.say(TextMessage("x" * MOST))
    assert await line.heard(settled=settled) == ["x" * MOST]
    line.say(TextMessage("x" * (MOST + 1)))
    assert line.talk.left == 1009


async def test_nothing_behind_what_ended_the_socket_is_looked_at(line, settled):
    line.say(TextMessage("x" * (MOST + 1)), Ping(b"p"), TextMessage("more"))
    assert line.transport.written == b""
    assert await line.heard(settled=settled) == []


async def test_lengths_are_bytes(line):
    line.say(TextMessage("é" * (MOST // 2 + 1)))
    assert line.talk.left == 1009


@pytest.mark.parametrize("kind", [TextMessage, BytesMessage])
async def test_a_message_that_grows_by_parts_is_stopped_at_the_bound(line, kind):
    part = kind("x" * 300 if kind is TextMessage else b"x" * 300, message_finished=False)
    for _ in range(3):
        line.say(part)
    assert line.talk.left is None
    line.say(part)
    assert line.talk.left == 1009
    assert line.link._parts is None


async def test_a_frame_that_announces_more_than_it_may_is_stopped_before_it_is_complete(line):
    line.link.data_received(b"\x81\xff" + struct.pack(">Q", 2**40) + bytes(4) + b"x" * (MOST + 1))
    assert line.talk.left == 1009


async def test_a_message_of_empty_parts_comes_to_an_end_too(line):
    for _ in range(MOST):
        line.say(TextMessage("", message_finished=False))
    assert line.talk.left is None
    line.say(TextMessage("", message_finished=False))
    assert line.talk.left == 1009


async def test_a_ping_counts_as_a_packet_that_asks_for_nothing(line, settled):
    line.say(Ping(b"p"), Ping(b"p"))
    await settled()
    assert line.talk.noops == 2


async def test_the_bytes_of_one_message_do_not_count_for_the_next(line, settled):
    for _ in range(5):
        line.say(TextMessage("x" * 600, message_finished=False), TextMessage("y" * 300))
    assert len(await line.heard(settled=settled)) == 5
    assert line.talk.left is None


async def test_a_binary_message_is_handed_on_as_none(line, settled):
    line.say(BytesMessage(b"\x00", message_finished=False), BytesMessage(b"\x01"), TextMessage("text"))
    assert await line.heard(settled=settled) == [None, "text"]


@pytest.mark.parametrize(("code", "answered"), [(1000, 1000), (1001, 1001), (4000, 4000), (None, 1000)])
async def test_a_goodbye_is_answered_and_what_follows_is_not_looked_at(line, settled, code, answered):
    bye = line.peer.send(CloseConnection(code=code)) if code else b"\x88\x80" + bytes(4)
    line.link.data_received(bye + b"\x81\x81" + bytes(4) + b"x")
    assert line.talk.left == answered
    assert await line.heard(settled=settled) == []


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(b"\x81\x01x", 1002, id="unmasked"),
        pytest.param(b"\xc1\x81" + bytes(4) + b"x", 1002, id="reserved bit"),
        pytest.param(b"\x83\x81" + bytes(4) + b"x", 1002, id="reserved opcode"),
        pytest.param(b"\x80\x81" + bytes(4) + b"x", 1002, id="continues nothing"),
        pytest.param(b"\x89\xfe\x00\x7e" + bytes(4), 1002, id="long ping"),
        pytest.param(b"\x81\x81" + bytes(4) + b"\xff", 1007, id="no UTF-8"),
        pytest.param(b"\x88\x81" + bytes(4) + b"x", 1002, id="half a code"),
    ],
)
async def test_what_is_no_frame_ends_the_socket(line, wire, code):
    line.link.data_received(wire)
    assert line.talk.left == code


async def test_a_sign_of_life_is_taken_at_once_even_if_something_waits(line, settled):
    line.talk.quick = ("3",)
    line.say(TextMessage("3"))
    assert line.talk.heard == [("at once", "3")]
    assert line.at_rest
    line.say(TextMessage("first"), TextMessage("3"))
    assert (await line.heard(settled=settled))[1:] == [("at once", "3"), "first"]


async def test_a_socket_that_asks_faster_than_it_is_answered_is_not_read_meanwhile(line, settled):
    line.talk.gate.clear()
    line.say(*(TextMessage(f"n{number}") for number in range(10)))
    await settled()
    assert line.transport.reading
    line.say(*(TextMessage(f"n{number}") for number in range(10, 13)))
    assert not line.transport.reading
    line.talk.gate.set()
    assert await line.heard(settled=settled) == [f"n{number}" for number in range(13)]
    assert line.transport.reading


async def test_a_read_of_thousands_of_frames_is_taken_apart_in_slices(line, settled):
    frame = line.peer.send(TextMessage("x"))
    line.link.data_received(frame * 20_000)
    # The first slice is over, and most of it is yet to come; nothing more is read meanwhile.
    assert line.link._rest is not None
    assert not line.transport.reading
    while line.link._rest is not None or line.link._task is not None:
        await asyncio.sleep(0)
    assert len(line.talk.heard) == 20_000
    assert line.transport.reading


async def test_messages_that_are_answered_without_a_pause_leave_the_loop_to_others(line):
    turns = 0
    line.link.data_received(line.peer.send(TextMessage("x")) * 20_000)
    while line.link._rest is not None or line.link._task is not None:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 20


async def test_pongs_are_not_kept_for_a_peer_that_does_not_read(line):
    line.transport.unread = 2**16 + 1
    line.say(*[Ping(b"p")] * 5)
    assert line.transport.written == b""
    line.transport.unread = 0
    line.say(Ping(b"p"))
    assert line.transport.written == b"\x8a\x01p"


async def test_the_end_of_the_connection_ends_the_conversation_once(line):
    line.say(TextMessage("half", message_finished=False))
    line.link.connection_lost(None)
    assert line.talk.ended == 1
    assert line.at_rest


async def test_what_is_being_done_comes_to_its_end_before_the_conversation_does(line, settled):
    line.talk.gate.clear()
    line.say(TextMessage("one"), TextMessage("two"))
    await settled()
    line.link.connection_lost(ConnectionResetError())
    assert line.talk.ended == 0
    line.talk.gate.set()
    # What still waited was said to nobody.
    assert await line.heard(settled=settled) == ["one"]
    assert line.talk.ended == 1
    assert line.at_rest


async def test_a_fault_of_ours_ends_that_socket_and_is_told(line, settled, log):
    lines = log()
    line.talk.fails = True
    line.say(TextMessage("one"))
    await settled()
    assert line.transport.state == "aborted"
    told = json.loads(lines()[-1])
    assert (told["event"], told["level"]) == ("conversation_failed", "error")
    assert "ValueError" in told["exception"]
