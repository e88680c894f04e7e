from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedocs.errors import BadRequest
from livedocs.live.protocol import Call, Connect, Leave, Nothing, Pong, ProtocolError, check_handshake, parse


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("3", Pong()),
        ("2probe", Pong()),
        ("1", Leave()),
        ("6", Nothing()),
        ("41", Leave()),
        ("40", Connect("/", None)),
        ('40{"token":"t"}', Connect("/", {"token": "t"})),
        ("40/admin,", Connect("/admin", None)),
        ('40/admin?x=1,{"a":1}', Connect("/admin", {"a": 1})),
        ('42["Check"]', Call("Check", (), None)),
        ('4217["JoinRoom",["u"],{"since":null}]', Call("JoinRoom", (["u"], {"since": None}), 17)),
        ("431[]", Nothing()),
        ('42/ns,["a"]', Nothing()),
        ("41/ns,", Nothing()),
    ],
)
def test_packets_are_read(text, packet):
    assert parse(text) == packet


@pytest.mark.parametrize(
    "text",
    [
        "",
        "z",
        "4",
        "45",
        "46",
        "47",
        "4z",
        '451-["x",{"_placeholder":true,"num":0}]',
        "429999999999-[]",
        "42",
        "42{}",
    ]
    + [
        "42[]",
        "42[1]",
        "42[null]",
        "42x",
        '42["a"',
        '42["a"]x',
        '42["a",NaN]',
        "42[" + "[" * 50_000,
    ]
    + ['425-["x"]', "42" + "1" * 101 + '["x"]', "٤٢", '4²["x"]', "\0"],
)
def test_anything_else_breaks_the_protocol(text):
    with pytest.raises(ProtocolError):
        parse(text)


@given(st.text() | st.text(alphabet='0123456789-[]{}",/ a').map("4".__add__))
def test_no_text_does_more_than_that(text):
    with contextlib.suppress(ProtocolError):
        parse(text)


def test_the_handshake_of_engine_io_4_over_websocket_is_taken():
    check_handshake(b"EIO=4&transport=websocket")
    check_handshake(b"transport=websocket&EIO=4&t=abc")


@pytest.mark.parametrize(
    "query",
    [b"", b"EIO=4", b"EIO=3&transport=websocket", b"EIO=4&transport=polling", b"EIO=4&transport=websocket&sid=a"]
    + [b"EIO=4&transport=websocket&sid=", b"EIO=4&EIO=3&transport=websocket", b"EIO=4&transport=websocket&token=a"]
    + [b"EIO=4&transport=websocket&access_token=a", b"\xff"],
)
def test_every_other_handshake_is_refused(query):
    with pytest.raises(BadRequest):
        check_handshake(query)


def test_a_packet_of_too_many_elements_is_refused_before_it_is_decoded():
    for part in ("[],", "{},", "1,", '{"a":1},'):
        with pytest.raises(ProtocolError):
            parse('42["JoinRoom",[' + part * (60_000 // len(part)) + "1]]")
    assert isinstance(parse('42["JoinRoom",["' + "[,{" * 20_000 + '"]]'), Call)
