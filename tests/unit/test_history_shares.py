"""The history's bytes are shared by tenants: who floods it shortens their own window, and nobody else's."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from uuid import UUID

from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from livedocs.changes import cursor
from livedocs.changes.event import DocumentChange, RoomKey
from livedocs.changes.history import History

WALL = datetime(2030, 1, 1, tzinfo=UTC)
BEGIN = 1_000_000
ORIGIN = cursor.before(Timestamp(BEGIN, 0))


def token(seconds, number):
    return f"{cursor.before(Timestamp(BEGIN + seconds, 1))}2B{number:08X}"


def change(tenant, number, *, seconds=0, size=0, room=1):
    at = Timestamp(BEGIN + seconds, 1)
    key = RoomKey(tenant, UUID(int=room))
    return DocumentChange(token(seconds, number), at, key, "notes", "_id", "update", WALL, None, b"x" * size)


def history(*, window=300, max_bytes=2**20):
    ring = History(window=window, max_bytes=max_bytes)
    ring.restart(ORIGIN)
    return ring


def test_a_flood_in_one_tenant_leaves_the_windows_of_the_others_as_they_were():
    ring = history()
    quiet = [change("globex", number) for number in range(50)]
    for one in quiet:
        ring.append(one)
    for number in range(1000, 2000):
        ring.append(change("acme", number, seconds=90, size=50_000))
    ring.advance(token(91, 9999))
    assert ring.bytes <= 2**20
    assert ring.covers(ORIGIN, "globex")
    assert ring.since(quiet[0].room, ORIGIN) == quiet
    assert not ring.covers(token(90, 1500), "acme")
    assert ring.covers(token(90, 1990), "acme")


def test_a_flood_of_one_tenant_does_not_keep_a_newcomer_out():
    ring = history()
    for number in range(100):
        ring.append(change("acme", number, size=50_000))
    late = [change("globex", 1000 + number, seconds=1, size=10_000) for number in range(40)]
    for one in late:
        ring.append(one)
    assert ring.since(late[0].room, ORIGIN) == late
    assert ring.covers(ORIGIN, "globex")


def test_an_event_larger_than_everything_is_its_own_tenants_matter():
    ring = history()
    ring.append(change("globex", 1))
    ring.append(change("acme", 2))
    ring.append(change("acme", 3, size=3 * 2**20))
    assert ring.covers(ORIGIN, "globex")
    assert not ring.covers(token(0, 2), "acme")
    assert ring.covers(token(0, 3), "acme")
    assert ring.count == 1


def test_a_batch_of_large_events_is_bounded_before_its_end():
    ring = history()
    for number in range(100):
        ring.append(change("acme", number, size=2 * 2**20))
        assert ring.bytes <= 2**20


def test_two_that_flood_share_what_the_others_leave():
    ring = history()
    small = change("globex", 0, size=100_000)
    ring.append(small)
    for number in range(1, 400):
        ring.append(change("acme" if number % 3 else "initech", number, size=10_000))
    held = Counter()
    for tenant in ("acme", "initech"):
        held[tenant] = sum(one.size for one in ring.since(RoomKey(tenant, UUID(int=1)), ""))
    assert ring.covers(ORIGIN, "globex")
    assert abs(held["acme"] - held["initech"]) <= 2 * small.size
    assert sum(held.values()) + small.size > 2**20 - small.size


def test_a_shortened_window_is_as_long_again_when_the_flood_is_over():
    ring = history(window=10)
    for number in range(100):
        ring.append(change("acme", number, size=50_000))
    ring.advance(token(1, 0))
    assert (ring.shortened, ring.shortest, ring.seconds) == (1, 1, 1)
    ring.append(change("acme", 101, seconds=11))
    ring.advance(token(20, 0))
    assert (ring.shortened, ring.shortest, ring.seconds) == (0, 10, 10)
    assert ring.covers(cursor.before(Timestamp(BEGIN + 10, 0)), "acme")


def test_the_shortest_window_is_told_beside_that_of_the_others():
    ring = history(window=100)
    ring.append(change("globex", 0))
    for number in range(1, 100):
        ring.append(change("acme", number, seconds=number, size=200_000))
    ring.advance(token(99, 100))
    assert (ring.seconds, ring.shortened) == (99, 1)
    assert 0 < ring.shortest < 10


def test_tenants_that_have_gone_quiet_are_forgotten():
    ring = history(window=10)
    for number in range(1000):
        ring.append(change(f"tenant-{number}", number, size=5000))
        ring.break_off(token(0, number), f"dropped-{number}")
    ring.advance(token(11, 0))
    assert (ring.count, ring.bytes, ring.shortened) == (0, 0, 0)
    assert (len(ring._shares), len(ring._due), len(ring._largest._grown)) == (0, 0, 0)


def test_what_an_event_costs_does_not_grow_with_the_number_of_tenants():
    def cost(tenants):
        ring = history(max_bytes=4 * 2**20)
        events = [
            change(f"t{number % tenants}", number, size=200, room=number % tenants) for number in range(30_000)
        ]
        begin = time.process_time()
        for one in events:
            ring.append(one)
        ring.advance(events[-1].token)
        return time.process_time() - begin

    few, many = min(cost(10) for _ in range(3)), min(cost(10_000) for _ in range(3))
    assert many < 10 * few


TENANTS = ["acme", "globex", "initech"]
STEPS = st.lists(
    st.tuples(st.sampled_from(TENANTS), st.integers(1, 3), st.integers(0, 2), st.integers(0, 3000)), max_size=80
)


class Model:
    """The same by brute force: one list, and the oldest of whoever holds most given up."""

    def __init__(self, window, max_bytes):
        self.window, self.max_bytes, self.kept, self.given_up = window, max_bytes, [], Counter()

    def append(self, one):
        self.kept.append(one)
        while sum(kept.size for kept in self.kept) > self.max_bytes:
            held = Counter()
            for kept in self.kept:
                held[kept.room.tenant] += kept.size
            most = min(held, key=lambda tenant: (-held[tenant], tenant))
            self.given_up[most] += 1
            self.kept.remove(next(kept for kept in self.kept if kept.room.tenant == most))

    def advance(self, seconds):
        self.kept = [kept for kept in self.kept if kept.at.time >= seconds - self.window]


@given(STEPS, st.integers(2, 20), st.integers(3000, 30_000))
def test_whoever_holds_no_more_than_a_fair_share_loses_nothing(steps, window, max_bytes):
    ring, model, now = history(window=window, max_bytes=max_bytes), Model(window, max_bytes), BEGIN
    written = Counter()
    for number, (tenant, room, elapsed, size) in enumerate(steps):
        now += elapsed
        one = change(tenant, number, seconds=now - BEGIN, size=size, room=room)
        written[tenant] += one.size
        ring.append(one)
        model.append(one)
        if elapsed:
            ring.advance(one.token)
            model.advance(now)
        rooms = {kept.room for kept in model.kept}
        assert set(ring.rooms()) == rooms
        for key in rooms:
            assert ring.since(key, "") == [kept for kept in model.kept if kept.room == key]
        assert (ring.count, ring.bytes) == (len(model.kept), sum(kept.size for kept in model.kept))
        for name in TENANTS:
            if written[name] <= max_bytes / len(TENANTS):
                assert ring.covers(ring.floor, name)
            if model.given_up[name] == 0:
                assert ring.covers(ring.floor, name)
