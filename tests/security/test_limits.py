"""Line 27 of docs/security.md, limits, on a server of its own; and line 3 under an attack."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from uuid import uuid4

import httpx
import pytest


@pytest.fixture(scope="module")
def strict(start_server):
    """A server where little is allowed at once and next to nothing comes back within a test."""
    return start_server(
        limit_burst=60,
        limit_handshakes_per_user=0.1,
        limit_events_per_user=0.5,
        limit_joins_per_user=0.2,
        limit_requests_per_user=0.1,
        limit_requests_per_address=1,
    )


async def ack(made, event, *arguments):
    await made.send("421" + json.dumps([event, *arguments]))
    while not (text := await made.text()).startswith("431"):
        pass
    return json.loads(text[3:])[0]


async def test_requests_past_the_limit_are_429_with_the_time_to_wait(strict):
    async with httpx.AsyncClient(base_url=strict.url, trust_env=False) as client:
        tokens = {user: strict.token(user) for user in ("alice", "bob")}

        async def ask(user, path="/v1/me"):
            return await client.get(path, headers={"Authorization": f"Bearer {tokens[user]}"})

        answers = [await ask("alice") for _ in range(12)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert {answer.status_code for answer in answers} == {200, 429}
        problem = refused[0].json()
        assert (problem["code"], problem["limit"]) == ("rate_limited", "requests per user")
        assert 1 <= int(refused[0].headers["Retry-After"]) <= 10
        # Somebody else's requests are their own.
        assert (await ask("bob")).status_code == 200
        # Nobody is asked who they are by then: made-up tokens cost the OAuth service nothing past the limit.
        burst = await asyncio.gather(
            *(client.get("/v1/me", headers={"Authorization": f"Bearer made-up-{n}"}) for n in range(120))
        )
        assert {answer.status_code for answer in burst} == {401, 429}
        # Probes are not counted: a flood must not have the server taken for dead.
        assert (await client.get("/healthz")).status_code == 200


async def test_handshakes_past_the_limit_are_refused_before_they_cost_anything(strict, wire):
    made = [await wire("alice", at=strict) for _ in range(12)]
    assert {one.status for one in made} == {101, 429}
    assert (await wire("bob", at=strict)).status == 101
    # Programs that send their token in CONNECT are counted there.
    token = strict.token("alice")
    for _ in range(12):
        late = await wire(at=strict)
        await late.send("40" + json.dumps({"token": token}))
        if (text := await late.text()).startswith("44"):
            break
    told = json.loads(text[2:])["data"]
    assert told["code"] == "rate_limited"
    assert 0 < told["retry_after_ms"] <= 10_000


async def test_an_addresss_handshakes_are_counted_before_anybody_is_asked_about_its_tokens(
    start_server, wire, look
):
    server = start_server(limit_burst=1, limit_handshakes_per_address=5)
    asked = look(server).metric
    before = await asked("livedocs_introspections_total{")
    made = [await wire(at=server, token=f"made-up-{number}") for number in range(30)]
    statuses = Counter(one.status for one in made)
    assert statuses.keys() == {401, 429}
    assert await asked("livedocs_introspections_total{") - before == statuses[401]


async def test_joins_and_events_past_the_limit_are_refused_with_the_time_to_wait(strict, wire):
    made = await wire("carol", "40", at=strict)
    uuids = [str(uuid4()) for _ in range(10)]
    first = await ack(made, "JoinRoom", uuids)
    assert {refused["code"] for refused in first["refused"].values()} == {"forbidden"}
    second = await ack(made, "JoinRoom", uuids)
    assert {refused["code"] for refused in second["refused"].values()} == {"rate_limited"}
    assert all(0 < refused["retry_after_ms"] <= 50_000 for refused in second["refused"].values())
    told = [await ack(made, "LeaveRoom", []) for _ in range(40)]
    assert "rate_limited" in {answer.get("code") for answer in told}
    assert 0 < told[-1]["retry_after_ms"] <= 2_000
    # Whoever does not listen to that is sent away.
    for _ in range(2_000):
        made.writer.write(b"\x81\x8b" + bytes(4) + b'42["Check"]')
    # What it was told may be lost: it has sent more than was read of it.
    await made.rest()


@pytest.fixture
def limit(deployment):
    """`limit(name=number)` has the command put these limits in place of acme's."""

    def put(**limits):
        given = [f"{name}={number}" for name, number in limits.items()]
        command = [sys.executable, "-m", "livedocs", "tenant", "limits", "acme", *given]
        subprocess.run(command, env=deployment.environ(), check=True, timeout=60)

    yield put
    put()


async def test_a_tenants_own_rates_count_at_once_and_for_nobody_else(start_server, wire, limit):
    server = start_server(limit_burst=1)
    made, others = await wire("alice", "40", at=server), await wire("bob", "40", at=server)
    tokens = {user: server.token(user) for user in ("alice", "bob", "carol")}
    uuids = [str(uuid4()) for _ in range(3)]
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:

        async def ask(user):
            return await client.get("/v1/me", headers={"Authorization": f"Bearer {tokens[user]}"})

        assert [(await ask("alice")).status_code for _ in range(10)] == [200] * 10
        await asyncio.to_thread(
            limit,
            limit_requests_per_tenant=1,
            limit_events_per_user=2,
            limit_joins_per_tenant=1,
            limit_handshakes_per_user=1,
        )
        async with asyncio.timeout(10):
            while (answer := await ask("alice")).status_code != 429:
                pass
        assert answer.json()["limit"] == "requests per tenant"
        assert int(answer.headers["Retry-After"]) == 1
        # It is the tenant's, whoever of it asks; of another tenant nobody notices.
        assert (await ask("bob")).status_code == 429
        assert [(await ask("carol")).status_code for _ in range(10)] == [200] * 10
    assert 429 in [(await wire("bob", at=server)).status for _ in range(3)]
    assert [(await wire("carol", at=server)).status for _ in range(3)] == [101] * 3
    # A socket that was there before is under the new limits as well.
    async with asyncio.timeout(10):
        while (await ack(made, "LeaveRoom", [])).get("code") != "rate_limited":
            pass
        codes = set()
        while codes != {"rate_limited"}:
            told = await ack(others, "JoinRoom", uuids)
            codes = {refused["code"] for refused in told.get("refused", {}).values()}
            # Its events are limited as well, to two a second; it waits as it is told.
            await asyncio.sleep(told.get("retry_after_ms", 0) / 1000)


async def test_a_tenants_own_number_of_sockets_counts_at_once(start_server, wire, limit):
    server = start_server(max_sockets_per_tenant=1)
    await wire("alice", "40", at=server)

    async def connect(user):
        made = await wire(user, at=server)
        await made.send("40")
        answer = await made.text()
        await made.close()
        return answer

    assert "too_many_connections" in await connect("bob")
    # More than the others of this server have, then fewer for one user.
    await asyncio.to_thread(limit, max_sockets_per_tenant=5)
    async with asyncio.timeout(10):
        while "too_many_connections" in await connect("bob"):
            pass
    assert (await connect("alice")).startswith("40")
    await asyncio.to_thread(limit, max_sockets_per_tenant=5, max_sockets_per_user=1)
    async with asyncio.timeout(10):
        while "too_many_connections" not in await connect("alice"):
            pass
    assert (await connect("bob")).startswith("40")


async def test_one_address_does_not_take_every_place_of_those_who_say_later_who_they_are(start_server, wire):
    server = start_server(max_waiting_sockets=5, max_waiting_sockets_per_address=3)
    token = server.token("alice")
    waiting = [await wire(at=server) for _ in range(3)]
    assert [one.status for one in waiting] == [101] * 3
    assert (await wire(at=server)).status == 503
    # A program elsewhere finds a place, and so do any number of them one after the other.
    for _ in range(7):
        made = await wire(at=server, source="127.0.0.2")
        assert made.status == 101
        await made.send("40" + json.dumps({"token": token}))
        assert (await made.text()).startswith("40")
    # The token in hand nobody waits.
    assert (await wire("bob", "40", at=server)).status == 101


def attack(port, count, held, statuses):
    """That many handshakes without a credential, one after the other; whatever is let in is held open."""
    request = (
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    for _ in range(count):
        peer = socket.create_connection(("127.0.0.1", port), timeout=10)
        peer.sendall(request)
        status = peer.recv(4096).split()[1].decode()
        statuses[status] += 1
        if status == "101":
            held.append(peer)
        else:
            peer.close()


async def test_ten_thousand_sockets_that_never_authenticate_keep_nobody_out(start_server, wire, look):
    # The attacker has no credential and one address; the others come from another one.
    server = start_server(connect_timeout=2, limit_handshakes_per_address=20)
    seen, held, statuses = look(server), [], Counter()
    await wire("alice", "40", at=server, source="127.0.0.2")
    memory = seen.resident()
    attacking = asyncio.gather(*(asyncio.to_thread(attack, server.port, 5_000, held, statuses) for _ in range(2)))
    slowest = 0.0
    try:
        while not attacking.done():
            begun = time.monotonic()
            made = await wire("bob", "40", at=server, source="127.0.0.2")
            slowest = max(slowest, time.monotonic() - begun)
            await made.close()
            await asyncio.wait([attacking], timeout=0.5)
        await attacking
        assert statuses["429"] > 9_000
        assert statuses["101"] <= 200 + 20 * 60
        assert set(statuses) <= {"101", "429", "503"}
        assert slowest < 3
        assert seen.resident() - memory < 24 * 2**20

        async def gone():
            return await seen.metric("livedocs_transports{") <= 1

        await seen.until(gone)
    finally:
        for peer in held:
            peer.close()
