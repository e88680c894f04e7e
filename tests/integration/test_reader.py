"""Both ways of reading a change stream, on a real mongod."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import aclosing
from uuid import uuid4

import bson
import pymongo
import pytest
import structlog
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect, OperationFailure
from pymongo.read_concern import ReadConcern

from livedocs.changes import cursor, reader
from livedocs.changes.reader import DirectReader, DriverReader, Selection, open_reader
from livedocs.demo.replicaset import ReplicaSet

WITHIN = 10.0


@pytest.fixture
async def raw(deployment):
    async with AsyncMongoClient(deployment.uri, document_class=RawBSONDocument) as client:
        yield client


@pytest.fixture
def place(mongo):
    """A collection of its own."""
    return mongo["reader"][uuid4().hex]


def selection(place, **changes):
    pipeline = [{"$match": {"ns.db": "reader", "ns.coll": place.name, "operationType": "insert"}}]
    return Selection(**{"pipeline": pipeline, "images": True, "start_after": None, "start_at": None, **changes})


async def take(stream, count):
    """The numbers of the next so many events, and the answer that held the last."""
    found = []
    async with asyncio.timeout(WITHIN):
        while len(found) < count:
            answer = await stream.take()
            found += [bson.decode(event)["fullDocument"]["n"] for event in answer.events]
    return found, answer


async def cursors(mongo):
    """How many cursors the server keeps open for change streams of these tests."""
    pipeline = [{"$currentOp": {"idleCursors": True, "allUsers": True}}, {"$match": {"type": "idleCursor"}}]
    admin = mongo["admin"].with_options(read_concern=ReadConcern("local"))
    found = await (await admin.aggregate(pipeline)).to_list()
    return sum("reader" in str(one["cursor"].get("originatingCommand")) for one in found)


def test_the_direct_way_is_taken_on_the_installed_driver():
    assert pymongo.version.startswith(reader.TESTED)


async def test_a_stream_is_opened_the_direct_way(raw, place):
    async with aclosing(await open_reader(raw, selection(place))) as stream:
        assert isinstance(stream, DirectReader)


async def test_another_driver_is_read_through_its_own_stream_and_that_is_said_once(raw, place, monkeypatch):
    monkeypatch.setattr(pymongo, "version", "5.0.0")
    reader._warn.cache_clear()
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            async with aclosing(await open_reader(raw, selection(place))) as stream:
                assert isinstance(stream, DriverReader)
    assert [(line["log_level"], line["version"]) for line in logs] == [("warning", "5.0.0")]


@pytest.mark.parametrize("way", [DirectReader, DriverReader], ids=["direct", "driver"])
async def test_every_event_comes_once_in_order_however_many_there_are(raw, place, way):
    async with aclosing(await way.open(raw, selection(place))) as stream:
        await place.insert_many([{"n": n} for n in range(2500)])
        found, answer = await take(stream, 2500)
        assert found == list(range(2500))
        # And behind the token of the last answer there is nothing but what follows.
        await place.insert_one({"n": 2500})
        async with aclosing(await way.open(raw, selection(place, start_after={"_data": answer.token}))) as again:
            assert (await take(again, 1))[0] == [2500]


@pytest.mark.parametrize("way", [DirectReader, DriverReader], ids=["direct", "driver"])
async def test_what_was_there_before_the_opening_comes_with_it(raw, place, mongo, way):
    at = (await mongo["admin"].command("ping"))["operationTime"]
    await place.insert_many([{"n": n} for n in range(1500)])
    async with aclosing(await way.open(raw, selection(place, start_at=at))) as stream:
        assert (await take(stream, 1500))[0] == list(range(1500))


@pytest.mark.parametrize("way", [DirectReader, DriverReader], ids=["direct", "driver"])
async def test_a_stream_without_events_still_moves_on(raw, place, mongo, way):
    async with aclosing(await way.open(raw, selection(place))) as stream:
        at = (await mongo["reader"]["elsewhere"].insert_one({})) and (await mongo["admin"].command("ping"))
        async with asyncio.timeout(WITHIN):
            while True:
                answer = await stream.take()
                if answer.token is not None and answer.token >= cursor.before(at["operationTime"]):
                    break
        assert answer.events == []


@pytest.mark.parametrize("way", [DirectReader, DriverReader], ids=["direct", "driver"])
async def test_nothing_is_left_on_the_server_by_a_reader_that_was_closed_while_it_waited(raw, place, mongo, way):
    before = await cursors(mongo)
    stream = await way.open(raw, selection(place))
    waiting = asyncio.create_task(stream.take())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await stream.aclose()
    async with asyncio.timeout(WITHIN):
        while await cursors(mongo) > before:
            await asyncio.sleep(0.05)


async def test_a_position_that_cannot_be_resumed_is_refused_with_its_code(raw, place):
    with pytest.raises(OperationFailure) as caught:
        await DirectReader.open(raw, selection(place, start_after={"_data": "82" + "0" * 12}))
    assert caught.value.code is not None


async def test_a_cursor_that_the_server_has_closed_is_an_error(raw, place, mongo):
    async with aclosing(await DirectReader.open(raw, selection(place))) as stream:
        await stream.take()
        await mongo["admin"].command({"killCursors": "$cmd.aggregate", "cursors": [bson.Int64(stream._cursor)]})
        with pytest.raises(OperationFailure):
            await take(stream, 1)


@pytest.fixture
def own_mongod(tmp_path, free_ports):
    with ReplicaSet(tmp_path, free_ports(1), parameters={"enableTestCommands": "1"}) as replica_set:
        yield replica_set


ANYTHING = Selection([], images=False, start_after=None, start_at=None)


async def until_it_fails(stream):
    async with asyncio.timeout(WITHIN):
        while True:
            await stream.take()


async def fail(client, **how):
    """Have the next `getMore` of that client's fail."""
    data = {"failCommands": ["getMore"], "appName": "reader", **how}
    await client["admin"].command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})


async def test_a_refused_question_is_the_servers_own_error_and_a_lost_connection_is_one_too(own_mongod):
    async with AsyncMongoClient(own_mongod.uri, document_class=RawBSONDocument, appname="reader") as client:
        for code in (43, 6, 286):
            async with aclosing(await DirectReader.open(client, ANYTHING)) as stream:
                await fail(client, errorCode=code, errorLabels=["ResumableChangeStreamError"])
                with pytest.raises(OperationFailure) as caught:
                    await until_it_fails(stream)
                assert caught.value.code == code
                assert caught.value.has_error_label("ResumableChangeStreamError")
        async with aclosing(await DirectReader.open(client, ANYTHING)) as stream:
            await fail(client, closeConnection=True)
            with pytest.raises(AutoReconnect):
                await until_it_fails(stream)


async def test_a_server_that_falls_silent_is_noticed(own_mongod, monkeypatch):
    monkeypatch.setattr(reader, "_SILENCE", 1.0)
    monkeypatch.setattr(reader, "_LOOK", 0.1)
    pid = own_mongod.members[0].pid
    async with (
        AsyncMongoClient(own_mongod.uri, document_class=RawBSONDocument) as client,
        aclosing(await DirectReader.open(client, ANYTHING)) as stream,
    ):
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(AutoReconnect, match="no answer from the change stream"):
                await until_it_fails(stream)
        finally:
            os.kill(pid, signal.SIGCONT)


def held(client):
    """How many connections of a client's are in somebody's hands, and how many wait for somebody."""
    (server,) = client._topology._servers.values()
    return server.pool.active_sockets, len(server.pool.conns)


@pytest.mark.parametrize("how", ["cancelled", "twice", "idle"])
async def test_nobody_is_given_the_connection_of_a_reader_and_none_is_kept(raw, place, how):
    stream = await DirectReader.open(raw, selection(place))
    connection = stream._connection
    await stream.take()
    if how == "cancelled":
        closing = asyncio.create_task(stream.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
    await stream.aclose()
    if how == "twice":
        await stream.aclose()
    (server,) = raw._topology._servers.values()
    assert connection.closed
    assert connection not in server.pool.conns
    assert held(raw)[0] == 0


async def test_an_opening_that_does_not_work_out_keeps_no_connection(raw, place, monkeypatch):
    class Broken:
        def __init__(self, *_, **__):
            raise AutoReconnect

    monkeypatch.setattr(reader, "Answers", Broken)
    with pytest.raises(AutoReconnect):
        await DirectReader.open(raw, selection(place))
    assert held(raw)[0] == 0


@pytest.fixture
def encrypting_mongod(tmp_path, free_ports):
    """A server that takes TLS and compression, and does without either."""
    key, certificate, both = (tmp_path / name for name in ("key.pem", "certificate.pem", "both.pem"))
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], capture_output=True, check=True, timeout=60
    )
    both.write_text(certificate.read_text() + key.read_text())
    replica_set = ReplicaSet(tmp_path, free_ports(1))
    (member,) = replica_set.members
    member._arguments += ["--tlsMode", "allowTLS", "--tlsCertificateKeyFile", str(both)]
    member._arguments[member._arguments.index("disabled")] = "zlib"
    with replica_set:
        yield replica_set, certificate


async def test_a_stream_is_read_over_tls_and_by_a_client_that_compresses_the_rest(encrypting_mongod):
    replica_set, certificate = encrypting_mongod
    async with AsyncMongoClient(
        replica_set.uri, document_class=RawBSONDocument, tls=True, tlsCAFile=str(certificate), compressors="zlib"
    ) as client:
        place = client["reader"]["encrypted"]
        async with aclosing(await DirectReader.open(client, selection(place))) as stream:
            assert stream._connection.compression_context is not None
            assert stream._connection.conn.conn[0].get_extra_info("ssl_object") is not None
            # A message that comes in many pieces: about 12 MB.
            for n in range(12):
                await place.insert_one({"n": n, "much": os.urandom(1_000_000)})
            assert (await take(stream, 12))[0] == list(range(12))
