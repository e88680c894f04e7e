"""The ring against a model of it: a plain list of everything, cut where the floor says."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from livedocs.changes import cursor
from livedocs.changes.event import DocumentChange, GrantChange, RoomKey
from livedocs.changes.history import History

WALL = datetime(2030, 1, 1, tzinfo=UTC)
BEGIN = 1_000_000
ROOMS = [RoomKey(tenant, UUID(int=number)) for tenant in ("acme", "globex") for number in (1, 2)]


def token(time, number):
    return f"{cursor.before(Timestamp(time, 1))}2B{number:06X}"


def document(time, number, room=ROOMS[0], size=0):
    at = Timestamp(time, 1)
    return DocumentChange(token(time, number), at, room, "notes", "_id", "update", WALL, None, b"x" * size)


def grant(time, number, room=ROOMS[0]):
    return GrantChange(token(time, number), Timestamp(time, 1), room, "user:a", None, None, WALL)


def history(window=100, max_bytes=2**20):
    ring = History(window=window, max_bytes=max_bytes)
    ring.restart(cursor.before(Timestamp(BEGIN, 0)))
    return ring


def test_what_lies_behind_a_cursor_comes_back_in_order_and_of_that_room_only():
    ring = history()
    changes = [(grant if number % 3 else document)(BEGIN, number, ROOMS[number % 2]) for number in range(10)]
    for change in changes:
        ring.append(change)
    assert ring.since(ROOMS[0], changes[3].token) == [change for change in changes[4:] if change.room == ROOMS[0]]
    assert ring.since(ROOMS[1], "") == [change for change in changes if change.room == ROOMS[1]]
    assert ring.since(ROOMS[2], "") == []
    assert ring.since(ROOMS[0], changes[-1].token) == []


def test_a_cursor_itself_is_not_behind_it():
    ring = history()
    change = document(BEGIN, 1)
    ring.append(change)
    assert ring.since(ROOMS[0], change.token) == []
    assert ring.since(ROOMS[0], change.token[:-1]) == [change]


def test_the_window_is_counted_in_cluster_time():
    ring = history(window=10)
    old, young = document(BEGIN, 1), document(BEGIN + 1, 2)
    ring.append(old)
    ring.append(young)
    ring.advance(cursor.after(Timestamp(BEGIN + 10, 5)))
    assert ring.count == 2
    ring.advance(cursor.after(Timestamp(BEGIN + 11, 0)))
    assert ring.since(ROOMS[0], "") == [young]
    assert not ring.covers(cursor.before(old.at), "acme")
    assert ring.seconds == 10
    assert ring.covers(cursor.before(young.at), "acme")


def test_too_many_bytes_cut_it_short_from_the_oldest_on():
    changes = [document(BEGIN, number, size=600) for number in range(5)]
    ring = history(max_bytes=3 * changes[0].size)
    for change in changes:
        ring.append(change)
    ring.advance(changes[-1].token)
    assert ring.since(ROOMS[0], "") == changes[2:]
    assert ring.bytes == sum(change.size for change in changes[2:])
    assert ring.covers(changes[1].token, "acme")
    assert not ring.covers(changes[0].token, "acme")


def test_a_position_goes_only_forwards():
    ring = history()
    ring.advance(cursor.after(Timestamp(BEGIN + 5, 0)))
    ring.advance(cursor.after(Timestamp(BEGIN + 1, 0)))
    assert ring.position == cursor.after(Timestamp(BEGIN + 5, 0))
    assert ring.seconds == 5


def test_a_cluster_time_has_passed_only_when_nothing_of_it_can_follow():
    ring = history()
    change = document(BEGIN, 1)
    ring.append(change)
    assert not ring.passed(change.at)
    ring.advance(cursor.after(change.at))
    assert ring.passed(change.at)


def test_a_restart_forgets_everything_and_covers_nothing_before_it():
    ring = history()
    ring.append(document(BEGIN, 1))
    ring.break_off(token(BEGIN, 2), "acme")
    floor = cursor.after(Timestamp(BEGIN + 9, 1))
    ring.restart(floor)
    assert (ring.count, ring.bytes, ring.floor, ring.position) == (0, 0, floor, floor)
    assert ring.since(ROOMS[0], "") == []
    assert ring.covers(floor, "acme")
    assert not ring.covers(token(BEGIN + 9, 1), "acme")


def test_a_break_in_one_tenant_is_none_in_another():
    ring = history()
    first, gone = token(BEGIN, 1), token(BEGIN, 2)
    ring.break_off(gone, "acme")
    assert not ring.covers(first, "acme")
    assert ring.covers(gone, "acme")
    assert ring.covers(first, "globex")
    ring.break_off(gone, None)
    assert not ring.covers(first, "globex")
    assert ring.position_of("acme") == gone > ring.position_of("globex")


def test_rooms_without_changes_are_not_kept():
    ring = history(window=1)
    for number in range(200):
        ring.append(document(BEGIN, number, RoomKey("acme", UUID(int=number))))
    ring.advance(cursor.after(Timestamp(BEGIN + 5, 0)))
    assert list(ring.rooms()) == []
    assert ring.bytes == 0


def test_a_busy_room_does_not_keep_what_was_given_up():
    ring = history(window=10)
    for number in range(2000):
        ring.append(document(BEGIN + number, number))
        ring.advance(token(BEGIN + number, number))
        assert len(ring._lanes[ROOMS[0]].items) < 100
    assert [change.at.time - BEGIN for change in ring.since(ROOMS[0], "")] == list(range(1989, 2000))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sampled_from(ROOMS), st.integers(0, 3), st.integers(0, 400)),
        st.tuples(st.just("advance"), st.none(), st.integers(0, 12), st.none()),
        st.tuples(st.just("restart"), st.none(), st.integers(0, 2), st.none()),
        st.tuples(st.just("break"), st.sampled_from(["acme", "globex", None]), st.just(0), st.none()),
    ),
    max_size=60,
)


@given(STEPS, st.integers(2, 20), st.integers(1000, 12000))
def test_it_never_claims_what_it_has_not(steps, window, max_bytes):
    """Whatever happens: what `covers` promises, `since` gives, whole and in order."""
    ring = history(window, max_bytes)
    everything, lost, now, positions = [], [], BEGIN, [ring.floor]
    for number, (kind, what, elapsed, size) in enumerate(steps):
        now += elapsed
        if kind == "change":
            change = document(now, number, what, size) if size % 2 else grant(now, number, what)
            everything.append(change)
            ring.append(change)
            assert ring.bytes <= max_bytes
            positions.append(change.token)
        elif kind == "advance":
            ring.advance(cursor.after(Timestamp(now, 1)))
            assert ring.bytes <= max_bytes
            positions.append(ring.position)
        elif kind == "restart":
            now += 1
            lost.append((cursor.before(Timestamp(now, 0)), None))
            ring.restart(lost[-1][0])
        else:
            lost.append((token(now, number), what))
            ring.break_off(*lost[-1])
        for change in everything[-1:]:
            assert ring.position_of(change.room.tenant) >= change.token
        for room in ROOMS:
            for since in (*positions, "82" + "F" * 16):
                complete = [change for change in everything if change.room == room and change.token > since]
                kept = ring.since(room, since)
                assert kept == complete[len(complete) - len(kept) :]
                if ring.covers(since, room.tenant):
                    assert kept == complete
                    assert not any(since < at and tenant in {None, room.tenant} for at, tenant in lost)
    assert ring.count == sum(len(ring.since(room, "")) for room in ROOMS)
    assert ring.bytes == sum(change.size for room in ROOMS for change in ring.since(room, ""))
