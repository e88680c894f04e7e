"""Several server processes on one port: what holds for one holds for all of them together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from html import unescape
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from bson.binary import Binary
from websockets.exceptions import InvalidStatus

from .conftest import opened

WORKERS = 2


@pytest.fixture(scope="module")
def server(start_server, free_ports):
    """One server of two workers, the first of which has its metrics where the server says."""
    return start_server(workers=WORKERS, shutdown_grace=1, max_sockets_per_user=1000)


class Workers:
    """The workers of a server, told apart by their metrics."""

    def __init__(self, server):
        self.server = server

    async def sockets(self):
        """How many each of them has; None for one that does not answer."""
        found = []
        async with httpx.AsyncClient(trust_env=False) as client:
            for number in range(WORKERS):
                url = f"http://127.0.0.1:{self.server.metrics_port + number}/metrics"
                try:
                    lines = (await client.get(url)).text.splitlines()
                except httpx.TransportError:
                    found.append(None)
                else:
                    figures = (line.rpartition(" ")[2] for line in lines if line.startswith("livedocs_sockets{"))
                    found.append(sum(float(figure) for figure in figures))
        return found

    def pids(self):
        """Of those that live, by their number in the server's log."""
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text()
        return {int(pid) for pid in children.split()}


def lives(pid):
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def workers(server):
    return Workers(server)


@pytest.fixture
async def spread(open_peer, workers):
    """`spread("bob")` opens sockets until each worker has three of them. The kernel decides who gets which."""

    async def open_(user):
        before, peers = await workers.sockets(), []
        for _ in range(200):
            peers.append(await open_peer(user))
            now = await workers.sockets()
            if all(after - earlier >= 3 for after, earlier in zip(now, before, strict=True)):
                return peers
        raise AssertionError(now)

    return open_


def note(acme, uuid, title):
    acme["notes"].replace_one({"_id": Binary.from_uuid(uuid)}, {"title": title}, upsert=True)


async def test_sockets_on_every_worker_get_each_change_until_the_revocation_reaches_them(spread, acme, grant):
    uuid = uuid4()
    grant(uuid, "user:bob")
    peers = await spread("bob")
    for peer in peers:
        assert str(uuid) in (await peer.call("JoinRoom", [str(uuid)]))["joined"]
    note(acme, uuid, "seen by all")
    for peer in peers:
        assert (await peer.expect("notes"))[0]["title"] == "seen by all"
    grant(uuid, "user:bob", None)
    note(acme, uuid, "seen by nobody")
    for peer in peers:
        assert (await peer.expect("$revoked"))[0]["uuid"] == str(uuid)
        await peer.settled()
        assert not peer.events


async def test_a_receipt_waits_for_every_worker(api, deployment, mongo, workers):
    made = (await api("alice").post("/v1/docs/notes", json={"title": "one"})).json()
    path = f"/v1/grants/{made['uuid']}/user:bob"
    answer = await api("alice").put(path, json={"role": "reader"}, headers={"Prefer": "wait=30"}, timeout=40)
    assert answer.json()["applied"] is True
    assert workers.pids() <= set(mongo[deployment.control_database]["processes"].distinct("pid"))


async def test_a_suspended_tenant_is_put_out_by_every_worker(spread, api):
    peers = await spread("carol")
    assert (await api("acme-operator").post("/v1/admin/tenants/globex:suspend")).status_code == 200
    try:
        for peer in peers:
            assert (await peer.expect("$goaway"))[0]["reason"] == "tenant_suspended"
            await peer.until(peer.closed.is_set)
    finally:
        assert (await api("acme-operator").post("/v1/admin/tenants/globex:resume")).status_code == 200


async def test_clients_of_a_worker_that_is_killed_resume_at_another_and_the_worker_comes_back(
    spread, open_peer, workers, acme, grant
):
    uuid = uuid4()
    grant(uuid, "user:bob")
    peers = await spread("bob")
    for peer in peers:
        await peer.call("JoinRoom", [str(uuid)])
    note(acme, uuid, "before")
    cursors = {id(peer): (await peer.expect("notes"))[1]["id"] for peer in peers}
    pids = workers.pids()
    assert len(pids) == WORKERS
    victim = min(pids)
    os.kill(victim, signal.SIGKILL)
    async with asyncio.timeout(10):
        while sum(peer.closed.is_set() for peer in peers) < 3:
            await asyncio.wait(
                [asyncio.ensure_future(peer.closed.wait()) for peer in peers if not peer.closed.is_set()],
                return_when=asyncio.FIRST_COMPLETED,
            )
    note(acme, uuid, "meanwhile")
    # The port was never closed: whoever is left takes them.
    for lost in [peer for peer in peers if peer.closed.is_set()]:
        again = await open_peer("bob")
        joined = await again.call("JoinRoom", [str(uuid)], {"since": cursors[id(lost)]})
        assert joined["joined"][str(uuid)]["resumed"] == 1
        assert (await again.expect("notes"))[0]["title"] == "meanwhile"
    for kept in [peer for peer in peers if not peer.closed.is_set()]:
        assert (await kept.expect("notes"))[0]["title"] == "meanwhile"
    async with asyncio.timeout(20):
        while None in await workers.sockets():
            await asyncio.sleep(0.05)
    assert len(workers.pids()) == WORKERS
    assert victim not in workers.pids()
    # It is a full one: new sockets come to it, and it knows the history.
    for peer in await spread("bob"):
        joined = await peer.call("JoinRoom", [str(uuid)], {"since": cursors[id(peers[0])]})
        assert joined["joined"][str(uuid)]["resumed"] == 1


async def test_more_workers_do_not_mean_more_sockets_for_one_user(start_server):
    server = start_server(workers=WORKERS, max_sockets_per_user=6, limit_handshakes_per_user=0)
    headers = {"Authorization": f"Bearer {server.token('bob')}"}
    peers = []
    told = Counter()
    try:
        for _ in range(100):
            peer = await opened(server.ws_url, headers=headers)
            peers.append(peer)
            told["refused" if peer.refusal else "let in"] += 1
            if peer.refusal:
                assert peer.refusal["data"]["code"] == "too_many_connections"
    finally:
        for peer in peers:
            await peer.close()
    assert told["let in"] == 6


async def test_more_workers_do_not_mean_a_higher_rate_for_one_address(start_server):
    server = start_server(
        workers=WORKERS, limit_handshakes_per_address=0.01, limit_burst=600, limit_handshakes_per_user=0
    )
    headers = {"Authorization": f"Bearer {server.token('bob')}"}
    let_in = 0
    for _ in range(60):
        with contextlib.suppress(InvalidStatus):
            peer = await opened(server.ws_url, headers=headers)
            let_in += 1
            await peer.close()
    assert let_in == 6


async def test_a_stop_sends_the_sockets_of_every_worker_elsewhere_and_leaves_nobody(start_server):
    server = start_server(workers=WORKERS, shutdown_grace=1)
    headers = {"Authorization": f"Bearer {server.token('bob')}"}
    peers = [await opened(server.ws_url, headers=headers) for _ in range(12)]
    pids = Workers(server).pids()
    # Ends with status 0, or this fails.
    await asyncio.to_thread(server.stop)
    for peer in peers:
        assert await peer.expect("$goaway") == [{"reason": "shutdown", "within_ms": 1000}]
        await peer.until(peer.closed.is_set)
        await peer.close()
    assert not any(lives(pid) for pid in pids)


async def test_a_server_whose_parent_is_killed_leaves_nobody_and_its_port_is_free(start_server):
    server = start_server(workers=WORKERS)
    peers = [
        await opened(server.ws_url, headers={"Authorization": f"Bearer {server.token('bob')}"}) for _ in range(4)
    ]
    server.kill()
    for peer in peers:
        await peer.until(peer.closed.is_set)
        await peer.close()
    start_server(port=server.port, workers=WORKERS)


def test_a_server_that_waits_for_mongodb_stops_in_order(deployment, free_ports, tmp_path):
    mongodb, public = free_ports(2)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LIVEDOCS_")}
    settings = deployment.environ(mongodb_uri=f"mongodb://127.0.0.1:{mongodb}", bind=f"127.0.0.1:{public}")
    with (tmp_path / "log").open("w+") as log:
        waiting = subprocess.Popen(
            [sys.executable, "-m", "livedocs", "serve", "--workers", "2"], env=environ | settings, stderr=log
        )
        try:
            deadline = time.monotonic() + 30
            while (tmp_path / "log").read_text().count("worker_started") < WORKERS:
                assert waiting.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            waiting.terminate()
            assert waiting.wait(20) == 0
        finally:
            waiting.kill()
            waiting.wait()


def test_a_second_server_on_the_same_port_does_not_start(server):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LIVEDOCS_")}
    settings = server.deployment.environ(bind=f"127.0.0.1:{server.port}")
    ended = subprocess.run(
        [sys.executable, "-m", "livedocs", "serve", "--workers", "2"],
        env=environ | settings,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 78
    assert ended.stderr == f"LIVEDOCS_BIND: nobody can listen on 127.0.0.1:{server.port}: address already in use\n"


def test_how_many_workers_there_are_is_said_on_the_command_line_or_in_the_environment(deployment):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LIVEDOCS_")}
    for arguments, workers in ((["--workers", "65"], "2"), ([], "65")):
        ended = subprocess.run(
            [sys.executable, "-m", "livedocs", "serve", *arguments],
            env=environ | deployment.environ(workers=workers),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == os.EX_CONFIG
        assert "LIVEDOCS_WORKERS: " in ended.stderr


@pytest.fixture(scope="module")
def site(start_server, oauth):
    """A server of two workers to which the provider sends browsers back."""
    return start_server(oauth.server_port, workers=WORKERS)


async def logged_in(server):
    """The cookies of a browser that has logged in as alice."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        there = await browser.get(f"{server.url}/auth/login")
        shown = await browser.get(there.headers["Location"])
        page = unescape(re.search(r'name="page" value="([^"]*)"', shown.text)[1])
        back = await browser.post(there.headers["Location"], data={"page": page, "user": "alice"})
        answer = await browser.get(back.headers["Location"])
        assert answer.status_code == 303
        return dict(answer.cookies)


def own(server):
    """What a page of the server sends along."""
    return {"Origin": server.url, "X-Requested-With": "test"}


async def refreshed(server, cookies):
    """A tab's refresh, on a connection of its own: the kernel decides which worker has it."""
    async with httpx.AsyncClient(trust_env=False, cookies=cookies) as tab:
        answer = await tab.post(f"{server.url}/auth/refresh", headers=own(server))
        return answer.status_code, {**cookies, **answer.cookies}


async def test_tabs_that_refresh_at_different_workers_keep_one_session(site):
    cookies = await logged_in(site)
    for _ in range(12):
        tabs = await asyncio.gather(*(refreshed(site, cookies) for _ in range(3)))
        # Once more, as when the answer was lost on its way.
        tabs += [await refreshed(site, cookies) for _ in range(2)]
        assert [status for status, _ in tabs] == [200] * 5
        assert all(renewed == tabs[0][1] for _, renewed in tabs)
        assert tabs[0][1]["livedocs_refresh"] != cookies["livedocs_refresh"]
        cookies = tabs[0][1]


async def test_a_logout_at_one_worker_ends_what_another_is_about_to_renew(site):
    for _ in range(6):
        cookies = await logged_in(site)

        async def log_out(cookies=cookies):
            async with httpx.AsyncClient(trust_env=False, cookies=cookies) as tab:
                answer = await tab.post(f"{site.url}/auth/logout", headers=own(site))
                assert answer.status_code == 200

        (status, renewed), *_ = await asyncio.gather(refreshed(site, cookies), log_out())
        assert status in {200, 401}
        for held in (cookies, renewed):
            assert (await refreshed(site, held))[0] == 401
