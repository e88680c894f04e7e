from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from uuid import UUID

import bson
import pytest
from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from hypothesis import given
from hypothesis import strategies as st

from livedocs.codec import extjson
from livedocs.errors import InvalidJson

UUID_ = UUID("12345678-1234-4234-8234-123456789abc")
PAIRS = [
    (ObjectId("0" * 24), '{"$oid":"000000000000000000000000"}'),
    (datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC), '{"$date":"2026-01-02T03:04:05.678Z"}'),
    (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), '{"$date":"2026-01-02T03:04:05Z"}'),
    (Decimal128("1.10"), '{"$numberDecimal":"1.10"}'),
    (2**60, '{"$numberLong":"1152921504606846976"}'),
    (-(2**60), '{"$numberLong":"-1152921504606846976"}'),
    (2**53, "9007199254740992"),
    (2**53 + 1, '{"$numberLong":"9007199254740993"}'),
    (math.inf, '{"$numberDouble":"Infinity"}'),
    (-math.inf, '{"$numberDouble":"-Infinity"}'),
    (Timestamp(5, 6), '{"$timestamp":{"t":5,"i":6}}'),
    (Binary(b"\x01", 5), '{"$binary":{"base64":"AQ==","subType":"05"}}'),
    (b"\x01", '{"$binary":{"base64":"AQ==","subType":"00"}}'),
    (Code("x"), '{"$code":"x"}'),
    (MinKey(), '{"$minKey":1}'),
    (MaxKey(), '{"$maxKey":1}'),
    (UUID_, '{"$binary":{"base64":"EjRWeBI0QjSCNBI0VniavA==","subType":"04"}}'),
    (Binary(UUID_.bytes, 3), '{"$binary":{"base64":"EjRWeBI0QjSCNBI0VniavA==","subType":"03"}}'),
    (Binary(b"\x01", 4), '{"$binary":{"base64":"AQ==","subType":"04"}}'),
    (Binary(b"", 255), '{"$binary":{"base64":"","subType":"ff"}}'),
    (DatetimeMS(-(2**63)), '{"$date":{"$numberLong":"-9223372036854775808"}}'),
    (DatetimeMS(2**63 - 1), '{"$date":{"$numberLong":"9223372036854775807"}}'),
    (DatetimeMS(-62_135_596_800_001), '{"$date":{"$numberLong":"-62135596800001"}}'),
]


@pytest.mark.parametrize(("value", "text"), PAIRS, ids=str)
def test_a_bson_value_is_written_in_relaxed_form_and_read_back_as_itself(value, text):
    assert extjson.dumps(value).decode() == text
    assert extjson.loads(text) == value
    assert extjson.loads(extjson.dumps({"in": [{"side": value}]})) == {"in": [{"side": value}]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Int64(5), "5"),
        (math.nan, '{"$numberDouble":"NaN"}'),
        (Regex("a.b", "im"), '{"$regularExpression":{"pattern":"a.b","options":"im"}}'),
        (re.compile("a"), '{"$regularExpression":{"pattern":"a","options":"u"}}'),
        (DatetimeMS(300_000_000_000_000), '{"$date":{"$numberLong":"300000000000000"}}'),
        (DBRef("c", 1), '{"$ref":"c","$id":1}'),
        (Code("x", {"a": Int64(2**60)}), '{"$code":"x","$scope":{"a":{"$numberLong":"1152921504606846976"}}}'),
    ],
    ids=str,
)
def test_values_whose_form_says_more_than_they_read_back_as(value, text):
    assert extjson.dumps(value).decode() == text


def test_infinities_and_nan_are_never_bare_json():
    text = extjson.dumps({"a": math.nan, "b": [math.inf, {"c": -math.inf}]})
    json.loads(text, parse_constant=pytest.fail)


NAMES = st.from_regex(r"[^$]*", fullmatch=True)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.uuids()
    | st.datetimes(timezones=st.just(UTC), min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)).map(  # noqa: DTZ001
        lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)
    )
    | st.builds(ObjectId)
    | st.decimals(allow_nan=False, places=3, min_value=-(10**9), max_value=10**9).map(str).map(Decimal128),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
    max_leaves=20,
)


@given(VALUES)
def test_every_value_survives_the_way_out_and_back(value):
    assert extjson.loads(extjson.dumps(value)) == value


@given(VALUES)
def test_encoding_leaves_the_value_as_it_was(value):
    before = repr(value)
    extjson.dumps(value)
    assert repr(value) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nul",
        "NaN",
        '{"a":Infinity}',
        '{"$oid":"x"}',
        '{"$date":"yesterday"}',
        '{"$numberLong":"x"}',
        '{"$numberLong":1.5}',
        '{"$numberLong":1e19}',
        '{"$numberLong":true}',
        '{"$numberLong":"1_000"}',
        '{"$numberInt":" 5 "}',
        "[1,]",
    ]
    + ['{"$date":{"$numberLong":"9223372036854775808"}}', '{"$date":true}', '{"$date":{"$numberLong":"1","a":1}}']
    + ['{"$binary":{"base64":"AQ=","subType":"00"}}', '{"$binary":{"base64":"AQ==","subType":"100"}}']
    + ['{"$binary":{"base64":"A Q==","subType":"00"}}', '{"$binary":{"base64":"AQ==","subType":"0x"}}']
    + ['{"$binary":5}', '{"$uuid":"x"}', '{"$timestamp":{}}', '{"$numberDecimal":"x"}', b"\xff"],
)
def test_what_is_no_extended_json_is_refused(text):
    with pytest.raises(InvalidJson):
        extjson.loads(text)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**200])
def test_an_integer_stays_one_however_long_it_is(number):
    text = f'{{"a":[{{"b":{number}}}],"wide":{{"$numberLong":"{number}"}},"bare":{{"$numberLong":{number}}}}}'
    found = extjson.loads(text)
    assert found == {"a": [{"b": number}], "wide": number, "bare": number}
    assert type(found["a"][0]["b"]) is int


def test_a_large_double_stays_one_beside_a_long_integer():
    found = extjson.loads('[1e19, 18446744073709551616, 18446744073709551616.0, {"$numberDouble":"1e300"}]')
    assert found == [1e19, 2**64, 2.0**64, 1e300]
    assert [type(number) for number in found] == [float, int, float, float]


def test_objects_with_other_dollar_names_stay_for_the_validator_to_refuse():
    assert extjson.loads('{"a":{"$ne":null},"b":{"$where":"x","c":1}}') == {
        "a": {"$ne": None},
        "b": {"$where": "x", "c": 1},
    }


def test_a_document_as_mongodb_returns_it_can_be_written():
    document = bson.decode(
        bson.encode({"n": Int64(2**60), "d": datetime(2026, 1, 1, tzinfo=UTC), "l": [1.5, None]})
    )
    assert extjson.dumps(document) == (
        b'{"n":{"$numberLong":"1152921504606846976"},"d":{"$date":"2026-01-01T00:00:00Z"},"l":[1.5,null]}'
    )
