"""A secondary that lags behind is never read, whatever the connection string prefers."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from bson import Binary
from rig.deployment import HOST, Deployment

from livedocs.model import GrantKey, grant_id

TRIES = 20


@pytest.fixture
def folder(tmp_path: Path):
    yield tmp_path
    shutil.rmtree(tmp_path)


async def test_a_revoke_a_new_document_and_a_suspension_count_at_once(folder):
    async with Deployment(folder, servers=1, mongodb_options="readPreference=secondaryPreferred") as deployment:
        [process] = deployment.processes
        notes = deployment.client[deployment.databases["acme"]]["notes"]
        control = deployment.client[deployment.control]
        rooms = [uuid4() for _ in range(TRIES)]
        await notes.insert_many([{"_id": room, "n": 0} for room in rooms])
        keys = {room: grant_id(GrantKey("acme", room, "user:alice")) for room in rooms}
        await control["acl"].insert_many([{"_id": key, "role": "reader"} for key in keys.values()])
        primary = await deployment.primary()
        lagging, _ = (member for member in deployment.mongodb.members if member is not primary)
        # The other one is a majority with the primary, so that writes go on.
        with lagging.client() as direct:
            direct.admin.command({"configureFailPoint": "rsSyncApplyStop", "mode": "alwaysOn"})
        try:
            token = deployment.provider.token("acme", "user:alice")
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(
                base_url=f"http://{HOST}:{process.port}", headers=headers, trust_env=False, timeout=20
            ) as alice:
                for room in rooms:
                    assert (await alice.get(f"/v1/docs/notes/{room}")).status_code == 200
                    await control["acl"].delete_one({"_id": keys[room]})
                    await notes.update_one({"_id": Binary.from_uuid(room)}, {"$set": {"n": "not for alice"}})
                    assert (await alice.get(f"/v1/docs/notes/{room}")).status_code == 403
                for number in range(TRIES):
                    made = await alice.post("/v1/docs/notes", json={"n": number})
                    assert made.status_code == 201
                    assert (await alice.get(made.headers["Location"])).json()["n"] == number
                await control["tenants"].update_one({"_id": "acme"}, {"$set": {"status": "suspended"}})
                async with asyncio.timeout(10):
                    while (await alice.get(made.headers["Location"])).status_code != 403:
                        await asyncio.sleep(0.05)
                statuses = {(await alice.get(made.headers["Location"])).status_code for _ in range(TRIES)}
                assert statuses == {403}
        finally:
            with lagging.client() as direct:
                direct.admin.command({"configureFailPoint": "rsSyncApplyStop", "mode": "off"})
