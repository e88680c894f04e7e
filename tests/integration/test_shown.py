"""A document that another program wrote, over HTTP: whatever it holds, and however large it is."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import bson
import pytest
from bson import Binary, Code, DatetimeMS
from bson.raw_bson import RawBSONDocument

from livedocs.codec.bsondecode import CODEC
from livedocs.model import ShownBounds
from livedocs.store.documents import Documents

ODD = {
    "dbref": {"$ref": 5, "$id": 1},
    "odd": Binary(b"abc", 4),
    "old": Binary(b"abc", 2),
    "at": DatetimeMS(2**52),
    "code": Code("f", {"$ref": "a", "$id": {"$db": 1}}),
    "then": datetime(2024, 1, 2, tzinfo=UTC),
}


@pytest.fixture
def alice(api):
    return api.someone("user:alice")


@pytest.fixture
async def owned(alice):
    return (await alice.post("/v1/docs/notes", {"a": 1})).json["uuid"]


@pytest.fixture
def write(mongo, deployment):
    async def write(uuid, fields):
        raw = bson.encode({"_id": UUID(uuid), **fields}, codec_options=CODEC)
        # The old binary says that it is longer than it is.
        raw = raw.replace(b"\x03\0\0\0abc", b"\xff\0\0\0abc")
        update = {"q": {"_id": Binary.from_uuid(UUID(uuid))}, "u": RawBSONDocument(raw), "upsert": True}
        await mongo[deployment.databases["acme"]].command({"update": "notes", "updates": [update]})

    return write


async def test_what_no_driver_would_have_written_is_shown_and_can_be_changed(alice, owned, write):
    await write(owned, ODD)
    path = f"/v1/docs/notes/{owned}"
    answer = await alice.get(path)
    shown = answer.json
    assert answer.status == 200
    assert shown["dbref"] == {"$ref": 5, "$id": 1}
    assert shown["odd"] == {"$binary": {"base64": "YWJj", "subType": "04"}}
    assert shown["old"] == {"$binary": {"base64": "/wAAAGFiYw==", "subType": "02"}}
    assert shown["at"] == {"$date": {"$numberLong": str(2**52)}}
    tag = answer.headers["ETag"]
    assert (await alice.get(path, If_None_Match=tag)).status == 304
    changed = await alice.patch(path, {"b": 1, "then": shown["then"]}, If_Match=tag)
    assert (changed.status, changed.json) == (200, {**shown, "b": 1})
    assert (await alice.get(path)).headers["ETag"] == changed.headers["ETag"]
    assert (await alice.put(path, {"c": 1})).json == {"uuid": owned, "c": 1}


@pytest.mark.parametrize("fields", [{"text": "x" * 3000}, {"items": [None] * 101}], ids=["bytes", "elements"])
async def test_a_document_beyond_the_bounds_is_refused_to_readers_and_can_be_replaced(
    start_api, mongo, deployment, write, fields
):
    documents = Documents(mongo, deployment.control_database, ShownBounds(bytes=2000, elements=100))
    api = await start_api(services={"documents": documents})
    alice, bob = api.someone("user:alice"), api.someone("user:bob")
    owned = (await alice.post("/v1/docs/notes", {"a": 1})).json["uuid"]
    await write(owned, fields)
    path = f"/v1/docs/notes/{owned}"
    for answer in (
        await alice.get(path),
        await alice.patch(path, {"a": 1}),
        await alice.get(path, If_None_Match='"x"'),
        await alice.put(path, {"a": 1}, If_Match='"x"'),
    ):
        assert (answer.status, answer.code) == (413, "document_too_large")
    # Nobody else learns that it is there.
    assert (await bob.get(path)).json == {**(await bob.get(f"/v1/docs/notes/{UUID(int=7)}")).json}
    assert (await alice.put(path, {"a": 2})).json == {"uuid": owned, "a": 2}
    await write(owned, fields)
    assert (await alice.delete(path)).status == 204
    assert (await alice.get(path)).status == 404
