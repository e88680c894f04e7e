"""Values that MongoDB has are kept to the last digit; those that it has not are refused, each where it stands."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from bson import Int64

LARGEST, SMALLEST = 2**63 - 1, -(2**63)
TOO_LONG = [2**63, 2**64 - 1, 2**64, SMALLEST - 1, 10**30]
FORMS = {
    "plain": "{}",
    "nested": '[{{"deep":{}}}]',
    "typed": '{{"$numberLong":"{}"}}',
    "typed, bare": '{{"$numberLong":{}}}',
    "in a scope": '{{"$code":"x","$scope":{{"n":{}}}}}',
}


@pytest.fixture
def service(api):
    return api.service()


@pytest.fixture
def notes(mongo, deployment):
    return mongo[deployment.databases["acme"]]["notes"]


def body(number, form="plain"):
    return ('{"fine":1e19,"n":' + FORMS[form].format(number) + "}").encode()


@pytest.mark.parametrize("number", [LARGEST, SMALLEST])
async def test_what_mongodb_can_hold_is_kept_to_the_last_digit(service, notes, number):
    uuid = uuid4()
    answer = await service.put(f"/v1/docs/notes/{uuid}", body(number))
    assert answer.json["n"] == {"$numberLong": str(number)}
    stored = await notes.find_one({"_id": uuid})
    assert (stored["n"], type(stored["n"]), stored["fine"]) == (number, Int64, 1e19)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("number", TOO_LONG)
async def test_what_it_cannot_hold_is_refused_on_every_way_in(service, notes, number, form):
    uuid, text = uuid4(), body(number, form)
    path = f"/v1/docs/notes/{uuid}"
    for answer in (
        await service.put(path, text),
        await service.patch(path, text, Content_Type="application/merge-patch+json"),
        await service.post("/v1/docs/notes", text),
    ):
        assert (answer.status, answer.code) == (422, "invalid_document"), answer.body
        assert answer.json["path"].startswith("n")
    assert await notes.find_one({"_id": uuid}) is None


async def test_in_bulk_it_is_refused_alone(service, notes):
    good, bad = uuid4(), uuid4()
    items = b",".join(
        b'{"uuid":"' + str(uuid).encode() + b'","document":' + body(number) + b"}"
        for uuid, number in ((good, LARGEST), (bad, 2**64))
    )
    answer = await service.post("/v1/docs/notes:bulk", b'{"items":[' + items + b"]}")
    assert answer.status == 200
    first, second = answer.json["results"]
    assert first["status"] == 201
    assert (second["uuid"], second["code"], second["path"]) == (str(bad), "invalid_document", "n")
    assert (await notes.find_one({"_id": good}))["n"] == LARGEST


async def test_in_an_import_its_line_is_named(service, notes):
    uuids = [uuid4() for _ in range(3)]
    lines = [
        b'{"uuid":"' + str(uuid).encode() + b'","document":' + body(number) + b"}"
        for uuid, number in zip(uuids, (LARGEST, 2**64, SMALLEST), strict=True)
    ]
    answer = await service.post("/v1/docs/notes:import", b"\n".join(lines), Content_Type="application/x-ndjson")
    assert (answer.json["succeeded"], answer.json["failed"]) == (2, 1)
    (error,) = answer.json["errors"]
    assert (error["line"], error["code"], error["path"]) == (1, "invalid_document", "n")
    assert {found["_id"] async for found in notes.find({"_id": {"$in": uuids}})} == {uuids[0], uuids[2]}


@pytest.mark.parametrize("number", ["18446744073709551616", '{"$numberLong":"18446744073709551616"}'])
async def test_one_in_place_of_something_else_is_an_error_of_the_caller(api, service, number):
    answer = await service.post("/v1/docs/notes", f'{{"uuid":{number}}}'.encode())
    assert (answer.status, answer.code) == (400, "invalid_uuid")
    assert answer.json["value"] == "18446744073709551616"
    grant = f'{{"role":"reader","expires_at":{number}}}'.encode()
    answer = await service.put(f"/v1/grants/{uuid4()}/user:bob", grant)
    assert (answer.status, answer.code) == (422, "invalid_grant")
    root = api.someone("user:root", tenant="acme", scope="livedocs:platform")
    limits = f'{{"max_sockets_per_user":{number}}}'.encode()
    answer = await root.put("/v1/admin/tenants/globex/limits", limits)
    assert (answer.status, answer.code) == (400, "bad_request")
    schema = f'{{"key":"_id","json_schema":{{"properties":{{"n":{{"maximum":{number}}}}}}}}}'.encode()
    path = "/v1/admin/tenants/globex/collections/numbered"
    answer = await root.put(path, schema)
    assert (answer.status, answer.code) == (400, "bad_request")


async def test_a_page_of_sessions_does_not_begin_where_mongodb_cannot_count(api):
    admin = api.someone("user:ada", scope="livedocs:admin")
    answer = await admin.get("/v1/admin/sessions?cursor=ffffffffffffffff-0")
    assert (answer.status, answer.code) == (400, "invalid_cursor")
    assert (await admin.get("/v1/admin/sessions?cursor=7fffffffffffffff-0")).status == 200


async def test_a_value_that_is_none_of_extended_json_is_refused_with_its_item_alone(service, notes):
    good, bad = uuid4(), uuid4()
    items = [
        {"uuid": str(bad), "document": {"at": {"$date": "yesterday"}}},
        {"uuid": str(good), "document": {"at": {"$date": "2026-01-02T03:04:05Z"}}},
        {"document": {"at": {"$oid": "x"}}},
    ]
    answer = await service.post("/v1/docs/notes:bulk", {"items": items})
    assert [(one.get("uuid"), one["status"], one.get("code")) for one in answer.json["results"]] == [
        (str(bad), 400, "invalid_json"),
        (str(good), 201, None),
        (None, 400, "invalid_json"),
    ]
    assert (await notes.find_one({"_id": good}))["at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    grant = {"uuid": str(uuid4()), "subject": "user:alice", "role": "owner"}
    grants = [{**grant, "expires_at": {"$date": "never"}}, grant]
    answer = await service.post("/v1/grants:bulk", {"items": grants})
    assert [one["status"] for one in answer.json["results"]] == [400, 201]
