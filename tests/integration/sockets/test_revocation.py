"""What takes a membership away: exactly, on time, and nothing else with it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
from pymongo import MongoClient


async def test_a_revoked_reader_is_told_and_gets_nothing_committed_after_the_revoke(open_peer, api, acme, grant):
    uuid, bob, alice = uuid4(), await open_peer("bob"), await open_peer("alice")
    await api("alice").post("/v1/docs/notes", json={"uuid": str(uuid), "n": 0})
    assert (await api("alice").put(f"/v1/grants/{uuid}/user:bob", json={"role": "reader"})).status_code == 201
    for peer in (alice, bob):
        await peer.call("JoinRoom", [str(uuid)])
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": 1}})
    assert (await api("alice").delete(f"/v1/grants/{uuid}/user:bob")).status_code == 204
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": 2}})
    assert (await bob.expect("notes"))[0]["n"] == 1
    assert await bob.expect("$revoked") == [{"uuid": str(uuid), "reason": "revoked"}]
    assert [(await alice.expect("notes"))[0]["n"] for _ in range(2)] == [1, 2]
    await bob.settled()
    assert not bob.events
    assert (await bob.call("JoinRoom", [str(uuid)]))["refused"] == {str(uuid): {"code": "forbidden"}}


async def test_a_revoke_in_the_midst_of_writes_falls_exactly_between_them(open_peer, acme, grant):
    uuid = uuid4()
    grant(uuid, "user:bob")
    acme.notes.insert_one({"_id": uuid, "n": 0})
    peers = [await open_peer("bob") for _ in range(5)]
    for peer in peers:
        await peer.call("JoinRoom", [str(uuid)])

    def write() -> None:
        for n in range(1, 51):
            if n == 26:
                grant(uuid, "user:bob", None)
            acme.notes.update_one({"_id": uuid}, {"$set": {"n": n}})

    await asyncio.to_thread(write)
    for peer in peers:
        await peer.until(lambda peer=peer: any(event[0] == "$revoked" for event in peer.events))
        await peer.settled()
        assert [event[1]["n"] for event in list(peer.events)[:-1]] == list(range(1, 26))
        assert peer.events[-1][0] == "$revoked"


async def test_a_grant_ends_at_its_instant_without_waiting_for_mongodb(open_peer, acme, grant):
    uuid, bob = uuid4(), await open_peer("bob")
    ends = datetime.now(UTC) + timedelta(seconds=1.5)
    grant(uuid, "user:bob", expires_at=ends)
    await bob.call("JoinRoom", [str(uuid)])
    assert await bob.expect("$revoked") == [{"uuid": str(uuid), "reason": "expired"}]
    assert abs((datetime.now(UTC) - ends).total_seconds()) < 0.5
    assert (await bob.call("JoinRoom", [str(uuid)]))["refused"] == {str(uuid): {"code": "forbidden"}}


async def test_a_member_with_a_second_grant_stays_when_the_first_is_revoked(open_peer, acme, grant):
    uuid, bob = uuid4(), await open_peer("bob")
    grant(uuid, "user:bob", "writer")
    grant(uuid, "group:staff", "reader")
    await bob.call("JoinRoom", [str(uuid)])
    grant(uuid, "user:bob", None)
    acme.notes.insert_one({"_id": uuid})
    assert (await bob.expect("notes"))[1]["op"] == "insert"
    grant(uuid, "tenant:*", "reader")
    grant(uuid, "group:staff", None)
    acme.notes.delete_one({"_id": uuid})
    assert (await bob.expect("notes"))[1]["op"] == "delete"
    grant(uuid, "tenant:*", None)
    assert (await bob.expect("$revoked"))[0]["reason"] == "revoked"


async def test_a_grant_changed_in_place_by_an_administrator_counts_at_once(open_peer, mongo, deployment, grant):
    uuid, bob = uuid4(), await open_peer("bob")
    grant(uuid, "user:bob")
    await bob.call("JoinRoom", [str(uuid)])
    acl = mongo[deployment.control_database]["acl"]
    ends = datetime.now(UTC) + timedelta(seconds=1)
    acl.update_one({"_id.uuid": uuid, "_id.subject": "user:bob"}, {"$set": {"expires_at": ends}})
    assert (await bob.expect("$revoked"))[0]["reason"] == "expired"


async def test_a_grant_of_another_tenant_with_the_same_uuid_takes_nothing_away(open_peer, acme, grant):
    uuid, bob = uuid4(), await open_peer("bob")
    grant(uuid, "user:bob")
    grant(uuid, "user:bob", tenant="globex")
    await bob.call("JoinRoom", [str(uuid)])
    grant(uuid, "user:bob", None, tenant="globex")
    acme.notes.insert_one({"_id": uuid})
    assert (await bob.expect("notes"))[1]["op"] == "insert"


async def test_dropping_the_collection_resyncs_its_rooms(open_peer, mongo, deployment, grant):
    uuid, bob = uuid4(), await open_peer("bob")
    database = mongo[deployment.databases["acme"]]
    grant(uuid, "user:bob")
    database.notes.insert_one({"_id": uuid, "n": 1})
    await bob.call("JoinRoom", [str(uuid)])
    database.notes.drop()
    body = (await bob.expect("$resync"))[0]
    assert (body["uuid"], body["reason"]) == (str(uuid), "collection_dropped")
    assert body["snapshot"].get("notes", []) == []
    database.create_collection("notes")
    database.notes.insert_one({"_id": uuid, "n": 2})
    assert (await bob.expect("notes"))[0]["n"] == 2


def connect_packet(token: str) -> str:
    return "40" + json.dumps({"token": token})


async def test_a_suspended_tenant_is_out_at_once_and_a_resumed_one_may_come_back(
    open_peer, mongo, deployment, grant, server
):
    uuid, carol, alice = uuid4(), await open_peer("carol"), await open_peer("alice")
    grant(uuid, "user:carol", tenant="globex")
    await carol.call("JoinRoom", [str(uuid)])
    tenants = mongo[deployment.control_database]["tenants"]
    tenants.update_one({"_id": "globex"}, {"$set": {"status": "suspended"}})
    try:
        assert (await carol.expect("$goaway"))[0]["reason"] == "tenant_suspended"
        async with asyncio.timeout(10):
            await carol.closed.wait()
        refused = await open_peer(None, connect_packet=connect_packet(server.token("carol")))
        assert refused.refusal["data"] == {"code": "tenant_suspended"}
        await alice.settled()
        assert not alice.closed.is_set()
    finally:
        tenants.update_one({"_id": "globex"}, {"$set": {"status": "active"}})
    back = None
    async with asyncio.timeout(10):
        while back is None or back.refusal is not None:
            back = await open_peer(None, connect_packet=connect_packet(server.token("carol")))


async def test_a_tenant_registered_while_the_server_runs_is_streamed_without_a_restart(
    open_peer, mongo: MongoClient, deployment, grant, server
):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    await alice.call("JoinRoom", [str(uuid)])
    tenants = mongo[deployment.control_database]["tenants"]
    database = mongo[deployment.databases["acme"]]
    database.create_collection("added")
    # Written in the instant before the registration and right behind it: the second must not be lost.
    tenants.update_one({"_id": "acme"}, {"$set": {"collections.added": {"key": "_id"}}})
    database.added.insert_one({"_id": uuid, "n": 1})
    database.notes.insert_one({"_id": uuid, "n": 2})
    assert (await alice.expect("added"))[0] == {"uuid": str(uuid), "n": 1}
    assert (await alice.expect("notes"))[0] == {"uuid": str(uuid), "n": 2}


async def test_somebody_of_very_many_groups_is_put_out_of_every_room_of_those_that_are_lost(
    open_peer, start_server, oauth, grant, acme
):
    server = start_server(introspection_interval=0.5, introspection_cache=0)
    rooms = [uuid4() for _ in range(100)]
    groups = [f"{number:04}-{'g' * 40}" for number in range(900)]
    for uuid in rooms:
        # Twenty grants for each room, all of them lost at once.
        for group in groups[::45]:
            grant(uuid, f"group:{group}")
    # The groups are in the answer to its introspection.
    headers = {"Authorization": f"Bearer {server.token('bob')}"}
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as provider:
        assert (await provider.post("/dev/users/bob", json={"groups": groups})).is_success
        try:
            peer = await open_peer(None, url=server.ws_url, headers=headers)
            answer = await peer.call("JoinRoom", [str(uuid) for uuid in rooms], within=30)
            assert len(answer["joined"]) == 100
            await provider.post("/dev/users/bob", json={"groups": []})
            await peer.until(lambda: sum(event[0] == "$revoked" for event in peer.events) == 100, 20)
        finally:
            await provider.delete("/dev/users/bob")
    acme.notes.insert_many([{"_id": uuid} for uuid in rooms])
    await peer.settled()
    assert {event[0] for event in peer.events} == {"$revoked"}
