"""Who gets a socket, and how one is refused or ended."""

from __future__ import annotations

import asyncio
import json
import time
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus


async def refused(url: str, headers: list[tuple[str, str]]) -> tuple[int, dict]:
    """The status and the problem body of a refused handshake."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, additional_headers=headers, compression=None, proxy=None):
            """Let in: it is closed again, and the test fails."""
    response = caught.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, json.loads(response.body)


def cookie(server, user="alice"):
    return ("Cookie", f"theme=dark; livedocs_token={server.token(user)}")


async def test_a_browser_comes_in_with_its_cookie_and_an_origin_of_ours(open_peer, server):
    for origin in (server.url, f"http://127.0.0.1:{server.port}"):
        headers = dict([cookie(server), ("Origin", origin)])
        peer = await open_peer(None, headers=headers)
        assert peer.refusal is None
        await peer.settled()


async def test_a_foreign_page_cannot_use_the_browsers_cookie(server):
    for origin in (
        "http://evil.example",
        "null",
        server.url + ".evil.example",
        server.url.replace("http", "https"),
    ):
        status, problem = await refused(server.ws_url, [cookie(server), ("Origin", origin)])
        assert (status, problem["code"]) == (403, "forbidden_origin")


async def test_a_cookie_without_an_origin_is_refused(server):
    status, problem = await refused(server.ws_url, [cookie(server)])
    assert (status, problem["code"]) == (403, "forbidden_origin")


async def test_a_browser_without_a_cookie_is_refused_before_the_websocket_opens(server):
    status, problem = await refused(server.ws_url, [("Origin", server.url)])
    assert (status, problem["code"]) == (401, "unauthenticated")


async def test_bad_tokens_are_refused_with_one_code(server):
    for token in ("nonsense", server.token("alice") + "x", server.token("alice")[:-5]):
        status, problem = await refused(server.ws_url, [("Authorization", f"Bearer {token}")])
        assert (status, problem["code"]) == (401, "unauthenticated")


async def test_ambiguous_and_oversized_credentials_are_malformed(server):
    token = server.token("alice")
    origin = ("Origin", server.url)
    twice = ("Cookie", f"livedocs_token={token}; livedocs_token={token}")
    status, problem = await refused(server.ws_url, [twice, origin])
    assert (status, problem["code"]) == (400, "duplicate_cookie")
    status, problem = await refused(server.ws_url, [cookie(server), origin, ("Authorization", f"Bearer {token}")])
    assert (status, problem["code"]) == (400, "multiple_credentials")
    status, problem = await refused(server.ws_url, [("Authorization", "Bearer " + "a" * 4097)])
    assert (status, problem["code"]) == (400, "token_too_large")


async def test_a_token_in_the_url_is_refused_even_if_it_is_good(server):
    status, problem = await refused(f"{server.ws_url}&token={server.token('alice')}", [])
    assert (status, problem["code"]) == (400, "bad_request")


@pytest.mark.parametrize("query", ["EIO=3&transport=websocket", "transport=websocket", "EIO=4&transport=polling"])
async def test_other_protocols_and_transports_are_refused(server, query):
    url = server.ws_url.split("?")[0] + "?" + query
    status, problem = await refused(url, [("Authorization", f"Bearer {server.token('alice')}")])
    assert (status, problem["code"]) == (400, "bad_request")


async def test_long_polling_and_its_session_ids_do_not_exist(server):
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"Authorization": f"Bearer {server.token('alice')}"}
        url = f"{server.url}/socket.io/"
        for method, query in (("GET", "EIO=4&transport=polling"), ("POST", "EIO=4&transport=polling&sid=x")):
            answer = await client.request(method, f"{url}?{query}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    status, problem = await refused(f"{server.ws_url}&sid=x", [("Authorization", headers["Authorization"])])
    assert (status, problem["code"]) == (400, "bad_request")


async def test_another_websocket_path_does_not_exist(server):
    status, problem = await refused(f"ws://localhost:{server.port}/elsewhere", [])
    assert (status, problem["code"]) == (404, "not_found")


async def test_a_program_may_send_its_token_in_connect(open_peer, server):
    peer = await open_peer(None, connect_packet="40" + json.dumps({"token": server.token("acme-service")}))
    assert peer.refusal is None
    await peer.settled()


@pytest.mark.parametrize("auth", ["", "{}", '{"token":""}', '{"token":5}', '{"token":"bad"}', '{"token":"a b"}'])
async def test_connect_without_a_good_token_is_a_connect_error_and_the_end(open_peer, auth):
    peer = await open_peer(None, connect_packet="40" + auth)
    assert peer.refusal["data"] == {"code": "unauthenticated"}
    async with asyncio.timeout(5):
        await peer.closed.wait()


async def test_connect_with_a_second_credential_is_refused(open_peer, server):
    peer = await open_peer("alice", connect_packet="40" + json.dumps({"token": server.token("bob")}))
    assert peer.refusal["data"] == {"code": "unauthenticated"}


async def test_another_namespace_is_refused_and_ours_is_still_there(open_peer):
    peer = await open_peer("alice", connect_packet=None)
    await peer.socket.send("40/admin,")
    await peer.until(lambda: peer.refusal is not None)
    await peer.socket.send("40")
    await peer.settled()


async def test_a_second_namespace_on_one_connection_is_refused_and_does_the_first_no_harm(open_peer, grant, acme):
    """As `io("/")` and `io("/x")` do, and what a client sends of the second one."""
    uuid, peer = uuid4(), await open_peer("alice")
    grant(uuid, "user:alice")
    await peer.call("JoinRoom", [str(uuid)])
    for packet in (
        "40/x,",
        '42/x,["Check",1]',
        '42/x,7["JoinRoom",[]]',
        "43/x,1[]",
        "41/x,",
        '40/y,{"token":"t"}',
    ):
        await peer.socket.send(packet)
    await peer.until(lambda: peer.refusal is not None)
    assert peer.refusal == {"message": "Invalid namespace", "data": {"code": "bad_request"}}
    acme.notes.insert_one({"_id": uuid, "n": 1})
    assert (await peer.expect("notes"))[1]["op"] == "insert"
    await peer.settled()


@pytest.mark.parametrize(
    "message",
    [
        "z",
        "",
        "4",
        "49",
        "42",
        "42[]",
        "42{}",
        "42[5]",
        "4[[[",
        "42[[[[",
        "40",
        '45-["x"]',
        '451-["x",{}]',
        b"\x00",
    ]
    + ["42[" + "[" * 20000, '42["Check",NaN]', "4٣[]"],
)
async def test_a_malformed_packet_closes_the_socket_at_once(open_peer, message):
    peer = await open_peer("alice")
    await peer.socket.send(message)
    async with asyncio.timeout(5):
        await peer.closed.wait()


async def test_an_event_before_connect_closes_the_socket(open_peer):
    peer = await open_peer("alice", connect_packet=None)
    await peer.emit("JoinRoom", [str(uuid4())])
    async with asyncio.timeout(5):
        await peer.closed.wait()


async def test_compression_is_declined(server):
    headers = {"Authorization": f"Bearer {server.token('alice')}"}
    async with connect(server.ws_url, additional_headers=headers, compression="deflate", proxy=None) as socket:
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


async def test_nobody_new_gets_in_while_introspection_is_down(start_server, oauth):
    server = start_server(introspection_cache=0)
    good = server.token("alice")
    async with httpx.AsyncClient(base_url=oauth.issuer, trust_env=False) as provider:
        await provider.post("/dev/faults", json={"introspection": "error"})
        try:
            status, problem = await refused(server.ws_url, [("Authorization", f"Bearer {good}")])
        finally:
            await provider.delete("/dev/faults")
    assert (status, problem["code"]) == (503, "auth_unavailable")


async def test_sockets_that_do_not_connect_answer_pings_or_stay_within_bounds_are_ended(start_server):
    server = start_server(connect_timeout=0.5, ping_interval=0.5, ping_timeout=0.5, max_waiting_sockets=2)
    async with asyncio.timeout(20):
        waiting = [await connect(server.ws_url, compression=None, proxy=None) for _ in range(2)]
        status, problem = await refused(server.ws_url, [])
        assert (status, problem["code"]) == (503, "too_many_connections")
        begun = time.monotonic()
        for socket in waiting:
            await socket.wait_closed()
        # By this server's own time limit, not by Hypercorn's for what it reads.
        assert time.monotonic() - begun < 3
        headers = {"Authorization": f"Bearer {server.token('alice')}"}
        silent = await connect(server.ws_url, additional_headers=headers, compression=None, proxy=None)
        await silent.send("40")
        received = []
        with pytest.raises(ConnectionClosedError):
            while True:
                received.append(await silent.recv())
    assert "2" in received


async def test_a_user_has_so_many_sockets_and_no_more(start_server, open_peer):
    server = start_server(max_sockets_per_user=2)
    first, _ = [await open_peer("alice", url=server.ws_url) for _ in range(2)]
    third = await open_peer("alice", url=server.ws_url)
    assert third.refusal["data"] == {"code": "too_many_connections"}
    await open_peer("bob", url=server.ws_url)
    await first.close()
    async with asyncio.timeout(5):
        while (await open_peer("alice", url=server.ws_url)).refusal is not None:
            await asyncio.sleep(0)


async def test_a_stop_sends_everyone_elsewhere_first(start_server, open_peer):
    server = start_server(shutdown_grace=1)
    peer = await open_peer("alice", url=server.ws_url)
    await asyncio.to_thread(server.stop)
    assert await peer.expect("$goaway") == [{"reason": "shutdown", "within_ms": 1000}]
    async with asyncio.timeout(5):
        await peer.closed.wait()
