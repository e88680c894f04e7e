"""A slow or hostile socket harms only itself."""

from __future__ import annotations

import asyncio
import socket as sockets
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


@pytest.fixture(scope="module")
def narrow(start_server):
    """A server with little patience and small queues."""
    return start_server(socket_queue_bytes=65536, socket_queue_messages=200, socket_stall_timeout=1)


def small_window(server):
    """A client's socket whose kernel buffer fills quickly."""
    client = sockets.socket()
    client.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    client.setblocking(False)
    return client


async def metric(server, name: str) -> float:
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(server.metrics_url)).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def resident(server) -> int:
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * 4096


async def flood(acme, uuid, count: int) -> None:
    filler = "x" * 20_000
    for n in range(1, count + 1):
        await asyncio.to_thread(
            acme.notes.update_one, {"_id": uuid}, {"$set": {"n": n, "filler": filler + str(n)}}
        )


async def test_a_socket_that_falls_behind_gets_the_newest_state_and_others_notice_nothing(
    open_peer, narrow, acme, grant
):
    uuid = uuid4()
    grant(uuid, "user:alice")
    acme.notes.insert_one({"_id": uuid, "n": 0})
    slow = await open_peer("alice", url=narrow.ws_url, sock=small_window(narrow), max_queue=1)
    quick = await open_peer("alice", url=narrow.ws_url)
    for peer in (slow, quick):
        await peer.call("JoinRoom", [str(uuid)])
    slow.reading.clear()
    slow.socket.transport.pause_reading()
    fell_behind = await metric(narrow, "livedocs_slow_sockets_total")
    writing = asyncio.create_task(flood(acme, uuid, 400))
    async with asyncio.timeout(30):
        while await metric(narrow, "livedocs_slow_sockets_total") == fell_behind:
            await asyncio.sleep(0.02)
    slow.socket.transport.resume_reading()
    slow.reading.set()
    await slow.until(lambda: any(event[0] == "$resync" for event in slow.seen), 20)
    await writing
    await quick.until(lambda: any(event[1].get("n") == 400 for event in quick.seen), 20)
    assert [event[1]["n"] for event in quick.seen] == list(range(1, 401))
    # After its last resync the slow socket, too, has everything.
    await slow.until(lambda: newest(slow) == 400, 20)
    resyncs = [event[1] for event in slow.seen if event[0] == "$resync"]
    assert {body["reason"] for body in resyncs} == {"slow"}


def newest(peer) -> int:
    """The state a client would hold: the snapshot of the last resync and the deltas behind it, without a gap."""
    n = 0
    for event in peer.seen:
        if event[0] == "$resync":
            n = event[1]["snapshot"]["notes"][0]["n"]
        elif event[0] == "notes":
            assert event[1]["n"] == n + 1
            n = event[1]["n"]
    return n


async def test_a_socket_that_never_reads_is_cut_off_and_costs_bounded_memory(open_peer, narrow, acme, grant):
    uuid = uuid4()
    grant(uuid, "user:alice")
    acme.notes.insert_one({"_id": uuid, "n": 0})
    stuck = await open_peer("alice", url=narrow.ws_url, sock=small_window(narrow), max_queue=1)
    await stuck.call("JoinRoom", [str(uuid)])
    stuck.reading.clear()
    stuck.socket.transport.pause_reading()
    before = await metric(narrow, 'livedocs_disconnects_total{reason="slow"}')
    memory = resident(narrow)
    writing = asyncio.create_task(flood(acme, uuid, 300))
    async with asyncio.timeout(30):
        while await metric(narrow, 'livedocs_disconnects_total{reason="slow"}') == before:
            # It forges pongs all the while, which changes nothing.
            await stuck.socket.send("3")
            await asyncio.sleep(0.05)
    await writing
    # 300 events of 20 kB went by; what is kept is the history's, which all sockets share.
    assert resident(narrow) - memory < 40_000_000
    stuck.socket.transport.abort()


async def test_snapshots_that_nobody_reads_are_bounded_and_pongs_save_nobody(open_peer, narrow, acme, grant):
    uuids = [uuid4() for _ in range(100)]
    for uuid in uuids:
        grant(uuid, "user:alice")
    acme.notes.insert_many([{"_id": uuid, "filler": "x" * 900_000} for uuid in uuids])
    stuck = await open_peer("alice", url=narrow.ws_url, sock=small_window(narrow), max_queue=1)
    stuck.reading.clear()
    stuck.socket.transport.pause_reading()
    before = await metric(narrow, 'livedocs_disconnects_total{reason="slow"}')
    memory, most = resident(narrow), 0
    for uuid in uuids:
        await stuck.emit("JoinRoom", [str(uuid)], {"snapshot": True})
    async with asyncio.timeout(30):
        while await metric(narrow, 'livedocs_disconnects_total{reason="slow"}') == before:
            most = max(most, resident(narrow) - memory)
            # A sign of life is not a sign that anything is taken.
            await stuck.socket.send("3")
            await asyncio.sleep(0.05)
    assert most < 80_000_000
    stuck.socket.transport.abort()


async def test_an_oversized_message_in_fragments_ends_the_socket_without_being_buffered(server):
    headers = {"Authorization": f"Bearer {server.token('alice')}"}
    socket = await connect(server.ws_url, additional_headers=headers, compression=None, proxy=None)
    await socket.send("40")
    memory = resident(server)

    async def fragments():
        # 64 MB, of which 64 KiB may be taken.
        for _ in range(1024):
            yield "x" * 65536

    async with asyncio.timeout(20):
        with pytest.raises(ConnectionClosed):
            await socket.send(fragments())
            await socket.recv()
    assert resident(server) - memory < 8_000_000


async def test_frames_go_straight_to_the_transport_on_hypercorn_over_http_1(server, open_peer):
    await (await open_peer("alice")).settled()
    assert await metric(server, 'livedocs_transports{path="direct"}') >= 1
    assert await metric(server, 'livedocs_transports{path="asgi"}') == 0
