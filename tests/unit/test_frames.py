from __future__ import annotations

import json
import math

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, TextMessage

from livedocs.live import frames


def received(wire: bytes) -> list[object]:
    """What a WebSocket client that nobody here wrote makes of the bytes."""
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(wire)
    return list(client.events())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_000])
def test_a_frame_of_any_size_is_one_text_message(size):
    frame = frames.Frame(b"x" * size)
    parts = received(frame.wire)
    assert all(isinstance(part, TextMessage) for part in parts)
    assert "".join(part.data for part in parts) == "x" * size
    assert parts[-1].message_finished


def test_a_close_frame_carries_its_code():
    (event,) = received(frames.close(1008))
    assert isinstance(event, CloseConnection)
    assert event.code == 1008


def test_the_packets_are_those_of_engine_io_4_and_socket_io_5():
    opened = frames.opened("s", ping_interval=25, ping_timeout=20, max_payload=9).text
    assert json.loads(opened[1:]) == {
        "sid": "s",
        "upgrades": [],
        "pingInterval": 25000,
        "pingTimeout": 20000,
        "maxPayload": 9,
    }
    assert opened[:1] == b"0"
    assert frames.PING.text == b"2"
    assert frames.connected("s").text == b'40{"sid":"s"}'
    assert frames.DISCONNECT.text == b"41"
    assert frames.event("notes", {"a": 1}, {"op": "x"}).text == b'42["notes",{"a":1},{"op":"x"}]'
    assert frames.ack(7, {"left": []}).text == b'437[{"left":[]}]'
    assert frames.connect_error("no", {"code": "c"}).text == b'44{"message":"no","data":{"code":"c"}}'
    assert frames.connect_error("no", {}, "/admin").text == b'44/admin,{"message":"no","data":{}}'


def test_values_without_json_are_extended_json():
    assert frames.event("n", {"x": math.nan}).text == b'42["n",{"x":{"$numberDouble":"NaN"}}]'


def test_text_outside_ascii_is_utf_8():
    (message,) = received(frames.event("n", "ä€😀").wire)
    assert json.loads(message.data[2:]) == ["n", "ä€😀"]
