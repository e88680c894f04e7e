"""Something else takes the place of a registered collection while a server runs: rooms of the others go on."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import pytest

REPLACED = {
    "view": {"viewOn": "notes", "pipeline": []},
    "time series": {"timeseries": {"timeField": "at"}},
    "capped": {"capped": True, "size": 4096},
}


@pytest.fixture
def database(acme):
    """The collection's database; it is made as it was afterwards."""
    yield acme
    acme.drop_collection("test")
    acme.create_collection("test", changeStreamPreAndPostImages={"enabled": True})
    acme.test.create_index("uuid")


async def logged(server, event):
    """The server's lines of an event, once there is one."""
    async with asyncio.timeout(10):
        while True:
            lines = [line for line in server.log.read_text().splitlines() if f'"{event}"' in line]
            if lines:
                return [json.loads(line) for line in lines]
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", REPLACED)
async def test_the_room_of_another_collection_is_joined_with_its_documents_and_goes_on(
    open_peer, api, server, database, kind
):
    uuid, alice = str(uuid4()), await open_peer("alice")
    database.drop_collection("test")
    database.command({"create": "test", **REPLACED[kind]})
    assert (await api("alice").post("/v1/docs/notes", json={"uuid": uuid, "a": 1})).status_code == 201
    answer = await alice.call("JoinRoom", [uuid], {"snapshot": True})
    assert answer["joined"][uuid]["snapshot"] == {
        "notes": [{"uuid": uuid, "a": 1}],
        "test": [{"uuid": uuid, "$unreadable": True}],
    }
    await api("alice").patch(f"/v1/docs/notes/{uuid}", json={"a": 2})
    assert (await alice.expect("notes"))[0] == {"uuid": uuid, "a": 2}
    assert {(line["tenant"], line["collection"]) for line in await logged(server, "collection_unreadable")} == {
        ("acme", "test")
    }


async def test_a_collection_without_pre_images_is_named_when_a_delete_is_lost(
    open_peer, api, server, database, grant
):
    uuid, alice = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    # Nobody has seen this document being made, as after a restart.
    database.prepared.insert_one({"_id": 1, "uuid": uuid})
    database.prepared.rename("test", dropTarget=True)
    answer = await alice.call("JoinRoom", [str(uuid)], {"snapshot": True})
    assert answer["joined"][str(uuid)]["snapshot"]["test"] == [{"uuid": str(uuid), "_id": 1}]
    database.test.delete_one({"_id": 1})
    [line] = await logged(server, "delete_without_pre_image")
    assert (line["tenant"], line["collection"], line["level"]) == ("acme", "test", "warning")
    database.notes.insert_one({"_id": uuid, "a": 1})
    assert (await alice.expect("notes"))[0] == {"uuid": str(uuid), "a": 1}
