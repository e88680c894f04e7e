"""Values are written as text directly; the text is what the plain objects of Extended JSON would become."""

from __future__ import annotations

import base64
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from time import process_time
from uuid import UUID

import bson
import orjson
import pytest
from bson import Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary
from bson.errors import InvalidBSON
from hypothesis import given
from hypothesis import strategies as st

from livedocs.codec import extjson, jsonscalars
from livedocs.codec.bsondecode import _FOR_JSON, CODEC, decode, decode_for_json, decode_slowly

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
FLAGS = ((2, "i"), (4, "l"), (8, "m"), (16, "s"), (32, "u"), (64, "x"))


def reference(value):  # noqa: C901, PLR0911, PLR0912 - one line for each type
    """The value with an object of Extended JSON in place of everything JSON has no value for."""
    if isinstance(value, Decimal128):
        return {"$numberDecimal": str(value)}
    if isinstance(value, ObjectId):
        return {"$oid": str(value)}
    if isinstance(value, DatetimeMS):
        return {"$date": {"$numberLong": str(int(value))}}
    if isinstance(value, datetime):
        at = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        if at.year < 1970:
            return {"$date": {"$numberLong": str((at - EPOCH) // timedelta(milliseconds=1))}}
        return {"$date": at.isoformat(timespec="milliseconds" if at.microsecond else "seconds") + "Z"}
    if isinstance(value, UUID):
        return reference(Binary.from_uuid(value))
    if isinstance(value, bytes):
        subtype = getattr(value, "subtype", 0)
        return {"$binary": {"base64": base64.b64encode(value).decode(), "subType": f"{subtype:02x}"}}
    if isinstance(value, Timestamp):
        return {"$timestamp": {"t": value.time, "i": value.inc}}
    if isinstance(value, Regex):
        options = "".join(letter for flag, letter in FLAGS if value.flags & flag)
        return {"$regularExpression": {"pattern": value.pattern, "options": options}}
    if isinstance(value, Code):
        scope = {} if value.scope is None else {"$scope": reference(dict(value.scope))}
        return {"$code": str(value), **scope}
    if isinstance(value, MinKey | MaxKey):
        return {"$minKey" if isinstance(value, MinKey) else "$maxKey": 1}
    if isinstance(value, dict):
        return {name: reference(item) for name, item in value.items()}
    if isinstance(value, list):
        return [reference(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$numberDouble": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, int) and type(value) is not bool:
        return int(value) if abs(value) <= 2**53 else {"$numberLong": str(int(value))}
    return value


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
decimals = st.binary(min_size=16, max_size=16) | st.builds(
    # A short coefficient and an exponent near nought.
    lambda low, exponent, sign: struct.pack("<QQ", low, (6176 + exponent) << 49 | sign << 63),
    st.integers(0, 10**9),
    st.integers(-20, 20),
    st.integers(0, 1),
)
edges = st.sampled_from([2**53, 2**53 + 1, -(2**53), -(2**53) - 1, 2**63 - 1, -(2**63)])
milliseconds = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 253_402_300_799_999)
ends_of_dates = st.sampled_from([-1, 0, 1, 999, 1000, 253_402_300_799_999, 253_402_300_800_000])
scalars = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.sampled_from([0.0, -0.0, 1e16, 5e-324, math.nan, math.inf, -math.inf])
    | st.integers(-(2**31), 2**31 - 1)
    | (st.integers(-(2**63), 2**63 - 1) | edges).map(Int64)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.uuids()
    | st.builds(Binary, st.binary(max_size=20), st.sampled_from([0, 1, 2, 3, 5, 6, 7, 128, 255]))
    | (milliseconds | ends_of_dates).map(DatetimeMS)
    | st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    | st.builds(Regex, names, st.integers(0, 63).map(lambda flags: flags * 2))
    | st.builds(Code, names)
    | st.builds(Code, names, st.dictionaries(names, st.floats() | edges.map(Int64), max_size=2))
    | decimals.map(Decimal128.from_bid)
    | st.binary(min_size=12, max_size=12).map(ObjectId)
    | st.sampled_from([MinKey(), MaxKey()])
)
documents = st.dictionaries(
    names,
    st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=15),
    max_size=5,
)


@given(documents)
def test_a_document_has_the_same_text_by_every_way(values):
    raw = bson.encode(values, codec_options=CODEC)
    expected = orjson.dumps(reference(decode(raw)))
    for read in (decode, decode_slowly, decode_for_json, _FOR_JSON.decode):
        assert extjson.dumps(read(raw)) == expected
    assert extjson.dumps(decode(raw, aware=True)) == expected
    assert extjson.dumps(decode_slowly(raw, aware=True)) == expected


@given(decimals)
def test_a_decimal_has_the_text_that_pymongo_gives_it(bid):
    text = extjson.dumps(Decimal128.from_bid(bid))
    assert text == orjson.dumps({"$numberDecimal": str(Decimal128.from_bid(bid))})
    assert orjson.dumps(jsonscalars.decimal(b"xyz" + bid, 3, 19)) == text


@pytest.mark.parametrize(
    "text", ["NaN", "-NaN", "sNaN", "-sNaN", "Infinity", "-Infinity", "0E+6111", "-0", "0.000000"]
)
@pytest.mark.parametrize("end", ["", "E-6176", "E+6111"])
def test_an_odd_decimal_has_the_text_that_pymongo_gives_it(text, end):
    value = Decimal128(text + end if text == "-0" else text)
    assert extjson.dumps(value) == orjson.dumps({"$numberDecimal": str(value)})


@given(st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=-5, minutes=30)))))
def test_a_date_of_any_time_zone_is_written_in_utc(at):
    if 2 < at.year < 9998:
        assert extjson.dumps(at) == orjson.dumps(reference(at))


def test_a_date_of_another_class_is_written_like_any():
    class Later(datetime):
        pass

    assert extjson.dumps(Later(2026, 1, 2, 3, 4, 5, 6000)) == b'{"$date":"2026-01-02T03:04:05.006Z"}'


@pytest.mark.parametrize(
    ("options", "expected"), [(b"xi", "ix"), (b"zzmmiq", "im"), (b"", ""), (b"ilmsux", "ilmsux")]
)
def test_the_options_of_a_regular_expression_come_in_order_and_once(options, expected):
    raw = b"\x0b\0a\0" + options + b"\0"
    raw = struct.pack("<i", len(raw) + 5) + raw + b"\0"
    text = orjson.dumps({"": {"$regularExpression": {"pattern": "a", "options": expected}}})
    assert extjson.dumps(_FOR_JSON.decode(raw)) == extjson.dumps(decode(raw)) == text


@given(st.binary(max_size=60))
def test_noise_has_the_text_of_its_values_or_is_refused_by_both_ways(noise):
    for raw in (noise, struct.pack("<i", len(noise) + 5) + noise + b"\0"):
        found = []
        for read in (decode_slowly, _FOR_JSON.decode):
            try:
                found.append(extjson.dumps(read(raw)))
            except InvalidBSON:
                found.append(None)
        assert found[0] == found[1]


N = 80_000
WORST = {
    "decimals": [Decimal128("1.5")] * N,
    "UUIDs": [Binary(bytes(16), 4)] * N,
    "regular expressions": [Regex("a", "i")] * N,
}


@pytest.mark.parametrize("kind", WORST)
def test_the_worst_documents_take_a_few_times_as_long_as_a_loop_of_that_length(kind):
    """About 35 times; it was 130 at least when every value was made one of Python's first."""
    raw = bson.encode({"v": WORST[kind]})
    assert min(_seconds(encode, raw) for _ in range(3)) < 80 * min(_seconds(_yardstick, N) for _ in range(9))


def encode(raw):
    extjson.dumps(decode_for_json(raw))


def _yardstick(times):
    total = 0
    for number in range(times):
        total += number % 7
    return total


def _seconds(run, argument):
    begun = process_time()
    run(argument)
    return process_time() - begun
