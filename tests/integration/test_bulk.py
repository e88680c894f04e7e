"""Many items at once: each as if it had come alone, and none lost for another's sake."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from bson import Binary
from pymongo.monitoring import CommandListener

from livedocs.model import Grant, GrantKey, Role
from livedocs.store.audit import Actor
from livedocs.store.batches import Batches
from livedocs.store.connection import connect
from livedocs.store.grants import Grants

SYSTEM = Actor("system")


@pytest.fixture
def alice(api):
    return api.someone("user:alice")


@pytest.fixture
def bob(api):
    return api.someone("user:bob")


@pytest.fixture
def service(api):
    return api.service()


@pytest.fixture
def grants(mongo, deployment):
    return Grants(mongo, deployment.control_database)


@pytest.fixture
def notes(mongo, deployment):
    return mongo[deployment.databases["acme"]]["notes"]


async def bulk(who, items, collection="notes"):
    answer = await who.post(f"/v1/docs/{collection}:bulk", {"items": items})
    assert answer.status == 200, answer.body
    assert len(answer.json["results"]) == len(items)
    return answer.json["results"]


async def regrant(who, items):
    answer = await who.post("/v1/grants:bulk", {"items": items})
    assert answer.status == 200, answer.body
    return answer.json["results"]


def statuses(results):
    return [(result["status"], result.get("code")) for result in results]


async def roles(grants, uuid):
    return {held.key.subject: held.role.label for held in await grants.of_uuid("acme", UUID(str(uuid)))}


@pytest.mark.parametrize("collection", ["notes", "test"])
async def test_items_are_created_replaced_and_merged_with_the_tags_that_a_read_shows(alice, collection):
    first, second = str(uuid4()), str(uuid4())
    made = await bulk(
        alice,
        [
            {"uuid": first, "document": {"a": 1, "b": {"c": 2}}},
            {"uuid": second.upper(), "document": {"z": 1, "at": {"$date": "2024-01-02T03:04:05Z"}}},
            {"document": {"anywhere": True}},
        ],
        collection,
    )
    assert statuses(made) == [(201, None)] * 3
    assert [result["uuid"] for result in made[:2]] == [first, second]
    changed = await bulk(
        alice,
        [
            {"uuid": first, "mode": "merge", "document": {"b": {"d": 3}, "a": None}},
            {"uuid": second, "document": {"y": 2}},
            {"uuid": made[2]["uuid"], "mode": "merge", "document": {"anywhere": True}},
        ],
        collection,
    )
    assert statuses(changed) == [(200, None)] * 3
    shown = [await alice.get(f"/v1/docs/{collection}/{result['uuid']}") for result in changed]
    assert [answer.headers["ETag"] for answer in shown] == [result["etag"] for result in changed]
    assert changed[2]["etag"] == made[2]["etag"]
    bodies = [{name: value for name, value in answer.json.items() if name != "_id"} for answer in shown]
    assert bodies[0] == {"uuid": first, "b": {"c": 2, "d": 3}}
    assert bodies[1] == {"uuid": second, "y": 2}


async def test_the_creator_owns_what_is_new_and_each_item_is_audited(alice, grants, control):
    uuid = uuid4()
    wanted = [{"subject": "user:bob", "role": "writer"}, {"subject": "group:staff", "role": "reader"}]
    await bulk(alice, [{"uuid": str(uuid), "document": {}, "grants": wanted}])
    assert await roles(grants, uuid) == {"user:alice": "owner", "user:bob": "writer", "group:staff": "reader"}
    found = await control["audit"].find({"uuid": Binary.from_uuid(uuid)}).sort("_id").to_list()
    assert [(entry["action"], entry["actor"], entry["subject"]) for entry in found] == [
        ("document.create", "user:alice", "user:alice"),
        ("grant.set", "user:alice", "user:bob"),
        ("grant.set", "user:alice", "group:staff"),
    ]


async def test_an_item_that_is_refused_takes_no_other_with_it(alice, bob, grants):
    taken = (await bulk(bob, [{"document": {"of": "bob"}}]))[0]["uuid"]
    good, bad_grant = str(uuid4()), str(uuid4())
    results = await bulk(
        alice,
        [
            {"uuid": good, "document": {"a": 1}},
            {"uuid": taken, "document": {"mine": True}},
            {"uuid": "no", "document": {}},
            {"document": {"$set": {"a": 1}}},
            {"document": {"_id": 1}},
            {"document": [1]},
            {"uuid": good, "document": {}, "if_none_match": "*"},
            {"uuid": str(uuid4()), "document": {}, "if_match": "*"},
            {"uuid": bad_grant, "document": {}, "grants": [{"subject": "bob", "role": "reader"}]},
            {"document": {}, "colour": "blue"},
            {"document": {}, "mode": "erase"},
            "nonsense",
            {"document": {}, "grants": [{"subject": "user:alice", "role": "reader"}]},
            {"document": {"last": True}},
        ],
    )
    assert statuses(results) == [
        (201, None),
        (403, "forbidden"),
        (400, "invalid_uuid"),
        (422, "invalid_field"),
        (422, "invalid_field"),
        (422, "invalid_document"),
        (412, "precondition_failed"),
        (403, "forbidden"),
        (400, "invalid_subject"),
        (400, "bad_request"),
        (400, "bad_request"),
        (400, "invalid_json"),
        (409, "conflict"),
        (201, None),
    ]
    assert results[3]["path"] == "$set"
    assert all(result["detail"] for result in results if "code" in result)
    assert (await bob.get(f"/v1/docs/notes/{taken}")).json == {"uuid": taken, "of": "bob"}
    # A refused item has left nothing behind, not even an owner.
    assert await roles(grants, bad_grant) == {}


async def test_an_item_whose_grants_are_refused_is_not_written_either(api, service, alice, grants):
    uuid = (await alice.post("/v1/docs/notes", {"v": 1})).json["uuid"]
    wanted = [{"subject": "user:bob", "role": "reader"}]
    results = await bulk(
        service,
        [{"uuid": uuid, "document": {"v": 2}, "grants": wanted}, {"uuid": uuid, "document": {"v": 3}}],
    )
    assert statuses(results) == [(403, "forbidden"), (200, None)]
    assert (await alice.get(f"/v1/docs/notes/{uuid}")).json["v"] == 3
    assert await roles(grants, uuid) == {"user:alice": "owner"}


async def test_a_service_sets_the_first_grants_of_what_another_program_wrote(service, grants, notes):
    uuid = uuid4()
    await notes.insert_one({"_id": uuid, "old": True})
    item = {"uuid": str(uuid), "document": {}, "grants": [{"subject": "user:bob", "role": "owner"}]}
    assert statuses(await bulk(service, [item])) == [(200, None)]
    assert await roles(grants, uuid) == {"user:bob": "owner"}


async def test_a_reader_writes_nothing_in_bulk(alice, bob, grants):
    uuid = (await alice.post("/v1/docs/notes", {"v": 1})).json["uuid"]
    await grants.put(
        Grant(GrantKey("acme", UUID(uuid), "user:bob"), Role.READER, None, "system", datetime.now(UTC)), SYSTEM
    )
    elsewhere = await bulk(bob, [{"uuid": uuid, "document": {"v": 2}}], "test")
    here = await bulk(bob, [{"uuid": uuid, "document": {"v": 2}}])
    assert statuses(here + elsewhere) == [(403, "forbidden")] * 2


async def test_a_uuid_of_another_collection_without_a_grant_is_nobodys_to_take(alice, mongo, deployment):
    uuid = uuid4()
    await mongo[deployment.databases["acme"]]["test"].insert_one({"uuid": uuid})
    assert statuses(await bulk(alice, [{"uuid": str(uuid), "document": {}}])) == [(403, "forbidden")]


async def test_a_later_item_finds_what_an_earlier_one_of_its_uuid_did(alice):
    uuid = str(uuid4())
    results = await bulk(
        alice, [{"uuid": uuid, "mode": "merge", "document": {name: number}} for number, name in enumerate("abc")]
    )
    assert statuses(results) == [(201, None), (200, None), (200, None)]
    assert (await alice.get(f"/v1/docs/notes/{uuid}")).json == {"uuid": uuid, "a": 0, "b": 1, "c": 2}


async def test_a_merge_is_one_with_what_an_earlier_item_has_left(alice):
    uuid = (await alice.post("/v1/docs/notes", {"a": 1})).json["uuid"]
    await bulk(alice, [{"uuid": uuid, "mode": "merge", "document": {"a": value}} for value in (2, 1)])
    assert (await alice.get(f"/v1/docs/notes/{uuid}")).json["a"] == 1


async def test_a_service_hands_over_what_it_creates(service, grants):
    handed = [{"subject": "user:bob", "role": "owner"}, {"subject": "client:acme-service", "role": "reader"}]
    alone = handed[1:]
    results = await bulk(service, [{"document": {}, "grants": handed}, {"document": {}, "grants": alone}])
    assert statuses(results) == [(201, None), (409, "conflict")]
    assert await roles(grants, results[0]["uuid"]) == {"user:bob": "owner", "client:acme-service": "reader"}


async def test_what_mongodb_refuses_is_found_among_the_items_and_the_others_are_written(
    service, notes, mongo, deployment
):
    database = mongo[deployment.databases["acme"]]
    await database.command({"collMod": "notes", "validator": {"title": {"$ne": "forbidden"}}})
    await notes.create_index("isbn", unique=True, sparse=True)
    try:
        items = [{"document": {"title": str(number)}} for number in range(150)]
        items[3] = {"document": {"title": "forbidden"}}
        items[77] = {"document": {"isbn": 1}}
        items[120] = {"document": {"isbn": 1}}
        results = await bulk(service, items)
    finally:
        await database.command({"collMod": "notes", "validator": {}})
        await notes.drop_index("isbn_1")
    refused = {number: result["code"] for number, result in enumerate(results) if "code" in result}
    assert refused == {3: "invalid_document", 120: "conflict"}
    uuids = [UUID(result["uuid"]) for result in results if "code" not in result]
    assert await notes.count_documents({"_id": {"$in": uuids}}) == 148


async def test_a_thousand_items_take_few_round_trips(start_api, deployment):
    commands = []

    class Counter(CommandListener):
        def started(self, event):
            commands.append(event.command_name)

        def succeeded(self, event):
            """Of no interest."""

        failed = succeeded

    client = connect(deployment.settings())
    counted = client.__class__(deployment.uri, event_listeners=[Counter()], uuidRepresentation="standard")
    await client.close()
    try:
        batches = Batches(counted, deployment.control_database)
        service = (await start_api(services={"batches": batches})).service()
        wanted = [{"subject": "user:bob", "role": "reader"}]
        items = [{"document": {"n": n}, "grants": wanted} for n in range(1000)]
        answer = await service.post("/v1/docs/notes:bulk", {"items": items})
    finally:
        await counted.close()
    assert (answer.json["succeeded"], answer.json["failed"]) == (1000, 0)
    assert len(commands) <= 120


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"items": []}, "bad_request"),
        ({"items": [{"document": {}}] * 1001}, "bad_request"),
        ({"items": {}}, "invalid_json"),
        ({"items": [], "more": 1}, "invalid_json"),
        ([], "invalid_json"),
    ],
)
async def test_a_request_without_a_list_of_items_is_refused_as_a_whole(alice, body, code):
    for path in ("/v1/docs/notes:bulk", "/v1/grants:bulk"):
        answer = await alice.post(path, body)
        assert (answer.status, answer.code) == (400, code)


async def test_a_bulk_request_needs_a_registered_collection_and_json(api, alice):
    assert (await alice.post("/v1/docs/nothing:bulk", {"items": [{}]})).code == "unknown_collection"
    assert (
        await alice.post("/v1/docs/notes:bulk", b"x", Content_Type="text/plain")
    ).code == "unsupported_media_type"
    assert (await api.anybody().post("/v1/docs/notes:bulk", {"items": [{}]})).code == "unauthenticated"


async def test_only_a_bulk_request_may_be_larger_than_a_document(start_api):
    alice = (await start_api(max_document_bytes=1024)).someone()
    items = [{"document": {"text": "x" * 900}} for _ in range(200)]
    assert statuses(await bulk(alice, items)) == [(201, None)] * 200
    answer = await alice.post("/v1/docs/notes", b" " * 200_000)
    assert answer.code == "payload_too_large"
    answer = await alice.post("/v1/docs/notes:bulk", b" " * (16 * 2**20 + 1))
    assert answer.code == "payload_too_large"


async def test_bulk_and_single_writes_of_one_document_do_not_lose_each_other(alice, service):
    path = (await alice.post("/v1/docs/notes", {})).headers["Location"]
    uuid = path.rpartition("/")[2]
    await asyncio.gather(
        *(alice.patch(path, {f"single{number}": True}) for number in range(5)),
        *(bulk(service, [{"uuid": uuid, "mode": "merge", "document": {f"bulk{n}": True}}]) for n in range(5)),
    )
    assert len((await alice.get(path)).json) == 11


async def test_grants_are_set_and_taken_away_in_order(alice, bob, grants, control):
    uuid = (await alice.post("/v1/docs/notes", {})).json["uuid"]
    end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    results = await regrant(
        alice,
        [
            {"uuid": uuid, "subject": "user:bob", "role": "owner"},
            {"uuid": uuid, "subject": "user:alice", "role": None},
            {"uuid": uuid, "subject": "user:carol", "role": "reader"},
        ],
    )
    # Having given it away, alice has no further say.
    assert statuses(results) == [(201, None), (204, None), (403, "forbidden")]
    assert [result["subject"] for result in results[:2]] == ["user:bob", "user:alice"]
    results = await regrant(
        bob,
        [
            {"uuid": uuid, "subject": "user:carol", "role": "reader", "expires_at": end},
            {"uuid": uuid, "subject": "user:carol", "role": "writer"},
            {"uuid": uuid, "subject": "user:nobody", "role": None},
            {"uuid": uuid, "subject": "user:bob", "role": "writer"},
            {"uuid": str(uuid4()), "subject": "user:bob", "role": "owner"},
            {"uuid": uuid, "subject": "user:bob", "role": "king"},
            {"uuid": uuid, "subject": "user:bob"},
            {"uuid": uuid, "subject": "user:bob", "role": "owner", "expires_at": "yesterday"},
        ],
    )
    assert statuses(results) == [
        (201, None),
        (200, None),
        (404, "not_found"),
        (409, "conflict"),
        (403, "forbidden"),
        (422, "invalid_role"),
        (422, "invalid_role"),
        (422, "invalid_grant"),
    ]
    assert await roles(grants, uuid) == {"user:bob": "owner", "user:carol": "writer"}
    query = {"uuid": Binary.from_uuid(UUID(uuid)), "action": {"$regex": "^grant"}}
    actions = [entry["action"] async for entry in control["audit"].find(query).sort("_id")]
    assert actions == ["grant.set", "grant.remove", "grant.set", "grant.set"]


async def test_a_thousand_grants_of_many_documents(api, service, grants):
    made = await bulk(service, [{"document": {}} for _ in range(250)])
    items = [
        {"uuid": result["uuid"], "subject": f"user:{name}", "role": "reader"}
        for result in made
        for name in ("a", "b", "c", "d")
    ]
    results = await regrant(service, items)
    assert {result["status"] for result in results} == {201}
    assert len(await roles(grants, made[-1]["uuid"])) == 5


async def test_without_mongodb_every_item_says_so(start_api, deployment, free_ports, monkeypatch):
    monkeypatch.setattr("livedocs.store.transactions._SECONDS", 0.5)
    [port] = free_ports(1)
    client = connect(deployment.settings(mongodb_uri=f"mongodb://127.0.0.1:{port}"))
    try:
        api = await start_api(services={"batches": Batches(client, "x")})
        results = await bulk(api.someone(), [{"document": {}} for _ in range(300)])
    finally:
        await client.close()
    assert statuses(results) == [(503, "unavailable")] * 300


async def test_the_answer_of_a_bulk_request_is_as_described(api, alice):
    schema = (await api.anybody().get("/openapi.json")).json
    operation = schema["paths"]["/v1/docs/{collection}:bulk"]["post"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["collection", "Idempotency-Key"]
    assert "items" in json.dumps(operation["requestBody"])


async def test_a_bulk_request_sent_again_with_its_key_writes_the_same_documents(alice, bob):
    body, key = {"items": [{"document": {"n": n}} for n in range(3)]}, str(uuid4())
    first, again, other = [
        (await who.post("/v1/docs/notes:bulk", body, Idempotency_Key=sent)).json["results"]
        for who, sent in ((alice, key), (alice, key), (bob, key))
    ]
    assert [result["uuid"] for result in first] == [result["uuid"] for result in again]
    assert {result["uuid"] for result in first}.isdisjoint(result["uuid"] for result in other)
    assert [result["status"] for result in again] == [200] * 3
    assert len({result["uuid"] for result in first}) == 3


async def test_a_bulk_key_stands_for_one_request_of_one_caller(alice, mongo, deployment):
    key, mark = str(uuid4()), str(uuid4())
    body = {"items": [{"document": {"mark": mark}}]}
    # One that was refused as a whole has not used it up.
    assert (await alice.post("/v1/docs/notes:bulk", {"items": []}, Idempotency_Key=key)).code == "bad_request"
    sent = [alice.post("/v1/docs/notes:bulk", body, Idempotency_Key=key) for _ in range(4)]
    assert {answer.status for answer in await asyncio.gather(*sent)} == {200}
    for path, other in (("notes", {"items": [{"document": {"mark": mark, "n": 2}}]}), ("test", body)):
        refused = await alice.post(f"/v1/docs/{path}:bulk", other, Idempotency_Key=key)
        assert (refused.status, refused.code) == (422, "idempotency_key_reused")
    single = await alice.post("/v1/docs/notes", {"mark": mark}, Idempotency_Key=key)
    assert single.code == "idempotency_key_reused"
    found = await mongo[deployment.databases["acme"]]["notes"].find({"mark": mark}).to_list()
    assert [set(document) for document in found] == [{"_id", "mark"}]
