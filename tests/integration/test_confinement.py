"""A service that is confined to collections by its registration, over HTTP."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote
from uuid import uuid4

import pytest

from livedocs.errors import InvalidSubject, NotFound, UnknownCollection
from livedocs.http.session_queries import NoSessions
from livedocs.model import Role
from livedocs.store.inquiries import Answer as Holding
from livedocs.store.inquiries import Session
from livedocs.store.processes import Process
from livedocs.store.tenants import TenantDirectory, Tenants

SERVICE = "acme.$crm/1"
WHO = f"client:{SERVICE}"


@pytest.fixture
def registry(mongo, deployment):
    return Tenants(mongo, deployment.control_database)


@pytest.fixture
async def confined(registry, start_api):
    """An application in which the service is confined to `notes`."""
    await registry.confine("acme", SERVICE, ["notes"])
    yield await start_api()
    await registry.release("acme", SERVICE)


@pytest.fixture
def service(confined):
    return confined.service(WHO)


@pytest.fixture
def other(confined):
    """A service that is not confined, and writes what the one under test must not see."""
    return confined.service("client:acme-other")


def line(**item):
    return json.dumps(item).encode() + b"\n"


REQUESTS = {
    ("POST", "/v1/docs/<collection>"): ({"a": 1}, {}),
    ("GET", "/v1/docs/<collection>/<uuid>"): (None, {}),
    ("PUT", "/v1/docs/<collection>/<uuid>"): ({"a": 1}, {}),
    ("PATCH", "/v1/docs/<collection>/<uuid>"): ({"a": 1}, {}),
    ("DELETE", "/v1/docs/<collection>/<uuid>"): (None, {}),
    ("POST", "/v1/docs/<collection>:bulk"): ({"items": [{"document": {"a": 1}}]}, {}),
    ("POST", "/v1/docs/<collection>:import"): (line(document={"a": 1}), {"Content_Type": "application/x-ndjson"}),
    ("GET", "/v1/docs/<collection>:import"): (None, {"Idempotency_Key": "k"}),
    ("GET", "/v1/me/documents?collection=<collection>"): (None, {}),
}


def test_every_route_that_names_a_collection_is_tried(confined):
    routes = {
        (method, rule.rule)
        for rule in confined.app.url_map.iter_rules()
        if "collection" in rule.arguments and not rule.rule.startswith("/v1/admin")
        for method in rule.methods - {"OPTIONS", "HEAD"}
    }
    assert routes == {(method, path) for method, path in REQUESTS if "?" not in path}


@pytest.mark.parametrize(("method", "path"), REQUESTS, ids=lambda part: re.sub(r"\W+", "-", part))
async def test_a_confined_service_touches_its_own_collections_and_no_others(
    confined, service, other, method, path
):
    # A document of its own, and one of the same UUID that the service may do everything with but for the rule.
    uuid = str(uuid4())
    for collection in ("notes", "test"):
        assert (await other.put(f"/v1/docs/{collection}/{uuid}", {"a": 0})).status == 201
    owner = {"role": "owner"}
    assert (await other.put(f"/v1/grants/{uuid}/{quote(WHO, safe='')}", owner)).status == 201
    body, headers = REQUESTS[method, path]

    async def ask(who, collection):
        target = path.replace("<collection>", collection).replace("<uuid>", uuid)
        return await who.request(method, target, body, **headers)

    for collection in ("test", "unknown"):
        answer = await ask(service, collection)
        assert (answer.status, answer.code) == (403, "forbidden")
    assert (await ask(service, "notes")).status in {200, 201, 204}
    # Another service's rule is another one.
    assert (await ask(other, "test")).status in {200, 201, 204}


async def test_a_person_of_that_name_and_a_service_of_another_tenant_are_not_confined(confined):
    for who in (confined.someone(f"user:{SERVICE}"), confined.someone(WHO, tenant="globex")):
        assert (await who.get("/v1/me/documents?collection=test")).status == 200


async def test_its_scopes_open_no_document_of_a_collection_that_is_not_its_own(
    confined, service, mongo, deployment
):
    """A grant opens every document of its UUID, so grants are no way around."""
    database = mongo[deployment.databases["acme"]]
    foreign, shared, own, empty = (uuid4() for _ in range(4))
    await database["test"].insert_many([{"uuid": foreign}, {"uuid": shared}])
    await database["notes"].insert_many([{"_id": shared}, {"_id": own}])
    admin = confined.someone(WHO, scope="livedocs:write livedocs:admin")
    reader = {"role": "reader"}
    for uuid in (foreign, shared):
        for who in (service, admin):
            for answer in (
                await who.put(f"/v1/grants/{uuid}/user:mallory", reader),
                await who.get(f"/v1/grants/{uuid}"),
                await who.get(f"/v1/grants/{uuid}/explain?subject=user:mallory"),
                await who.delete(f"/v1/grants/{uuid}/user:mallory"),
            ):
                assert (answer.status, answer.code) == (403, "forbidden")
            item = {"uuid": str(uuid), "subject": "user:mallory", **reader}
            bulk = await who.post("/v1/grants:bulk", {"items": [item]})
            assert [result["code"] for result in bulk.json["results"]] == ["forbidden"]
            inline = {"uuid": str(uuid), "document": {"a": 1}, "grants": [{"subject": "user:mallory", **reader}]}
            if uuid == shared:
                bulk = await who.post("/v1/docs/notes:bulk", {"items": [inline]})
                assert [result["code"] for result in bulk.json["results"]] == ["forbidden"]
                done = await who.request(
                    "POST", "/v1/docs/notes:import", line(**inline), Content_Type="application/x-ndjson"
                )
                assert [error["code"] for error in done.json["errors"]] == ["forbidden"]
                # The document itself is its own to write.
                assert (await who.put(f"/v1/docs/notes/{uuid}", {"a": 1})).status == 200
    assert not await mongo[deployment.control_database]["acl"].count_documents({"_id.subject": "user:mallory"})
    # Where all documents of a UUID are its own it sets the first grant as ever.
    for uuid in (own, empty):
        assert (await service.put(f"/v1/grants/{uuid}/user:bob", reader)).status == 201
        assert (await admin.get(f"/v1/grants/{uuid}")).status == 200


async def test_an_owner_by_grant_may_what_owners_may_confined_or_not(service, other):
    uuid = str(uuid4())
    assert (await other.put(f"/v1/docs/test/{uuid}", {"a": 0})).status == 201
    assert (await other.put(f"/v1/grants/{uuid}/{quote(WHO, safe='')}", {"role": "owner"})).status == 201
    assert (await service.put(f"/v1/grants/{uuid}/user:bob", {"role": "reader"})).status == 201
    assert (await service.get(f"/v1/docs/test/{uuid}")).code == "forbidden"


async def test_a_service_confined_to_nothing_touches_nothing(registry, start_api):
    await registry.confine("acme", SERVICE, [])
    try:
        service = (await start_api()).service(WHO)
        assert (await service.post("/v1/docs/notes", {"a": 1})).code == "forbidden"
        assert (await service.get("/v1/me")).status == 200
    finally:
        await registry.release("acme", SERVICE)


async def test_an_import_that_outlives_the_registration_it_began_under_ends(registry, start_api):
    acme = await registry.get("acme")

    class Confined:
        asked = 0

        def named(self, name):
            # Let in a moment before it was confined.
            self.asked += 1
            return acme if self.asked == 1 else replace(acme, services={SERVICE: frozenset({"test"})})

    late = (await start_api(tenants=Confined())).service(WHO)
    body = line(document={"a": 1})
    answer = await late.request("POST", "/v1/docs/notes:import", body, Content_Type="application/x-ndjson")
    assert (answer.status, answer.code, answer.json["lines"]) == (403, "forbidden", 0)


async def test_it_administers_no_tenant_for_it_could_free_itself(confined):
    service = confined.someone(WHO, scope="livedocs:platform")
    for method, path in (("GET", ""), ("GET", "/acme"), ("DELETE", f"/acme/services/{quote(SERVICE, safe='')}")):
        answer = await service.request(method, f"/v1/admin/tenants{path}")
        assert (answer.status, answer.code) == (403, "forbidden")


WHOLE_TENANT = {
    ("GET", "/v1/admin/sessions"): 200,
    ("DELETE", "/v1/admin/sessions"): 200,
    ("DELETE", "/v1/admin/sessions/<sid>"): 404,
    ("GET", "/v1/admin/audit"): 200,
    ("GET", "/v1/grants"): 200,
}


def test_every_route_about_the_whole_tenant_is_tried(confined):
    routes = {
        (method, rule.rule)
        for rule in confined.app.url_map.iter_rules()
        if rule.endpoint.startswith("admin.") or rule.rule == "/v1/grants"
        for method in rule.methods - {"OPTIONS", "HEAD"}
    }
    assert routes == WHOLE_TENANT.keys()


@pytest.mark.parametrize(("method", "path"), WHOLE_TENANT, ids=lambda part: re.sub(r"\W+", "-", part))
async def test_what_concerns_the_whole_tenant_is_not_for_it_even_with_an_administrators_scope(
    registry, start_api, method, path
):
    """Who is connected from where, and who did what, says much of the collections that it must not see."""
    await registry.confine("acme", SERVICE, ["notes"])
    try:
        noted = []
        confined = await start_api(services={"note": lambda actor, entry: noted.append((actor.subject, entry))})
        target = path.replace("<sid>", "a" * 32) + "?subject=user:alice"
        answer = await confined.someone(WHO, scope="livedocs:admin").request(method, target)
        assert (answer.status, answer.code) == (403, "forbidden")
        if path.startswith("/v1/admin"):
            [(actor, entry)] = noted
            assert (actor, entry.action, entry.detail["code"]) == (WHO, "admin.refused", "forbidden")
        # Its own grants are its own, and others administer as ever.
        own = f"/v1/grants?subject={quote(WHO, safe='')}"
        assert (await confined.service(WHO).get(own)).status == 200
        unconfined = confined.someone("client:acme-other", scope="livedocs:admin")
        assert (await unconfined.request(method, target)).status == WHOLE_TENANT[method, path]
    finally:
        await registry.release("acme", SERVICE)


async def test_an_explanation_shows_it_nobodys_socket(registry, start_api):
    uuid, now = uuid4(), datetime.now(UTC)
    socket = Session(
        *("sid", "user:alice", "Alice", "web", "192.0.2.1", now.timestamp(), now),
        room_count=1,
        rooms={uuid: Role.READER},
    )

    class Connected(NoSessions):
        async def ask(self, question, *, by=""):
            return [(Process("p", "host", 1, ""), Holding((socket,), 1))], ()

    await registry.confine("acme", SERVICE, ["notes"])
    try:
        api = await start_api(services={"sessions": Connected()})
        explained = f"/v1/grants/{uuid}/explain?subject=user:alice"
        assert "sockets" not in (await api.someone(WHO, scope="livedocs:admin").get(explained)).json
        other = await api.someone("client:acme-other", scope="livedocs:admin").get(explained)
        [held] = other.json["sockets"]["held"]
        assert held.keys() == {"subject", "since", "role", "sid", "address"}
    finally:
        await registry.release("acme", SERVICE)


async def test_confining_and_releasing_over_http_is_shown_checked_and_audited(api, registry, control):
    root = api.someone("user:root", scope="livedocs:platform")
    path = f"/v1/admin/tenants/globex/services/{quote(SERVICE, safe='')}"
    answer = await root.put(path, {"collections": ["test", "notes", "test"]})
    assert answer.status == 200
    assert answer.json["services"] == {SERVICE: {"collections": ["notes", "test"]}}
    assert (await root.get("/v1/admin/tenants/globex")).json == answer.json
    narrower = await root.put(path, {"collections": ["test"]})
    assert narrower.json["services"] == {SERVICE: {"collections": ["test"]}}
    assert (await registry.get("globex")).confines(WHO, SERVICE) == {"test"}
    # Another tenant's service of that name is another service.
    assert (await registry.get("acme")).confines(WHO, SERVICE) is None
    for body in ({}, {"collections": "notes"}, {"collections": [1]}, {"collections": [], "more": 1}):
        assert (await root.put(path, body)).code == "bad_request"
    assert (await root.put(path, {"collections": ["unknown"]})).code == "unknown_collection"
    assert (await root.put(path.replace("globex", "nobody"), {"collections": []})).code == "not_found"
    assert (await api.someone().put(path, {"collections": []})).code == "insufficient_scope"
    assert (await api.someone().delete(path)).code == "insufficient_scope"
    for _ in range(2):
        freed = await root.delete(path)
        assert (freed.status, freed.json["services"]) == (200, {})
    assert (await root.delete(path.replace("globex", "nobody"))).code == "not_found"
    entries = control["audit"].find({"tenant": "globex", "subject": WHO}).sort("_id")
    assert [(entry["action"], entry["actor"], entry.get("detail")) async for entry in entries] == [
        ("tenant.confine", "user:root", {"collections": ["notes", "test"]}),
        ("tenant.confine", "user:root", {"collections": ["test"]}),
        ("tenant.release", "user:root", None),
        ("tenant.release", "user:root", None),
    ]


async def test_a_registration_that_nobody_understands_confines_to_nothing(registry, control):
    await control["tenants"].update_one(
        {"_id": "globex"}, {"$set": {"services": {"a": {"collections": "notes"}, "b": None, "c": {}}}}
    )
    try:
        tenant = await registry.get("globex")
        assert [tenant.confines(f"client:{name}", name) for name in "abc"] == [frozenset()] * 3
        assert tenant.confines("client:d", "d") is None
    finally:
        await control["tenants"].update_one({"_id": "globex"}, {"$unset": {"services": ""}})


@pytest.mark.parametrize("client_id", ["", "a\x00b", "x" * 256])
async def test_what_is_no_client_id_is_not_confined(registry, client_id):
    with pytest.raises(InvalidSubject):
        await registry.confine("acme", client_id, [])
    with pytest.raises(UnknownCollection):
        await registry.confine("acme", "a", ["unknown"])
    with pytest.raises(NotFound):
        await registry.confine("nobody", "a", [])


async def test_a_refresh_brings_the_registration_into_every_process(registry):
    directory = TenantDirectory(registry)
    await directory.refresh()
    await registry.confine("acme", SERVICE, ["notes"])
    try:
        assert await directory.refresh()
        assert directory.get("acme").confines(WHO, SERVICE) == {"notes"}
    finally:
        await registry.release("acme", SERVICE)
    assert await directory.refresh()
    assert directory.get("acme").confines(WHO, SERVICE) is None
