"""The demo as a process, and people in Chromium.

demo     session   `livedocs demo` on free ports with data of its own: `.url`, `.oauth_port`, `.token(user)`
browser  module    Chromium
people   function  `await people("alice")` is a logged-in person in a browser context of their own; without a name,
                   somebody who is not logged in. Screenshots of a failed test's pages go to test-results/. At the
                   end nothing may have been complained about in a console, nor asked of another host.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Locator, Page, async_playwright, expect

from livedocs import config
from livedocs.demo import people as demo_people
from livedocs.demo.leash import leashed
from livedocs.demo.mongod import wait_until
from livedocs.demo.token import fetch_token

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "test-results"
STARTED = 120.0
# Milliseconds; generous, because the tests share two cores with several servers.
PATIENCE = 20_000
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
expect.set_options(timeout=PATIENCE)
_failed = pytest.StashKey[bool]()


@dataclass(frozen=True)
class Demo:
    """A running `livedocs demo`."""

    port: int
    oauth_port: int
    mongo_port: int

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def hosts(self) -> set[str]:
        """Whatever the browser may talk to."""
        return {f"localhost:{self.port}", f"localhost:{self.oauth_port}"}

    def token(self, user: str, *, ttl: int | None = None) -> str:
        """An access token of the development provider."""
        who = demo_people.person(user)
        assert who is not None, user
        return fetch_token(user=user, tenant=who.tenant, ttl=ttl, oauth_port=self.oauth_port)


@pytest.fixture(scope="session")
def page_folder() -> Path:
    """The built page."""
    folder = ROOT / "frontend" / "dist"
    assert (folder / "index.html").is_file(), "the page is not built: npm --prefix frontend run build"
    return folder


@pytest.fixture(scope="session")
def demo(
    page_folder: Path, free_ports: Callable[[int], list[int]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    port, oauth_port, mongo_port = free_ports(3)
    log = folder / "output"
    own = {name: value for name, value in os.environ.items() if not name.startswith(config.PREFIX)}
    command = [
        *(
            sys.executable,
            "-P",
            "-m",
            "livedocs",
            "demo",
            "--stop-with-parent",
            "--data-dir",
            str(folder / "data"),
        ),
        *("--port", str(port), "--oauth-port", str(oauth_port), "--mongo-port", str(mongo_port)),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            leashed(command, signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**own, "PYTHONUNBUFFERED": "1"},
        )

    def ready() -> bool:
        assert process.poll() is None, f"the demo ended with {process.returncode}:\n{log.read_text()}"
        return f"livedocs is ready on http://localhost:{port}" in log.read_text()

    try:
        wait_until(ready, STARTED, "the demo")
        yield Demo(port, oauth_port, mongo_port)
    finally:
        process.terminate()
        process.wait(60)
    assert process.returncode == 0, log.read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        program = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
        browser = await playwright.chromium.launch(executable_path=program, args=_FLAGS)
        yield browser
        await browser.close()


@dataclass
class Person:
    """Somebody at a browser of their own."""

    name: str
    context: BrowserContext
    page: Page
    url: str
    hosts: set[str]
    # What the console complained about, and what was asked of others.
    complaints: list[str] = field(default_factory=list)
    # Complaints that the test itself brings about.
    tolerated: re.Pattern[str] | None = None

    @property
    def state(self) -> Locator:
        """The line that says how things stand."""
        return self.page.get_by_test_id("status")

    async def shows(self, state: str) -> None:
        """Wait until the page is in that state."""
        await expect(self.state).to_have_attribute("data-state", state)

    async def log_in(self) -> None:
        """At the provider, as a person would."""
        await self.page.goto(self.url)
        await self.page.get_by_role("link", name="Log in").click()
        await self.page.locator(f'button[name="user"][value="{self.name}"]').click()
        await expect(self.page.get_by_test_id("who-name")).to_have_text(self.name)

    async def open(self, uuid: str) -> None:
        """Connect to a document by typing its UUID."""
        await self.page.get_by_label("Document UUID").fill(uuid)
        await self.page.get_by_role("button", name="Connect", exact=True).click()

    async def create(self, title: str) -> str:
        """A new note under a generated UUID, which is returned when the note has arrived."""
        await self.page.get_by_role("button", name="Generate").click()
        await self.page.get_by_role("textbox", name="title", exact=True).fill(title)
        await self.page.get_by_role("button", name="Create document").click()
        await self.shows("live")
        await expect(self.field("title")).to_contain_text(title)
        return await self.page.get_by_label("Document UUID").input_value()

    async def grant(self, name: str, role: str) -> None:
        sharing = self.page.get_by_test_id("sharing")
        await sharing.get_by_label("Name").fill(name)
        await sharing.get_by_label("Role").select_option(role)
        await sharing.get_by_role("button", name="Give access").click()
        await expect(sharing.get_by_role("button", name=f"Revoke {name}")).to_be_visible(timeout=PATIENCE)

    def field(self, path: str, collection: str = "notes") -> Locator:
        """The row of a field."""
        return self.page.get_by_test_id(f"document-{collection}").locator(f'tr[data-path="{path}"]')

    def watch(self) -> None:
        """Note what goes wrong from now on."""
        self.page.on("console", lambda message: self._complain(message.type == "error", message.text))
        self.page.on("pageerror", lambda error: self._complain(wrong=True, what=str(error)))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("websocket", lambda socket: self._asked(socket.url))

    def _complain(self, wrong: bool, what: str) -> None:  # noqa: FBT001
        if wrong and not (self.tolerated and self.tolerated.search(what)):
            self.complaints.append(what)

    def _asked(self, url: str) -> None:
        self._complain(urlsplit(url).netloc not in self.hosts, f"another host: {url}")


People = Callable[..., Awaitable[Person]]


@pytest_asyncio.fixture(loop_scope="module")
async def people(request: pytest.FixtureRequest, browser: Browser) -> AsyncIterator[People]:
    came: list[Person] = []

    async def come(name: str = "", *, at: Demo | None = None, **options: object) -> Person:
        place = at or request.getfixturevalue("demo")
        context = await browser.new_context(locale="en-GB", **options)
        context.set_default_timeout(PATIENCE)
        person = Person(name, context, await context.new_page(), place.url, place.hosts)
        person.watch()
        came.append(person)
        if name:
            await person.log_in()
        return person

    yield come
    if request.node.stash.get(_failed, False):
        RESULTS.mkdir(exist_ok=True)
        for number, person in enumerate(came, 1):
            name = re.sub(r"[^A-Za-z0-9]+", "-", f"{request.node.name}-{number}-{person.name}").strip("-")
            await person.page.screenshot(path=RESULTS / f"{name}.png", full_page=True)
    for person in came:
        await person.context.close()
    complaints = {person.name: person.complaints for person in came if person.complaints}
    assert not complaints, complaints


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.stash[_failed] = report.failed
    return report
