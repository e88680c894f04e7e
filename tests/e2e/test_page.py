"""The page in Chromium against the demo: what issue-readers call the main job, end to end."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_document_is_created_shared_changed_and_taken_back(people):
    alice = await people("alice")
    await expect(alice.page.get_by_test_id("who-tenant")).to_have_text("acme")
    uuid = await alice.create("Quarterly plan")
    await expect(alice.state).to_contain_text("It is yours")

    bob = await people("bob")
    await bob.open(uuid)
    await bob.shows("refused")
    await alice.grant("bob", "writer")
    await bob.open(uuid)
    await bob.shows("live")
    await expect(bob.field("title")).to_contain_text("Quarterly plan")

    await bob.page.get_by_role("button", name="Edit the document in notes").click()
    dialog = bob.page.get_by_test_id("edit-dialog")
    await dialog.get_by_role("checkbox", name="done").check()
    await dialog.get_by_role("button", name="Save changes").click()
    await expect(dialog).to_be_hidden()

    changed = alice.field("done")
    await expect(changed).to_have_attribute("data-mark", "changed")
    await expect(changed.get_by_role("cell").first).to_have_text("true")
    # In words, not by colour alone, and spoken.
    await expect(changed).to_contain_text("changed")
    await expect(alice.page.get_by_test_id("announcer")).to_contain_text("done changed")
    await expect(alice.field("title")).to_have_attribute("data-mark", "")
    entry = alice.page.get_by_test_id("activity").get_by_role("listitem").first
    await expect(entry).to_contain_text("updated")
    await expect(entry.get_by_text("done", exact=True)).to_be_visible()

    carol = await people("carol")
    await carol.open(uuid)
    await carol.shows("refused")
    await expect(carol.state).to_contain_text("nobody has shared it with you")
    await expect(carol.page.get_by_test_id("document")).to_be_hidden()

    await alice.page.get_by_role("button", name="Revoke bob").click()
    await bob.shows("revoked")
    await expect(bob.page.get_by_test_id("document")).to_be_hidden()
    await expect(bob.page.locator("body")).not_to_contain_text("Quarterly plan")
    await alice.shows("live")


async def test_a_reader_sees_but_has_nothing_to_change_with(people):
    alice, bob = await people("alice"), await people("bob")
    uuid = await alice.create("For your eyes")
    await alice.grant("bob", "reader")
    await bob.page.goto(f"{bob.url}/#{uuid}")
    await bob.shows("live")
    await expect(bob.field("title")).to_contain_text("For your eyes")
    await expect(bob.page.get_by_role("button", name=re.compile("^(Edit|Delete)"))).to_have_count(0)
    await expect(bob.page.get_by_test_id("sharing")).to_contain_text("You are a reader")
    await expect(bob.page.get_by_role("button", name="Give access")).to_be_hidden()


async def test_an_access_that_ends_by_itself_is_told_when_it_does(people):
    alice, bob = await people("alice"), await people("bob")
    uuid = await alice.create("For a moment")
    # The form offers minutes; the test has seconds.
    answer = await alice.page.evaluate(
        """async ([uuid, at]) => (await fetch(`/v1/grants/${uuid}/user:bob`, {
             method: 'PUT',
             headers: {'Content-Type': 'application/json', 'X-Requested-With': 'test'},
             body: JSON.stringify({role: 'reader', expires_at: new Date(Date.now() + at).toISOString()}),
           })).status""",
        [uuid, 6000],
    )
    assert answer == 201
    await bob.open(uuid)
    await bob.shows("live")
    await bob.shows("revoked")
    await alice.shows("live")


async def test_a_removed_field_and_a_deleted_document_are_shown_as_gone(people):
    alice, second = await people("alice"), await people("alice")
    uuid = await alice.create("Short-lived")
    await second.open(uuid)
    await second.shows("live")

    await second.page.get_by_role("button", name="Edit the document in notes").click()
    dialog = second.page.get_by_test_id("edit-dialog")
    await dialog.get_by_role("button", name="Remove text").click()
    await dialog.get_by_role("button", name="Save changes").click()
    await expect(alice.field("text")).to_have_attribute("data-mark", "removed")
    await expect(alice.field("text")).to_contain_text("removed")

    await second.page.get_by_role("button", name="Delete the document in notes").click()
    await second.page.get_by_test_id("delete-dialog").get_by_role("button", name="Delete").click()
    await expect(alice.page.get_by_test_id("document")).to_contain_text("was deleted")
    await expect(second.page.get_by_role("heading", name="Document", exact=True)).to_be_focused()


async def test_a_document_is_written_as_json_and_a_second_one_shares_its_uuid(people):
    alice = await people("alice")
    await alice.page.get_by_role("button", name="Generate").click()
    form = alice.page.get_by_role("form", name="New document")
    await form.get_by_label("Collection").select_option("test")
    await form.get_by_role("radio", name="JSON").check(force=True)
    text = form.get_by_role("textbox", name="Document as JSON")
    await text.fill("{ not json")
    await form.get_by_role("button", name="Create document").click()
    await expect(form.get_by_role("alert")).to_contain_text("not valid JSON")
    await text.fill('{"place": {"city": "Oslo", "tags": ["a", "b"]}, "at": {"$date": "2026-03-01T09:00:00Z"}}')
    await form.get_by_role("button", name="Create document").click()
    await alice.shows("live")
    await expect(alice.field("place.city", "test")).to_contain_text("Oslo")
    await expect(alice.field("at", "test")).to_contain_text("2026")

    await alice.page.get_by_role("button", name="Add another").click()
    await alice.page.get_by_role("textbox", name="title", exact=True).fill("Beside it")
    await alice.page.get_by_role("button", name="Create document").click()
    await expect(alice.field("title")).to_contain_text("Beside it")
    await expect(alice.field("place.city", "test")).to_be_visible()


async def test_what_the_server_refuses_is_told_where_it_was_asked(people):
    alice, bob = await people("alice"), await people("bob")
    uuid = await alice.create("Taken")
    bob.tolerated = re.compile("Failed to load resource.*40[39]")
    await bob.open(uuid)
    await bob.shows("refused")
    await bob.page.get_by_role("button", name="Create document").click()
    await expect(bob.page.get_by_role("form", name="New document").get_by_role("alert")).not_to_be_empty()

    await bob.page.get_by_label("Document UUID").fill("{not-a-uuid}")
    await bob.page.get_by_role("button", name="Connect", exact=True).click()
    await expect(bob.page.get_by_role("alert").first).to_contain_text("36 characters")
    await expect(bob.page.get_by_label("Document UUID")).to_be_focused()


async def test_the_end_of_a_token_is_shown_and_the_way_back_offered(people, demo):
    alice = await people("alice")
    uuid = await alice.create("Still here")
    guest = await people()
    token = demo.token("alice", ttl=8)
    await guest.context.add_cookies(
        [{"name": "livedocs_token", "value": token, "url": demo.url, "httpOnly": True, "sameSite": "Strict"}]
    )
    await guest.page.goto(f"{demo.url}/#{uuid}")
    await guest.shows("live")
    await guest.shows("expired")
    await expect(guest.state).to_contain_text("Log in again")
    await expect(guest.page.get_by_role("button", name="Edit the document in notes")).to_be_hidden()

    guest.name = "alice"
    await guest.page.get_by_role("link", name="Log in again").click()
    await guest.page.locator('button[name="user"][value="alice"]').click()
    # Back at the document that was open before.
    await guest.shows("live")
    await expect(guest.field("title")).to_contain_text("Still here")


async def test_a_logout_ends_every_window_of_the_session(people):
    alice = await people("alice")
    uuid = await alice.create("Open twice")
    other = await alice.context.new_page()
    await other.goto(f"{alice.url}/#{uuid}")
    await expect(other.get_by_test_id("status")).to_have_attribute("data-state", "live")
    await alice.page.get_by_role("button", name="Log out").click()
    # Nothing of the document stays on a screen that the next person may see.
    await expect(other.get_by_test_id("hero-notice")).to_have_text("You have been logged out.")
    await expect(other.get_by_text("Open twice")).to_be_hidden()
    await expect(alice.page.get_by_role("link", name="Log in")).to_be_visible()
    cookies = [cookie["name"] for cookie in await alice.context.cookies(alice.url)]
    assert "livedocs_token" not in cookies


async def test_a_login_that_is_cancelled_ends_on_the_page_which_says_so(people):
    guest = await people()
    await guest.page.goto(guest.url)
    await guest.page.get_by_role("link", name="Log in").click()
    await guest.page.get_by_role("button", name="Cancel").click()
    await expect(guest.page.get_by_test_id("hero-notice")).to_have_text("The login was cancelled.")
    assert guest.page.url == f"{guest.url}/"


async def test_the_token_is_out_of_reach_of_the_page_and_the_policy_is_strict(people):
    alice = await people("alice")
    answer = await alice.page.goto(alice.url)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert re.search(r"default-src '(none|self)'", policy)
    assert await alice.page.evaluate("document.cookie") == ""
    stored = await alice.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert stored == "[{},{}]"
    # Data is shown as text, whatever it looks like.
    uuid = await alice.create("<img src=x onerror=document.title='broken'>")
    await expect(alice.field("title")).to_contain_text("<img src=x")
    assert await alice.page.title() == f"{uuid[:8]} \u2013 livedocs"
