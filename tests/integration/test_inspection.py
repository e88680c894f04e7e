"""What a collection's documents hold where their UUID is to be, counted by MongoDB."""

from __future__ import annotations

import secrets
from uuid import UUID, uuid1, uuid4

import bson
import pytest
from bson import Binary, Int64, ObjectId, Regex
from bson.binary import UuidRepresentation

from livedocs.codec.bsondecode import CODEC
from livedocs.codec.bsonwalk import find, uuid_at
from livedocs.store import inspection
from livedocs.store.inspection import KeyReport, count_legacy, inspect_key


@pytest.fixture
async def collection(mongo, deployment):
    found = mongo[deployment.databases["acme"]][f"c{secrets.token_hex(4)}"]
    yield found
    await found.drop()


def of_legacy(representation):
    return Binary.from_uuid(uuid4(), representation)


# By the name under which they are counted; None for those that are streamed.
VALUES = {
    None: [uuid4(), uuid1(), UUID(int=0), UUID(int=2**128 - 1), Binary(b"\xff" * 16, 4)],
    "binData 3": [
        of_legacy(UuidRepresentation.JAVA_LEGACY),
        of_legacy(UuidRepresentation.CSHARP_LEGACY),
        Binary(bytes(16), 3),
        Binary(b"\xff" * 16, 3),
    ],
    "binData 0": [uuid4().bytes, Binary(bytes(16), 0)],
    "binData 5": [Binary(uuid4().bytes, 5)],
    "binData 128": [Binary(uuid4().bytes, 128)],
    "binData, another subtype": [Binary(uuid4().bytes, 200)],
    "binData, not 16 bytes": [
        Binary(b"", 4),
        Binary(bytes(15), 4),
        Binary(bytes(17), 4),
        Binary(bytes(20), 3),
        b"x",
    ],
    "string": [str(uuid4()), ""],
    "objectId": [ObjectId()],
    "int": [1],
    "long": [Int64(1)],
    "double": [1.5],
    "object": [{"uuid": uuid4()}, {"$binary": "x"}],
    "null": [None],
    "bool": [True],
    "array": [[uuid4()], [], [[uuid4()]]],
    "regex": [Regex("a")],
}


async def test_every_value_is_counted_by_what_it_is(collection):
    await collection.insert_many(
        [{"uuid": value} for values in VALUES.values() for value in values] + [{}, {"a": 1}]
    )
    unusable = {name: len(values) for name, values in VALUES.items() if name is not None} | {"missing": 2}
    report = await inspect_key(collection, "uuid")
    assert report == KeyReport(unusable, sum(unusable.values()) + len(VALUES[None]), complete=True)
    assert report.without_uuid == sum(unusable.values())


@pytest.mark.parametrize("name", VALUES, ids=str)
def test_that_is_what_the_stream_takes_for_a_uuid(name):
    for value in VALUES[name]:
        raw = bson.encode({"uuid": value}, codec_options=CODEC)
        assert (uuid_at(raw, find(raw, b"uuid")) is not None) == (name is None), value


async def test_the_identifier_may_be_the_key(collection):
    await collection.insert_many([{"_id": uuid4()}, {"_id": VALUES["binData 3"][0]}, {"_id": "text"}, {}])
    report = await inspect_key(collection, "_id")
    assert report == KeyReport({"binData 3": 1, "objectId": 1, "string": 1}, 4, complete=True)


async def test_an_empty_collection_has_nothing_to_report(collection):
    assert await inspect_key(collection, "uuid") == KeyReport({}, 0, complete=True)


async def test_of_a_collection_that_takes_too_long_a_sample_is_reported(collection, monkeypatch):
    monkeypatch.setattr(inspection, "_SECONDS", 0.000001)
    monkeypatch.setattr(inspection, "_SAMPLE", 50)
    await collection.insert_many([{"uuid": f"text {n}"} for n in range(200)])
    assert await inspect_key(collection, "uuid") == KeyReport({"string": 50}, 50, complete=False)


async def test_legacy_uuids_are_counted_up_to_a_number_in_the_index(collection):
    await collection.create_index("uuid")
    # Arrays would leave the index without an upper bound.
    single = [values for name, values in VALUES.items() if name != "array"]
    await collection.insert_many([{"uuid": value} for values in single for value in values])
    assert await count_legacy(collection, "uuid", most=100) == len(VALUES["binData 3"])
    assert await count_legacy(collection, "uuid", most=2) == 2
    first, last = inspection._bounds(3)
    plan = await collection.find({"uuid": {"$gte": first, "$lte": last}}).explain()
    assert plan["executionStats"]["totalKeysExamined"] <= len(VALUES["binData 3"]) + 2
