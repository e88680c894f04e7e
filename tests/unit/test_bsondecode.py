"""Whatever MongoDB can store is decoded and encoded; ordinary values as PyMongo decodes them."""

from __future__ import annotations

import json
import struct
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import bson
import pytest
from bson import Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary
from bson.errors import InvalidBSON
from hypothesis import given
from hypothesis import strategies as st

from livedocs.codec import extjson
from livedocs.codec.bsondecode import CODEC, decode, decode_slowly

NAIVE = CODEC.with_options(tz_aware=False, tzinfo=None)


def element(kind, value, name=b"x"):
    return bytes((kind,)) + name + b"\0" + value


def document(*elements):
    body = b"".join(elements)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def text(value):
    return struct.pack("<i", len(value) + 1) + value + b"\0"


def binary(subtype, data):
    return struct.pack("<iB", len(data), subtype) + data


def shown(raw):
    """The JSON of a document's field `x`, by both ways where PyMongo's decoder takes it."""
    found = json.loads(extjson.dumps(decode(raw)))
    assert json.loads(extjson.dumps(decode_slowly(raw))) == found
    return found["x"]


no_nul = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
scalars = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(2**31), 2**31 - 1)
    | st.integers(-(2**63), 2**63 - 1).map(Int64)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=20)
    | st.uuids()
    | st.integers(-(10**13), 10**13).map(lambda after: datetime(1970, 1, 1) + timedelta(milliseconds=after))  # noqa: DTZ001
    | st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    | st.builds(Code, no_nul)
    | st.builds(Code, no_nul, st.dictionaries(no_nul, st.integers(0, 9), max_size=2))
    | st.builds(Regex, no_nul, st.sampled_from([0, 2, 2 | 8 | 64]))
    | st.builds(Binary, st.binary(max_size=20), st.sampled_from([1, 2, 5, 6, 7, 128]))
    | st.sampled_from([MinKey(), MaxKey(), ObjectId(), Decimal128("1E-3"), Decimal128("NaN")])
)
documents = st.dictionaries(
    no_nul,
    st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(no_nul, inner), max_leaves=10),
    max_size=5,
)


@given(documents)
def test_ordinary_documents_come_out_as_pymongo_decodes_them(values):
    raw = bson.encode(values, codec_options=CODEC)
    if b"$ref" not in raw:
        expected = bson.decode(raw, codec_options=NAIVE)
        found = decode_slowly(raw)
        assert extjson.dumps(found) == extjson.dumps(expected)
        assert bson.encode(found, codec_options=CODEC) == bson.encode(expected, codec_options=CODEC)


@given(st.binary(max_size=60))
def test_what_is_no_bson_is_refused_and_nothing_else_happens(noise):
    for raw in (noise, struct.pack("<i", len(noise) + 5) + noise + b"\0"):
        try:
            extjson.dumps(decode(raw))
        except InvalidBSON:
            continue


@pytest.mark.parametrize(
    "odd",
    [
        {"$ref": "notes", "$id": ObjectId("507f1f77bcf86cd799439011")},
        {"$id": 1, "$ref": "notes"},
        {"$ref": 5, "$id": [1], "$db": {"a": None}},
        {"$ref": "notes", "$id": {"$ref": None, "$id": None}, "more": 1},
    ],
)
def test_a_document_that_looks_like_a_dbref_is_shown_as_the_document_it_is(odd):
    raw = document(element(3, bson.encode(odd)))
    assert list(shown(raw)) == list(odd)
    assert shown(raw) == json.loads(extjson.dumps(odd))


@pytest.mark.parametrize("subtype", [*range(10), 128, 255])
@pytest.mark.parametrize("data", [b"", b"abc", b"\xff\xff\xff\xff", b"\x01\0\0\0", b"x" * 15, b"x" * 17])
def test_a_binary_of_any_subtype_and_length_is_shown(subtype, data):
    value = shown(document(element(5, binary(subtype, data))))["$binary"]
    assert value["subType"] == f"{subtype:02x}"


def test_the_inner_length_of_an_old_binary_is_no_content_where_it_fits():
    assert shown(document(element(5, binary(2, struct.pack("<i", 3) + b"abc"))))["$binary"]["base64"] == "YWJj"


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (0x06, b"", None),
        (0x0E, text(b"symbol"), "symbol"),
        (0x0C, text(b"db.c") + bytes(12), {"$ref": "db.c", "$id": {"$oid": "0" * 24}}),
        (0x02, text(b"a\0b\xff\xed\xa0\x80"), "a\0b\ufffd\ufffd\ufffd\ufffd"),
        (0x01, struct.pack("<d", float("nan")), {"$numberDouble": "NaN"}),
        (0x09, struct.pack("<q", 2**62), {"$date": {"$numberLong": str(2**62)}}),
        (0x09, struct.pack("<q", -(2**62)), {"$date": {"$numberLong": str(-(2**62))}}),
        (0x0B, b"a(\0zx\0", {"$regularExpression": {"pattern": "a(", "options": "x"}}),
        (0x13, Decimal128("NaN").bid, {"$numberDecimal": "NaN"}),
        (0x13, Decimal128("sNaN").bid, {"$numberDecimal": "NaN"}),
        (0x13, b"\xff" * 14 + b"\x03\x30", {"$numberDecimal": "0E-31"}),
        (0xFF, b"", {"$minKey": 1}),
        (0x7F, b"", {"$maxKey": 1}),
    ],
)
def test_odd_values_have_a_form(kind, value, expected):
    assert shown(document(element(kind, value))) == expected


def test_names_may_be_empty_twice_there_and_no_utf8():
    raw = document(element(0x10, b"\1\0\0\0", b""), element(0x10, b"\2\0\0\0", b""), element(10, b"", b"a.$\xff"))
    for read in (decode, decode_slowly):
        assert json.loads(extjson.dumps(read(raw))) == {"": 2, "a.$\ufffd": None}


@pytest.mark.parametrize("kind", [3, 4, 15])
def test_nesting_ends_nothing(kind):
    """MongoDB stores 180 levels; code with scope has two levels of JSON for each."""
    raw, depth = document(element(10, b"")), 400
    for _ in range(depth):
        value = raw if kind != 15 else struct.pack("<i", 4 + 7 + len(raw)) + text(b"fn") + raw
        raw = document(element(kind, value, b"0"))
    written = extjson.dumps(decode(raw))
    assert written == extjson.dumps(decode_slowly(raw))
    assert written.count(b"null") == 1
    assert written.count(b"{") + written.count(b"[") == (depth + 1 if kind != 15 else 2 * depth + 1)


def test_a_date_and_a_uuid_beside_something_odd_are_what_they_are_elsewhere():
    uuid = uuid4()
    raw = bson.encode({"at": datetime(2024, 1, 2), "id": uuid, "r": {"$ref": 1, "$id": 2}}, codec_options=CODEC)  # noqa: DTZ001
    assert decode(raw) == {"at": datetime(2024, 1, 2), "id": uuid, "r": {"$ref": 1, "$id": 2}}  # noqa: DTZ001
    assert type(decode(raw)["id"]) is UUID
    assert decode(document(element(9, struct.pack("<q", 2**62)))) == {"x": DatetimeMS(2**62)}


def test_a_document_with_very_many_others_in_it_is_the_same_in_pieces():
    tower = {"a": 1}
    for _ in range(99):
        tower = {"a": tower}
    whole = {
        "towers": [tower] * 200,
        "empty": [{}, []] * 8000,
        "refs": [{"$ref": 1, "$id": n} for n in range(3000)],
        "large": {"x" * 40_000: {"y": [["z" * 40_000], 1]}},
        "last": None,
    }
    raw = bson.encode(whole)
    assert raw.count(3) > 10_000
    assert decode(raw) == decode(raw, aware=True) == decode_slowly(raw) == whole
    assert list(decode(raw)) == list(whole)
    # Of two fields of one name the last counts, in whatever pieces they are.
    twice = document(
        element(3, bson.encode(whole), b"a"), element(4, bson.encode(whole), b"b"), element(10, b"", b"a")
    )
    assert decode(twice)["a"] is None
