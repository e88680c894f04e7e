"""Positions and the cursors made of them: one order, one key for a position, nothing to be made up or read."""

from __future__ import annotations

from uuid import UUID

import pytest
from bson.objectid import ObjectId
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from livedocs.changes import cursor
from livedocs.changes.cursor import Cursors
from livedocs.changes.keyring import Keyring
from livedocs.errors import InvalidCursor, Unavailable
from livedocs.model import KEY_LEAD, SealingKey, SealingKeys

TIMES = st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
AT = Timestamp(0x6B0487B2, 8)
# Tokens as mongod 6.0 makes them: two events of one transaction, an event behind it, an idle position.
FIRST = "826B0487B2000000082B022C0100296E5A10047C0DE21E45CC4DD8B7A8E72EFEA0FE84465A5F6964005A10041C50040004"
SECOND = "826B0487B2000000082B022C01002B026E5A10040E71C96DB0594DBA8BA44855686C5B0A46645F696400646B04870004"
LATER = "826B0487B20000000A2B022C0100296E5A10040E71C96DB0594DBA8BA44855686C5B0A04"
IDLE = "826B0487B20000000A2B0229296E04"
DOCUMENT, COLLECTION = UUID(int=0x11223344556677889900AABBCCDDEEFF), UUID("7c0de21e-45cc-4dd8-b7a8-e72efea0fe84")


def integer(value: int) -> str:
    """A KeyString of a number that is not negative."""
    if value == 0:
        return "29"
    digits = f"{2 * value:X}"
    digits = digits.zfill(len(digits) + len(digits) % 2)
    return f"{0x2A + len(digits) // 2:02X}{digits}"


def token(
    at: Timestamp, index: int, key: bytes = DOCUMENT.bytes, *, version: int = 1, uuid: UUID = COLLECTION
) -> str:
    rest = f"6E5A1004{uuid.hex.upper()}465A5F6964005A{len(key):02X}04{key.hex().upper()}0004"
    return cursor.before(at) + integer(version) + integer(128) + integer(index) + rest


async def keyring(*keys: tuple[int, bytes], at: int = 2**32 - 1) -> Keyring:
    """What has read these keys, by their beginnings, as of that cluster time."""

    async def load() -> SealingKeys:
        stored = [SealingKey(number, begins, begins, secret) for number, (begins, secret) in enumerate(keys)]
        return SealingKeys(stored, Timestamp(at, 1))

    ring = Keyring(load)
    await ring.cover(Timestamp(0, 0))
    return ring


@pytest.fixture(scope="module")
def cursors() -> Cursors:
    return made((0, b"a" * 32))


def made(*keys: tuple[int, bytes], at: int = 2**32 - 1) -> Cursors:
    """Without a loop: nothing in it waits."""
    making = keyring(*keys, at=at)
    try:
        making.send(None)
    except StopIteration as done:
        return Cursors(done.value)
    raise AssertionError


POSITIONS = st.one_of(
    st.builds(cursor.before, TIMES),
    st.builds(cursor.after, TIMES),
    st.builds(
        token, TIMES, st.integers(0, 2**20), st.binary(min_size=1, max_size=80), version=st.sampled_from([1, 2])
    ),
    TIMES.map(lambda at: cursor.before(at) + "2B0229296E04"),
)
# Positions that are close together: of few cluster times, of transactions, with different documents.
NEIGHBOURS = st.one_of(
    st.builds(cursor.before, st.sampled_from([AT, Timestamp(AT.time, 9)])),
    st.builds(cursor.after, st.sampled_from([AT, Timestamp(AT.time, 9)])),
    st.builds(token, st.sampled_from([AT, Timestamp(AT.time, 9)]), st.integers(0, 300), st.binary(min_size=1)),
)


def test_tokens_and_positions_sort_in_stream_order():
    order = [cursor.before(AT), FIRST, SECOND, cursor.after(AT), cursor.before(Timestamp(AT.time, 9)), IDLE, LATER]
    assert order == sorted(order)
    assert [cursor.cluster_time(position) for position in (FIRST, SECOND)] == [AT, AT]


def test_cursors_sort_in_stream_order(cursors):
    order = [cursor.before(AT), FIRST, SECOND, cursor.after(AT), cursor.before(Timestamp(AT.time, 9)), IDLE, LATER]
    sealed = [cursors.seal(position) for position in order]
    assert sealed == sorted(sealed)


@given(TIMES, TIMES)
def test_positions_sort_as_their_times_do(one, other):
    assert (one < other) == (cursor.after(one) < cursor.before(other))
    assert cursor.before(one) < cursor.after(one)
    assert cursor.cluster_time(cursor.after(one)) == one


@given(NEIGHBOURS, NEIGHBOURS)
def test_sealing_keeps_the_order(cursors, one, other):
    if not cursor.tied(one, other):
        assert (one < other) == (cursors.seal(one) < cursors.seal(other))


@given(POSITIONS)
def test_a_cursor_is_opened_to_its_position(cursors, position):
    sealed = cursors.seal(position)
    opened = cursors.open(sealed)
    if opened != position:
        # What is too long is cut: behind the very event, ahead of whatever has another time or index.
        assert opened.startswith(position[:100])
        assert position < opened < cursor.after(cursor.cluster_time(position))
    assert cursors.seal(opened) == sealed
    assert len(sealed) <= cursor.MOST_CHARACTERS


def test_an_event_of_a_large_key_has_a_cursor_like_any_other(cursors):
    small, large = token(AT, 3, b"k"), cursor.before(AT) + "2B022C01002B066E5A1004" + "AB" * 200_000
    assert len(cursors.seal(large)) == len(cursors.seal(small))
    assert large < cursors.open(cursors.seal(large)) < token(AT, 4)


def test_a_cursor_reveals_nothing_of_the_document():
    cursors, oid = made((0, b"a" * 32)), ObjectId("507f1f77bcf86cd799439011")
    of_object = (
        cursor.before(AT) + f"2B022C0100296E5A1004{COLLECTION.hex.upper()}46645F696400" + f"64{oid}".upper()
    )
    for position in (token(AT, 0), of_object):
        sealed = cursors.seal(position)
        raw = sealed.encode() + cursor.urlsafe_b64decode(sealed.partition("-")[2])
        for secret in (DOCUMENT.bytes, COLLECTION.bytes, oid.binary, b"_id"):
            for start in range(len(secret) - 2):
                piece = secret[start : start + 3]
                assert piece not in raw
                assert piece.hex().upper() not in sealed


# --- what was never given out ---


@given(POSITIONS, st.data())
def test_no_bit_of_a_cursor_can_be_changed(cursors, position, data):
    sealed = cursors.seal(position)
    place = data.draw(st.integers(0, len(sealed) - 1))
    other = chr(ord(sealed[place]) ^ (1 << data.draw(st.integers(0, 6))))
    with pytest.raises(InvalidCursor):
        cursors.open(sealed[:place] + other + sealed[place + 1 :])


@pytest.mark.parametrize(
    "text",
    [None, 5, "", "x", "82", FIRST, "826B0487B200000001FF", "82" + "0" * 16, cursor.after(AT), {}]
    + ["a" + "0" * 16 + "-" + "A" * 88, "a" + "0" * 16 + "FF-" + "A" * 88, "a" * 6000, "a" + "0" * 16],
)
def test_what_was_never_given_out_is_refused(cursors, text):
    with pytest.raises(InvalidCursor):
        cursors.open(text)


def test_a_cursor_with_something_around_it_is_refused(cursors):
    sealed = cursors.seal(FIRST)
    for text in (sealed + "\n", " " + sealed, sealed + "=", sealed + "AAAA", sealed[:-4], sealed.swapcase()):
        with pytest.raises(InvalidCursor):
            cursors.open(text)


def test_the_sealed_part_of_one_position_is_not_another_ones(cursors):
    sealed = cursors.seal(cursor.after(AT)).partition("-")[2]
    for position in (cursor.after(Timestamp(AT.time - 60, 1)), cursor.before(AT), token(AT, 1)):
        with pytest.raises(InvalidCursor):
            cursors.open(f"{cursors.seal(position).partition('-')[0]}-{sealed}")


def test_the_cursor_of_another_deployment_is_refused(cursors):
    with pytest.raises(InvalidCursor):
        cursors.open(made((0, b"b" * 32)).seal(FIRST))


# --- keys ---


def test_two_processes_make_the_same_cursor_before_and_after_they_know_of_a_rotation():
    behind = made((0, b"a" * 32), at=AT.time)
    ahead = made((0, b"a" * 32), (AT.time + KEY_LEAD + 1, b"b" * 32), at=AT.time + 1)
    for position in (token(AT, 0), cursor.after(Timestamp(AT.time + KEY_LEAD, 1))):
        assert behind.seal(position) == ahead.seal(position)


def test_a_rotation_between_two_events_keeps_their_order_and_opens_both():
    cursors = made((0, b"a" * 32), (AT.time + 1, b"b" * 32))
    events = [token(AT, 0), token(Timestamp(AT.time + 1, 1), 0)]
    sealed = [cursors.seal(event) for event in events]
    assert sealed == sorted(sealed)
    assert [cursors.open(one) for one in sealed] == events
    assert made((0, b"a" * 32)).seal(events[1]) != sealed[1]


def test_no_cursor_is_made_at_a_time_for_which_a_key_may_be_unknown():
    cursors = made((0, b"a" * 32), at=AT.time)
    cursors.seal(cursor.after(Timestamp(AT.time + KEY_LEAD, 1)))
    with pytest.raises(Unavailable):
        cursors.seal(cursor.after(Timestamp(AT.time + KEY_LEAD + 1, 1)))


def test_a_cursor_whose_key_is_gone_lies_before_everything():
    old = made((0, b"a" * 32)).seal(token(AT, 0))
    assert made((AT.time + 1, b"b" * 32)).open(old) == cursor.before(Timestamp(0, 0))


# --- a sharded cluster ---


def test_events_of_two_shards_at_one_time_and_index_are_tied():
    one, other = token(AT, 1), token(AT, 1, uuid=UUID(int=7))
    assert cursor.tied(one, other)
    assert not cursor.tied(one, token(AT, 2))
    assert not cursor.tied(one, token(Timestamp(AT.time, 9), 1))
    assert not cursor.tied(one, cursor.after(AT))
    assert not cursor.tied(cursor.before(AT), cursor.after(AT))
