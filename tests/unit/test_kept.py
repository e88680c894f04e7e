"""What was sent back as it was shown stays byte for byte; the rest is what was sent."""

from __future__ import annotations

import time

import bson
import pytest
from bson import Decimal128, Int64, ObjectId
from hypothesis import given
from hypothesis import strategies as st

from livedocs.codec import extjson
from livedocs.codec.bsondecode import decode, decode_for_json
from livedocs.store.kept import keeping
from livedocs.store.validation import CODEC

NAMES = st.text("abc.$é", max_size=3)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1).map(Int64)
    | st.integers(-(2**31), 2**31 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=20).flatmap(
        lambda data: st.integers(0, 255).filter(lambda kind: kind != 2).map(lambda kind: bson.Binary(data, kind))
    )
    | st.uuids()
    | st.integers(-(2**63), 2**63 - 1).map(bson.DatetimeMS)
    | st.builds(ObjectId)
    # A Decimal128 has 34 digits, and takes no number that has more.
    | st.decimals(-(10**31) + 1, 10**31 - 1, places=3).map(str).map(Decimal128)
    | st.sampled_from(["NaN", "Infinity", "-Infinity", "-0"]).map(Decimal128),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=15,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=6)


def stored(document):
    return bson.encode(document, codec_options=CODEC)


def shown(raw):
    return extjson.loads(extjson.dumps(decode_for_json(raw)))


@given(DOCUMENTS)
def test_a_document_that_comes_back_is_unchanged(document):
    raw = stored(document)
    assert keeping(raw, decode(raw), shown(raw)) is None
    more = {**shown(raw), "new": 1}
    assert bytes(keeping(raw, decode(raw), more).raw) == stored({**decode(raw), "new": 1})


@given(DOCUMENTS, DOCUMENTS)
def test_the_outcome_reads_as_what_was_sent(before, after):
    raw, sent = stored(before), shown(stored(after))
    made = keeping(raw, decode(raw), sent)
    outcome = raw if made is None else bytes(made.raw)
    assert keeping(outcome, decode(outcome), sent) is None
    assert made is None or list(decode(outcome)) == list(sent)


@pytest.mark.parametrize(
    ("before", "sent", "after"),
    [
        ({"a": Int64(5), "b": 1}, {"b": 2, "a": 5}, {"b": 2, "a": Int64(5)}),
        ({"a": {"b": Int64(5), "c": 1}}, {"a": {"b": 5, "c": 2}}, {"a": {"b": Int64(5), "c": 2}}),
        ({"a": [Int64(5), 1]}, {"a": [5, 2, 3]}, {"a": [Int64(5), 2, 3]}),
        ({"a": [1, Int64(5)]}, {"a": [1]}, {"a": [1]}),
        ({"a": Int64(5)}, {"a": 6}, {"a": 6}),
        ({"a": Int64(5)}, {"a": "5"}, {"a": "5"}),
        ({"a": Int64(5)}, {"c": 5}, {"c": 5}),
        ({"a": {"b": Int64(1)}}, {"a": [1]}, {"a": [1]}),
    ],
)
def test_each_value_is_kept_where_it_is_and_nowhere_else(before, sent, after):
    raw = stored(before)
    assert bytes(keeping(raw, decode(raw), sent).raw) == stored(after)


def test_however_deep_a_value_is_it_is_looked_at_once():
    value = [Decimal128(f"{number}.{number % 89 + 11}") for number in range(3_800)]

    def within(levels):
        document = {"a": value, "n": 0}
        for _ in range(levels):
            document = {"x": document, "y": 1}
        return stored(document)

    def cost(raw):
        sent = shown(raw.replace(b"\x10n\0\0", b"\x10n\0\x01"))
        current = decode(raw)
        spent = []
        for _ in range(5):
            began = time.thread_time()
            assert keeping(raw, current, sent) is not None
            spent.append(time.thread_time() - began)
        return min(spent)

    assert cost(within(28)) < 3 * cost(within(1))
