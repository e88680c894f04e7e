"""`livedocs serve` on the authenticated three-member set, with the server's own rights, behind the TLS proxy."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import websockets
from playwright.async_api import async_playwright, expect

from livedocs.demo.leash import leashed
from livedocs.demo.mongod import wait_until
from livedocs.demo.token import fetch_token

PAGE = Path(__file__).parents[3] / "frontend" / "dist"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")


class Whole:
    """The running server and its provider, and the way to them from outside."""

    def __init__(self, proxy, oauth_port):
        self.proxy = proxy
        self.url = proxy.url
        self.oauth_port = oauth_port

    def client(self, **headers):
        return httpx.Client(
            base_url=self.url, verify=self.proxy.tls(), headers=headers, trust_env=False, timeout=20
        )

    def token(self, user):
        return fetch_token(user=user, tenant="acme", scope=None, ttl=None, oauth_port=self.oauth_port)

    def ready(self):
        try:
            with self.client() as client:
                return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running(name, command, environ, log):
    """A process that ends when the test asks it to, and must end well."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            leashed([sys.executable, "-m", *command], signal.SIGKILL),
            env={"PATH": os.environ["PATH"], **environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
        process.terminate()
        assert process.wait(30) == 0, f"{name}: {log.read_text()}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def whole(migrated, start_proxy, free_ports, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    port, oauth_port = free_ports(2)
    proxy = start_proxy(port, oauth_port)
    whole, secret, log = Whole(proxy, oauth_port), secrets.token_hex(24), folder / "server.log"
    provider = [
        "livedocs.demo.oauth",
        "--port",
        str(oauth_port),
        "--data-dir",
        str(folder),
        "--server-url",
        proxy.url,
    ]
    environ = migrated.settings(
        LIVEDOCS_BIND=f"127.0.0.1:{port}",
        LIVEDOCS_METRICS_BIND="",
        LIVEDOCS_TRUSTED_PROXIES="127.0.0.1",
        LIVEDOCS_PUBLIC_URL=proxy.url,
        LIVEDOCS_OAUTH_ISSUER=f"http://localhost:{oauth_port}",
        LIVEDOCS_OAUTH_CLIENT_SECRET=secret,
        LIVEDOCS_FRONTEND_DIR=str(PAGE),
        LIVEDOCS_SHUTDOWN_GRACE="0",
    )
    with (
        running("provider", provider, {"LIVEDOCS_DEMO_CLIENT_SECRET": secret}, folder / "provider.log"),
        running("server", ["livedocs", "serve"], environ, log) as process,
    ):

        def ready():
            assert process.poll() is None, log.read_text()
            return whole.ready()

        wait_until(ready, 60, "the server behind the proxy to be ready")
        yield whole


async def until(socket, wanted):
    """The next Socket.IO packet that begins so; Engine.IO pings in between are answered."""
    async with asyncio.timeout(20):
        while True:
            packet = await socket.recv()
            if packet == "2":
                await socket.send("3")
            elif packet.startswith(wanted):
                return packet


def test_a_login_sets_a_cookie_that_only_https_and_this_host_see(whole):
    with whole.client() as client:
        answer = client.get("/auth/login")
    assert answer.status_code in {302, 303}
    (cookie,) = (text for text in answer.headers.get_list("set-cookie") if "livedocs_login" in text)
    assert cookie.startswith("__Host-livedocs_login_")
    assert "secure" in cookie.lower()
    assert "redirect_uri=https%3A%2F%2Flocalhost" in answer.headers["location"]


def test_localhost_is_not_bound_to_https_for_ever(whole):
    with whole.client() as client:
        assert "strict-transport-security" not in client.get("/healthz").headers


async def test_a_document_goes_all_the_way(whole):
    token, name = whole.token("alice"), str(uuid.uuid4())
    with whole.client(Authorization=f"Bearer {token}") as client:
        made = client.put(f"/v1/docs/notes/{name}", json={"text": "first"})
        assert made.status_code in {200, 201}, made.text
        async with websockets.connect(
            f"{whole.url.replace('https', 'wss')}/socket.io/?EIO=4&transport=websocket",
            ssl=whole.proxy.tls(),
            additional_headers={"Cookie": f"__Host-livedocs_token={token}"},
            origin=whole.url,
            proxy=None,
        ) as socket:
            await until(socket, "0")
            await socket.send("40")
            await until(socket, "40")
            await socket.send("420" + json.dumps(["JoinRoom", [name]]))
            joined = json.loads((await until(socket, "430"))[3:])[0]
            assert joined["joined"][name]["role"] == "owner"
            changed = await asyncio.to_thread(client.patch, f"/v1/docs/notes/{name}", json={"text": "second"})
            assert changed.status_code == 200, changed.text
            event, data, meta = json.loads((await until(socket, '42["notes"'))[2:])
    assert (event, data, meta["op"]) == ("notes", {"uuid": name, "text": "second"}, "update")


async def test_a_page_of_another_origin_gets_no_socket(whole):
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(
            f"{whole.url.replace('https', 'wss')}/socket.io/?EIO=4&transport=websocket",
            ssl=whole.proxy.tls(),
            additional_headers={"Cookie": f"__Host-livedocs_token={whole.token('alice')}"},
            origin="https://evil.example",
            proxy=None,
        )
    assert refused.value.response.status_code == 403


async def test_a_person_logs_in_over_https_and_is_told_so(whole):
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=list(FLAGS)
        )
        # Somebody who has clicked the warning about the self-signed certificate away.
        context = await browser.new_context(ignore_https_errors=True)
        page = await context.new_page()
        await page.goto(f"{whole.url}/auth/login")
        assert page.url.startswith(f"http://localhost:{whole.oauth_port}/")
        await page.get_by_role("button", name="Alice").click()
        await page.wait_for_url(f"{whole.url}/**")
        await expect(page.get_by_test_id("who-tenant")).to_have_text("acme", timeout=20_000)
        (cookie,) = (c for c in await context.cookies() if c["name"] == "__Host-livedocs_token")
        assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
        await browser.close()
