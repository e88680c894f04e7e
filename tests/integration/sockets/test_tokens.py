"""A live socket ends with its token: on time, after a revocation, at a logout; and can be renewed."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import InvalidStatus


@pytest.fixture(scope="module")
def watchful(start_server):
    """A server that introspects live tokens every half second."""
    return start_server(introspection_interval=0.5, introspection_cache=0, auth_grace=1)


async def opened_with(open_peer, server, token):
    return await open_peer(None, url=server.ws_url, headers={"Authorization": f"Bearer {token}"})


async def opened_once_asked(open_peer, server, token):
    """The same after an outage: the breaker lets the provider rest for a moment."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await opened_with(open_peer, server, token)
            except InvalidStatus:
                await asyncio.sleep(0.2)


async def ended(peer) -> str:
    async with asyncio.timeout(10):
        await peer.closed.wait()
    return next(event[1]["reason"] for event in peer.seen if event[0] == "$goaway")


async def test_a_token_is_announced_and_ended_at_its_end(open_peer, server):
    before = time.monotonic()
    peer = await opened_with(open_peer, server, server.token("alice", ttl=3))
    assert "$date" in (await peer.expect("$expiring"))[0]["at"]
    assert await ended(peer) == "expired"
    assert 1.5 < time.monotonic() - before < 4.5


async def test_a_token_revoked_at_the_provider_ends_all_of_its_sockets(open_peer, watchful, oauth):
    token = watchful.token("alice")
    peers = [await opened_with(open_peer, watchful, token) for _ in range(3)]
    other = await opened_with(open_peer, watchful, watchful.token("bob"))
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as provider:
        assert (await provider.post("/dev/revoke", json={"token": token})).json()["revoked"] == 1
    assert {await ended(peer) for peer in peers} == {"token_revoked"}
    await other.settled()


async def test_many_sockets_of_one_token_cost_one_introspection_per_interval(open_peer, watchful, oauth):
    token = watchful.token("ada")
    peers = [await opened_with(open_peer, watchful, token) for _ in range(10)]
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as provider:
        begun = time.monotonic()
        first = (await provider.get("/dev/faults")).json()["calls"]
        while (calls := (await provider.get("/dev/faults")).json()["calls"] - first) < 5:
            assert time.monotonic() - begun < 10
            await asyncio.sleep(0.05)
    # At most one call per interval of 0.45 to 0.5 s, one that was just due, and one of the test before on its way.
    # Each socket by itself would be ten an interval.
    assert calls <= (time.monotonic() - begun) / 0.45 + 2
    for peer in peers:
        await peer.settled()


async def test_while_introspection_is_down_sockets_stay_for_the_grace_and_then_leave(open_peer, watchful, oauth):
    peer = await opened_with(open_peer, watchful, watchful.token("alice"))
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as provider:
        await provider.post("/dev/faults", json={"introspection": "error"})
        begun = time.monotonic()
        try:
            assert await ended(peer) == "auth_unavailable"
        finally:
            await provider.delete("/dev/faults")
    assert time.monotonic() - begun >= 0.9


async def test_a_group_taken_away_at_the_provider_takes_its_rooms_and_no_others(
    open_peer, watchful, oauth, acme, grant
):
    by_group, by_user = uuid4(), uuid4()
    grant(by_group, "group:staff")
    grant(by_user, "user:bob")
    peer = await opened_once_asked(open_peer, watchful, watchful.token("bob"))
    joined = (await peer.call("JoinRoom", [str(by_group), str(by_user)]))["joined"]
    assert len(joined) == 2
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as provider:
        await provider.post("/dev/users/bob", json={"groups": []})
        try:
            assert await peer.expect("$revoked") == [{"uuid": str(by_group), "reason": "revoked"}]
        finally:
            await provider.delete("/dev/users/bob")
    acme.notes.insert_one({"_id": by_group})
    acme.notes.insert_one({"_id": by_user})
    assert (await peer.expect("notes"))[0]["uuid"] == str(by_user)


async def test_reauth_with_a_new_token_of_the_same_caller_keeps_the_rooms(open_peer, server, acme, grant):
    uuid = uuid4()
    grant(uuid, "user:alice")
    peer = await opened_with(open_peer, server, server.token("alice", ttl=4))
    await peer.call("JoinRoom", [str(uuid)])
    answer = await peer.call("Reauth", {"token": server.token("alice", ttl=600)})
    assert "$date" in answer["expires_at"]
    # Past the end of the first token.
    await asyncio.sleep(4)
    acme.notes.insert_one({"_id": uuid})
    assert (await peer.expect("notes"))[1]["op"] == "insert"


async def test_reauth_with_somebody_elses_token_or_a_bad_one_is_the_end(open_peer, server):
    for token, code in ((server.token("bob"), "forbidden"), ("nonsense", "unauthenticated")):
        peer = await open_peer("alice")
        assert (await peer.call("Reauth", {"token": token}))["code"] == code
        assert await ended(peer) == "reauth_refused"
    peer = await open_peer("alice")
    assert (await peer.call("Reauth", "no object"))["code"] == "bad_request"
    await peer.settled()


async def test_reauth_in_an_outage_keeps_the_socket_and_can_be_tried_again(open_peer, server, oauth, acme, grant):
    uuid = uuid4()
    grant(uuid, "user:alice")
    peer = await opened_with(open_peer, server, server.token("alice"))
    await peer.call("JoinRoom", [str(uuid)])
    newer = server.token("alice")
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as provider:
        await provider.post("/dev/faults", json={"introspection": "error"})
        try:
            assert (await peer.call("Reauth", {"token": newer}))["code"] == "auth_unavailable"
        finally:
            await provider.delete("/dev/faults")
    acme.notes.insert_one({"_id": uuid})
    assert (await peer.expect("notes"))[1]["op"] == "insert"
    async with asyncio.timeout(30):
        # The breaker lets the provider rest for a moment.
        while "expires_at" not in (answer := await peer.call("Reauth", {"token": newer})):
            assert answer["code"] == "auth_unavailable"
            await asyncio.sleep(0.2)
    await peer.settled()


async def test_a_flood_of_reauth_is_refused_before_anybody_is_asked(open_peer, start_server, oauth):
    strict = start_server(limit_handshakes_per_user=0.01)
    peer = await opened_with(open_peer, strict, strict.token("alice"))
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as provider:
        before = (await provider.get("/dev/faults")).json()["calls"]
        answers = [await peer.call("Reauth", {"token": strict.token("alice")}) for _ in range(20)]
        asked = (await provider.get("/dev/faults")).json()["calls"] - before
    refused = [answer for answer in answers if answer.get("code") == "rate_limited"]
    assert len(refused) >= 15
    # Beside those, at most what other servers have to ask at the same time.
    assert asked <= 20 - len(refused) + 3
    await peer.settled()


async def test_a_second_spelling_of_a_logged_out_token_is_no_way_back(open_peer, start_server):
    server = start_server(oauth_mode="jwt")
    token = server.token("alice")
    headers = {"Cookie": f"livedocs_token={token}", "Origin": server.url}
    peer = await open_peer(None, url=server.ws_url, headers=headers)
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        csrf = {**headers, "X-Requested-With": "test"}
        assert (await client.post("/auth/logout", headers=csrf)).status_code == 200
        assert await ended(peer) == "logout"
        for spelling in (token, f"{token}=", f"{token}=="):
            answer = await client.get("/v1/me", headers={"Authorization": f"Bearer {spelling}"})
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


async def test_logging_out_ends_the_sockets_of_that_session(open_peer, server):
    token = server.token("alice")
    headers = {"Cookie": f"livedocs_token={token}", "Origin": server.url}
    peer = await open_peer(None, headers=headers)
    other = await open_peer("alice")
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        answer = await client.post("/auth/logout", headers={**headers, "X-Requested-With": "test"})
        assert answer.status_code == 200
    assert await ended(peer) == "logout"
    await other.settled()


async def test_logging_out_ends_the_sockets_on_tokens_from_before_a_refresh_too(open_peer, server):
    def browser(token, login):
        return {"Cookie": f"livedocs_token={token}; livedocs_session={login}", "Origin": server.url}

    older, newer = server.token("alice"), server.token("alice")
    peers = [await open_peer(None, headers=browser(token, "a")) for token in (older, newer, older)]
    another_browser = await open_peer(None, headers=browser(server.token("alice"), "b"))
    program = await open_peer("alice", headers={"Cookie": "livedocs_session=a"})
    begun = time.monotonic()
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        # The newest token, with which no socket has been opened yet.
        headers = browser(server.token("alice"), "a") | {"X-Requested-With": "test"}
        assert (await client.post("/auth/logout", headers=headers)).status_code == 200
    assert {await ended(peer) for peer in peers} == {"logout"}
    # At once: the next introspection is half a minute away.
    assert time.monotonic() - begun < 5
    await another_browser.settled()
    await program.settled()
