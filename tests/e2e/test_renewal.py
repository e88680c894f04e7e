"""A page over several short-lived tokens: it renews them by itself and misses nothing meanwhile."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from uuid import UUID

import pytest
from bson.binary import Binary
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="module")

TTL = 4
TOKENS = 4


@dataclass(frozen=True)
class Place:
    """Where people go: a server of the test's own with the built page."""

    url: str
    hosts: set[str]


async def log_in_for(person, seconds):
    """As a person does, with access tokens of that lifetime: an extension of the development provider."""
    answer = await person.context.request.get(f"{person.url}/auth/login", max_redirects=0)
    await person.page.goto(f"{answer.headers['location']}&ttl={seconds}")
    await person.page.locator('button[name="user"][value="alice"]').click()
    await expect(person.page.get_by_test_id("who-name")).to_have_text("alice")


async def test_a_page_renews_short_tokens_again_and_again_and_misses_no_change(
    people, start_server, oauth, page_folder, mongod
):
    port = oauth.server_port
    server = start_server(port, frontend_dir=page_folder)
    alice = await people(at=Place(server.url, {f"localhost:{port}", f"localhost:{oauth.port}"}))
    sockets, seen = [], set()

    def frame(payload):
        if isinstance(payload, str) and payload.startswith('42["notes"'):
            seen.add(json.loads(payload[2:])[1].get("n"))

    def opened(socket):
        sockets.append(socket)
        socket.on("framereceived", frame)

    alice.page.on("websocket", opened)
    await log_in_for(alice, TTL)
    uuid = await alice.create("Renewed")
    tokens = {await access_token(alice)}
    await alice.page.evaluate(
        """() => {
          window.states = [];
          const state = document.querySelector('[data-testid="status"]');
          new MutationObserver(() => window.states.push(state.dataset.state))
            .observe(state, { attributes: true, attributeFilter: ['data-state'] });
        }"""
    )
    written = 0
    with mongod.members[0].client() as client:
        notes = client[server.databases["acme"]]["notes"]
        async with asyncio.timeout(90):
            while len(tokens) <= TOKENS:
                written += 1
                change = {"$set": {"n": written}}
                await asyncio.to_thread(notes.update_one, {"_id": Binary.from_uuid(UUID(uuid))}, change)
                tokens.add(await access_token(alice))
    await expect(alice.field("n")).to_contain_text(str(written))
    # Every change arrived, over whichever socket; a new one is opened for each token.
    assert seen - {None} == set(range(1, written + 1))
    assert len(sockets) >= TOKENS
    # And nobody looking at the page could tell.
    assert set(await alice.page.evaluate("window.states")) <= {"live"}
    # The sockets of the old tokens are closed: each only when its successor was live.
    async with asyncio.timeout(20):
        while sum(not socket.is_closed() for socket in sockets) > 2:
            await asyncio.sleep(0.1)


async def access_token(person):
    cookies = await person.context.cookies(person.url)
    return next((cookie["value"] for cookie in cookies if cookie["name"] == "livedocs_token"), None)
