"""A registered collection that something else has taken the place of since: the tenant's others go on."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import structlog

from livedocs.model import Grant, GrantKey, Role
from livedocs.store.audit import Actor
from livedocs.store.grants import Grants
from livedocs.store.tenants import Tenants

VIEW = {"viewOn": "source", "pipeline": []}
# A question cannot be moved before the limit: the division is carried out whatever is asked.
FAILING_VIEW = {
    "viewOn": "source",
    "pipeline": [{"$match": {"$expr": {"$divide": ["$n", 0]}}}, {"$limit": 9}],
}
TIME_SERIES = {"timeseries": {"timeField": "at"}}
CAPPED = {"capped": True, "size": 4096}
KINDS = [VIEW, FAILING_VIEW, TIME_SERIES, CAPPED]
NAMES = ["view", "failing view", "time series", "capped"]
REASONS = ["view", "view", "timeseries", "capped"]


@pytest.fixture
async def database(mongo, deployment):
    """Of acme. `test` is made as it was afterwards."""
    database = mongo[deployment.databases["acme"]]
    await database["source"].insert_one({"n": 1})
    yield database
    await made_anew(database, {"changeStreamPreAndPostImages": {"enabled": True}})
    await database["test"].create_index("uuid")


@pytest.fixture
def owned(mongo, deployment):
    """Makes a UUID that alice owns."""

    async def owned():
        key = GrantKey("acme", uuid4(), "user:alice")
        grant = Grant(key, Role.OWNER, None, "system", datetime.now(UTC))
        await Grants(mongo, deployment.control_database).put(grant, Actor("system"))
        return key.uuid

    return owned


async def made_anew(database, options):
    await database.drop_collection("test")
    await database.command({"create": "test", **options})


async def seconds(request):
    """How long an answer takes, and the answer."""
    begun = time.monotonic()
    return await request, time.monotonic() - begun


def named(logs):
    return {(line["tenant"], line["collection"], line.get("reason")) for line in logs if "collection" in line}


@pytest.mark.parametrize("options", [*KINDS, {}], ids=[*NAMES, "without pre-images"])
async def test_documents_are_created_in_the_others_at_once(api, database, options):
    await made_anew(database, options)
    alice, service = api.someone("user:alice"), api.service()
    put, took = await seconds(alice.put(f"/v1/docs/notes/{uuid4()}", {"a": 1}))
    assert (put.status, took < 5) == (201, True)
    posted, took = await seconds(alice.post("/v1/docs/notes", {"a": 1}, Idempotency_Key=str(uuid4())))
    assert (posted.status, took < 5) == (201, True)
    items = [{"uuid": str(uuid4()), "document": {"a": 1}} for _ in range(3)]
    bulk, took = await seconds(service.post("/v1/docs/notes:bulk", {"items": items}))
    assert ([result["status"] for result in bulk.json["results"]], took < 5) == ([201] * 3, True)


async def test_what_a_capped_collection_holds_still_belongs_to_somebody(api, database):
    """Its events reach rooms: whoever made a document of that UUID elsewhere would own the room."""
    await made_anew(database, CAPPED)
    uuid = uuid4()
    await database["test"].insert_one({"uuid": uuid})
    eve = api.someone("user:eve")
    assert (await eve.put(f"/v1/docs/notes/{uuid}", {"a": 1})).code == "forbidden"
    items = [{"uuid": str(uuid), "document": {"a": 1}}]
    [result] = (await eve.post("/v1/docs/notes:bulk", {"items": items})).json["results"]
    assert result["code"] == "forbidden"


@pytest.mark.parametrize("options", KINDS, ids=NAMES)
async def test_a_confined_service_grants_what_lies_in_its_own_collections(
    start_api, mongo, deployment, database, options
):
    """Whether the UUID has documents beyond them is asked of every other collection."""
    registry = Tenants(mongo, deployment.control_database)
    await registry.confine("acme", "crm", ["notes"])
    try:
        service = (await start_api()).service("client:crm")
        made = await service.post("/v1/docs/notes", {"a": 1})
        await made_anew(database, options)
        granted = await service.put(f"/v1/grants/{made.json['uuid']}/user:alice", {"role": "reader"})
        assert granted.status == 201
    finally:
        await registry.release("acme", "crm")


@pytest.mark.parametrize(("options", "reason"), [*zip(KINDS, REASONS, strict=True)], ids=NAMES)
async def test_it_is_named_in_the_answer_and_in_the_log(api, database, owned, options, reason):
    uuid = await owned()
    await made_anew(database, options)
    alice = api.someone("user:alice")
    with structlog.testing.capture_logs() as logs:
        put, took = await seconds(alice.put(f"/v1/docs/test/{uuid}", {"a": 1}))
    assert (put.code, put.json["collection"], put.json["reason"]) == ("unavailable", "test", reason)
    assert took < 5
    assert named(logs) == {("acme", "test", reason)}
    items = [{"uuid": str(uuid), "document": {"a": 1}}]
    bulk, took = await seconds(alice.post("/v1/docs/test:bulk", {"items": items}))
    [result] = bulk.json["results"]
    assert (result["code"], result["collection"], took < 5) == ("unavailable", "test", True)


@pytest.mark.parametrize("options", [FAILING_VIEW, CAPPED], ids=["failing view", "capped"])
async def test_a_read_of_it_names_it_too(api, database, owned, options):
    uuid = await owned()
    await made_anew(database, options)
    answer, took = await seconds(api.someone("user:alice").get(f"/v1/docs/test/{uuid}"))
    assert (answer.code, answer.json["collection"], took < 5) == ("unavailable", "test", True)
