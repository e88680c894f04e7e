"""What a reader is shown can be written back: it is accepted, and nothing of what is stored changes."""

from __future__ import annotations

import struct
from datetime import datetime
from uuid import uuid4

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.raw_bson import RawBSONDocument

from livedocs.codec.bsonwalk import elements

PATCH = "application/merge-patch+json"


def field(kind, payload, name=b"v"):
    """A field of that BSON type, byte for byte."""
    return bytes([kind]) + name + b"\0" + payload


def binary(subtype, data):
    return field(5, struct.pack("<i", len(data)) + bytes([subtype]) + data)


def encoded(value):
    return bson.encode({"v": value})[4:-1]


OID = ObjectId("0123456789abcdef01234567")
VALUES = {
    "a double that is whole": encoded(5.0),
    "NaN": encoded(float("nan")),
    "infinity": encoded(float("-inf")),
    "minus zero": encoded(-0.0),
    "a small Int64": encoded(Int64(5)),
    "a large Int64": encoded(Int64(2**62)),
    "Int64 past 2^53": encoded(Int64(2**53 + 1)),
    "a date": encoded(datetime(2026, 1, 2, 3, 4, 5, 678000)),  # noqa: DTZ001 - in UTC
    "a date of the year 10000": encoded(DatetimeMS(253_402_300_800_000)),
    "a date before the year 1": encoded(DatetimeMS(-62_135_596_800_001)),
    "the last date": encoded(DatetimeMS(2**63 - 1)),
    "Decimal128 with zeros": encoded(Decimal128("1.500")),
    "Decimal128 NaN with a payload": field(0x13, b"\xff" * 16),
    "Binary 0": binary(0, b"abc"),
    "Binary 2": binary(2, struct.pack("<i", 3) + b"abc"),
    "Binary 2 without its length": binary(2, b"abc"),
    "Binary 3, a UUID of an old driver": binary(3, bytes(range(16))),
    "Binary 3 that is none": binary(3, b"abc"),
    "Binary 4, a UUID": binary(4, bytes(range(16))),
    "Binary 4 of another length": binary(4, b"abc"),
    "Binary 5": binary(5, bytes(16)),
    "Binary 255": binary(255, b"x"),
    "a regular expression": encoded(Regex("a/b", "im")),
    "options in no order": field(0x0B, b"a\0xi\0"),
    "code": encoded(Code("x")),
    "code with scope": encoded(Code("x", {"a": 1})),
    "a timestamp": encoded(Timestamp(2**32 - 1, 1)),
    "MinKey": encoded(MinKey()),
    "MaxKey": encoded(MaxKey()),
    "undefined": field(6, b""),
    "a symbol": field(0x0E, struct.pack("<i", 4) + b"abc\0"),
    "a DBPointer": field(0x0C, struct.pack("<i", 2) + b"c\0" + OID.binary),
    "a reference": encoded({"$ref": "notes", "$id": OID}),
    "a reference with more": encoded({"$ref": "notes", "$id": 1, "$db": "other", "more": 2}),
    "an object that looks like an ObjectId": encoded({"$numberInt": "5"}),
    "an operator's name": encoded({"$set": {"a": 1}}),
    "a dotted name": encoded({"a.b": 1, "c": [{"d.e": 2}]}),
    "an empty name": encoded({"": 1}),
    "a name that browsers fear": encoded({"__proto__": {"a": 1}}),
    "text that is no UTF-8": field(2, struct.pack("<i", 2) + b"\xff\0"),
    "null": encoded(None),
    "an array of all kinds": encoded([Int64(1), 2.0, None, [Decimal128("1.0")], {"a": Int64(1)}]),
    "its own uuid": encoded("x") + field(2, struct.pack("<i", 8) + b"another\0", b"uuid"),
    "its own uuid, a UUID": encoded("x") + field(5, b"\x10\0\0\0\x04" + bytes(range(16)), b"uuid"),
}


@pytest.fixture
def service(api):
    return api.service()


class Stored:
    """A document that another program has written, as bytes."""

    def __init__(self, mongo, database, collection, fields):
        self.collection = mongo[database].get_collection(collection)
        self.uuid, self.name = uuid4(), collection
        self.path = f"/v1/docs/{collection}/{self.uuid}"
        key = field(5, b"\x10\0\0\0\x04" + self.uuid.bytes, b"_id" if collection == "notes" else b"uuid")
        identity = key if collection == "notes" else encoded_id() + key
        body = identity + fields + field(16, struct.pack("<i", 1), b"n")
        self.raw = struct.pack("<i", len(body) + 5) + body + b"\0"

    async def insert(self):
        await self.collection.insert_one(RawBSONDocument(self.raw))
        return self

    async def now(self):
        options = self.collection.codec_options.with_options(document_class=RawBSONDocument)
        found = await self.collection.with_options(options).find_one(
            {"_id" if self.name == "notes" else "uuid": Binary.from_uuid(self.uuid)}
        )
        return bytes(found.raw)


def encoded_id():
    return field(7, ObjectId().binary, b"_id")


def of(collection):
    """A field `uuid` is the key of the other one."""
    return {name: value for name, value in VALUES.items() if collection == "notes" or "own uuid" not in name}


CASES = [(collection, name) for collection in ("notes", "test") for name in of(collection)]


@pytest.fixture
async def stored(request, mongo, deployment):
    collection, name = request.param
    return await Stored(mongo, deployment.databases["acme"], collection, VALUES[name]).insert()


@pytest.mark.parametrize("stored", CASES, indirect=True, ids=" ".join)
async def test_a_document_sent_back_as_it_was_shown_changes_nothing(service, stored):
    shown = await service.get(stored.path)
    assert shown.status == 200
    # In a merge patch null takes a field away (RFC 7396).
    patches = b"null" not in shown.body
    for answer in (
        await service.put(stored.path, shown.body),
        await service.put(stored.path, shown.body, If_Match=shown.headers["ETag"]),
        *([await service.patch(stored.path, shown.body, Content_Type=PATCH)] if patches else []),
    ):
        assert (answer.status, answer.body) == (200, shown.body)
        assert answer.headers["ETag"] == shown.headers["ETag"]
        assert await stored.now() == stored.raw
    for mode in ("replace", *(["merge"] if patches else [])):
        item = b'{"mode":"%b","document":%b}' % (mode.encode(), shown.body)
        answer = await service.post(f"/v1/docs/{stored.name}:bulk", b'{"items":[%b]}' % item)
        (result,) = answer.json["results"]
        assert result == {"uuid": str(stored.uuid), "status": 200, "etag": shown.headers["ETag"]}
        assert await stored.now() == stored.raw


@pytest.mark.parametrize("stored", CASES, indirect=True, ids=" ".join)
async def test_what_a_client_does_not_touch_stays_as_it_is_stored(service, stored):
    before = await stored.now()
    shown = await service.get(stored.path)
    changed = shown.body.replace(b'"n":1', b'"n":2')
    answer = await service.put(stored.path, changed)
    assert (answer.status, answer.json["n"]) == (200, 2)
    assert parts(await stored.now()) == parts(before.replace(b"\x10n\0\x01", b"\x10n\0\x02"))
    if b"null" not in shown.body:
        answer = await service.patch(stored.path, changed.replace(b'"n":2', b'"n":3'), Content_Type=PATCH)
        assert answer.status == 200
        assert parts(await stored.now()) == parts(before.replace(b"\x10n\0\x01", b"\x10n\0\x03"))


def parts(raw):
    """The fields of a document, byte for byte, in whatever order."""
    return {name: (place.kind, raw[place.begin : place.end]) for name, place in elements(raw)}


@pytest.mark.parametrize("path", [":bulk", ":import"])
async def test_a_large_document_is_kept_by_every_way_in(service, mongo, deployment, path):
    fields = encoded(Int64(5)) + field(2, struct.pack("<i", 40_001) + b"x" * 40_000 + b"\0", b"text")
    stored = await Stored(mongo, deployment.databases["acme"], "notes", fields).insert()
    shown = await service.get(stored.path)
    item = b'{"document":%b}' % shown.body.replace(b'"n":1', b'"n":2')
    body = b'{"items":[%b]}' % item if path == ":bulk" else item
    kind = "application/json" if path == ":bulk" else "application/x-ndjson"
    answer = await service.post(f"/v1/docs/notes{path}", body, Content_Type=kind)
    assert (answer.status, answer.json["succeeded"]) == (200, 1)
    assert parts(await stored.now()) == parts(stored.raw.replace(b"\x10n\0\x01", b"\x10n\0\x02"))


async def test_names_that_nobody_may_choose_stay_refused_where_they_are_new(service, mongo, deployment):
    stored = await Stored(mongo, deployment.databases["acme"], "notes", VALUES["an operator's name"]).insert()
    for body in (b'{"v":{"$set":{"a":2}},"n":1}', b'{"w":{"$set":{"a":1}}}', b'{"v":[{"$set":{"a":1}}]}'):
        for answer in (
            await service.put(stored.path, body),
            await service.patch(stored.path, body, Content_Type=PATCH),
            await service.put(f"/v1/docs/notes/{uuid4()}", body),
            await service.post("/v1/docs/notes", body),
        ):
            assert (answer.status, answer.code) == (422, "invalid_field")
    assert (await service.patch(stored.path, b'{"v":{"$set":null}}', Content_Type=PATCH)).code == "invalid_field"
    assert await stored.now() == stored.raw


@pytest.mark.parametrize("name", ["a.b", "", "$op"])
async def test_a_patch_takes_nothing_away_below_such_a_name(service, mongo, deployment, name):
    fields = encoded({name: {"c": 1, "d": None}, "a": {"b": {"d": 7}}})
    stored = await Stored(mongo, deployment.databases["acme"], "notes", fields).insert()
    # The same as is stored, but null stands for removal: of `a.b.d`, were the name taken for a path.
    answer = await service.patch(stored.path, {"v": {name: {"c": 1, "d": None}}}, Content_Type=PATCH)
    assert (answer.status, answer.code) == (422, "invalid_field")
    assert await stored.now() == stored.raw


async def test_another_id_is_refused_and_so_is_any_in_a_new_document(service, mongo, deployment):
    stored = await Stored(mongo, deployment.databases["acme"], "test", VALUES["null"]).insert()
    for path in (stored.path, f"/v1/docs/test/{uuid4()}"):
        answer = await service.put(path, {"_id": {"$oid": "0123456789abcdef01234567"}, "n": 2})
        assert (answer.status, answer.code, answer.json["path"]) == (422, "invalid_field", "_id")
    answer = await service.post("/v1/docs/test", {"_id": 1})
    assert (answer.status, answer.code, answer.json["path"]) == (422, "invalid_field", "_id")
    assert await stored.now() == stored.raw


async def test_a_field_uuid_that_is_not_the_key_is_the_clients_to_change(service, mongo, deployment):
    stored = await Stored(mongo, deployment.databases["acme"], "notes", VALUES["its own uuid"]).insert()
    assert (await service.get(stored.path)).json["$uuid"] == "another"
    assert (await service.patch(stored.path, b'{"$uuid":"mine"}', Content_Type=PATCH)).json["$uuid"] == "mine"
    assert bson.decode(await stored.now())["uuid"] == "mine"
    assert "$uuid" not in (await service.patch(stored.path, b'{"$uuid":null}', Content_Type=PATCH)).json
    assert "uuid" not in bson.decode(await stored.now())
    item = {"uuid": str(stored.uuid), "mode": "merge", "document": {"$uuid": "bulk"}}
    assert (await service.post("/v1/docs/notes:bulk", {"items": [item]})).json["succeeded"] == 1
    assert bson.decode(await stored.now())["uuid"] == "bulk"
    answer = await service.put(f"/v1/docs/test/{uuid4()}", {"$uuid": "x"})
    assert (answer.status, answer.code) == (422, "invalid_field")
