from __future__ import annotations

from uuid import uuid4

import bson
import pytest
from bson import ObjectId, Timestamp

from livedocs.model import Tenant
from livedocs.store.lookups import Lookups


@pytest.fixture
def acme(deployment):
    return Tenant("acme", deployment.databases["acme"], {"test": "uuid"})


def key(document_id):
    element = bson.encode({"": document_id})[4:-1]
    return element[:1] + element[2:]


async def now(mongo):
    return (await mongo["admin"].command("ping"))["operationTime"]


async def test_a_document_is_where_it_was_at_that_time(mongo, acme):
    moved, gone, never, nested = ObjectId(), ObjectId(), ObjectId(), {"a": [1, {"b": 2}]}
    before, after = uuid4(), uuid4()
    collection = mongo[acme.database]["test"]
    await collection.insert_many([{"_id": one, "uuid": before} for one in (moved, gone, nested)])
    at = await now(mongo)
    await collection.update_one({"_id": moved}, {"$set": {"uuid": after}})
    await collection.delete_one({"_id": gone})
    ids = [moved, gone, never, nested]
    found = await Lookups(mongo).uuids(acme, "test", [key(one) for one in ids], at)
    assert found == {key(one): before for one in (moved, gone, nested)}
    found = await Lookups(mongo).uuids(acme, "test", [key(one) for one in ids], await now(mongo))
    assert found == {key(moved): after, key(nested): before}


async def test_what_the_server_keeps_no_history_of_is_not_guessed_from_what_is_there_now(mongo, acme):
    own, uuid = ObjectId(), uuid4()
    await mongo[acme.database]["test"].insert_one({"_id": own, "uuid": uuid})
    assert await Lookups(mongo).uuids(acme, "test", [key(own)], Timestamp(1, 1)) is None


async def test_a_capped_collection_has_no_history_and_is_read_as_it_is_now(mongo, acme):
    own, uuid = ObjectId(), uuid4()
    capped = await mongo[acme.database].create_collection("capped", capped=True, size=4096)
    try:
        await capped.insert_one({"_id": own, "uuid": uuid})
        for at in (Timestamp(1, 1), await now(mongo)):
            assert await Lookups(mongo).uuids(acme, "capped", [key(own)], at) == {key(own): uuid}
    finally:
        await capped.drop()


async def test_a_document_without_a_uuid_is_not_found(mongo, acme):
    own = ObjectId()
    await mongo[acme.database]["test"].insert_one({"_id": own, "uuid": "text"})
    assert await Lookups(mongo).uuids(acme, "test", [key(own)], await now(mongo)) == {}
