"""The page while its server goes away and comes back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

import pytest
from bson.binary import Binary
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Place:
    """Where people go: a server of the test's own with the built page."""

    url: str
    hosts: set[str]


async def test_a_page_comes_back_by_itself_and_shows_what_was_written_meanwhile(
    people, start_server, oauth, page_folder, mongod
):
    port = oauth.server_port
    first = start_server(port, frontend_dir=page_folder)
    place = Place(first.url, {f"localhost:{port}", f"localhost:{oauth.port}"})
    alice = await people("alice", at=place)
    uuid = await alice.create("Before")

    # Chromium complains of every connection that fails; here they are meant to.
    alice.tolerated = re.compile("ERR_CONNECTION|WebSocket connection")
    first.stop()
    await alice.shows("offline")
    with mongod.members[0].client() as client:
        notes = client[first.databases["acme"]]["notes"]
        result = notes.update_one({"_id": Binary.from_uuid(UUID(uuid))}, {"$set": {"title": "Meanwhile"}})
    assert result.modified_count == 1
    start_server(port, frontend_dir=page_folder)

    await alice.shows("live")
    await expect(alice.field("title")).to_contain_text("Meanwhile")
    # As a change that was missed, not as a new beginning.
    await expect(alice.field("title")).to_have_attribute("data-mark", "changed")
    await expect(alice.page.get_by_test_id("activity")).to_contain_text("1 missed change")
