from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from bson import Binary, DatetimeMS, Timestamp

from livedocs.access.rounds import SnapshotReader
from livedocs.config import Settings
from livedocs.errors import Unavailable
from livedocs.model import Grant, GrantKey, Look, Role, Tenant, grant_document
from livedocs.store.connection import connect
from livedocs.store.snapshots import Snapshots


@pytest.fixture
def snapshots(mongo, deployment):
    return Snapshots(mongo, deployment.control_database)


@pytest.fixture
def look(snapshots):
    """What one caller sees that is in a round by itself."""

    async def look(tenant, uuids, subjects, with_documents):
        [snapshot] = await snapshots.read(tenant, [Look(uuids, subjects, with_documents)])
        return snapshot

    return look


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
    assert snapshot.documents == {
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
            [note], [test] = snapshot.documents[uuid]["notes"], snapshot.documents[uuid]["test"]
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
            Look(uuids, ["user:alice", "group:staff"], frozenset(uuids)),
            Look(uuids, ["user:bob", "group:guests"], frozenset([shared])),
            Look(uuids, ["user:carol"], frozenset(uuids)),
            Look([shared], ["user:bob", "group:guests"]),
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
        acme, [Look([uuid], ["user:alice"]), Look([uuid], ["user:bob"], frozenset([uuid]))]
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
        assert snapshot.documents[uuid] == {}


async def test_an_array_that_holds_the_uuid_is_not_the_key(look, acme, give, mongo):
    uuid = uuid4()
    await give(uuid, "user:alice")
    await mongo[acme.database]["test"].insert_many([{"uuid": [uuid]}, {"_id": 1000, "uuid": uuid}])
    snapshot = await look(acme, [uuid], ["user:alice"], frozenset([uuid]))
    assert snapshot.documents[uuid] == {"test": [{"_id": 1000, "uuid": uuid}]}


async def test_values_that_python_cannot_hold_do_not_spoil_a_read(look, acme, give, mongo):
    """A year past 9999, written by another driver."""
    uuid = uuid4()
    await give(uuid, "user:alice")
    await mongo[acme.database]["notes"].insert_one({"_id": uuid, "at": DatetimeMS(2**52)})
    snapshot = await look(acme, [uuid], ["user:alice"], frozenset([uuid]))
    assert snapshot.documents[uuid]["notes"][0]["at"] == DatetimeMS(2**52)


async def test_without_mongodb_nobody_is_let_in(deployment, acme, free_ports, monkeypatch):
    [port] = free_ports(1)
    monkeypatch.setattr("livedocs.store.snapshots._SECONDS", 0.5)
    settings: Settings = deployment.settings(mongodb_uri=f"mongodb://127.0.0.1:{port}")
    client = connect(settings)
    try:
        with pytest.raises(Unavailable) as refusal:
            await Snapshots(client, "x").read(acme, [Look([UUID(int=1)], ["user:alice"])])
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
    (document,) = snapshot.documents[uuid][collection]
    assert (document["odd"], document["n"]) == (broken, 1)
