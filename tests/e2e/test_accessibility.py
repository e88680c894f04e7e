"""The page without a mouse, without colours, without motion, and as a screen reader has it."""

from __future__ import annotations

import pytest
from playwright.async_api import Locator, Page, expect

pytestmark = pytest.mark.asyncio(loop_scope="module")

_INTERACTIVE = {"button", "link", "textbox", "combobox", "checkbox", "radio", "listbox", "searchbox", "switch"}
_MOST_TABS = 80

# Text against what is behind it (WCAG 2.2, 1.4.3): every element with text of its own that can be seen.
_CONTRAST = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3]));
  const luminance = (rgb) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest('.visually-hidden')) continue;
    const behind = [];
    for (let at = element; at; at = at.parentElement) behind.push(parse(getComputedStyle(at).backgroundColor));
    let ground = [255, 255, 255];
    for (const layer of behind.reverse()) ground = over(layer, ground);
    const ink = over(parse(getComputedStyle(element).color), ground);
    const [light, dark] = [luminance(ink), luminance(ground)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) found.push(`${element.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""


async def focus(page: Page, wanted: Locator, key: str = "Tab") -> None:
    """Go there with the keyboard; wherever the way leads, one must see where one is."""
    for _ in range(_MOST_TABS):
        await page.keyboard.press(key)
        visible = await page.evaluate(
            """() => {
              const at = document.activeElement;
              const rings = [at, at.labels?.[0]].filter(Boolean).map((element) => getComputedStyle(element));
              const seen = (style) => style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
              return at === document.body || rings.some(seen);
            }"""
        )
        assert visible, await page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        if await wanted.evaluate("(element) => element === document.activeElement"):
            return
    pytest.fail(f"the keyboard does not reach {wanted}")


async def nameless(page: Page) -> list[str]:
    """Controls in the accessibility tree that have no name."""
    session = await page.context.new_cdp_session(page)
    tree = await session.send("Accessibility.getFullAXTree")
    await session.detach()
    return [
        node["role"]["value"]
        for node in tree["nodes"]
        if not node.get("ignored")
        and node.get("role", {}).get("value") in _INTERACTIVE
        and not node.get("name", {}).get("value", "").strip()
    ]


async def test_everything_can_be_done_with_the_keyboard(people):
    alice = await people()
    page = alice.page
    await page.goto(alice.url)
    await focus(page, page.get_by_role("link", name="Log in"))
    await page.keyboard.press("Enter")
    person = page.locator('button[name="user"][value="alice"]')
    await person.wait_for()
    if not await person.evaluate("(element) => element === document.activeElement"):
        await focus(page, person)
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("who-name")).to_have_text("alice")

    await focus(page, page.get_by_role("button", name="Generate"))
    await page.keyboard.press("Enter")
    await focus(page, page.get_by_role("textbox", name="title", exact=True))
    await page.keyboard.type("By hand")
    await focus(page, page.get_by_role("button", name="Create document"))
    await page.keyboard.press("Enter")
    await alice.shows("live")
    await expect(page.get_by_role("heading", name="Document", exact=True)).to_be_focused()

    edit = page.get_by_role("button", name="Edit the document in notes")
    await focus(page, edit)
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Edit the document in notes")
    await expect(dialog.get_by_role("textbox", name="title", exact=True)).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(edit).to_be_focused()

    await page.keyboard.press("Enter")
    await focus(page, dialog.get_by_role("checkbox", name="done"))
    await page.keyboard.press("Space")
    await focus(page, dialog.get_by_role("button", name="Save changes"))
    await page.keyboard.press("Enter")
    await expect(alice.field("done")).to_have_attribute("data-mark", "changed")

    await focus(page, page.get_by_label("Name", exact=True))
    await page.keyboard.type("bob")
    await page.keyboard.press("Enter")
    revoke = page.get_by_role("button", name="Revoke bob")
    await expect(revoke).to_be_visible()
    await expect(page.get_by_test_id("sharing-status")).to_have_text("bob has access as reader.")
    await focus(page, revoke, "Shift+Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Sharing")).to_be_focused()


async def test_landmarks_names_and_roles_are_what_a_screen_reader_needs(people):
    guest = await people()
    await guest.page.goto(guest.url)
    await expect(guest.page.get_by_role("heading", level=1, name="Documents that stay live")).to_be_visible()
    assert await nameless(guest.page) == []

    alice = await people("alice")
    await alice.create("Named")
    page = alice.page
    await expect(page.get_by_role("banner")).to_be_visible()
    await expect(page.get_by_role("main")).to_be_visible()
    for name in ("Document", "Sharing", "Activity"):
        await expect(page.get_by_role("region", name=name, exact=True)).to_be_visible()
    await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    table = page.get_by_role("table", name="Fields of the document in notes")
    await expect(table.get_by_role("columnheader")).to_have_text(["Field", "Value", "Last change"])
    await expect(table.get_by_role("row", name="title Named")).to_be_visible()
    assert await nameless(page) == []
    await page.get_by_role("button", name="Edit the document in notes").click()
    assert await nameless(page) == []
    assert await page.evaluate("document.documentElement.lang") == "en"


async def test_the_table_stays_one_for_a_screen_reader_on_a_narrow_screen_and_nothing_sticks_out(people):
    alice = await people("alice", viewport={"width": 360, "height": 740})
    await alice.create("Narrow")
    table = alice.page.get_by_role("table", name="Fields of the document in notes")
    await expect(table.get_by_role("row", name="title Narrow")).to_be_visible()
    assert await alice.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_stands_out_from_what_is_behind_it(people, scheme):
    alice = await people("alice", color_scheme=scheme, reduced_motion="reduce")
    uuid = await alice.create("Contrast")
    await alice.grant("bob", "writer")
    await alice.page.get_by_role("button", name="Edit the document in notes").click()
    dialog = alice.page.get_by_test_id("edit-dialog")
    await dialog.get_by_role("checkbox", name="done").check()
    await dialog.get_by_role("button", name="Remove text").click()
    assert await alice.page.evaluate(_CONTRAST) == []
    await dialog.get_by_role("button", name="Save changes").click()
    await expect(alice.field("done")).to_have_attribute("data-mark", "changed")
    assert await alice.page.evaluate(_CONTRAST) == []

    bob = await people("bob", color_scheme=scheme, reduced_motion="reduce")
    await bob.open(uuid)
    await bob.shows("live")
    await alice.page.get_by_role("button", name="Revoke bob").click()
    await bob.shows("revoked")
    assert await bob.page.evaluate(_CONTRAST) == []
    guest = await people(color_scheme=scheme)
    await guest.page.goto(guest.url)
    await expect(guest.page.get_by_role("link", name="Log in")).to_be_visible()
    assert await guest.page.evaluate(_CONTRAST) == []


async def test_nothing_moves_for_those_who_asked_for_that(people):
    alice = await people("alice", reduced_motion="reduce")
    await alice.create("Still")
    assert await alice.page.evaluate("document.getAnimations().length") == 0
