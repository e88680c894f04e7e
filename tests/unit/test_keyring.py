"""When a process may use the keys it knows."""

from __future__ import annotations

import asyncio

import pytest
from bson.timestamp import Timestamp

from livedocs.changes import keyring as keyrings
from livedocs.changes.keyring import Keyring
from livedocs.errors import Unavailable
from livedocs.model import KEY_LEAD, SealingKey, SealingKeys

FIRST, SECOND = SealingKey(0, 0, 100, b"a" * 32), SealingKey(1, 2000, 800, b"b" * 32)


class Stored:
    """What is in the database, as of a cluster time; None: it cannot be read."""

    def __init__(self, at, *keys):
        self.read = SealingKeys(keys, Timestamp(at, 1))
        self.count = 0

    async def __call__(self):
        self.count += 1
        if self.read is None:
            raise Unavailable
        return self.read


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(keyrings, "_RETRY", 0)


async def test_before_the_first_reading_nothing_is_sealed():
    with pytest.raises(Unavailable):
        Keyring(Stored(100, FIRST)).at(50)


async def test_who_needs_a_later_time_waits_until_the_keys_have_been_read_as_of_then():
    stored = Stored(1000, FIRST)
    ring = Keyring(stored)
    await ring.cover(Timestamp(1000 + KEY_LEAD, 9))
    assert stored.count == 1
    stored.read = None
    waiting = asyncio.create_task(ring.cover(Timestamp(2000, 1)))
    while stored.count < 3:
        await asyncio.sleep(0)
    assert not waiting.done()
    stored.read = SealingKeys([FIRST, SECOND], Timestamp(2000, 1))
    await waiting
    assert (ring.at(1999).begins, ring.at(2000).begins) == (0, 2000)


async def test_many_who_wait_read_once():
    stored = Stored(1000, FIRST)
    ring = Keyring(stored)
    await asyncio.gather(*(ring.cover(Timestamp(1000, n)) for n in range(20)))
    assert stored.count == 1


@pytest.mark.parametrize(
    "later",
    [[SealingKey(0, 0, 100, b"c" * 32)], [FIRST, SealingKey(1, 2000, 800, b"c" * 32)], [], [FIRST]],
    ids=["all replaced", "one replaced", "gone", "the newest gone"],
)
async def test_keys_that_are_suddenly_others_are_not_taken(later):
    stored = Stored(1500, FIRST, SECOND)
    ring = Keyring(stored)
    await ring.cover(Timestamp(2000, 1))
    known = ring.at(2000)
    stored.read = SealingKeys(later, Timestamp(9000, 1))
    waiting = asyncio.create_task(ring.cover(Timestamp(3000, 1)))
    while stored.count < 3:
        await asyncio.sleep(0)
    assert not waiting.done()
    assert ring.at(2000) is known
    waiting.cancel()


async def test_an_old_key_may_go():
    stored = Stored(1500, FIRST, SECOND)
    ring = Keyring(stored)
    await ring.cover(Timestamp(1500, 1))
    stored.read = SealingKeys([SECOND], Timestamp(9000, 1))
    await ring.cover(Timestamp(9000, 1))
    assert ring.claimed(1999) is None
    assert ring.at(9000).begins == 2000


def test_a_key_does_not_show_its_secret():
    assert "aaa" not in repr(FIRST)
