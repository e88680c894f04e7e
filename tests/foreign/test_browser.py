"""Chromium, livedocs with its page, and npm's oidc-provider: a login as it is in production."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from playwright.async_api import async_playwright, expect

ROOT = Path(__file__).parents[2]
PATIENCE = 20_000
# Chromium sends the cookie of a page of ours along, and the Origin; the header is what the page adds.
CALL = """async ([path, method]) => {
  const answer = await fetch(path, { method, headers: { 'X-Requested-With': 'livedocs' } });
  return [answer.status, await answer.json()];
}"""


async def test_a_person_logs_in_renews_creates_and_logs_out_in_a_browser(oidc_provider, start_server):
    port = urlsplit(oidc_provider.server_url).port
    server = start_server(
        port,
        frontend_dir=ROOT / "frontend" / "dist",
        oauth_issuer=oidc_provider.issuer,
        oauth_client_id="livedocs",
        oauth_client_secret=oidc_provider.secret,
        introspection_interval=300,
    )
    async with async_playwright() as playwright:
        program = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
        browser = await playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        context = await browser.new_context(locale="en-GB")
        context.set_default_timeout(PATIENCE)

        async def this_machine_only(route):
            here = urlsplit(route.request.url).hostname == "localhost"
            # The provider's own login page asks for a font from elsewhere.
            await (route.continue_() if here else route.abort())

        await context.route("**/*", this_machine_only)
        page = await context.new_page()
        await page.goto(server.url)
        await page.get_by_role("link", name="Log in").click()
        await page.locator('input[name="login"]').fill("alice")
        await page.locator('input[name="password"]').fill("x")
        await page.get_by_role("button", name="Sign-in").click()
        await page.get_by_role("button", name="Continue").click()
        await expect(page.get_by_test_id("who-name")).to_have_text("alice", timeout=PATIENCE)

        status, session = await page.evaluate(CALL, ["/auth/session", "GET"])
        assert (status, session["tenant"], session["subject"]) == (200, "acme", "user:alice")
        before = {cookie["name"]: cookie for cookie in await context.cookies(server.url)}
        assert {"livedocs_token", "livedocs_refresh", "livedocs_session"} <= set(before)
        assert all(cookie["httpOnly"] for cookie in before.values())
        status, session = await page.evaluate(CALL, ["/auth/refresh", "POST"])
        assert (status, session["subject"]) == (200, "user:alice")
        after = {cookie["name"]: cookie["value"] for cookie in await context.cookies(server.url)}
        assert after["livedocs_token"] != before["livedocs_token"]["value"]
        assert after["livedocs_refresh"] != before["livedocs_refresh"]["value"]

        await page.get_by_role("button", name="Generate").click()
        await page.get_by_role("textbox", name="title", exact=True).fill("By a stranger's login")
        await page.get_by_role("button", name="Create document").click()
        await expect(page.get_by_test_id("status")).to_have_attribute("data-state", "live", timeout=PATIENCE)

        # The page's socket ends at once, whichever of the login's tokens it holds: nobody asks the provider about
        # them in the next minutes.
        status, said = await page.evaluate(CALL, ["/auth/logout", "POST"])
        assert status == 200
        assert said["post_logout_redirect"].startswith(f"{oidc_provider.issuer}/session/end?")
        notice = page.get_by_test_id("hero-notice")
        await expect(notice).to_have_text("You have been logged out.", timeout=PATIENCE)
        status, session = await page.evaluate(CALL, ["/auth/session", "GET"])
        assert session["authenticated"] is False
        await browser.close()
