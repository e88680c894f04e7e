from __future__ import annotations

import pytest
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from livedocs.changes import cursor
from livedocs.errors import InvalidCursor

TIMES = st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
# Tokens as mongod 6.0 makes them: two events of one transaction, an event behind it, an idle position.
FIRST = "826B0487B2000000082B022C0100296E5A10047C0DE21E45CC4DD8B7A8E72EFEA0FE84465A5F6964005A10041C50040004"
SECOND = "826B0487B2000000082B022C01002B026E5A10040E71C96DB0594DBA8BA44855686C5B0A46645F696400646B04870004"
LATER = "826B0487B20000000A2B022C0100296E5A10040E71C96DB0594DBA8BA44855686C5B0A04"


def test_tokens_and_positions_sort_in_stream_order():
    at = Timestamp(0x6B0487B2, 8)
    order = [cursor.before(at), FIRST, SECOND, cursor.after(at), cursor.before(Timestamp(0x6B0487B2, 9)), LATER]
    assert order == sorted(order)
    assert [cursor.cluster_time(token) for token in (FIRST, SECOND)] == [at, at]


@given(TIMES, TIMES)
def test_positions_sort_as_their_times_do(one, other):
    assert (one < other) == (cursor.after(one) < cursor.before(other))
    assert cursor.before(one) < cursor.after(one)
    assert cursor.cluster_time(cursor.after(one)) == one


@given(TIMES)
def test_a_position_is_a_cursor_like_any_other(at):
    assert cursor.parse(cursor.after(at)) == cursor.after(at)


@pytest.mark.parametrize(
    "text",
    [None, 5, "", "x", "82", "83" + "0" * 16, "82" + "0" * 15, FIRST.lower(), FIRST + "\n", " " + FIRST, {}]
    + ["82" + "0" * 16 + "G", "82" + "0" * 6000],
)
def test_what_was_never_given_out_is_refused(text):
    with pytest.raises(InvalidCursor):
        cursor.parse(text)
