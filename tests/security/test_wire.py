"""Lines of docs/security.md about frames and packets, measured where the line measured, on a server of its own."""

from __future__ import annotations

import asyncio
import json
import zlib
from uuid import uuid4

import bson
import pymongo
import pytest
from bson.binary import Binary
from hypercorn.asyncio import serve

from livedocs import app

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


async def test_line_02_a_compressed_bomb_is_not_unfolded_by_a_server_that_declined_compression(server, wire, look):
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
async def test_lines_05_and_06_a_packet_that_breaks_the_protocol_leaves_no_zombie_socket(
    server, wire, look, packet
):
    seen = look(server)
    memory, sockets = seen.resident(), await seen.metric("livedocs_sockets{")
    made = [await wire("alice", "40") for _ in range(50 if packet == "4[[[" else 5)]
    assert await seen.metric("livedocs_sockets{") == sockets + len(made)
    for one in made:
        await one.send(packet)
    async with asyncio.timeout(5):
        await asyncio.gather(*(one.rest() for one in made))

    async def gone():
        return await seen.metric("livedocs_sockets{") + await seen.metric("livedocs_transports{") == 2 * sockets

    await seen.until(gone, 3)
    assert seen.resident() - memory < 8 * MIB


async def test_line_09_an_evicted_socket_has_no_transport_left_on_which_to_connect_again(server, wire, look):
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


async def test_line_11_nothing_of_a_room_is_written_behind_the_word_that_it_is_over(server, wire, mongo, grant):
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


async def test_line_12_numbers_that_json_does_not_have_arrive_as_extended_json(server, wire, mongo, grant):
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


async def test_line_15_a_connection_that_trickles_its_request_is_ended(deployment, free_ports):
    (port,) = free_ports(1)
    config = app._listener(f"127.0.0.1:{port}", deployment.settings())
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
