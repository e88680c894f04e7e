"""Without a majority nothing is committed: the server says so instead of showing what may be taken back."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from uuid import uuid4

import pytest
from bson import Binary
from pymongo import WriteConcern
from rig.deployment import Deployment
from rig.listener import Listener, field
from rig.recording import Delivered

from livedocs.model import GrantKey, grant_id


@pytest.fixture
def folder(tmp_path: Path):
    yield tmp_path
    shutil.rmtree(tmp_path)


async def test_without_a_majority_it_is_not_ready_and_lets_nobody_in_and_afterwards_nothing_is_missing(folder):
    async with Deployment(folder, servers=1) as deployment:
        [process] = deployment.processes
        notes = deployment.client[deployment.databases["acme"]]["notes"]
        acl = deployment.client[deployment.control]["acl"]
        uuid, other = uuid4(), uuid4()
        for room in (uuid, other):
            await acl.insert_one({"_id": grant_id(GrantKey("acme", room, "user:alice")), "role": "reader"})
        await notes.insert_one({"_id": uuid, "n": 0})
        alice = await Listener.connect(deployment, process, "alice")
        await alice.joined(str(uuid))
        primary = await deployment.primary()
        others = [member for member in deployment.mongodb.members if member is not primary]
        for member in others:
            member.kill()
        # The old primary still takes this one, before it notices: it may never be committed.
        with primary.client(timeout=5) as direct:
            direct[deployment.databases["acme"]].get_collection("notes", write_concern=WriteConcern(1)).update_one(
                {"_id": Binary.from_uuid(uuid)}, {"$set": {"n": 1}}
            )
        await process.ready(wanted=False)
        assert await alice.join(str(other)) == {"joined": {}, "refused": {str(other): {"code": "unavailable"}}}
        assert not any(isinstance(entry, Delivered) for entry in alice.heard)
        await deployment.restart_members(others)
        await process.ready()
        async with asyncio.timeout(60):
            await notes.update_one({"_id": uuid}, {"$set": {"n": 2}})
        events = await alice.until(field("n", 2))
        truth = [event.data["n"] for event in events if isinstance(event, Delivered)]
        # The same primary came back with its write, or another one without it; what is true came once.
        assert truth in ([1, 2], [2])
        await alice.joined(str(other))
        await alice.close()
