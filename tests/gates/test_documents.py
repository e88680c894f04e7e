"""Documents of every kind and size, written past the server into a room of 50 sockets."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from bson import Binary, Code, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.dbref import DBRef
from pymongo import InsertOne, UpdateOne

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 2**20
SOCKETS = 50


def deep(levels, value):
    for _ in range(levels):
        value = {"a": value}
    return value


# Just below LIVEDOCS_MAX_SHOWN_ELEMENTS and LIVEDOCS_MAX_SHOWN_BYTES: what is still decoded and shown.
SHOWN = {
    "99,000 ObjectIds": [ObjectId(f"{n:024x}") for n in range(99_000)],
    "99,000 dates": [datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)] * 99_000,
    "99,000 large integers": [Int64(2**60 + n) for n in range(99_000)],
    "99,000 decimals": [Decimal128("1.5")] * 80_000,
    "99,000 doubles": [1.1 + n for n in range(99_000)],
    "49,000 empty objects": [{}] * 98_000,
    "towers, 100 deep": [deep(99, 1)] * 900,
    "90,000 names": {f"n{n:06}": 1 for n in range(90_000)},
    "60,000 binaries": [Binary(b"x", 0)] * 60_000,
    "50,000 UUIDs": [Binary(bytes(16), 4)] * 50_000,
    "40,000 regular expressions": [Regex("a", "i")] * 40_000,
    "99,000 timestamps": [Timestamp(1, 1)] * 99_000,
    "10,000 references": [DBRef("notes", 1)] * 10_000,
    "40,000 codes": [Code("x")] * 40_000,
    "text": "x" * (2 * MIB - 4096),
    "text to be escaped": "\x01" * (2 * MIB - 4096),
    "wide text": "é" * (MIB - 2048),
}
# Beyond these: the room is told, and nothing is decoded.
BEYOND = {
    "3 MiB of text": "x" * (3 * MIB),
    "15 MiB of text": "x" * (15 * MIB),
    "300,000 integers": list(range(300_000)),
    "3 MiB of empty lists": [[]] * 220_000,
    "12 MiB of names": {f"n{n:06}": 1 for n in range(700_000)},
}


async def changing(stage, name, value, *, times, sockets=SOCKETS):
    uuid = stage.document("user:alice", "user:bob", n=0)
    await stage.settled()
    half = [await stage.crowd(user, sockets // 2) for user in ("alice", "bob")]
    for crowd in half:
        await crowd.call("JoinRoom", [str(uuid)])
    async with stage.attack(name, users=2) as attack:
        for number in range(times):
            await asyncio.to_thread(stage.acme.notes.replace_one, {"_id": uuid}, {"n": number, "value": value})
            await asyncio.sleep(0.1)
        await asyncio.to_thread(stage.acme.notes.update_one, {"_id": uuid}, {"$set": {"value": 1}})
        # Nobody may be left behind for the next case.
        attack.note = f"{sum(member.bytes for crowd in half for member in crowd.members) >> 20} MiB"
    stage.check(name)


@pytest.mark.parametrize("kind", SHOWN)
async def test_a_document_at_the_shown_limit_that_changes(stage, kind):
    await changing(stage, f"a room of 50: {kind}", SHOWN[kind], times=3)


@pytest.mark.parametrize("kind", BEYOND)
async def test_a_document_beyond_the_shown_limit_that_changes(stage, kind):
    await changing(stage, f"a room of 50, beyond: {kind}", BEYOND[kind], times=3)


@pytest.mark.parametrize("kind", ["99,000 ObjectIds", "99,000 dates", "90,000 names", "towers, 100 deep"])
async def test_a_document_at_the_shown_limit_that_is_read(stage, kind):
    name = f"GET, join and snapshot: {kind}"
    uuid = stage.document("user:alice", value=SHOWN[kind])
    await stage.settled()
    async with stage.attack(name) as attack:
        crowd = await stage.crowd("alice", 5)
        await crowd.call("JoinRoom", [str(uuid)], {"snapshot": True})
        replies = [await stage.request("GET", f"/v1/docs/notes/{uuid}", "alice") for _ in range(3)]
        merged = await stage.request("PATCH", f"/v1/docs/notes/{uuid}", "alice", {"n": 1})
        attack.note = f"{replies[0].status} {merged.status}"
    stage.check(name)


@pytest.mark.parametrize("kind", ["15 MiB of text", "12 MiB of names"])
async def test_a_document_beyond_the_shown_limit_that_is_read(stage, kind):
    name = f"GET, PATCH, bulk, join and snapshot, beyond: {kind}"
    uuid = stage.document("user:alice", value=BEYOND[kind])
    await stage.settled()
    async with stage.attack(name) as attack:
        crowd = await stage.crowd("alice", 5)
        await crowd.call("JoinRoom", [str(uuid)], {"snapshot": True})
        item = {"uuid": str(uuid), "mode": "merge", "document": {"n": 1}}
        replies = [
            await stage.request("GET", f"/v1/docs/notes/{uuid}", "alice"),
            await stage.request("PATCH", f"/v1/docs/notes/{uuid}", "alice", {"n": 1}),
            await stage.request("PUT", f"/v1/docs/notes/{uuid}", "alice", {"n": 1}),
            await stage.request("POST", "/v1/docs/notes:bulk", "alice", {"items": [item]}),
        ]
        attack.note = " ".join(str(reply.status) for reply in replies)
    stage.check(name)


async def test_many_small_changes_at_once(stage):
    name = "20,000 updates of a room of 50 at once"
    uuid = stage.document("user:alice", n=0)
    await stage.settled()
    crowd = await stage.crowd("alice", SOCKETS)
    await crowd.call("JoinRoom", [str(uuid)])
    updates = [UpdateOne({"_id": uuid}, {"$set": {"n": number}}) for number in range(1, 20_001)]
    async with stage.attack(name):
        await asyncio.to_thread(stage.acme.notes.bulk_write, updates)
    stage.check(name)


async def test_many_documents_at_once(stage):
    # With more of them mongod and whoever reads share the two processors of a small machine for too long.
    name = "4,000 inserts and as many deletes at once, unwatched, with a UUID and without"
    await stage.settled()
    inserts = [InsertOne({"uuid": uuid4(), "n": n} if n % 2 else {"n": n}) for n in range(4_000)]
    async with stage.attack(name):
        await asyncio.to_thread(stage.acme.test.bulk_write, inserts, ordered=False)
        await asyncio.to_thread(stage.acme.test.delete_many, {})
    stage.check(name)


async def test_one_large_transaction(stage):
    name = "a transaction of 5,000 changes in 100 rooms"
    uuids = [stage.document("user:alice", n=0) for _ in range(100)]
    await stage.settled()
    crowd = await stage.crowd("alice", 10)
    await crowd.call("JoinRoom", [str(uuid) for uuid in uuids])

    def write():
        with stage.mongo.start_session() as session, session.start_transaction():
            updates = [UpdateOne({"_id": uuids[n % 100]}, {"$set": {"n": n}}) for n in range(5000)]
            stage.acme.notes.bulk_write(updates, session=session)

    async with stage.attack(name):
        await asyncio.to_thread(write)
    stage.check(name)


async def test_an_update_of_many_fields(stage):
    name = "updates that set and remove 20,000 fields"
    uuid = stage.document("user:alice", n=0)
    await stage.settled()
    crowd = await stage.crowd("alice", SOCKETS)
    await crowd.call("JoinRoom", [str(uuid)])
    fields = {f"f{number:05}": {"a": [1]} for number in range(20_000)}
    async with stage.attack(name):
        for _ in range(2):
            await asyncio.to_thread(stage.acme.notes.update_one, {"_id": uuid}, {"$set": fields})
            unset = {"$unset": dict.fromkeys(fields, 1)}
            await asyncio.to_thread(stage.acme.notes.update_one, {"_id": uuid}, unset)
    stage.check(name)


async def test_small_changes_of_a_large_document_with_pre_images(stage):
    name = "70 small updates of a document of 1 MiB whose pre-images are kept"
    uuid = stage.document("user:alice", collection="test", text="x" * MIB, n=0)
    await stage.settled()
    async with stage.attack(name):
        for number in range(70):
            await asyncio.to_thread(stage.acme.test.update_one, {"uuid": uuid}, {"$set": {"n": number}})
    stage.check(name)


async def test_what_the_history_holds_when_it_is_full(stage):
    name = "100 changes of 1 MiB each, that fill the history"
    uuid = stage.document("user:alice", n=0)
    await stage.settled()
    async with stage.attack(name, memory=(64 + 64) * MIB):
        # Its bound is the server's own, whoever fills it.
        for number in range(100):
            await asyncio.to_thread(
                stage.acme.notes.update_one, {"_id": uuid}, {"$set": {"text": f"{number}" + "x" * MIB}}
            )
    stage.check(name)
