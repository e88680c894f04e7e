from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import bson
import pytest
import structlog
from bson import Binary, DatetimeMS, Timestamp

from livedocs.access.snapshot_batcher import SnapshotReader
from livedocs.codec.bsondecode import CODEC, decode
from livedocs.config import Settings
from livedocs.errors import AnswerTooLarge, Unavailable
from livedocs.model import (
    Grant,
    GrantKey,
    Role,
    ShownBounds,
    SnapshotRequest,
    Tenant,
    TooLarge,
    Unreadable,
    grant_document,
)
from livedocs.store.connection import connect
from livedocs.store.snapshots import Snapshots


@pytest.fixture
def snapshots(mongo, deployment):
    return Snapshots(mongo, deployment.control_database)


@pytest.fixture
def look(snapshots):
    """What one caller sees that is in a round by itself."""

    async def look(tenant, uuids, subjects, with_documents):
        [snapshot] = await snapshots.read(tenant, [SnapshotRequest(uuids, subjects, with_documents)])
        return snapshot

    return look


def documents_of(snapshot):
    """The documents of a snapshot, decoded."""
    return {
        uuid: {name: [decode(document) for document in found] for name, found in of_uuid.items()}
        for uuid, of_uuid in snapshot.documents.items()
    }


@pytest.fixture
def acme(deployment):
    return Tenant("acme", deployment.databases["acme"], {"notes": "_id", "test": "uuid"})


@pytest.fixture
def give(control):
    async def give(uuid, subject, role=Role.READER, tenant="acme"):
        held = Grant(GrantKey(tenant, uuid, subject), role, None, "system", datetime.now(UTC))
        await control["acl"].insert_one(grant_document(held))

    return give


def test_it_is_what_the_gate_asks_for(snapshots):
    reader: SnapshotReader = snapshots
    assert callable(reader.read)


async def test_grants_and_documents_of_several_uuids_come_together(look, acme, give, mongo):
    mine, ours, theirs, nobodys = (uuid4() for _ in range(4))
    await give(mine, "user:alice", Role.OWNER)
    await give(mine, "group:staff")
    await give(ours, "tenant:*")
    await give(theirs, "user:bob")
    database = mongo[acme.database]
    await database["notes"].insert_many([{"_id": uuid, "n": 1} for uuid in (mine, ours, theirs, nobodys)])
    await database["test"].insert_many([{"_id": n, "uuid": mine} for n in (2, 1)])
    uuids = [mine, ours, theirs, nobodys]
    snapshot = await look(acme, uuids, ["user:alice", "group:staff", "tenant:*"], frozenset(uuids))
    assert isinstance(snapshot.at, Timestamp)
    assert {uuid: {g.key.subject for g in grants} for uuid, grants in snapshot.grants.items()} == {
        mine: {"user:alice", "group:staff"},
        ours: {"tenant:*"},
        theirs: set(),
        nobodys: set(),
    }
    # Nothing is read of what the caller has no grant on.
    assert documents_of(snapshot) == {
        mine: {"notes": [{"_id": mine, "n": 1}], "test": [{"_id": 1, "uuid": mine}, {"_id": 2, "uuid": mine}]},
        ours: {"notes": [{"_id": ours, "n": 1}]},
    }


async def test_documents_are_read_only_where_asked_for(look, acme, give, mongo):
    one, other = uuid4(), uuid4()
    for uuid in (one, other):
        await give(uuid, "user:alice")
        await mongo[acme.database]["notes"].insert_one({"_id": uuid})
    snapshot = await look(acme, [one, other], ["user:alice"], frozenset([other]))
    assert set(snapshot.grants) == {one, other}
    assert set(snapshot.documents) == {other}


async def test_grants_of_the_other_tenant_do_not_count(look, acme, give):
    uuid = uuid4()
    await give(uuid, "user:alice", tenant="globex")
    snapshot = await look(acme, [uuid], ["user:alice"], frozenset([uuid]))
    assert snapshot.grants == {uuid: []}


async def test_more_grants_than_one_batch_are_all_there(look, acme, control):
    uuids = [uuid4() for _ in range(300)]
    subjects = ["user:many", "group:many"]
    await control["acl"].insert_many(
        [
            grant_document(Grant(GrantKey("acme", uuid, subject), Role.READER)) | {"granted_at": datetime.now(UTC)}
            for uuid in uuids
            for subject in subjects
        ]
    )
    snapshot = await look(acme, uuids, subjects, frozenset())
    assert {len(grants) for grants in snapshot.grants.values()} == {2}


async def test_no_uuids_are_no_grants(look, acme):
    snapshot = await look(acme, [], ["user:alice"], frozenset())
    assert (snapshot.grants, snapshot.documents) == ({}, {})


async def test_grants_and_documents_are_of_one_moment(look, acme, mongo, control):
    """Two documents and a grant always change in one transaction; no read may see them apart."""
    uuid = uuid4()
    key = GrantKey("acme", uuid, "user:alice")
    database = mongo[acme.database]
    await control["acl"].insert_one(grant_document(Grant(key, Role.READER, None, "0", datetime.now(UTC))))
    await database["notes"].insert_one({"_id": uuid, "n": 0})
    await database["test"].insert_one({"uuid": uuid, "n": 0})

    async def write():
        for n in range(1, 60):
            async with mongo.start_session() as session, await session.start_transaction():
                await database["test"].update_one({"uuid": uuid}, {"$set": {"n": n}}, session=session)
                await control["acl"].update_one(
                    {"_id.uuid": uuid}, {"$set": {"granted_by": str(n)}}, session=session
                )
                await database["notes"].update_one({"_id": uuid}, {"$set": {"n": n}}, session=session)

    seen = set()
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(write())
        while not writer.done():
            snapshot = await look(acme, [uuid], ["user:alice"], frozenset([uuid]))
            [grant] = snapshot.grants[uuid]
            [note], [test] = documents_of(snapshot)[uuid].values()
            assert int(grant.granted_by) == note["n"] == test["n"]
            seen.add(note["n"])
    assert len(seen) > 1


async def test_of_one_round_everyone_sees_what_is_theirs_and_nothing_else(snapshots, acme, give, mongo):
    shared, alices, bobs = (uuid4() for _ in range(3))
    await give(shared, "group:staff", Role.WRITER)
    await give(shared, "group:guests")
    await give(shared, "user:alice", Role.OWNER)
    await give(alices, "user:alice")
    await give(bobs, "user:bob")
    uuids = [shared, alices, bobs]
    await mongo[acme.database]["notes"].insert_many([{"_id": uuid, "n": 1} for uuid in uuids])
    alice, bob, carol, curious = await snapshots.read(
        acme,
        [
            SnapshotRequest(uuids, ["user:alice", "group:staff"], frozenset(uuids)),
            SnapshotRequest(uuids, ["user:bob", "group:guests"], frozenset([shared])),
            SnapshotRequest(uuids, ["user:carol"], frozenset(uuids)),
            SnapshotRequest([shared], ["user:bob", "group:guests"]),
        ],
    )

    def held(snapshot):
        return {uuid: {g.key.subject: g.role for g in grants} for uuid, grants in snapshot.grants.items()}

    assert held(alice) == {
        shared: {"user:alice": Role.OWNER, "group:staff": Role.WRITER},
        alices: {"user:alice": Role.READER},
        bobs: {},
    }
    assert set(alice.documents) == {shared, alices}
    assert held(bob) == {shared: {"group:guests": Role.READER}, alices: {}, bobs: {"user:bob": Role.READER}}
    assert set(bob.documents) == {shared}
    assert (held(carol), carol.documents) == ({uuid: {} for uuid in uuids}, {})
    assert (held(curious), curious.documents) == ({shared: {"group:guests": Role.READER}}, {})
    assert alice.at == bob.at == carol.at == curious.at
    assert alice.shared is bob.shared


async def test_a_round_reads_documents_only_of_those_who_hold_a_grant_themselves(snapshots, acme, give, mongo):
    """A grant of one caller and the wish of another do not add up."""
    uuid = uuid4()
    await give(uuid, "user:alice")
    await mongo[acme.database]["notes"].insert_one({"_id": uuid, "n": 1})
    alice, bob = await snapshots.read(
        acme, [SnapshotRequest([uuid], ["user:alice"]), SnapshotRequest([uuid], ["user:bob"], frozenset([uuid]))]
    )
    assert (len(alice.grants[uuid]), alice.documents) == (1, {})
    assert (bob.grants, bob.documents) == ({uuid: []}, {})


async def test_what_was_acknowledged_is_seen(look, acme, give, control):
    for _ in range(20):
        uuid = uuid4()
        await give(uuid, "user:alice")
        assert (await look(acme, [uuid], ["user:alice"], frozenset())).grants[uuid]
        await control["acl"].delete_one({"_id.uuid": uuid})
        assert not (await look(acme, [uuid], ["user:alice"], frozenset())).grants[uuid]


async def test_a_collection_made_a_moment_ago_does_not_spoil_a_read(look, acme, give, mongo):
    uuid = uuid4()
    await give(uuid, "user:alice")
    for n in range(5):
        name = f"new{n}"
        await mongo[acme.database].create_collection(name)
        wider = Tenant(acme.slug, acme.database, {**acme.collections, name: "_id"})
        snapshot = await look(wider, [uuid], ["user:alice"], frozenset([uuid]))
        assert documents_of(snapshot)[uuid] == {}


async def test_an_array_that_holds_the_uuid_is_not_the_key(look, acme, give, mongo):
    uuid = uuid4()
    await give(uuid, "user:alice")
    await mongo[acme.database]["test"].insert_many([{"uuid": [uuid]}, {"_id": 1000, "uuid": uuid}])
    snapshot = await look(acme, [uuid], ["user:alice"], frozenset([uuid]))
    assert documents_of(snapshot)[uuid] == {"test": [{"_id": 1000, "uuid": uuid}]}


async def test_values_that_python_cannot_hold_do_not_spoil_a_read(look, acme, give, mongo):
    """A year past 9999, written by another driver."""
    uuid = uuid4()
    await give(uuid, "user:alice")
    await mongo[acme.database]["notes"].insert_one({"_id": uuid, "at": DatetimeMS(2**52)})
    snapshot = await look(acme, [uuid], ["user:alice"], frozenset([uuid]))
    assert documents_of(snapshot)[uuid]["notes"][0]["at"] == DatetimeMS(2**52)


async def test_without_mongodb_nobody_is_let_in(deployment, acme, free_ports, monkeypatch):
    [port] = free_ports(1)
    monkeypatch.setattr("livedocs.store.snapshots._SECONDS", 0.5)
    settings: Settings = deployment.settings(mongodb_uri=f"mongodb://127.0.0.1:{port}")
    client = connect(settings)
    try:
        with pytest.raises(Unavailable) as refusal:
            await Snapshots(client, "x").read(acme, [SnapshotRequest([UUID(int=1)], ["user:alice"])])
    finally:
        await client.close()
    assert refusal.value.retry_after
    assert str(port) not in str(refusal.value)


@pytest.mark.parametrize("collection", ["notes", "test"])
async def test_a_binary_that_claims_to_be_a_uuid_keeps_no_document_back(look, acme, give, mongo, collection):
    uuid = uuid4()
    await give(uuid, "user:alice")
    key = {"_id": uuid} if collection == "notes" else {"_id": str(uuid), "uuid": uuid}
    broken = Binary(b"abc", 4)
    await mongo[acme.database][collection].insert_one({**key, "odd": broken, "n": 1})
    snapshot = await look(acme, [uuid], ["user:alice"], frozenset([uuid]))
    (document,) = documents_of(snapshot)[uuid][collection]
    assert (document["odd"], document["n"]) == (broken, 1)


@pytest.fixture
def narrow(mongo, deployment):
    """With bounds that a small document exceeds."""
    return Snapshots(mongo, deployment.control_database, ShownBounds(bytes=2000, elements=100))


@pytest.mark.parametrize("collection", ["notes", "test"])
async def test_a_document_beyond_the_bounds_is_named_in_its_place(narrow, acme, give, mongo, collection):
    uuid = uuid4()
    await give(uuid, "user:alice")
    small = {"_id": uuid} if collection == "notes" else {"_id": 1, "uuid": uuid}
    for fields, shown in (
        ({"text": "x" * 1800}, True),
        ({"text": "x" * 2000}, False),
        ({"items": [0] * 90}, True),
        ({"items": [None] * 101}, False),
    ):
        document = {**small, **fields}
        await mongo[acme.database][collection].replace_one({"_id": small["_id"]}, document, upsert=True)
        [snapshot] = await narrow.read(acme, [SnapshotRequest([uuid], ["user:alice"], frozenset([uuid]))])
        [found] = snapshot.documents[uuid][collection]
        size = len(bson.encode(document, codec_options=CODEC))
        assert found == TooLarge(size) if not shown else decode(found) == document


async def test_documents_of_many_megabytes_stay_where_they_are(snapshots, acme, give, mongo):
    uuids = [uuid4() for _ in range(8)]
    for uuid in uuids:
        await give(uuid, "user:alice")
        await mongo[acme.database]["notes"].insert_one({"_id": uuid, "text": "x" * 15_000_000})
    read = (await mongo.admin.command("serverStatus"))["network"]["physicalBytesOut"]
    [snapshot] = await snapshots.read(acme, [SnapshotRequest(uuids, ["user:alice"], frozenset(uuids))])
    sent = (await mongo.admin.command("serverStatus"))["network"]["physicalBytesOut"] - read
    assert all(type(snapshot.documents[uuid]["notes"][0]) is TooLarge for uuid in uuids)
    assert sent < 10_000_000


@pytest.mark.parametrize("collection", ["notes", "test"])
async def test_large_and_small_documents_come_in_the_order_of_their_ids(snapshots, acme, give, mongo, collection):
    uuids = [uuid4() for _ in range(3 if collection == "test" else 7)]
    for uuid in uuids:
        await give(uuid, "user:alice")
    written = {uuid: [] for uuid in uuids}
    for number, size in enumerate([10, 100_000, 20, 40_000, 1_500_000, 30, 50_000]):
        uuid = uuids[number % len(uuids)]
        key = {"_id": uuid} if collection == "notes" else {"_id": f"{uuid}{number}", "uuid": uuid}
        await mongo[acme.database][collection].insert_one({**key, "text": f"{number}" + "x" * size})
        written[uuid].append(f"{number}" + "x" * size)
    [snapshot] = await snapshots.read(acme, [SnapshotRequest(uuids, ["user:alice"], frozenset(uuids))])
    assert snapshot.left_out == frozenset()
    for uuid, texts in written.items():
        found = [decode(document)["text"] for document in snapshot.documents.get(uuid, {}).get(collection, [])]
        assert found == texts


async def test_what_does_not_fit_into_a_round_is_named_and_never_read(acme, give, mongo, deployment):
    snapshots = Snapshots(mongo, deployment.control_database, most_bytes=2**20)
    uuids = [uuid4() for _ in range(20)]
    for uuid in uuids:
        await give(uuid, "user:alice")
        await mongo[acme.database]["notes"].insert_one({"_id": uuid, "text": "x" * 300_000})
    read = (await mongo.admin.command("serverStatus"))["network"]["physicalBytesOut"]
    [snapshot] = await snapshots.read(acme, [SnapshotRequest(uuids, ["user:alice"], frozenset(uuids))])
    sent = (await mongo.admin.command("serverStatus"))["network"]["physicalBytesOut"] - read
    assert snapshot.left_out == frozenset(uuids[3:])
    assert list(snapshot.documents) == uuids[:3]
    assert all(len(decode(snapshot.documents[uuid]["notes"][0])["text"]) == 300_000 for uuid in uuids[:3])
    assert sent < 2_000_000


async def test_many_that_look_together_are_due_a_round_each_when_one_is_too_small(acme, give, mongo, deployment):
    snapshots = Snapshots(mongo, deployment.control_database, most_bytes=2**20)
    uuids = [uuid4() for _ in range(4)]
    for uuid in uuids:
        await give(uuid, "user:alice")
        await mongo[acme.database]["notes"].insert_one({"_id": uuid, "text": "x" * 300_000})
    with pytest.raises(AnswerTooLarge):
        await snapshots.read(acme, [SnapshotRequest([uuid], ["user:alice"], frozenset([uuid])) for uuid in uuids])


async def test_one_uuid_with_too_much_keeps_what_fits_and_names_the_rest(acme, give, mongo, deployment):
    snapshots = Snapshots(mongo, deployment.control_database, most_bytes=2**20)
    uuid = uuid4()
    await give(uuid, "user:alice")
    for number in range(5):
        document = {"_id": f"{uuid}{number}", "uuid": uuid, "text": "x" * 300_000}
        await mongo[acme.database]["test"].insert_one(document)
    [snapshot] = await snapshots.read(acme, [SnapshotRequest([uuid], ["user:alice"], frozenset([uuid]))])
    found = snapshot.documents[uuid]["test"]
    assert [type(document) for document in found] == [bytes] * 3 + [TooLarge] * 2


FAILING = {"$addFields": {"x": {"$divide": ["$n", 0]}}}


@pytest.mark.parametrize(
    "options",
    [
        {"viewOn": "notes", "pipeline": [FAILING]},
        {"viewOn": "notes", "pipeline": []},
        {"timeseries": {"timeField": "at"}},
        {"capped": True, "size": 10_000},
    ],
    ids=["failing view", "view", "time series", "capped"],
)
async def test_a_collection_that_cannot_be_streamed_keeps_back_no_other(snapshots, acme, give, mongo, options):
    """Registered as an ordinary one, and replaced since. A view can be read, but nobody is told of its changes."""
    uuid = uuid4()
    await give(uuid, "user:alice")
    await mongo[acme.database]["notes"].insert_one({"_id": uuid, "n": 1})
    await mongo[acme.database].drop_collection("odd")
    await mongo[acme.database].create_collection("odd", **options)
    tenant = replace(acme, collections={**acme.collections, "odd": "_id"})
    with structlog.testing.capture_logs() as logs:
        [snapshot] = await snapshots.read(tenant, [SnapshotRequest([uuid], ["user:alice"], frozenset([uuid]))])
    assert decode(snapshot.documents[uuid]["notes"][0]) == {"_id": uuid, "n": 1}
    assert snapshot.documents[uuid].get("odd") == [Unreadable()]
    assert [(line["event"], line["tenant"], line["collection"]) for line in logs] == [
        ("collection_unreadable", "acme", "odd")
    ]


async def test_a_grant_that_says_nonsense_keeps_nobody_else_out(look, acme, give, control):
    """Written by hand: bytes that claim to be a UUID, a year past 9999, a DBRef that is none."""
    uuid, other = uuid4(), uuid4()
    await give(uuid, "user:alice")
    odd = {"a": Binary(b"abc", 4), "b": DatetimeMS(2**52), "c": {"$ref": 1, "$id": 2}}
    for number, value in enumerate(odd.values()):
        key = {"tenant": "acme", "uuid": other, "subject": f"group:{number}"}
        await control["acl"].insert_one(
            {"_id": key, "role": "reader", "expires_at": value, "granted_by": value},
            bypass_document_validation=True,
        )
    subjects = ["user:alice", "group:0", "group:1", "group:2"]
    snapshot = await look(acme, [uuid, other], subjects, frozenset([uuid]))
    assert (len(snapshot.grants[uuid]), snapshot.grants[other]) == (1, [])
