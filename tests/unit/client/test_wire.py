"""Socket.IO packets as a client reads and sends them, against python-socketio's own codec."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from socketio import packet as socketio_packet

from livedocs._client import wire
from livedocs._client.wire import Acked, Connected, ConnectRefused, Ended, Opened, Ping, Received
from livedocs.errors import UnexpectedAnswer
from livedocs.live import frames


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ('0{"sid":"a","pingInterval":25000,"pingTimeout":20000}', Opened(45.0)),
        ("1", Ended()),
        ("2", Ping()),
        ("6", None),
        ('40{"sid":"b"}', Connected()),
        ("41", Ended()),
        ('42["notes",{"n":1},{}]', Received("notes", ({"n": 1}, {}))),
        ('42["Check"]', Received("Check", ())),
        ('4317[{"left":[]}]', Acked(17, {"left": []})),
        ("433[]", Acked(3, None)),
        ("43[1]", None),
        ("42[]", None),
        ("42[1]", None),
        ('44{"message":"m","data":{"code":"unauthenticated"}}', ConnectRefused({"code": "unauthenticated"})),
        ('44{"message":"m"}', ConnectRefused({"code": "m"})),
        ("", None),
        ("9", None),
    ],
)
def test_each_packet_is_read(text, packet):
    assert wire.parse(text) == packet


@pytest.mark.parametrize("text", ["42", "42{", '42{"a":1}', "0[]", "43x", '44"m"', '42["a",{"$date":"x"}]'])
def test_what_is_no_packet_is_refused(text):
    with pytest.raises(UnexpectedAnswer):
        wire.parse(text)


def test_what_the_server_writes_comes_back_with_its_types():
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    text = frames.event("notes", {"at": at, "large": 2**60}, {"id": "82"}).text.decode()
    assert wire.parse(text) == Received("notes", ({"at": at, "large": 2**60}, {"id": "82"}))
    assert wire.parse(frames.ack(5, {"joined": {}}).text.decode()) == Acked(5, {"joined": {}})


def test_an_event_is_what_others_understand():
    sent = wire.event("JoinRoom", ["a"], {"snapshot": True}, number=12)
    read = socketio_packet.Packet(encoded_packet=sent[1:])
    assert (read.packet_type, read.id, read.data) == (2, 12, ["JoinRoom", ["a"], {"snapshot": True}])
    assert wire.event("Check") == '42["Check"]'
