"""Lines of docs/security.md about frames and packets, measured where the line measured, on a server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import zlib
from uuid import uuid4

import bson
import httpx
import pymongo
import pytest
from bson.binary import Binary
from hypercorn.asyncio import serve

from livedocs import front

MIB = 2**20


@pytest.fixture(scope="module")
def mongo(deployment):
    with pymongo.MongoClient(deployment.uri, uuidRepresentation="standard") as client:
        yield client


@pytest.fixture(scope="module")
def grant(mongo, deployment):
    acl = mongo[deployment.control_database]["acl"]

    def put(uuid, subject):
        key = {"tenant": "acme", "uuid": Binary.from_uuid(uuid), "subject": subject}
        acl.replace_one({"_id": key}, {"role": "reader", "granted_by": "test"}, upsert=True)

    def take(uuid, subject):
        acl.delete_one({"_id": {"tenant": "acme", "uuid": Binary.from_uuid(uuid), "subject": subject}})

    put.take = take
    return put


async def test_a_peer_that_ignores_the_close_and_goes_on_sending_fragments_is_cut_off(server, wire, look):
    made, seen = await wire("alice", "40"), look(server)
    memory = seen.resident()
    with contextlib.suppress(ConnectionError):
        await made.send(b"a" * 65535, fin=False)
        for _ in range(900):
            await made.send(b"a" * 65535, opcode=0, fin=False)
    await made.rest()
    assert seen.resident() - memory < 8 * MIB


async def test_a_message_in_fragments_is_not_buffered_over_http_2_either(server, look, dial):
    """It cannot be sent: HTTP/2 is not spoken."""
    memory, peer = look(server).resident(), await dial(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
    assert (await peer.rest()).startswith(b"HTTP/1.1 505 ")
    assert look(server).resident() - memory < 8 * MIB


async def test_a_compressed_bomb_is_not_unfolded_by_a_server_that_declined_compression(server, wire, look):
    made, seen = await wire("alice", "40"), look(server)
    memory = seen.resident()
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeezed.compress(bytes(60 * MIB)) + squeezed.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 65536
    await made.send(bomb, rsv1=True)
    await made.rest()
    assert seen.resident() - memory < 8 * MIB


@pytest.mark.parametrize(
    "packet",
    ["z", "4[[[", '459999999999-["x",{"_placeholder":true,"num":0}]', "42[" * 5000, "4" * 20000],
    ids=["unknown", "malformed", "attachments", "nested", "digits"],
)
async def test_a_packet_that_breaks_the_protocol_leaves_no_zombie_socket(server, wire, look, packet):
    seen = look(server)
    memory, sockets = seen.resident(), await seen.metric("livedocs_sockets{")
    made = [await wire("alice", "40") for _ in range(50 if packet == "4[[[" else 5)]
    assert await seen.metric("livedocs_sockets{") == sockets + len(made)
    for one in made:
        await one.send(packet)
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*(one.rest() for one in made))
    # Recognised as what it is (1002), not an accident of ours (1011).
    assert {last[-4:] for last in ends} == {b"\x88\x02\x03\xea"}

    async def gone():
        return await seen.metric("livedocs_sockets{") + await seen.metric("livedocs_transports{") == 2 * sockets

    await seen.until(gone, 3)
    assert seen.resident() - memory < 8 * MIB


GOOD_PACKETS = (
    *("3", "2probe", "40", "41", '40/other,{"token":"x"}', '42["Check",1]', '420["JoinRoom",[]]', "421[]"),
    *('42["LeaveRoom",["x"]]', '42["Reauth",{"token":"x"}]', '451-["x",{"_placeholder":true,"num":0}]', "46", "6"),
)


def spoiled(draw):
    """A packet that is nearly one, or nothing like it."""
    packet = list(draw.choice(GOOD_PACKETS))
    for _ in range(draw.randrange(4)):
        place = draw.randrange(len(packet) + 1)
        packet[place : place + draw.randrange(3)] = draw.choice(
            [
                "",
                "0",
                "4",
                "9" * 20,
                "[",
                "]" * 50,
                "{",
                '"',
                ",",
                "-",
                "/",
                "\x00",
                "\ud7ff",
                "\U0010ffff",
                "x" * 200,
            ]
        )
    text = "".join(packet).encode()
    return text if draw.random() < 0.8 else draw.randbytes(draw.randrange(300))


async def test_frames_of_all_kinds_leave_no_trace(start_server, wire, look):
    server = start_server(limit_handshakes_per_user=0, limit_handshakes_per_tenant=0, connect_timeout=1)
    seen, draw = look(server), random.Random(6)  # noqa: S311 - the same frames every time
    bystander = await wire("bob", "40", at=server)
    memory, before = seen.resident(), await seen.metric("livedocs_transports{")
    for _ in range(120):
        made = await wire("alice", draw.choice(["40", "40", None]), at=server)
        with contextlib.suppress(ConnectionError):
            for _ in range(draw.randrange(1, 6)):
                await made.send(
                    spoiled(draw),
                    opcode=draw.choice([1] * 12 + [0, 2, 3, 8, 9, 10, 15]),
                    rsv1=draw.random() < 0.05,
                    fin=draw.random() < 0.9,
                )
            if draw.random() < 0.2:
                # A frame that says it is longer than it is.
                made.writer.write(draw.choice([b"\x81\xff", b"\x81\xfe\xff\xff", b"\x89\x80"]) + draw.randbytes(8))
        made.writer.close()

    async def gone():
        return await seen.metric("livedocs_transports{") == before

    await seen.until(gone)
    assert seen.resident() - memory < 16 * MIB
    await bystander.send('42["Check","still here"]')
    assert "still here" in await bystander.text()
    # Whatever it was, it was expected: nothing of ours broke over it.
    assert "Traceback" not in server.log.read_text()


async def test_an_evicted_socket_has_no_transport_left_on_which_to_connect_again(server, wire, look):
    seen = look(server)
    before = seen.descriptors()
    made = await wire("alice", "40")
    # The end that the server brings about: a token that is somebody else's.
    await made.send("421" + json.dumps(["Reauth", {"token": server.token("bob")}]))
    while not (await made.text()).startswith("41"):
        pass
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        while True:
            await made.send("40")
            assert not (await made.text()).startswith("40")

    async def freed():
        return seen.descriptors() <= before

    await seen.until(freed)


async def test_a_second_connect_is_the_end_of_the_transport(server, wire):
    """Each CONNECT is authenticated, and this one would bring the first handshake's credential again."""
    made = await wire("alice", "40")
    await made.send("40")
    rest = await made.rest()
    assert b"40{" not in rest
    assert rest.endswith(b"\x88\x02\x03\xea")


async def test_whoever_is_evicted_loses_the_transport_at_once_without_having_to_say_a_word(server, wire, look):
    # Not with the peer's next packet, nor with the pong it does not send: nobody is asked to co-operate.
    seen = look(server)
    token, before = server.token("alice"), await seen.metric("livedocs_transports{")
    made = await wire()
    await made.send("40" + json.dumps({"token": token}))
    assert (await made.text()).startswith("40")
    headers = {"Cookie": f"livedocs_token={token}", "Origin": server.url, "X-Requested-With": "test"}
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        assert (await client.post("/auth/logout", headers=headers)).status_code == 200
    begun = time.monotonic()
    last = await made.rest()
    assert time.monotonic() - begun < 3
    # Why, that it need not come back, and the WebSocket's own end (1008); nothing behind it.
    assert b'"logout"' in last
    assert last.endswith(b"\x0241\x88\x02\x03\xf0")

    async def gone():
        return await seen.metric("livedocs_transports{") == before

    await seen.until(gone, 3)


async def test_nothing_of_a_room_is_written_behind_the_word_that_it_is_over(server, wire, mongo, grant):
    uuid = uuid4()
    grant(uuid, "user:alice")
    notes = mongo[server.databases["acme"]]["notes"]
    notes.insert_one({"_id": uuid, "n": 0})
    made = await wire("alice", "40")
    await made.send("420" + json.dumps(["JoinRoom", [str(uuid)]]))
    assert '"joined"' in await made.text()

    def write():
        for n in range(1, 201):
            notes.update_one({"_id": uuid}, {"$set": {"n": n}})
            if n == 100:
                grant.take(uuid, "user:alice")

    await asyncio.to_thread(write)
    await made.send("42" + json.dumps(["Check", "end"]))
    texts = []
    while not texts or '"Check"' not in texts[-1]:
        texts.append(await made.text())
    revoked = next(place for place, text in enumerate(texts) if '"$revoked"' in text)
    assert [json.loads(text[2:])[1]["n"] for text in texts[:revoked]] == list(range(1, 101))
    assert len(texts) == revoked + 2


async def test_numbers_that_json_does_not_have_arrive_as_extended_json(server, wire, mongo, grant):
    uuid = uuid4()
    grant(uuid, "user:alice")
    made = await wire("alice", "40")
    await made.send("420" + json.dumps(["JoinRoom", [str(uuid)]]))
    await made.text()
    odd = {"a": float("nan"), "b": float("inf"), "c": float("-inf"), "d": bson.Decimal128("NaN")}
    mongo[server.databases["acme"]]["notes"].insert_one({"_id": uuid, **odd})

    def refuse(name):
        raise AssertionError(name)

    _, document, _ = json.loads((await made.text())[2:], parse_constant=refuse)
    assert document["a"] == {"$numberDouble": "NaN"}
    assert document["b"] == {"$numberDouble": "Infinity"}
    assert document["c"] == {"$numberDouble": "-Infinity"}
    assert document["d"] == {"$numberDecimal": "NaN"}


async def test_a_connection_that_trickles_its_request_is_ended(deployment, free_ports):
    (port,) = free_ports(1)
    config = front.listener(f"127.0.0.1:{port}", deployment.settings())
    assert config.keep_alive_timeout <= 30
    # The same limit, made short: it counts from the connection's start until a request's head is complete.
    config.keep_alive_timeout = 0.5
    stop = asyncio.Event()

    async def nobody(scope, receive, send):
        await receive()

    serving = asyncio.create_task(serve(nobody, config, shutdown_trigger=stop.wait))
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        except OSError:
            await asyncio.sleep(0.02)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    ended = asyncio.create_task(reader.read())
    async with asyncio.timeout(5):
        while not ended.done():
            writer.write(b"a")
            await asyncio.sleep(0.05)
    stop.set()
    writer.close()
    await serving
