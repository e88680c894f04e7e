"""`livedocs serve` on the authenticated three-member set, with the server's own rights, behind the TLS proxy."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import uuid

import httpx
import pytest
import websockets

from livedocs.demo.leash import leashed
from livedocs.demo.mongod import wait_until


class Whole:
    """The running server and the way to it from outside."""

    def __init__(self, proxy, process, log):
        self.proxy = proxy
        self.process = process
        self.log = log
        self.url = proxy.url

    def client(self, **headers):
        return httpx.Client(
            base_url=self.url, verify=self.proxy.tls(), headers=headers, trust_env=False, timeout=20
        )

    def ready(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            with self.client() as client:
                return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def whole(migrated, oauth, start_proxy, free_ports, tmp_path_factory):
    log = tmp_path_factory.mktemp("whole") / "log"
    (port,) = free_ports(1)
    proxy = start_proxy(port, oauth.port)
    environ = migrated.settings(
        LIVEDOCS_BIND=f"127.0.0.1:{port}",
        LIVEDOCS_METRICS_BIND="",
        LIVEDOCS_TRUSTED_PROXIES="127.0.0.1",
        LIVEDOCS_PUBLIC_URL=proxy.url,
        LIVEDOCS_OAUTH_ISSUER=oauth.issuer,
        LIVEDOCS_OAUTH_CLIENT_SECRET=oauth.secret,
        LIVEDOCS_SHUTDOWN_GRACE="0",
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            leashed([sys.executable, "-m", "livedocs", "serve"], signal.SIGKILL),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    whole = Whole(proxy, process, log)
    try:
        wait_until(whole.ready, 60, "the server behind the proxy to be ready")
        yield whole
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


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
    assert cookie.startswith("__Host-livedocs_login=")
    assert "secure" in cookie.lower()
    assert "redirect_uri=https%3A%2F%2Flocalhost" in answer.headers["location"]


def test_localhost_is_not_bound_to_https_for_ever(whole):
    with whole.client() as client:
        assert "strict-transport-security" not in client.get("/healthz").headers


async def test_a_document_goes_all_the_way(whole, oauth):
    token, name = oauth.token("alice"), str(uuid.uuid4())
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


async def test_a_page_of_another_origin_gets_no_socket(whole, oauth):
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(
            f"{whole.url.replace('https', 'wss')}/socket.io/?EIO=4&transport=websocket",
            ssl=whole.proxy.tls(),
            additional_headers={"Cookie": f"__Host-livedocs_token={oauth.token('alice')}"},
            origin="https://evil.example",
            proxy=None,
        )
    assert refused.value.response.status_code == 403
