"""The pages of docs/how-to/browser-app.md, built as it says and served by a server, in Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "how-to" / "browser-app.md"
PACKAGES = ROOT / "frontend" / "node_modules"
# So that a test can break one off.
HOLD_SOCKETS = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
  constructor(...all) {
    super(...all);
    window.sockets.push(this);
  }
};
"""


def source(title):
    """The file of that name, as the guide shows it."""
    (text,) = re.findall(
        rf'^```\w+ title="{re.escape(title)}"\n(.*?)^```$', GUIDE.read_text(), re.MULTILINE | re.DOTALL
    )
    return text


def icon(folder):
    """What browsers ask for unasked."""
    folder.mkdir(exist_ok=True)
    (folder / "favicon.ico").write_bytes(b"")


@dataclass(frozen=True)
class Place:
    """A server with the page of the guide."""

    server: object
    url: str
    hosts: set[str]

    async def ask(self, method, path, body=None, *, user="alice"):
        async with httpx.AsyncClient(trust_env=False, base_url=self.url) as client:
            headers = {"Authorization": f"Bearer {self.server.token(user)}"}
            answer = await client.request(method, path, headers=headers, json=body)
            assert answer.is_success, answer.text
            return answer.json() if answer.content else None

    async def create(self, title):
        """A note of alice's that bob may write."""
        uuid = (await self.ask("POST", "/v1/docs/notes", {"title": title}))["uuid"]
        await self.ask("PUT", f"/v1/grants/{uuid}/user:bob", {"role": "writer"})
        return uuid


@pytest.fixture
def place(start_server, oauth):
    """Serve a folder. The provider sends browsers back to one address, so the server ends with its test."""
    servers = []

    def serve(folder):
        servers.append(server := start_server(oauth.server_port, frontend_dir=folder))
        return Place(server, server.url, {f"localhost:{server.port}", f"localhost:{oauth.port}"})

    yield serve
    for server in servers:
        server.stop()


async def log_in(person):
    """At the provider, where the page or its link has sent them."""
    await person.page.locator(f'button[name="user"][value="{person.name}"]').click()


# The people leave before their place does: fixtures end in reverse.
async def test_the_page_with_socket_ios_client_alone(place, people, tmp_path):
    for name in ("index.html", "app.js"):
        (tmp_path / name).write_text(source(name))
    shutil.copy(PACKAGES / "socket.io-client" / "dist" / "socket.io.esm.min.js", tmp_path)
    icon(tmp_path)
    where = place(tmp_path)
    uuid = await where.create("hello")

    bob = await people(at=where)
    bob.name = "bob"
    await bob.page.add_init_script(HOLD_SOCKETS)
    await bob.page.goto(f"{where.url}/?uuid={uuid}")
    await bob.page.get_by_role("link", name="Log in").click()
    await log_in(bob)
    lines = bob.page.locator("li")
    await expect(lines).to_have_text([f'as it is: {{"notes":[{{"uuid":"{uuid}","title":"hello"}}]}}'])
    await where.ask("PUT", f"/v1/docs/notes/{uuid}", {"title": "hello, bob"})
    await expect(lines.nth(1)).to_have_text(f'notes replace {{"uuid":"{uuid}","title":"hello, bob"}}')
    await where.ask("DELETE", f"/v1/grants/{uuid}/user:bob")
    await expect(lines.nth(2)).to_have_text("no longer: revoked")

    # The token has ended while the computer slept: the session goes on.
    await where.ask("PUT", f"/v1/grants/{uuid}/user:bob", {"role": "reader"})
    await bob.page.context.clear_cookies(name="livedocs_token")
    await bob.page.evaluate("sockets.at(-1).close()")
    await where.ask("PUT", f"/v1/docs/notes/{uuid}", {"title": "good morning"})
    await expect(lines.last).to_contain_text("good morning")

    # Logged out in another tab: nothing of it stays.
    other = await bob.page.context.new_page()
    await other.goto(where.url)
    await other.evaluate("""fetch("/auth/logout", {method: "POST", headers: {"X-Requested-With": "app"}})""")
    await expect(bob.page.get_by_role("link", name="Log in")).to_be_visible()
    await expect(lines).to_have_count(0)
    await other.close()
    # Chromium says so of each handshake that is refused, and of a refresh: the page may hear of the logout from
    # its socket before the other tab has lost its cookies.
    refused = re.compile(r"Authentication failed|status of 401")
    assert all(refused.search(complaint) for complaint in bob.complaints), bob.complaints
    bob.complaints.clear()


@pytest.fixture
def built(tmp_path):
    """The folder of a project of its own: the library copied into it, its packages installed, and built."""
    shutil.copytree(ROOT / "frontend" / "src" / "client", tmp_path / "livedocs")
    (tmp_path / "node_modules").symlink_to(PACKAGES)
    (tmp_path / "main.ts").write_text(source("main.ts"))
    page = '<!doctype html><title>Live</title><body><script type="module" src="/main.ts"></script></body>'
    (tmp_path / "index.html").write_text(page)
    icon(tmp_path / "public")
    options = json.loads((ROOT / "frontend" / "tsconfig.json").read_text())
    (tmp_path / "tsconfig.json").write_text(json.dumps({**options, "include": ["main.ts", "livedocs"]}))
    for program, *options in (["tsc"], ["vite", "build", "--logLevel", "warn"]):
        command = [PACKAGES / ".bin" / program, *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path / "dist"


async def test_the_page_with_the_client_library(place, people, built):
    where = place(built)
    uuid = await where.create("hello")

    bob = await people(at=where)
    bob.name = "bob"
    await bob.page.goto(f"{where.url}/?uuid={uuid}")
    await log_in(bob)
    output = bob.page.locator("output")
    await expect(output).to_have_text(f'{{"notes":[{{"uuid":"{uuid}","title":"hello"}}]}}')
    await bob.page.get_by_role("button", name="Done").click()
    await expect(output).to_have_text(f'{{"notes":[{{"uuid":"{uuid}","title":"hello","done":true}}]}}')
    await where.ask("DELETE", f"/v1/grants/{uuid}/user:bob")
    await expect(output).to_have_text("This is not yours to see.")
