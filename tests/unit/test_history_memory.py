"""What the history says it holds is what it holds: its bound is one of real memory."""

from __future__ import annotations

import gc
import os
import tracemalloc
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from bson.timestamp import Timestamp

from livedocs.changes import cursor
from livedocs.changes.event import DocumentChange, GrantChange, RoomKey
from livedocs.changes.history import History
from livedocs.model import Grant, GrantKey, Role

BEGIN = 1_000_000
COUNT = 5_000


def token(number):
    # As long as those of documents with a UUID for an `_id`.
    return f"{cursor.before(Timestamp(BEGIN, number + 1))}2B{'AB' * 52}{number:08X}"


def room(number):
    return RoomKey(f"tenant-{number % 20}", UUID(bytes=os.urandom(16)))


def moment(number):
    return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=number)


def document(number):
    at, raw = Timestamp(BEGIN, number + 1), os.urandom(300)
    return DocumentChange(
        token(number), at, room(number), "notes", "_id", "update", moment(number), f"{number:080}", raw
    )


def grant(number):
    where, subject, at = room(number), f"user:{number:030}", Timestamp(BEGIN, number + 1)
    one, other = (
        Grant(
            GrantKey(str(where.tenant), where.uuid, f"user:{number:030}"),
            Role.READER,
            moment(number),
            f"by {number}",
        )
        for _ in range(2)
    )
    return GrantChange(token(number), at, where, subject, one, other, moment(number))


@pytest.mark.parametrize("make", [document, grant])
def test_the_bytes_counted_are_at_least_those_taken(make):
    ring = History(window=1000, max_bytes=2**40)
    ring.restart(cursor.before(Timestamp(BEGIN, 0)))
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(COUNT):
            ring.append(make(number))
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= ring.bytes <= 2 * taken


def test_what_is_given_up_is_free_at_once():
    """Also in a room that goes on: a lane gives its places back in batches, the events in them at once."""
    ring = History(window=1000, max_bytes=2**20)
    ring.restart(cursor.before(Timestamp(BEGIN, 0)))
    same = room(0)
    tracemalloc.start()
    try:
        for number in range(40):
            ring.append(document(number)._replace(room=same, raw=bytes(200_000)))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ring.bytes <= 2**20
    assert taken <= 1.2 * 2**20
