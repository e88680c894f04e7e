from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from bson import Binary, Int64, ObjectId

from livedocs.model import Grant, GrantKey, Role
from livedocs.store.audit import Actor
from livedocs.store.grants import Grants

SYSTEM = Actor("system")


@pytest.fixture
def alice(api):
    return api.someone("user:alice", groups=("staff",))


@pytest.fixture
def bob(api):
    return api.someone("user:bob")


@pytest.fixture
def grants(mongo, deployment):
    return Grants(mongo, deployment.control_database)


@pytest.fixture
def notes(mongo, deployment):
    return mongo[deployment.databases["acme"]]["notes"]


@pytest.fixture
def test(mongo, deployment):
    return mongo[deployment.databases["acme"]]["test"]


def grant(uuid, subject, role=Role.READER, expires_at=None, tenant="acme"):
    return Grant(GrantKey(tenant, uuid, subject), role, expires_at, "system", datetime.now(UTC))


async def made(alice, fields=None, collection="notes"):
    """The path of a new document."""
    answer = await alice.post(f"/v1/docs/{collection}", fields or {"title": "First"})
    assert answer.status == 201, answer.body
    return answer.headers["Location"]


async def test_a_created_document_is_answered_with_its_uuid_and_place(alice):
    answer = await alice.post("/v1/docs/notes", {"title": "Hello", "n": 1})
    assert answer.status == 201
    assert list(answer.json) == ["uuid", "title", "n"]
    assert answer.headers["Location"] == f"/v1/docs/notes/{answer.json['uuid']}"
    assert answer.headers["Content-Type"] == "application/json"
    again = await alice.get(answer.headers["Location"])
    assert (again.status, again.json) == (200, answer.json)
    assert again.headers["ETag"] == answer.headers["ETag"]


async def test_a_chosen_uuid_is_used_in_lower_case(alice, notes):
    uuid = uuid4()
    answer = await alice.post("/v1/docs/notes", {"uuid": str(uuid).upper(), "a": 1})
    assert answer.json == {"uuid": str(uuid), "a": 1}
    assert await notes.find_one({"_id": uuid}) == {"_id": uuid, "a": 1}


async def test_a_collection_keyed_by_uuid_keeps_an_id_of_its_own(alice, test):
    uuid = uuid4()
    answer = await alice.post("/v1/docs/test", {"uuid": str(uuid), "a": 1})
    stored = await test.find_one({"uuid": Binary.from_uuid(uuid)})
    assert answer.json == {"uuid": str(uuid), "_id": {"$oid": str(stored["_id"])}, "a": 1}


async def test_the_creator_becomes_owner_in_the_same_transaction(alice, control, notes):
    path = await made(alice)
    uuid = path.rpartition("/")[2]
    stored = [item async for item in control["acl"].find({"_id.uuid": Binary.from_uuid(UUID(uuid))})]
    assert [(item["_id"]["subject"], item["role"]) for item in stored] == [("user:alice", "owner")]
    entry = await control["audit"].find_one({"uuid": Binary.from_uuid(UUID(uuid))})
    assert (entry["action"], entry["actor"], entry["subject"]) == ("document.create", "user:alice", "user:alice")
    assert entry["detail"] == {"collection": "notes"}


async def test_a_document_that_the_collection_refuses_leaves_no_grant_behind(alice, control, mongo, deployment):
    database = mongo[deployment.databases["acme"]]
    await database.command({"collMod": "notes", "validator": {"title": {"$ne": "forbidden"}}})
    try:
        uuid = uuid4()
        answer = await alice.post("/v1/docs/notes", {"uuid": str(uuid), "title": "forbidden"})
    finally:
        await database.command({"collMod": "notes", "validator": {}})
    assert (answer.status, answer.code) == (422, "invalid_document")
    assert await control["acl"].find_one({"_id.uuid": Binary.from_uuid(uuid)}) is None
    assert await control["audit"].find_one({"uuid": Binary.from_uuid(uuid)}) is None


async def test_values_of_bson_go_in_and_come_out_as_extended_json(alice, notes):
    fields = {
        "id": {"$oid": "0123456789abcdef01234567"},
        "at": {"$date": "2024-01-02T03:04:05.678Z"},
        "long": {"$numberLong": "9007199254740993"},
        "price": {"$numberDecimal": "1.10"},
        "blob": {"$binary": {"base64": "AAE=", "subType": "00"}},
    }
    path = await made(alice, fields)
    shown = (await alice.get(path)).json
    assert {name: shown[name] for name in fields} == fields
    stored = await notes.find_one({"_id": UUID(path.rpartition("/")[2])})
    assert stored["id"] == ObjectId("0123456789abcdef01234567")
    assert stored["at"] == datetime(2024, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert stored["long"] == Int64(9007199254740993)


async def test_a_taken_uuid_is_refused_whoever_has_it(alice, bob):
    path = await made(alice)
    uuid = path.rpartition("/")[2]
    answers = [await who.post("/v1/docs/notes", {"uuid": uuid}) for who in (alice, bob)]
    assert [(answer.status, answer.code) for answer in answers] == [(409, "conflict")] * 2
    elsewhere = await bob.post("/v1/docs/test", {"uuid": uuid})
    assert elsewhere.json == answers[1].json


async def test_a_writer_may_create_a_document_of_the_uuid_in_another_collection(alice, grants):
    uuid = (await made(alice)).rpartition("/")[2]
    answer = await alice.post("/v1/docs/test", {"uuid": uuid, "a": 1})
    assert answer.status == 201
    assert len(await grants.of_uuid("acme", UUID(uuid))) == 1


async def test_a_forbidden_document_and_one_that_does_not_exist_are_refused_alike(alice, bob):
    path = await made(alice)
    nowhere = f"/v1/docs/notes/{uuid4()}"
    seen = [await bob.get(path), await bob.get(nowhere)]
    gone = [await bob.delete(path), await bob.delete(nowhere)]
    assert [answer.status for answer in seen + gone] == [403] * 4
    assert seen[0].body == seen[1].body == gone[0].body == gone[1].body


async def test_the_other_tenant_sees_nothing_even_with_the_same_names(api, alice):
    path = await made(alice)
    stranger = api.someone("user:alice", tenant="globex", groups=("staff",))
    assert (await stranger.get(path)).code == "forbidden"
    uuid = path.rpartition("/")[2]
    # The same UUID is another document there.
    assert (await stranger.put(path, {"mine": True})).status == 201
    assert (await stranger.get(path)).json == {"uuid": uuid, "mine": True}
    assert (await alice.get(path)).json == {"uuid": uuid, "title": "First"}


@pytest.mark.parametrize("subject", ["user:bob", "group:staff", "tenant:*"])
async def test_a_reader_reads_and_writes_nothing(api, alice, grants, subject):
    path = await made(alice)
    await grants.put(grant(UUID(path.rpartition("/")[2]), subject), SYSTEM)
    reader = api.someone("user:bob", groups=("staff",))
    assert (await reader.get(path)).status == 200
    refused = [await reader.put(path, {}), await reader.patch(path, {"a": 1}), await reader.delete(path)]
    assert [answer.code for answer in refused] == ["forbidden"] * 3
    assert (await alice.get(path)).json["title"] == "First"


async def test_a_writer_writes(alice, bob, grants):
    path = await made(alice)
    await grants.put(grant(UUID(path.rpartition("/")[2]), "user:bob", Role.WRITER), SYSTEM)
    assert (await bob.patch(path, {"by": "bob"})).status == 200
    assert (await bob.delete(path)).status == 204


async def test_a_grant_that_has_ended_allows_nothing_though_it_is_still_stored(alice, bob, grants, control):
    path = await made(alice)
    past = datetime.now(UTC) - timedelta(seconds=1)
    await grants.put(grant(UUID(path.rpartition("/")[2]), "user:bob", Role.OWNER, past), SYSTEM)
    assert (await bob.get(path)).code == "forbidden"
    assert (await bob.patch(path, {"a": 1})).code == "forbidden"


async def test_a_service_with_the_scope_writes_every_document_and_a_person_with_it_does_not(api, alice):
    path = await made(alice)
    assert (await api.service().patch(path, {"seen": True})).json["seen"] is True
    assert (await api.someone("client:other").patch(path, {"a": 1})).code == "forbidden"
    assert (await api.someone("user:bob", scope="livedocs:write").patch(path, {"a": 1})).code == "forbidden"


async def test_put_replaces_the_whole_document(alice):
    path = await made(alice, {"a": 1, "b": 2})
    answer = await alice.put(path, {"c": 3})
    assert (answer.status, answer.json) == (200, {"uuid": path.rpartition("/")[2], "c": 3})


@pytest.mark.parametrize("collection", ["notes", "test"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_put_and_patch_create_what_does_not_exist_for_its_new_owner(alice, grants, collection, method):
    uuid = uuid4()
    answer = await alice.request(method, f"/v1/docs/{collection}/{uuid}", {"a": 1, "b": {"c": 2}})
    assert answer.status == 201
    assert answer.headers["Location"] == f"/v1/docs/{collection}/{uuid}"
    assert [held.key.subject for held in await grants.of_uuid("acme", uuid)] == ["user:alice"]
    assert (await alice.request(method, f"/v1/docs/{collection}/{uuid}", {"a": 2})).status == 200


async def test_a_replaced_document_of_a_collection_keyed_by_uuid_keeps_its_id(alice, test):
    path = await made(alice, {"a": 1}, "test")
    before = await test.find_one({"uuid": UUID(path.rpartition("/")[2])})
    await alice.put(path, {"b": 2})
    assert await test.find_one({"_id": before["_id"]}) == {"_id": before["_id"], "uuid": before["uuid"], "b": 2}


async def test_a_merge_changes_what_it_names_and_null_removes(alice):
    path = await made(alice, {"a": 1, "b": {"c": 2, "d": 3}, "e": [1]})
    answer = await alice.patch(
        path, {"a": None, "b": {"c": 9}, "e": [2]}, Content_Type="application/merge-patch+json"
    )
    assert answer.json == {"uuid": path.rpartition("/")[2], "b": {"c": 9, "d": 3}, "e": [2]}


async def test_a_merge_is_one_update_event_with_only_what_changed(alice, notes):
    path = await made(alice, {"a": 1, "b": {"c": 2, "d": 3}})
    async with await notes.watch() as stream:
        await alice.patch(path, {"a": 1, "b": {"c": 9}, "x": None})
        async with asyncio.timeout(10):
            event = await stream.next()
    assert event["operationType"] == "update"
    assert event["updateDescription"]["updatedFields"] == {"b.c": 9}
    assert event["updateDescription"]["removedFields"] == []


async def test_a_merge_without_a_difference_writes_nothing(alice, notes):
    path = await made(alice, {"a": 1})
    before = (await alice.get(path)).headers["ETag"]
    async with await notes.watch() as stream:
        answer = await alice.patch(path, {"a": 1, "gone": None})
        await alice.patch(path, {"a": 2})
        async with asyncio.timeout(10):
            event = await stream.next()
    assert (answer.status, answer.headers["ETag"]) == (200, before)
    assert event["updateDescription"]["updatedFields"] == {"a": 2}


async def test_a_write_with_the_tag_of_an_older_state_is_refused(alice):
    path = await made(alice)
    tag = (await alice.get(path)).headers["ETag"]
    assert (await alice.patch(path, {"a": 1}, If_Match=tag)).status == 200
    for method in ("PUT", "PATCH", "DELETE"):
        body = None if method == "DELETE" else {"a": 2}
        answer = await alice.request(method, path, body, If_Match=tag)
        assert (answer.status, answer.code) == (412, "precondition_failed")
    assert (await alice.get(path)).json["a"] == 1


async def test_if_none_match_star_creates_only(alice):
    path = f"/v1/docs/notes/{uuid4()}"
    assert (await alice.put(path, {"a": 1}, If_None_Match="*")).status == 201
    assert (await alice.put(path, {"a": 2}, If_None_Match="*")).code == "precondition_failed"


async def test_if_match_never_creates(alice):
    uuid = uuid4()
    # Nor does it say that there is none.
    assert (await alice.put(f"/v1/docs/notes/{uuid}", {"a": 1}, If_Match="*")).code == "forbidden"
    assert (await alice.put(f"/v1/docs/notes/{uuid}", {"a": 1})).status == 201
    assert (await alice.put(f"/v1/docs/test/{uuid}", {"a": 1}, If_Match="*")).code == "precondition_failed"
    assert (await alice.put(f"/v1/docs/test/{uuid}", {"a": 1})).status == 201


async def test_conditions_tell_nothing_to_those_who_may_not_look(alice, bob):
    path = await made(alice)
    tag = (await alice.get(path)).headers["ETag"]
    assert (await bob.get(path, If_None_Match=tag)).code == "forbidden"
    assert (await bob.put(path, {}, If_Match=tag)).code == "forbidden"


async def test_an_unchanged_document_is_not_sent_again(alice):
    path = await made(alice)
    tag = (await alice.get(path)).headers["ETag"]
    answer = await alice.get(path, If_None_Match=f'"other", W/{tag}')
    assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    await alice.patch(path, {"a": 1})
    assert (await alice.get(path, If_None_Match=tag)).status == 200


async def test_an_answer_without_a_body_on_request(alice):
    answer = await alice.post("/v1/docs/notes", {"a": 1}, Prefer="return=minimal")
    assert (answer.status, answer.body) == (201, b"")
    assert answer.headers["Preference-Applied"] == "return=minimal"
    changed = await alice.patch(answer.headers["Location"], {"a": 2}, Prefer="respond-async, return=minimal")
    assert (changed.status, changed.body) == (204, b"")
    assert changed.headers["ETag"]
    for prefer, status in (('RETURN = "minimal"; x', 204), ("return=representation, return=minimal", 200)):
        assert (await alice.patch(answer.headers["Location"], {"a": 3}, Prefer=prefer)).status == status


async def test_what_is_only_looked_at_is_answered_as_when_it_is_read(alice):
    path = await made(alice)
    read = await alice.get(path, Prefer="return=minimal")
    looked = await alice.request("HEAD", path, Prefer="return=minimal")
    assert (read.status, looked.status) == (200, 200)
    assert looked.headers["ETag"] == read.headers["ETag"]


async def test_a_deleted_document_is_gone_for_its_owner_who_can_make_it_anew(alice, control):
    path = await made(alice)
    assert (await alice.delete(path)).status == 204
    for answer in (await alice.get(path), await alice.delete(path)):
        assert (answer.status, answer.code) == (404, "not_found")
    entry = await control["audit"].find_one(
        {"uuid": Binary.from_uuid(UUID(path.rpartition("/")[2])), "action": "document.delete"}
    )
    assert entry["actor"] == "user:alice"
    assert (await alice.put(path, {"again": True})).status == 201


async def test_a_document_written_by_another_program_belongs_to_nobody_until_it_is_granted(
    api, alice, test, grants
):
    uuid = uuid4()
    await test.insert_one({"uuid": uuid, "a": 1})
    path = f"/v1/docs/test/{uuid}"
    assert (await alice.get(path)).code == "forbidden"
    assert (await alice.put(path, {"mine": True})).code == "forbidden"
    assert (await alice.put(f"/v1/docs/notes/{uuid}", {"mine": True})).code == "forbidden"
    assert (await alice.post("/v1/docs/notes", {"uuid": str(uuid)})).code == "conflict"
    assert (await api.service().patch(path, {"a": 2})).json["a"] == 2
    assert await grants.of_uuid("acme", uuid) == []


async def test_of_several_documents_with_one_uuid_none_is_read_or_written(alice, test, grants):
    uuid = uuid4()
    await test.insert_many([{"_id": number, "uuid": uuid} for number in (2, 1)])
    await grants.put(grant(uuid, "user:alice", Role.OWNER), SYSTEM)
    path = f"/v1/docs/test/{uuid}"
    for method, body in (("GET", None), ("PUT", {}), ("PATCH", {"a": 1}), ("DELETE", None)):
        answer = await alice.request(method, path, body)
        assert (answer.status, answer.code) == (409, "ambiguous")
    (result,) = (await alice.post("/v1/docs/test:bulk", {"items": [{"uuid": str(uuid), "document": {}}]})).json[
        "results"
    ]
    assert (result["status"], result["code"]) == (409, "ambiguous")
    assert await test.count_documents({"uuid": uuid}) == 2


OID = ObjectId("0123456789abcdef01234567")


@pytest.mark.parametrize(
    ("identifier", "query"),
    [
        (1, "1"),
        ("one", '"one"'),
        ("0123456789abcdef01234567", '"0123456789abcdef01234567"'),
        (OID, "0123456789abcdef01234567"),
        (OID, '{"$oid":"0123456789abcdef01234567"}'),
        (2.5, "2.5"),
        (None, "null"),
        ({"region": "eu", "n": Int64(5)}, '{"region":"eu","n":{"$numberLong":"5"}}'),
        (datetime(2026, 1, 2, tzinfo=UTC), '{"$date":"2026-01-02T00:00:00Z"}'),
    ],
    ids=str,
)
async def test_the_one_with_that_id_is_read_and_written_and_no_other(alice, test, grants, identifier, query):
    await test.delete_many({})
    uuid, others = uuid4(), [7, ObjectId()]
    await test.insert_many([{"_id": one, "uuid": uuid, "n": 0} for one in (*others, identifier)])
    await grants.put(grant(uuid, "user:alice", Role.OWNER), SYSTEM)
    path = f"/v1/docs/test/{uuid}?_id={quote(query)}"
    shown = await alice.get(path)
    assert (shown.status, shown.json["n"]) == (200, 0)
    assert (await alice.patch(path, {"n": 1}, If_Match=shown.headers["ETag"])).status == 200
    assert (await alice.put(path, {**shown.json, "n": 2})).json["_id"] == shown.json["_id"]
    assert (await test.find_one({"_id": {"$eq": identifier}}))["n"] == 2
    assert (await alice.delete(path)).status == 204
    assert {one["n"] async for one in test.find({"uuid": uuid})} == {0}
    assert await test.count_documents({"uuid": uuid}) == 2
    # None is made under an _id that a client has chosen.
    for method, body in (("GET", None), ("PUT", {}), ("PATCH", {"a": 1}), ("DELETE", None)):
        assert (await alice.request(method, path, body)).code == "not_found"


async def test_an_id_in_the_query_says_nothing_to_strangers_and_must_be_one(alice, bob, test, notes, grants):
    uuid = uuid4()
    await test.insert_many([{"_id": f"{uuid}{number}", "uuid": uuid} for number in range(2)])
    await grants.put(grant(uuid, "user:alice", Role.OWNER), SYSTEM)
    answers = [
        (await bob.request(method, f"/v1/docs/test/{one}?_id={quote(identifier)}", body)).body
        for one in (uuid, uuid4())
        for identifier in (f'"{uuid}0"', '"other"')
        for method, body in (("GET", None), ("PUT", {}), ("PATCH", {}), ("DELETE", None))
    ]
    assert len(set(answers)) == 1
    assert b'"forbidden"' in answers[0]
    values = ["{", "", "x", f'"{"x" * 5000}"', '{"$ne":null}', '{"a":{"$gt":1}}', "[" * 900, '{"a\\u0000":1}']
    values += ["18446744073709551616", '{"$numberLong":"99999999999999999999"}', '{"a":' * 40 + "1" + "}" * 40]
    for query in ("_id=1&_id=2", *(f"_id={quote(value)}" for value in values)):
        answer = await alice.get(f"/v1/docs/test/{uuid}?{query}")
        assert (answer.status, answer.code, answer.json["parameter"]) == (400, "bad_request", "_id")
    answer = await alice.get(f"/v1/docs/notes/{uuid}?_id=1")
    assert (answer.status, answer.code) == (400, "bad_request")


async def test_an_array_that_holds_the_uuid_is_not_the_document(alice, test):
    uuid = uuid4()
    await test.insert_one({"uuid": [uuid], "secret": True})
    assert (await alice.put(f"/v1/docs/test/{uuid}", {"mine": 1})).status == 201
    assert (await alice.get(f"/v1/docs/test/{uuid}")).json.get("secret") is None


async def test_what_json_cannot_hold_does_not_break_a_read(alice, notes):
    path = await made(alice)
    uuid = UUID(path.rpartition("/")[2])
    await notes.update_one({"_id": uuid}, {"$set": {"nan": float("nan"), "deep": {"far": Int64(2**60)}}})
    shown = (await alice.get(path)).json
    assert shown["nan"] == {"$numberDouble": "NaN"}
    assert shown["deep"]["far"] == {"$numberLong": str(2**60)}


@pytest.mark.parametrize(
    ("fields", "status", "code", "path"),
    [
        ({"$where": "1"}, 422, "invalid_field", "$where"),
        ({"a": {"b.c": 1}}, 422, "invalid_field", "a.b.c"),
        ({"a": [{"__proto__": 1}]}, 422, "invalid_field", "a.0.__proto__"),
        ({"": 1}, 422, "invalid_field", ""),
        ({"_id": 1}, 422, "invalid_field", "_id"),
        ({"n": 2**63}, 422, "invalid_document", "n"),
    ],
)
async def test_a_refused_document_says_where_and_changes_nothing(alice, fields, status, code, path):
    target = await made(alice)
    for method in ("PUT", "PATCH"):
        answer = await alice.request(method, target, fields)
        assert (answer.status, answer.code, answer.json["path"]) == (status, code, path)
    assert (await alice.post("/v1/docs/notes", fields)).code == code
    assert (await alice.get(target)).json == {"uuid": target.rpartition("/")[2], "title": "First"}


async def test_a_document_may_say_its_own_uuid_and_no_other(alice):
    path = await made(alice)
    own = path.rpartition("/")[2]
    for method in ("PUT", "PATCH"):
        for written in (own, own.upper()):
            answer = await alice.request(method, path, {"uuid": written, "title": method})
            assert (answer.status, answer.json) == (200, {"uuid": own, "title": method})
        for wrong in (str(uuid4()), "x", None, 5, {"$uuid": str(uuid4())}):
            answer = await alice.request(method, path, {"uuid": wrong})
            assert (answer.status, answer.code, answer.json["path"]) == (422, "invalid_field", "uuid")


@pytest.mark.parametrize(
    ("levels", "status", "code"),
    [(33, 422, "too_deep"), (200, 422, "too_deep"), (900, 422, "too_deep"), (100_000, 400, "invalid_json")],
)
async def test_however_deep_a_document_is_it_is_only_refused(alice, levels, status, code):
    body = b'{"a":' * levels + b"1" + b"}" * levels
    answer = await alice.post("/v1/docs/notes", body)
    assert (answer.status, answer.code) == (status, code)


async def test_a_document_past_the_limit_is_refused_and_may_not_grow_past_it(start_api):
    alice = (await start_api(max_document_bytes=2048)).someone()
    assert (await alice.post("/v1/docs/notes", {"a": "x" * 2048})).code == "document_too_large"
    path = await made(alice, {"a": "x" * 1000})
    answer = await alice.patch(path, {"b": "y" * 1100})
    assert (answer.status, answer.code) == (413, "document_too_large")
    assert "b" not in (await alice.get(path)).json


async def test_a_document_that_is_too_large_already_may_shrink(start_api, notes):
    alice = (await start_api(max_document_bytes=2048)).someone()
    path = await made(alice, {"a": 1})
    await notes.update_one({"_id": UUID(path.rpartition("/")[2])}, {"$set": {"big": "x" * 4000, "more": "y"}})
    assert (await alice.patch(path, {"more": None})).status == 200


async def test_a_clients_object_is_never_a_filter(alice, notes):
    kept = await made(alice, {"keep": True})
    for value in ({"$ne": None}, {"$gt": ""}):
        answer = await alice.post("/v1/docs/notes", {"uuid": value})
        assert (answer.status, answer.code) == (400, "invalid_uuid")
    assert (await alice.get(kept)).status == 200


@pytest.mark.parametrize(
    "uuid",
    ["nope", "{%s}", "urn:uuid:%s", "%s0", "%.35s", "%%24ne", "00000000000000000000000000000000"],
)
async def test_what_is_no_uuid_is_said_so(alice, uuid):
    text = uuid % str(uuid4()) if "%" in uuid.replace("%%", "") else uuid.replace("%%", "%")
    answer = await alice.get(f"/v1/docs/notes/{text}")
    assert (answer.status, answer.code) == (400, "invalid_uuid")


async def test_a_uuid_in_upper_case_is_the_same(alice):
    path = await made(alice)
    uuid = path.rpartition("/")[2]
    answer = await alice.get(f"/v1/docs/notes/{uuid.upper()}")
    assert answer.json["uuid"] == uuid


@pytest.mark.parametrize("collection", ["unknown", "system.users", "acl", "$cmd", "Notes"])
async def test_a_collection_that_is_not_registered_is_said_so(alice, collection):
    for answer in (
        await alice.get(f"/v1/docs/{collection}/{uuid4()}"),
        await alice.post(f"/v1/docs/{collection}", {"a": 1}),
    ):
        assert (answer.status, answer.code) == (404, "unknown_collection")


async def test_of_many_creators_of_one_uuid_one_wins(api, control, notes):
    uuid = uuid4()
    creators = [api.someone(f"user:u{number}") for number in range(6)]
    answers = await asyncio.gather(
        *(
            who.put(f"/v1/docs/{'notes' if number % 2 else 'test'}/{uuid}", {"by": number})
            for number, who in enumerate(creators)
        )
    )
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [201, 403, 403, 403, 403, 403]
    winner = next(number for number, answer in enumerate(answers) if answer.status == 201)
    held = [item["_id"]["subject"] async for item in control["acl"].find({"_id.uuid": Binary.from_uuid(uuid)})]
    assert held == [f"user:u{winner}"]


async def test_merges_at_the_same_time_lose_nothing(alice):
    path = await made(alice, {"fields": {}})
    answers = await asyncio.gather(
        *(alice.patch(path, {"fields": {f"f{number}": number}}) for number in range(20))
    )
    assert {answer.status for answer in answers} == {200}
    assert (await alice.get(path)).json["fields"] == {f"f{number}": number for number in range(20)}


async def test_of_conditional_writes_at_the_same_time_one_succeeds(alice):
    path = await made(alice, {"n": 0})
    tag = (await alice.get(path)).headers["ETag"]
    answers = await asyncio.gather(*(alice.put(path, {"n": number}, If_Match=tag) for number in range(1, 6)))
    assert sorted(answer.status for answer in answers) == [200, 412, 412, 412, 412]


async def test_no_write_is_committed_behind_the_revoke_that_forbids_it(api, alice, grants, mongo, deployment):
    """Each document's last change must be older, in the order of the oplog, than the end of the writer's grant."""
    writer = api.someone("user:writer")
    for _ in range(5):
        path = await made(alice, {"n": 0})
        uuid = UUID(path.rpartition("/")[2])
        await grants.put(grant(uuid, "user:writer", Role.WRITER), SYSTEM)
        async with await mongo.watch(
            [
                {
                    "$match": {
                        "ns.db": {"$in": [deployment.control_database, deployment.databases["acme"]]},
                        "ns.coll": {"$in": ["acl", "notes"]},
                    }
                }
            ]
        ) as stream:
            writes = [asyncio.create_task(writer.patch(path, {"n": number})) for number in range(1, 8)]
            revoke = asyncio.create_task(alice.delete(f"/v1/grants/{uuid}/user:writer"))
            answers = await asyncio.gather(*writes)
            assert (await revoke).status == 204
            last = await alice.patch(path, {"end": True})
            assert last.status == 200
            kinds = []
            async with asyncio.timeout(20):
                while "end" not in kinds:
                    event = await stream.next()
                    if event["ns"]["coll"] == "acl":
                        kinds.append("revoke")
                    else:
                        kinds.append("end" if "end" in event["updateDescription"]["updatedFields"] else "write")
        assert kinds.index("revoke") == len(kinds) - 2, kinds
        assert kinds.count("write") == [answer.status for answer in answers].count(200)
        assert {answer.status for answer in answers} <= {200, 403}


@pytest.mark.parametrize("collection", ["notes", "test"])
async def test_the_same_request_sent_again_makes_one_document_and_gets_the_same_answer(alice, collection, control):
    key = str(uuid4())
    first, second = [
        await alice.post(f"/v1/docs/{collection}", {"title": "Once", "n": 1}, Idempotency_Key=key)
        for _ in range(2)
    ]
    assert (first.status, second.status) == (201, 201)
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    for name in ("Location", "ETag"):
        assert second.headers[name] == first.headers[name]
    assert second.body == first.body
    assert (await alice.get(first.headers["Location"])).headers["ETag"] == first.headers["ETag"]
    uuid = Binary.from_uuid(UUID(first.json["uuid"]))
    assert await control["audit"].count_documents({"uuid": uuid}) == 1


async def test_requests_with_one_key_at_the_same_time_make_one_document(alice):
    key = str(uuid4())
    answers = await asyncio.gather(
        *(alice.post("/v1/docs/notes", {"a": 1}, Idempotency_Key=f'"{key}"') for _ in range(5))
    )
    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["uuid"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1


async def test_a_key_stands_for_one_request_of_one_caller(api, alice, bob):
    key = str(uuid4())
    first = await alice.post("/v1/docs/notes", {"a": 1}, Idempotency_Key=key)
    for path, body in (("notes", {"a": 2}), ("test", {"a": 1}), ("notes", {"a": 1, "uuid": str(uuid4())})):
        other = await alice.post(f"/v1/docs/{path}", body, Idempotency_Key=key)
        assert (other.status, other.code) == (422, "idempotency_key_reused")
    for who in (bob, api.someone("user:alice", tenant="globex")):
        answer = await who.post("/v1/docs/notes", {"a": 1}, Idempotency_Key=key)
        assert answer.status == 201
        assert answer.json["uuid"] != first.json["uuid"]


async def test_a_request_that_was_refused_may_succeed_with_its_key_later(alice, control):
    key, uuid = str(uuid4()), str(uuid4())
    owner = {"tenant": "acme", "uuid": Binary.from_uuid(UUID(uuid)), "subject": "user:bob"}
    await control["acl"].insert_one({"_id": owner, "role": "owner"})
    taken = await alice.post("/v1/docs/notes", {"uuid": uuid}, Idempotency_Key=key)
    assert taken.code == "conflict"
    await control["acl"].delete_one({"_id": owner})
    assert (await alice.post("/v1/docs/notes", {"uuid": uuid}, Idempotency_Key=key)).status == 201


@pytest.mark.parametrize("key", ["", '""', "with space", "x" * 256, '"open', "a,b"])
async def test_a_key_that_is_none_is_refused(alice, key):
    answer = await alice.post("/v1/docs/notes", {}, Idempotency_Key=key)
    assert (answer.status, answer.code) == (400, "bad_request")
