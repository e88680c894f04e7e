"""Joining, leaving, and what arrives: over real sockets, with a real mongod behind a real server process."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from bson import Decimal128, Int64, ObjectId
from motor.motor_asyncio import AsyncIOMotorClient

CURSOR = re.compile(r"a[0-9A-F]{22,}-[A-Za-z0-9_-]{88}\Z")


async def test_a_document_created_over_http_arrives_whole_with_its_meta(open_peer, api):
    uuid, alice = str(uuid4()), await open_peer("alice")
    created = await api("alice").post("/v1/docs/notes", json={"uuid": uuid, "title": "first"})
    assert created.status_code == 201
    answer = await alice.call("JoinRoom", [uuid])
    assert answer["refused"] == {}
    assert answer["joined"][uuid]["role"] == "owner"
    assert "snapshot" not in answer["joined"][uuid]
    await api("alice").put(f"/v1/docs/notes/{uuid}", json={"title": "second", "n": 1})
    data, meta = await alice.expect("notes")
    assert data == {"uuid": uuid, "title": "second", "n": 1}
    assert meta["op"] == "replace"
    assert CURSOR.match(meta["id"])
    assert meta["id"] > answer["joined"][uuid]["cursor"]
    assert (meta["removed"], meta["truncated"]) == ([], [])
    # The document, its guard and the audit are one transaction.
    assert meta["txn"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(meta["at"]["$date"])) < timedelta(minutes=1)


async def test_an_update_arrives_as_the_changed_fields_and_the_removed_ones(open_peer, api):
    uuid, alice = str(uuid4()), await open_peer("alice")
    await api("alice").post("/v1/docs/notes", json={"uuid": uuid, "a": 1, "b": {"c": 2, "d": 3}})
    await alice.call("JoinRoom", [uuid])
    await api("alice").patch(f"/v1/docs/notes/{uuid}", json={"a": 5, "b": {"c": None, "e": 4}})
    data, meta = await alice.expect("notes")
    assert data == {"uuid": uuid, "a": 5, "b.e": 4}
    assert (meta["op"], meta["removed"]) == ("update", ["b.c"])


async def test_a_write_that_changes_nothing_sends_no_event_and_keeps_the_entity_tag(open_peer, api):
    uuid, alice = str(uuid4()), await open_peer("alice")
    created = await api("alice").post("/v1/docs/notes", json={"uuid": uuid, "a": 1, "b": {"c": 2}})
    await alice.call("JoinRoom", [uuid])
    path = f"/v1/docs/notes/{uuid}"
    writes = [
        await api("alice").patch(path, json={"a": 1, "b": {"c": 2, "none": None}}),
        await api("alice").put(path, json={"a": 1, "b": {"c": 2}}),
    ]
    assert [(write.status_code, write.headers["ETag"]) for write in writes] == [(200, created.headers["ETag"])] * 2
    await api("alice").patch(path, json={"a": 2})
    assert (await alice.expect("notes"))[0] == {"uuid": uuid, "a": 2}


async def test_a_delete_arrives_with_the_uuid_for_both_kinds_of_key(open_peer, api):
    uuid, alice = str(uuid4()), await open_peer("alice")
    await api("alice").post("/v1/docs/notes", json={"uuid": uuid})
    await api("alice").post("/v1/docs/test", json={"uuid": uuid, "k": 1})
    await alice.call("JoinRoom", [uuid])
    for collection in ("notes", "test"):
        assert (await api("alice").delete(f"/v1/docs/{collection}/{uuid}")).status_code == 204
        data, meta = await alice.expect(collection)
        assert (data, meta["op"]) == ({"uuid": uuid}, "delete")


async def test_every_change_of_a_collection_keyed_by_uuid_says_which_document_it_was(open_peer, acme, grant):
    uuid, bob = uuid4(), await open_peer("bob")
    grant(uuid, "user:bob")
    ids = [ObjectId(), "text", Int64(2**60), {"a": 1}]
    acme.test.insert_many([{"_id": one, "uuid": uuid, "list": [1, 2, 3]} for one in ids])
    shown = [{"$oid": str(ids[0])}, "text", {"$numberLong": str(2**60)}, {"a": 1}]
    await bob.call("JoinRoom", [str(uuid)])
    for one in ids:
        acme.test.update_one({"_id": {"$eq": one}}, {"$set": {"n": 1}})
        acme.test.replace_one({"_id": {"$eq": one}}, {"uuid": uuid, "n": 2})
        acme.test.delete_one({"_id": {"$eq": one}})
        acme.test.insert_one({"_id": one, "uuid": uuid})
        # Away, and back: the room is told whole documents.
        acme.test.update_one({"_id": {"$eq": one}}, {"$set": {"uuid": uuid4()}})
        acme.test.update_one({"_id": {"$eq": one}}, {"$set": {"uuid": uuid}})
    for identifier in shown:
        told = [await bob.expect("test") for _ in range(6)]
        assert [meta["op"] for _, meta in told] == ["update", "replace", "delete", "insert", "delete", "insert"]
        assert all(meta["_id"] == identifier for _, meta in told)
    acme.notes.insert_one({"_id": uuid})
    _, meta = await bob.expect("notes")
    assert "_id" not in meta


async def test_changes_written_by_plain_pymongo_arrive_for_documents_keyed_by_uuid(open_peer, acme, grant):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    await alice.call("JoinRoom", [str(uuid)])
    inserted = acme.test.insert_one({"uuid": uuid, "n": Int64(2**60), "d": Decimal128("1.10"), "list": [1, 2, 3]})
    data, _ = await alice.expect("test")
    assert data == {
        "uuid": str(uuid),
        "_id": {"$oid": str(inserted.inserted_id)},
        "n": {"$numberLong": str(2**60)},
        "d": {"$numberDecimal": "1.10"},
        "list": [1, 2, 3],
    }
    acme.test.update_one({"_id": inserted.inserted_id}, {"$set": {"n": 2}, "$unset": {"d": 1}})
    data, meta = await alice.expect("test")
    assert (data, meta["removed"]) == ({"uuid": str(uuid), "n": 2}, ["d"])
    acme.test.replace_one({"_id": inserted.inserted_id}, {"uuid": uuid, "x": None})
    data, meta = await alice.expect("test")
    assert (data["x"], meta["op"]) == (None, "replace")
    acme.test.delete_one({"_id": inserted.inserted_id})
    data, meta = await alice.expect("test")
    assert (data, meta["op"]) == ({"uuid": str(uuid)}, "delete")


# Motor's own executor and sockets outlive its client by a moment.
@pytest.mark.filterwarnings("default::ResourceWarning")
async def test_changes_written_with_motor_arrive(open_peer, deployment, grant):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "group:staff")
    await alice.call("JoinRoom", [str(uuid)])
    client = AsyncIOMotorClient(deployment.uri, uuidRepresentation="standard")
    try:
        notes = client[deployment.databases["acme"]]["notes"]
        await notes.insert_one({"_id": uuid, "by": "motor"})
        await notes.update_one({"_id": uuid}, {"$set": {"n": 1}})
    finally:
        client.close()
    assert (await alice.expect("notes"))[0] == {"uuid": str(uuid), "by": "motor"}
    assert (await alice.expect("notes"))[0] == {"uuid": str(uuid), "n": 1}


async def test_a_document_that_changes_its_uuid_leaves_one_room_and_enters_the_other_whole(open_peer, acme, grant):
    old, new, alice = uuid4(), uuid4(), await open_peer("alice")
    grant(old, "user:alice")
    grant(new, "user:alice")
    inserted = acme.test.insert_one({"uuid": old, "a": 1})
    await alice.call("JoinRoom", [str(old), str(new)])
    acme.test.update_one({"_id": inserted.inserted_id}, {"$set": {"uuid": new, "b": 2}})
    data, meta = await alice.expect("test")
    assert (data, meta["op"]) == ({"uuid": str(old)}, "delete")
    data, meta = await alice.expect("test")
    assert data == {"uuid": str(new), "_id": {"$oid": str(inserted.inserted_id)}, "a": 1, "b": 2}
    assert meta["op"] == "insert"


async def test_events_of_one_transaction_stay_together_and_say_so(open_peer, acme, mongo, grant):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    await alice.call("JoinRoom", [str(uuid)])
    with mongo.start_session() as session, session.start_transaction():
        acme.notes.insert_one({"_id": uuid, "n": 1}, session=session)
        acme.test.insert_one({"uuid": uuid, "n": 2}, session=session)
        acme.notes.update_one({"_id": uuid}, {"$set": {"n": 3}}, session=session)
    metas = [(await alice.expect(name))[1] for name in ("notes", "test", "notes")]
    assert len({meta["txn"] for meta in metas}) == 1
    assert [meta["id"] for meta in metas] == sorted(meta["id"] for meta in metas)


async def test_the_tutorials_way_without_ack_gets_data_as_the_first_argument(open_peer, acme, grant):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    await alice.emit("JoinRoom", [str(uuid)])
    await alice.settled()
    acme.test.insert_one({"uuid": uuid, "hello": "world"})
    data, _ = await alice.expect("test")
    assert (data["uuid"], data["hello"]) == (str(uuid), "world")


async def test_unknown_and_forbidden_uuids_are_refused_alike(open_peer, api):
    secret, unknown = str(uuid4()), str(uuid4())
    await api("alice").post("/v1/docs/notes", json={"uuid": secret})
    bob = await open_peer("bob")
    answer = await bob.call("JoinRoom", [secret, unknown])
    assert answer["joined"] == {}
    assert answer["refused"] == {secret: {"code": "forbidden"}, unknown: {"code": "forbidden"}}
    await bob.emit("JoinRoom", [secret])
    assert await bob.expect("$refused") == [{"uuid": secret, "code": "forbidden"}]


async def test_equal_uuids_of_two_tenants_are_two_rooms(open_peer, api, acme, mongo, deployment):
    uuid = uuid4()
    for user in ("alice", "carol"):
        created = await api(user).post("/v1/docs/notes", json={"uuid": str(uuid), "of": user})
        assert created.status_code == 201
    alice, carol = await open_peer("alice"), await open_peer("carol")
    for peer in (alice, carol):
        assert str(uuid) in (await peer.call("JoinRoom", [str(uuid)]))["joined"]
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": 1}})
    mongo[deployment.databases["globex"]].notes.update_one({"_id": uuid}, {"$set": {"n": 2}})
    assert (await alice.expect("notes"))[0]["n"] == 1
    assert (await carol.expect("notes"))[0]["n"] == 2
    await alice.settled()
    await carol.settled()
    assert not alice.events
    assert not carol.events


async def test_leaving_ends_the_events_and_joining_again_begins_them(open_peer, acme, grant):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    acme.notes.insert_one({"_id": uuid})
    await alice.call("JoinRoom", [str(uuid)])
    assert await alice.call("LeaveRoom", [str(uuid), str(uuid4())]) == {"left": [str(uuid)]}
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": 1}})
    await alice.call("JoinRoom", [str(uuid)])
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": 2}})
    assert (await alice.expect("notes"))[0]["n"] == 2


async def test_a_snapshot_has_the_documents_of_every_collection_or_of_those_asked_for(open_peer, acme, grant):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    acme.notes.insert_one({"_id": uuid, "a": 1})
    acme.test.insert_many([{"_id": 1, "uuid": uuid, "b": 1}, {"_id": 2, "uuid": uuid, "b": 2}])
    joined = (await alice.call("JoinRoom", [str(uuid)], {"snapshot": True}))["joined"][str(uuid)]
    assert joined["snapshot"]["notes"] == [{"uuid": str(uuid), "a": 1}]
    assert sorted(document["b"] for document in joined["snapshot"]["test"]) == [1, 2]
    options = {"snapshot": True, "collections": ["notes"]}
    joined = (await alice.call("JoinRoom", [str(uuid)], options))["joined"][str(uuid)]
    assert list(joined["snapshot"]) == ["notes"]
    acme.test.update_one({"_id": 1}, {"$set": {"b": 9}})
    acme.notes.update_one({"_id": uuid}, {"$set": {"a": 9}})
    assert (await alice.expect("notes"))[0]["a"] == 9


async def test_a_cursor_resumes_with_everything_missed_in_order_behind_the_ack(open_peer, acme, grant):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    acme.notes.insert_one({"_id": uuid, "n": 0})
    cursor = (await alice.call("JoinRoom", [str(uuid)]))["joined"][str(uuid)]["cursor"]
    await alice.close()
    for n in range(1, 6):
        acme.notes.update_one({"_id": uuid}, {"$set": {"n": n}})
    again = await open_peer("alice")
    answer = await again.call("JoinRoom", [str(uuid)], {"since": cursor})
    assert answer["joined"][str(uuid)]["resumed"] == 5
    events = [await again.expect("notes") for _ in range(5)]
    assert [data["n"] for data, _ in events] == [1, 2, 3, 4, 5]
    last = events[2][1]["id"]
    third = await open_peer("alice")
    assert (await third.call("JoinRoom", [str(uuid)], {"since": last}))["joined"][str(uuid)]["resumed"] == 2


async def test_a_resume_never_goes_back_behind_the_grant_in_force(open_peer, acme, grant):
    uuid, bob = uuid4(), await open_peer("bob")
    grant(uuid, "user:bob")
    acme.notes.insert_one({"_id": uuid, "n": 0})
    cursor = (await bob.call("JoinRoom", [str(uuid)]))["joined"][str(uuid)]["cursor"]
    await bob.close()
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": 1}})
    grant(uuid, "user:bob", None)
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": "secret"}})
    grant(uuid, "user:bob")
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": 3}})
    again = await open_peer("bob")
    joined = (await again.call("JoinRoom", [str(uuid)], {"since": cursor}))["joined"][str(uuid)]
    assert joined["resumed"] == 1
    assert (await again.expect("notes"))[0]["n"] == 3
    # Nor is what it leaves out a silent gap: the state comes behind it.
    body = (await again.expect("$resync"))[0]
    assert (body["reason"], body["snapshot"]["notes"]) == ("access", [{"uuid": str(uuid), "n": 3}])
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": 4}})
    assert (await again.expect("notes"))[0]["n"] == 4


async def test_a_cursor_from_outside_the_window_gives_a_snapshot_and_says_why(open_peer, acme, grant, deployment):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    acme.notes.insert_one({"_id": uuid, "n": 7})
    cursors = deployment.cursors()
    for position in ("82" + "0" * 16 + "FF", "82" + "F" * 16 + "FF"):
        cursor = cursors.seal(position)
        joined = (await alice.call("JoinRoom", [str(uuid)], {"since": cursor}))["joined"][str(uuid)]
        assert joined["resync"] == "window"
        assert joined["snapshot"]["notes"] == [{"uuid": str(uuid), "n": 7}]


async def test_joining_a_room_twice_loses_and_doubles_nothing(open_peer, acme, grant):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    acme.notes.insert_one({"_id": uuid})
    await alice.call("JoinRoom", [str(uuid)])

    async def write() -> None:
        for n in range(100):
            await asyncio.to_thread(acme.notes.update_one, {"_id": uuid}, {"$set": {"n": n}})

    writing = asyncio.create_task(write())
    for _ in range(10):
        await alice.call("JoinRoom", [str(uuid)])
    await writing
    await alice.until(lambda: any(event[1].get("n") == 99 for event in alice.events))
    assert [event[1]["n"] for event in alice.events] == list(range(100))


async def test_a_join_while_others_write_meets_the_stream_exactly(open_peer, acme, grant):
    uuid = uuid4()
    grant(uuid, "user:alice")
    acme.notes.insert_one({"_id": uuid, "n": 0})

    async def write() -> None:
        for n in range(1, 201):
            await asyncio.to_thread(acme.notes.update_one, {"_id": uuid}, {"$set": {"n": n}})

    writing = asyncio.create_task(write())
    peers = [await open_peer("alice") for _ in range(8)]
    seen = []
    for peer in peers:
        joined = (await peer.call("JoinRoom", [str(uuid)], {"snapshot": True}))["joined"][str(uuid)]
        seen.append(joined["snapshot"]["notes"][0]["n"])
    await writing
    for peer, first in zip(peers, seen, strict=True):
        await peer.until(lambda peer=peer: any(event[1].get("n") == 200 for event in peer.events))
        assert [event[1]["n"] for event in peer.events] == list(range(first + 1, 201))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), "bad_request"),
        (("not a list",), "bad_request"),
        (({"uuid": "x"},), "bad_request"),
        (([], {}, 1), "bad_request"),
        (([], "options"), "bad_request"),
        (([], {"unknown": 1}), "bad_request"),
        (([], {"snapshot": "yes"}), "bad_request"),
        (([], {"collections": "notes"}), "bad_request"),
        (([], {"collections": [1]}), "bad_request"),
    ],
)
async def test_malformed_join_arguments_are_refused_with_a_code(open_peer, arguments, code):
    alice = await open_peer("alice")
    answer = await alice.call("JoinRoom", *arguments)
    assert (answer["code"], answer["joined"], answer["refused"]) == (code, {}, {})
    await alice.emit("JoinRoom", *arguments)
    assert (await alice.expect("$refused"))[0]["code"] == code


@pytest.mark.parametrize(
    "item",
    ["", "x", "{6f9619ff-8b86-d011-b42d-00c04fc964ff}", "6f9619ff8b86d011b42d00c04fc964ff", "urn:uuid:" + "0" * 36]
    + [None, 5, [], {"$ne": None}, "6f9619ff-8b86-d011-b42d-00c04fc964f", "6f9619ff-8b86-d011-b42d-00c04fc964ff "],
)
async def test_what_is_no_uuid_is_refused_as_such(open_peer, item):
    alice = await open_peer("alice")
    answer = await alice.call("JoinRoom", [item])
    assert [refusal["code"] for refusal in answer["refused"].values()] == ["invalid_uuid"]
    assert answer["joined"] == {}


async def test_answers_are_keyed_as_the_caller_wrote_and_values_are_in_lower_case(open_peer, grant, acme):
    """As iOS writes UUIDs."""
    uuid, other, alice = uuid4(), uuid4(), await open_peer("alice")
    upper, unknown = str(uuid).upper(), str(other).upper()
    grant(uuid, "user:alice")
    acme.notes.insert_one({"_id": uuid, "n": 1})
    answer = await alice.call("JoinRoom", [upper, str(uuid), unknown, "NONE"], {"snapshot": True})
    assert answer["joined"].keys() == {upper, str(uuid)}
    assert answer["refused"] == {unknown: {"code": "forbidden"}, "NONE": {"code": "invalid_uuid"}}
    assert answer["joined"][upper]["snapshot"]["notes"][0]["uuid"] == str(uuid)
    acme.notes.update_one({"_id": uuid}, {"$set": {"n": 2}})
    assert (await alice.expect("notes"))[0] == {"uuid": str(uuid), "n": 2}
    answer = await alice.call("JoinRoom", [upper], {"since": "nonsense"})
    assert answer["refused"] == {upper: {"code": "invalid_cursor"}}
    assert (await alice.call("LeaveRoom", [upper, "NONE"])) == {
        "left": [str(uuid)],
        "refused": {"NONE": {"code": "invalid_uuid"}},
    }
    # Without an acknowledgement the UUID is a value.
    await alice.emit("JoinRoom", [unknown])
    assert (await alice.expect("$refused"))[0] == {"uuid": str(other), "code": "forbidden"}


async def test_a_bad_cursor_and_an_unregistered_collection_are_refused_with_their_codes(open_peer, grant):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    for options, code in (
        ({"since": "nonsense"}, "invalid_cursor"),
        ({"since": 5}, "invalid_cursor"),
        ({"collections": ["passwords"]}, "unknown_collection"),
    ):
        answer = await alice.call("JoinRoom", [str(uuid)], options)
        assert answer == {"joined": {}, "refused": {str(uuid): {"code": code}}}


async def test_more_than_a_hundred_rooms_in_one_call_are_refused(open_peer):
    alice = await open_peer("alice")
    answer = await alice.call("JoinRoom", [str(uuid4()) for _ in range(101)])
    assert {refusal["code"] for refusal in answer["refused"].values()} == {"too_many_rooms"}


async def test_more_than_a_hundred_without_an_acknowledgement_are_refused_by_one_event(open_peer):
    alice = await open_peer("alice")
    await alice.emit("JoinRoom", [str(uuid4()) for _ in range(101)])
    refused = (await alice.expect("$refused"))[0]
    assert (refused["uuid"], refused["code"]) == (None, "too_many_rooms")
    await alice.settled()
    assert "$refused" not in [name for name, *_ in alice.events]


async def test_check_comes_back_as_ack_and_as_event_and_unknown_events_are_refused(open_peer):
    alice = await open_peer("alice")
    assert await alice.call("Check", {"any": ["thing", 1, None]}) == {"any": ["thing", 1, None]}
    assert await alice.expect("Check") == [{"any": ["thing", 1, None]}]
    assert (await alice.call("Nonsense"))["code"] == "bad_request"


async def test_an_update_whose_path_could_mean_two_things_brings_the_whole_document(open_peer, acme, grant):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    acme.test.insert_one({"_id": str(uuid), "uuid": uuid, "a": {"b": 1}, "plain": {"x": 1}})
    acme.test.update_one({"_id": str(uuid)}, [{"$replaceWith": {"$setField": field("a.b", 2)}}])
    await alice.call("JoinRoom", [str(uuid)])
    acme.test.update_one({"_id": str(uuid)}, {"$set": {"plain.x": 2}})
    assert (await alice.expect("test"))[0] == {"uuid": str(uuid), "plain.x": 2}
    acme.test.update_one({"_id": str(uuid)}, [{"$replaceWith": {"$setField": field("a.b", 3)}}])
    body = (await alice.expect("$resync"))[0]
    assert (body["uuid"], body["reason"]) == (str(uuid), "ambiguous_path")
    assert body["snapshot"]["test"][0]["a.b"] == 3
    acme.test.update_one({"_id": str(uuid)}, {"$set": {"plain.x": 3}})
    assert (await alice.expect("test"))[0] == {"uuid": str(uuid), "plain.x": 3}


def field(name: str, value: int) -> dict:
    """A field whose own name has a dot, which only an aggregation can set."""
    return {"field": {"$literal": name}, "input": "$$ROOT", "value": value}


async def test_lists_of_what_is_no_uuid_cost_little_and_count_as_joins(open_peer, server):
    flooding, other = await open_peer("alice"), await open_peer("bob")
    entries = [f"{number:x}" for number in range(3_000)]
    for name in ("JoinRoom", "LeaveRoom"):
        answers = [await flooding.call(name, entries) for _ in range(5)]
        assert {answer["code"] for answer in answers} <= {"bad_request", "rate_limited", "too_many_rooms"}
    await other.settled()
    # What was asked for in vain has used up what one may ask for in that time.
    for _ in range(40):
        answer = await flooding.call("JoinRoom", [f"no UUID {number}" for number in range(100)])
        if answer.get("code") == "rate_limited":
            break
    assert answer["code"] == "rate_limited"
