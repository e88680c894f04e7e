from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import Binary, Int64, ObjectId, Timestamp
from hypothesis import given
from hypothesis import strategies as st
from pymongo.errors import OperationFailure, ProtocolError

from livedocs.changes.getmore import Answer, answer, question

TOKEN = "826B0487B2000000072B0229296E04"


def message(reply: dict[str, Any], *, flags: int = 0, kind: int = 0) -> bytes:
    return struct.pack("<IB", flags, kind) + bson.encode(reply)


def reply(*events: dict[str, Any], cursor: int = 7) -> dict[str, Any]:
    """What a server says, with all that it says beside the cursor."""
    return {
        "cursor": {
            "nextBatch": list(events),
            "postBatchResumeToken": {"_data": TOKEN},
            "id": Int64(cursor),
            "ns": "admin.$cmd.aggregate",
        },
        "ok": 1.0,
        "$clusterTime": {
            "clusterTime": Timestamp(5, 1),
            "signature": {"hash": Binary(b"x" * 20, 0), "keyId": Int64(2**40)},
        },
        "operationTime": Timestamp(5, 1),
    }


def test_a_question_is_one_message_that_a_server_can_read():
    sent = question(9, 2**40, "admin.$cmd.aggregate", batch=1000, wait_ms=100)
    length, number, to, operation, flags, kind = struct.unpack_from("<iiiiIB", sent)
    assert (length, number, to, operation, flags, kind) == (len(sent), 9, 0, 2013, 0, 0)
    assert bson.decode(sent[21:]) == {
        "getMore": 2**40,
        "collection": "$cmd.aggregate",
        "batchSize": 1000,
        "maxTimeMS": 100,
        "$db": "admin",
    }


def test_the_events_of_an_answer_are_the_very_bytes_that_came():
    events = [{"_id": ObjectId(), "n": n, "at": datetime(2026, 1, 2, tzinfo=UTC)} for n in range(12)]
    found = answer(message(reply(*events)))
    assert found == Answer(7, [bson.encode(event) for event in events], TOKEN)


def test_an_answer_without_an_event_still_names_the_position():
    assert answer(message(reply(cursor=0))) == Answer(0, [], TOKEN)


@given(st.lists(st.dictionaries(st.text("abc.", min_size=1), st.binary() | st.text("é0a") | st.integers(-9, 9))))
def test_whatever_is_in_the_events_they_are_cut_where_they_end(events):
    assert answer(message(reply(*events))).events == [bson.encode(event) for event in events]


def test_a_refusal_keeps_its_code_and_its_labels():
    refused = {"ok": 0.0, "errmsg": "no", "code": 286, "errorLabels": ["NonResumableChangeStreamError"]}
    with pytest.raises(OperationFailure) as caught:
        answer(message(refused))
    assert caught.value.code == 286
    assert caught.value.has_error_label("NonResumableChangeStreamError")


def test_anything_that_is_no_answer_is_an_error_of_its_own():
    whole = message(reply({"n": 1}))
    no_token = reply()
    del no_token["cursor"]["postBatchResumeToken"]
    not_documents = reply()
    not_documents["cursor"]["nextBatch"] = [1]
    spoiled = (
        *(whole[:length] for length in range(len(whole) - 60)),
        message(reply(), flags=1),
        message(reply(), kind=1),
        message({"ok": 1.0}),
        message(no_token),
        message(not_documents),
    )
    for one in spoiled:
        with pytest.raises(ProtocolError):
            answer(one)


def test_a_refusal_that_quotes_half_a_character_keeps_its_code():
    refused = bson.encode({"ok": 0.0, "errmsg": "too large: ab", "code": 10334}).replace(b"ab", b"a\xc3")
    with pytest.raises(OperationFailure) as caught:
        answer(struct.pack("<IB", 0, 0) + refused)
    assert caught.value.code == 10334


def test_a_refusal_that_cannot_be_read_is_an_error_of_its_own():
    spoiled = bson.encode({"ok": 0.0, "wrong": {"a": True}}).replace(b"\x08a\x00\x01", b"\x08a\x00\x02")
    with pytest.raises(ProtocolError):
        answer(struct.pack("<IB", 0, 0) + spoiled)
