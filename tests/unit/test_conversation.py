"""What a conversation does at its ends. What is said in between is tested over real sockets."""

from __future__ import annotations

import pytest

from livedocs.exchange import Exchange, current
from livedocs.live.client import Client
from livedocs.live.conversation import Conversation
from livedocs.live.heartbeat import Heartbeat
from livedocs.live.protocol import Call


class Outbox:
    path = "direct"

    def __init__(self):
        self.closed = None

    def close(self, code):
        self.closed = code

    def write(self, frame):
        """Goes nowhere."""

    async def writable(self):
        """There is room."""


class House:
    def __init__(self):
        self.answered, self.reasons = [], []

    async def answer(self, client, call):
        assert isinstance(client, Client)
        assert isinstance(call, Call)
        self.answered.append(call.name)
        return True

    def ended(self, conversation, reason):
        self.reasons.append(reason)


@pytest.fixture
def conversation():
    outbox = Outbox()
    made = Exchange("request-1", socket="socket-1")
    return Conversation(
        House(),
        made,
        outbox=outbox,
        heartbeat=Heartbeat(outbox, interval=1, timeout=1),
        admitted=None,
        arrival=None,
    )


async def test_what_is_done_for_a_message_is_done_in_its_exchange(conversation):
    conversation.enter()
    assert current() is conversation.made


@pytest.mark.parametrize("reason", ["over", "closed"])
async def test_an_event_of_a_socket_that_is_being_closed_does_nothing(conversation, reason):
    conversation.client = client = Client.__new__(Client)
    client.closed = None
    await conversation.take('42["Check"]')
    if reason == "over":
        conversation.leave(1000)
    else:
        client.closed = "token_revoked"
    await conversation.take('42["JoinRoom",[]]')
    assert conversation._house.answered == ["Check"]
