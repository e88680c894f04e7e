"""The client of the tutorial, unchanged but for its token, against documents that others write into MongoDB."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from bson.binary import Binary

from livedocs.model import Grant, GrantKey, Role, grant_document

CLIENT = Path(__file__).parents[1] / "clients" / "node"
PATIENCE = 20.0


class Tutorial:
    """The client as a process: what it prints is what its `console.log` printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, url: str, uuid: object, token: str) -> Tutorial:
        assert (CLIENT / "node_modules").is_dir(), f"not installed: npm --prefix {CLIENT} ci"
        process = await asyncio.create_subprocess_exec(
            *("node", "tutorial.js", url, str(uuid)),
            cwd=CLIENT,
            env={**os.environ, "TOKEN": token},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def told(self) -> object:
        """What it says of itself: the next line of its standard error."""
        return json.loads(await asyncio.wait_for(self._process.stderr.readline(), PATIENCE))

    async def data(self) -> object:
        """The next event's data."""
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), PATIENCE))

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


@pytest.fixture
async def start_client(server):
    started = []

    async def start(uuid, token):
        client = await Tutorial.start(server.url, uuid, token)
        started.append(client)
        return client

    yield start
    for client in started:
        await client.stop()


@pytest.fixture
def database(server, mongod):
    with mongod.members[0].client() as client:
        yield client[server.databases["acme"]]


@pytest.fixture
def allow(server, mongod):
    """Grants as a tenant's service may write them: straight into MongoDB."""

    def grant(uuid, subject):
        made = Grant(GrantKey("acme", uuid, subject), Role.READER, None, "test", datetime.now(UTC))
        with mongod.members[0].client() as client:
            client[server.control_database]["acl"].insert_one(grant_document(made))

    return grant


async def test_data_arrives_as_the_tutorial_sends_it(server, start_client, database, allow):
    uuid = uuid4()
    allow(uuid, "user:alice")
    client = await start_client(uuid, server.token("alice"))
    assert await client.told() == "joined"

    document = {
        "uuid": Binary.from_uuid(uuid),
        "message": "hello",
        "place": {"city": "Oslo", "code": 1},
        "count": 1,
    }
    inserted = database["test"].insert_one(document).inserted_id
    assert await client.data() == {
        "_id": {"$oid": str(inserted)},
        "uuid": str(uuid),
        "message": "hello",
        "place": {"city": "Oslo", "code": 1},
        "count": 1,
    }

    database["test"].update_one({"_id": inserted}, {"$set": {"message": "changed", "place.city": "Bergen"}})
    assert await client.data() == {"uuid": str(uuid), "message": "changed", "place.city": "Bergen"}

    database["test"].update_one({"_id": inserted}, {"$unset": {"count": ""}})
    assert await client.data() == {"uuid": str(uuid)}

    database["test"].replace_one({"_id": inserted}, {"uuid": Binary.from_uuid(uuid), "message": "new"})
    assert await client.data() == {"_id": {"$oid": str(inserted)}, "uuid": str(uuid), "message": "new"}

    database["test"].delete_one({"_id": inserted})
    assert await client.data() == {"uuid": str(uuid)}


async def test_documents_of_others_do_not_arrive(server, start_client, database, allow):
    mine, other = uuid4(), uuid4()
    allow(mine, "user:alice")
    client = await start_client(mine, server.token("alice"))
    assert await client.told() == "joined"
    database["test"].insert_one({"uuid": Binary.from_uuid(other), "message": "not for you"})
    database["test"].insert_one({"uuid": Binary.from_uuid(mine), "message": "for you"})
    assert (await client.data())["message"] == "for you"


async def test_a_refusal_reaches_a_client_that_sends_no_acknowledgement(server, start_client, allow):
    uuid = uuid4()
    allow(uuid, "user:alice")
    client = await start_client(uuid, server.token("bob"))
    assert await client.told() == {"refused": {"uuid": str(uuid), "code": "forbidden"}}
