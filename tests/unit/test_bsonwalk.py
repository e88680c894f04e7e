"""Elements are counted exactly, and what is no BSON is refused."""

from __future__ import annotations

import struct

import bson
import pytest
from bson import Code, Int64, Regex
from bson.errors import InvalidBSON
from hypothesis import given
from hypothesis import strategies as st

from livedocs.codec.bsondecode import decode_slowly
from livedocs.codec.bsonwalk import has_more_elements, most_elements

names = st.text("ab", max_size=2)
values = st.recursive(
    st.sampled_from([None, True, 1, Int64(1), 1.5, "", "text", b"", b"x", Regex("a", "i"), Code("x")]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names, inner, max_size=2)
        | st.builds(Code, names, st.dictionaries(names, inner, max_size=2))
    ),
    max_leaves=8,
)


def elements_in(value):
    if isinstance(value, Code):
        value = value.scope or {}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(1 + elements_in(item) for item in inner)


@given(st.dictionaries(names, values, min_size=1, max_size=3))
def test_every_field_and_item_is_counted_once(document):
    raw, count = bson.encode(document), elements_in(document)
    assert not has_more_elements(raw, count)
    assert has_more_elements(raw, count - 1)
    assert most_elements(raw) >= count


@given(st.binary(max_size=60))
def test_what_cannot_be_decoded_cannot_be_counted(noise):
    for raw in (noise, struct.pack("<i", len(noise) + 5) + noise + b"\0"):
        try:
            decode_slowly(raw)
        except InvalidBSON:
            with pytest.raises(InvalidBSON):
                has_more_elements(raw, 100)
        else:
            assert not has_more_elements(raw, 100)
