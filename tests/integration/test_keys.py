"""The sealing keys in a real control database: made once, followed in time, never changed."""

from __future__ import annotations

import asyncio

import pytest
from bson.timestamp import Timestamp

from livedocs.changes import cursor
from livedocs.changes.cursor import Cursors
from livedocs.changes.keyring import Keyring
from livedocs.errors import Unavailable
from livedocs.model import KEY_LEAD
from livedocs.store import keys as stored_keys
from livedocs.store import migrate
from livedocs.store.connection import KEYS, connect
from livedocs.store.keys import Keys


@pytest.fixture
async def client(deployment):
    client = connect(deployment.settings())
    yield client
    await client.close()


@pytest.fixture
async def keys(deployment, client):
    await client[deployment.control_database][KEYS].delete_many({})
    return Keys(client, deployment.control_database)


async def test_of_many_processes_that_start_at_once_all_have_the_one_key(deployment, keys, client):
    read = await asyncio.gather(*(Keys(client, deployment.control_database).current() for _ in range(20)))
    assert {len(one.keys) for one in read} == {1}
    assert len({one.keys[0].secret for one in read}) == 1
    assert read[0].keys[0].begins == 0
    assert len(read[0].keys[0].secret) == 32


async def test_the_next_key_begins_well_behind_its_commit(keys):
    first = await keys.current()
    await keys.rotate(first)
    second = await keys.read()
    while len(second.keys) < 2:
        second = await keys.read()
    assert [key.number for key in second.keys] == [0, 1]
    assert second.keys[0] == first.keys[0]
    assert second.keys[1].begins - first.at.time >= 2 * KEY_LEAD
    assert second.keys[1].begins - second.at.time > KEY_LEAD


async def test_of_many_that_rotate_at_once_one_makes_the_key(keys):
    first = await keys.current()
    await asyncio.gather(*(keys.rotate(first) for _ in range(20)))
    read = await keys.read()
    while len(read.keys) < 2:
        read = await keys.read()
    assert [key.number for key in read.keys] == [0, 1]


async def test_a_key_that_is_old_is_followed_by_itself_and_in_the_end_deleted(
    deployment, keys, client, monkeypatch
):
    await keys.current()
    monkeypatch.setattr(stored_keys, "PERIOD", -1)
    with pytest.raises(Unavailable):
        # Each time it looks, the newest is old again: three keys come of it.
        monkeypatch.setattr(stored_keys, "_ATTEMPTS", 3)
        await keys.current()
    read = await keys.read()
    assert [key.number for key in read.keys][:3] == [0, 1, 2]
    assert [key.begins for key in read.keys] == sorted(key.begins for key in read.keys)
    monkeypatch.setattr(stored_keys, "_KEPT", -(10**6))
    await keys.rotate(read)
    left = [one["_id"] async for one in client[deployment.control_database][KEYS].find()]
    assert 0 not in left


async def test_two_processes_seal_alike_whatever_they_know_of_a_rotation(keys):
    before, behind = Keyring(keys.current), Keyring(keys.current)
    await before.cover(Timestamp(0, 0))
    read = await keys.read()
    await keys.rotate(read)
    while len((await keys.read()).keys) < 2:
        pass
    await behind.cover(Timestamp(0, 0))
    now = read.at.time
    for second in (now, now + KEY_LEAD // 2, now + KEY_LEAD - 10):
        position = cursor.after(Timestamp(second, 1))
        assert Cursors(before).seal(position) == Cursors(behind).seal(position)
    begins = (await keys.read()).keys[1].begins
    with pytest.raises(Unavailable):
        Cursors(before).seal(cursor.after(Timestamp(begins, 1)))


def test_going_back_behind_the_keys_and_forward_again_is_a_new_beginning(deployment):
    settings = deployment.settings()
    undone = migrate.run(settings, "0005_owners")
    assert "0006_keys" in undone
    assert migrate.run(settings) == undone[::-1]
