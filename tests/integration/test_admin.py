"""Tenants, and the audit trail, as their administrators see them over HTTP."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from uuid import uuid4

import pytest
from pymongo.errors import WriteError

from livedocs.store.tenants import TenantDirectory, Tenants


@pytest.fixture
def root(api):
    return api.someone("user:root", scope="livedocs:platform")


@pytest.fixture
def ada(api):
    return api.someone("user:ada", scope="livedocs:admin")


@pytest.fixture
async def tenant(root, mongo, deployment):
    """A new tenant with collections `memos` (key _id) and `jobs` (key uuid)."""
    slug = f"t-{secrets.token_hex(4)}"
    database = f"{deployment.control_database}_{slug}"
    body = {"slug": slug, "database": database, "collections": {"memos": {"key": "_id"}, "jobs": {"key": "uuid"}}}
    answer = await root.post("/v1/admin/tenants", body)
    assert answer.status == 201, answer.body
    yield answer.json
    await mongo.drop_database(database)


def path(tenant, rest=""):
    return f"/v1/admin/tenants/{tenant['slug']}{rest}"


async def trail(api, slug, **search):
    """The entries of a tenant, newest first."""
    admin = api.someone("user:ada", tenant=slug, scope="livedocs:admin")
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in search.items())
    answer = await admin.get(f"/v1/admin/audit?{query}")
    assert answer.status == 200, answer.body
    return answer.json["entries"]


async def test_a_tenant_is_created_with_its_collections_and_shown(root, tenant, mongo, control):
    assert tenant["status"] == "active"
    assert tenant["collections"] == {"jobs": {"key": "uuid"}, "memos": {"key": "_id"}}
    assert (await root.get(path(tenant))).json == tenant
    assert "uuid_1" in await mongo[tenant["database"]]["jobs"].index_information()
    entry = await control["audit"].find_one({"tenant": tenant["slug"]})
    assert (entry["action"], entry["actor"]) == ("tenant.create", "user:root")
    again = await root.post("/v1/admin/tenants", {"slug": tenant["slug"]})
    assert (again.status, again.code) == (409, "conflict")


async def test_tenants_are_listed_page_by_page(root, tenant):
    seen, cursor = [], ""
    while cursor is not None:
        page = (await root.get(f"/v1/admin/tenants?limit=1&cursor={cursor}")).json
        seen += [found["slug"] for found in page["tenants"]]
        cursor = page["next"]
    assert seen == sorted(seen)
    assert {"acme", "globex", tenant["slug"]} <= set(seen)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"slug": 1},
        {"slug": "X"},
        {"slug": "good", "database": "admin"},
        {"slug": "good", "database": 1},
        {"slug": "good", "collections": []},
        {"slug": "good", "collections": {"a": "uuid"}},
        {"slug": "good", "collections": {"a": {"key": "id"}}},
        {"slug": "good", "collections": {"connect": {"key": "_id"}}},
        {"slug": "good", "limits": {"max_document_bytes": 0}},
        {"slug": "good", "limits": {"colour": 1}},
        {"slug": "good", "limits": 1},
        {"slug": "good", "owner": "me"},
    ],
)
async def test_a_tenant_that_cannot_be_is_refused(root, body):
    answer = await root.post("/v1/admin/tenants", body)
    assert (answer.status, answer.code) == (400, "bad_request")


async def test_a_tenant_of_a_collection_of_mongodbs_own_is_refused(root):
    answer = await root.post("/v1/admin/tenants", {"slug": "good", "collections": {"system.x": {"key": "_id"}}})
    assert (answer.status, answer.code) == (422, "unsuitable_collection")


async def test_a_registered_collection_says_how_much_of_it_is_not_streamed(root, tenant, mongo, control):
    old = mongo[tenant["database"]]["old"]
    await old.insert_many([{"uuid": uuid4()}, {"uuid": "text"}, {}])
    answer = await root.put(path(tenant, "/collections/old"), {"key": "uuid"})
    assert (answer.status, answer.json) == (
        200,
        {
            "collection": "old",
            "key": "uuid",
            "without_uuid": 2,
            "not_streamed": {"missing": 1, "string": 1},
            "examined": 3,
            "complete": True,
        },
    )
    assert "uuid_1" in await old.index_information()
    assert (await root.get(path(tenant))).json["collections"]["old"] == {"key": "uuid"}
    entry = await control["audit"].find_one({"tenant": tenant["slug"], "action": "tenant.register"})
    assert entry["detail"] == {"collection": "old", "key": "uuid"}
    assert (await root.put(path(tenant, "/collections/old"), {"key": "_id"})).code == "conflict"
    assert (await root.put(path(tenant, "/collections/old"), {"key": "x"})).code == "bad_request"
    assert (await root.put("/v1/admin/tenants/nobody/collections/a", {"key": "_id"})).code == "not_found"


NUMBERED = {"bsonType": "object", "required": ["n"], "properties": {"n": {"bsonType": "int"}}}


async def test_a_collections_schema_holds_every_write_whoever_writes(root, start_api, mongo, deployment):
    slug = f"t-{secrets.token_hex(4)}"
    database = f"{deployment.control_database}_{slug}"
    collections = {"memos": {"key": "_id", "json_schema": NUMBERED}, "jobs": {"key": "uuid"}}
    body = {"slug": slug, "database": database, "collections": collections}
    try:
        made = await root.post("/v1/admin/tenants", body)
        assert (made.status, made.json["collections"]["memos"]) == (201, {"key": "_id"})
        someone = (await start_api()).someone(tenant=slug)
        assert (await someone.post("/v1/docs/memos", {"n": "one"})).code == "invalid_document"
        assert (await someone.post("/v1/docs/memos", {"n": 1})).status == 201
        with pytest.raises(WriteError):
            await mongo[database]["memos"].insert_one({"n": "one"})
        # For a collection that is there, and kept when it is registered again without one.
        path = f"/v1/admin/tenants/{slug}/collections/jobs"
        assert (await someone.post("/v1/docs/jobs", {"n": "one"})).status == 201
        for body in ({"key": "uuid", "json_schema": NUMBERED}, {"key": "uuid"}):
            assert (await root.put(path, body)).status == 200
            assert (await someone.post("/v1/docs/jobs", {"n": "one"})).code == "invalid_document"
        for wrong in ({"type": 1}, "text", []):
            answer = await root.put(path, {"key": "uuid", "json_schema": wrong})
            assert (answer.status, answer.code) == (400, "bad_request")
    finally:
        await mongo.drop_database(database)


async def test_a_limit_of_a_tenant_tightens_the_servers(start_api, root, tenant):
    answer = await root.put(path(tenant, "/limits"), {"max_document_bytes": 200})
    assert answer.json["limits"] == {"max_document_bytes": 200}
    for body in ({"max_document_bytes": "1"}, {"max_document_bytes": True}, {"max_rooms": 1}):
        assert (await root.put(path(tenant, "/limits"), body)).code == "bad_request"
    someone = (await start_api()).someone(tenant=tenant["slug"])
    assert (await someone.post("/v1/docs/memos", {"text": "x" * 300})).code == "document_too_large"
    small = await someone.post("/v1/docs/memos", {"text": "x"})
    assert small.status == 201
    patch = await someone.patch(small.headers["Location"], {"more": "x" * 180})
    assert patch.code == "document_too_large"
    items = {"items": [{"document": {"text": "x" * 300}}, {"document": {}}]}
    results = (await someone.post("/v1/docs/memos:bulk", items)).json["results"]
    assert [result["status"] for result in results] == [413, 201]


async def test_a_tenant_is_suspended_and_resumed_and_both_are_in_its_trail(api, root, tenant, mongo, deployment):
    directory = TenantDirectory(Tenants(mongo, deployment.control_database))
    for step, status in (("suspend", "suspended"), ("resume", "active")):
        answer = await root.post(path(tenant, f":{step}"))
        assert (answer.status, answer.json["status"]) == (200, status)
        await directory.refresh()
        assert directory.get(tenant["slug"]).active is (status == "active")
    assert (await root.post("/v1/admin/tenants/nobody:suspend")).code == "not_found"


async def test_nobody_locks_out_the_tenant_of_their_own_token(root):
    for method, rest in (("POST", ":suspend"), ("DELETE", "")):
        answer = await root.request(method, f"/v1/admin/tenants/acme{rest}")
        assert (answer.status, answer.code) == (409, "conflict")


@pytest.mark.parametrize("data", ["keep", "drop"])
async def test_a_deletion_takes_two_steps(root, tenant, mongo, control, data):
    database = mongo[tenant["database"]]
    await database["memos"].insert_one({"_id": uuid4()})
    await database["others"].insert_one({"of": "another program"})
    subject = {"tenant": tenant["slug"], "uuid": uuid4(), "subject": "user:bob"}
    await control["acl"].insert_one({"_id": subject, "role": "reader"})
    asked = await root.delete(f"{path(tenant)}?data={data}")
    assert asked.status == 202
    loss = {"slug": tenant["slug"], "data": data, "documents": {"memos": 1, "jobs": 0}, "grants": 1}
    assert {name: asked.json[name] for name in loss} == loss
    assert (await root.get(path(tenant))).json["status"] == "suspended"
    assert (await root.delete(f"{path(tenant)}?confirm=wrong")).code == "conflict"
    done = await root.delete(f"{path(tenant)}?confirm={asked.json['code']}")
    assert (done.status, done.json) == (200, loss)
    assert (await root.get(path(tenant))).code == "not_found"
    assert await control["acl"].count_documents({"_id.tenant": tenant["slug"]}) == 0
    assert await database["memos"].count_documents({}) == (1 if data == "keep" else 0)
    # What was never registered is not ours to drop.
    assert await database["others"].count_documents({}) == 1
    actions = [entry["action"] async for entry in control["audit"].find({"tenant": tenant["slug"]}).sort("_id")]
    assert actions == ["tenant.create", "tenant.deletion_asked", "tenant.delete"]


async def test_a_code_is_worth_nothing_after_a_resume_or_its_time(root, tenant, control):
    code = (await root.delete(path(tenant))).json["code"]
    await root.post(path(tenant, ":resume"))
    assert (await root.delete(f"{path(tenant)}?confirm={code}")).code == "conflict"
    code = (await root.delete(path(tenant))).json["code"]
    past = datetime.now(UTC) - timedelta(seconds=1)
    await control["tenants"].update_one({"_id": tenant["slug"]}, {"$set": {"deletion.expires_at": past}})
    assert (await root.delete(f"{path(tenant)}?confirm={code}")).code == "conflict"
    assert (await root.delete(f"{path(tenant)}?data=maybe")).code == "bad_request"
    code = (await root.delete(path(tenant))).json["code"]
    # Let in again by somebody who knows nothing of codes.
    await control["tenants"].update_one({"_id": tenant["slug"]}, {"$set": {"status": "active"}})
    assert (await root.delete(f"{path(tenant)}?confirm={code}")).code == "conflict"
    assert (await root.get(path(tenant))).status == 200


@pytest.mark.parametrize(
    ("method", "route", "scope"),
    [
        ("GET", "/v1/admin/tenants", "livedocs:platform"),
        ("POST", "/v1/admin/tenants", "livedocs:platform"),
        ("GET", "/v1/admin/tenants/acme", "livedocs:platform"),
        ("DELETE", "/v1/admin/tenants/globex", "livedocs:platform"),
        ("PUT", "/v1/admin/tenants/globex/limits", "livedocs:platform"),
        ("PUT", "/v1/admin/tenants/globex/collections/a", "livedocs:platform"),
        ("POST", "/v1/admin/tenants/globex:suspend", "livedocs:platform"),
        ("POST", "/v1/admin/tenants/globex:resume", "livedocs:platform"),
        ("GET", "/v1/admin/sessions", "livedocs:admin"),
        ("DELETE", "/v1/admin/sessions?subject=user:bob", "livedocs:admin"),
        ("DELETE", "/v1/admin/sessions/x", "livedocs:admin"),
        ("GET", "/v1/admin/audit", "livedocs:admin"),
    ],
)
async def test_each_route_needs_its_scope_and_no_other_will_do(api, method, route, scope):
    [other] = {"livedocs:platform", "livedocs:admin"} - {scope}
    for held in ("", other, "livedocs:write"):
        answer = await api.someone("user:mallory", scope=held).request(method, route, {"slug": "mine"})
        assert (answer.status, answer.code) == (403, "insufficient_scope")
        assert f'scope="{scope}"' in answer.headers["WWW-Authenticate"]
    assert (await api.anybody().request(method, route)).code == "unauthenticated"


async def test_the_trail_is_searched_by_each_of_its_members(api, ada):
    alice, bob = api.someone("user:alice"), api.someone("user:bob")
    first = (await alice.post("/v1/docs/notes", {})).json["uuid"]
    between = datetime.now(UTC).isoformat()
    second = (await bob.post("/v1/docs/notes", {})).json["uuid"]
    await bob.put(f"/v1/grants/{second}/user:carol", {"role": "reader"})

    async def found(**search):
        return [(entry["action"], entry["uuid"]) for entry in await trail(api, "acme", **search)]

    assert await found(uuid=first) == [("document.create", first)]
    assert await found(uuid=second.upper()) == [("grant.set", second), ("document.create", second)]
    assert await found(actor="user:bob", action="grant.set", uuid=second) == [("grant.set", second)]
    assert await found(subject="user:carol", uuid=second) == [("grant.set", second)]
    assert await found(uuid=first, since=between) == []
    assert await found(uuid=first, until=between) == [("document.create", first)]
    [entry] = await trail(api, "acme", uuid=first)
    assert entry["detail"] == {"collection": "notes"}
    assert entry["at"].endswith("Z")
    assert await trail(api, "globex", uuid=first) == []
    for wrong in ("action=explode", "since=yesterday", "uuid=1", "limit=0", "cursor=x", "cursor=%00"):
        assert (await ada.get(f"/v1/admin/audit?{wrong}")).status == 400


async def test_the_trail_is_paged_without_loss_while_it_grows(api, ada):
    alice = api.someone("user:alice")
    uuid = (await alice.post("/v1/docs/notes", {})).json["uuid"]
    items = [{"uuid": uuid, "subject": f"user:{number}", "role": "reader"} for number in range(7)]
    # All of one transaction, and so of one moment: the moment alone would be no place in the list.
    await alice.post("/v1/grants:bulk", {"items": items})
    seen, cursor = [], ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        page = (await ada.get(f"/v1/admin/audit?uuid={uuid}&limit=3{more}")).json
        seen += [entry["subject"] for entry in page["entries"]]
        cursor = page["next"]
        await alice.put(f"/v1/grants/{uuid}/user:later", {"role": "reader"})
    assert seen == [f"user:{number}" for number in reversed(range(7))] + ["user:alice"]


async def test_a_platform_administrator_of_no_tenant_is_nobody(api):
    answer = await api.someone(tenant="nowhere", scope="livedocs:platform").get("/v1/admin/tenants")
    assert answer.code == "unknown_tenant"
