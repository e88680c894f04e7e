from __future__ import annotations

from datetime import UTC, datetime, timedelta

from livedocs.access.ttl_cache import TtlCache

START = datetime(2030, 1, 1, tzinfo=UTC)
SOON = START + timedelta(seconds=10)


def test_a_value_is_gone_at_its_end():
    memory = TtlCache(5)
    memory.put("a", 1, SOON)
    assert memory.get("a", SOON - timedelta(microseconds=1)) == 1
    assert memory.get("a", SOON) is None
    assert len(memory) == 0


def test_the_least_recently_used_goes_first_when_it_is_full():
    memory = TtlCache(2)
    memory.put("a", 1, SOON)
    memory.put("b", 2, SOON)
    memory.get("a", START)
    memory.put("c", 3, SOON)
    assert [memory.get(key, START) for key in "abc"] == [1, None, 3]


def test_a_new_value_takes_the_place_of_the_old_one():
    memory = TtlCache(2)
    memory.put("a", 1, START)
    memory.put("a", 2, SOON)
    assert memory.get("a", START) == 2
    assert len(memory) == 1


def test_what_is_dropped_is_gone():
    memory = TtlCache(2)
    memory.put("a", 1, SOON)
    memory.drop("a")
    memory.drop("a")
    assert memory.get("a", START) is None
