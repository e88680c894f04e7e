"""What comes on the connection of a change stream's cursor, in whatever pieces."""

from __future__ import annotations

import asyncio
import struct

import pytest
from pymongo.errors import AutoReconnect, ProtocolError

from livedocs.changes.answers import Answers


class Transport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.written, self.reading, self.aborted, self.protocol = [], False, False, None

    def set_protocol(self, protocol):
        self.protocol = protocol

    def resume_reading(self):
        self.reading = True

    def write(self, data):
        self.written.append(data)

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True


class Former(asyncio.Protocol):
    def __init__(self):
        self.told = []

    def connection_lost(self, exc):
        self.told.append(exc)


@pytest.fixture
def transport():
    return Transport()


@pytest.fixture
def former():
    return Former()


@pytest.fixture
def answers(transport, former):
    return Answers(transport, former, number=7, largest=1000)


def message(body=b"body", *, number=7, operation=2013, length=None):
    return struct.pack("<iiii", length or 16 + len(body), 1, number, operation) + body


async def test_it_takes_the_place_of_the_protocol_before_and_reads_on(transport, answers):
    assert transport.protocol is answers
    assert transport.reading
    answers.ask(b"question")
    assert transport.written == [b"question"]


@pytest.mark.parametrize("size", [1, 3, 15, 16, 17, 1000])
async def test_an_answer_may_come_in_any_pieces_and_another_behind_it(answers, size):
    for body in (b"first" * 20, b"second"):
        reading = asyncio.create_task(answers.read())
        await asyncio.sleep(0)
        whole = message(body)
        for at in range(0, len(whole), size):
            answers.data_received(whole[at : at + size])
        assert await reading == body


async def test_an_answer_that_is_there_already_is_not_waited_for(answers):
    answers.data_received(message())
    assert await answers.read() == b"body"


@pytest.mark.parametrize(
    "wrong",
    [
        message(number=8),
        message(operation=1),
        message(length=1001),
        message(length=16),
        message() + b"more",
        message() + message(),
    ],
    ids=["number", "operation", "too-long", "empty", "more", "two"],
)
async def test_what_answers_nothing_ends_the_connection(transport, answers, wrong):
    answers.data_received(wrong)
    with pytest.raises(ProtocolError):
        await answers.read()
    assert transport.aborted


async def test_an_answer_that_nobody_asked_for_ends_the_connection(transport, answers):
    answers.data_received(message())
    answers.data_received(message())
    assert transport.aborted


@pytest.mark.parametrize("reason", [None, ConnectionResetError("reset")], ids=["closed", "reset"])
async def test_a_lost_connection_is_said_to_who_waits_and_to_the_protocol_before(answers, former, reason):
    reading = asyncio.create_task(answers.read())
    await asyncio.sleep(0)
    answers.connection_lost(reason)
    with pytest.raises(AutoReconnect):
        await reading
    assert former.told == [reason]
    with pytest.raises(AutoReconnect):
        await answers.read()


async def test_what_it_was_given_up_for_is_what_is_raised(transport, answers):
    reading = asyncio.create_task(answers.read())
    await asyncio.sleep(0)
    answers.give_up(AutoReconnect("silence"))
    answers.connection_lost(None)
    with pytest.raises(AutoReconnect, match="silence"):
        await reading
    assert transport.aborted
    answers.ask(b"late")
    assert transport.written == []


async def test_a_connection_that_had_ended_before_it_was_taken_over_is_not_waited_for(transport, former):
    transport.abort()
    answers = Answers(transport, former, number=7, largest=1000)
    answers.ask(b"question")
    async with asyncio.timeout(1):
        with pytest.raises(AutoReconnect):
            await answers.read()
