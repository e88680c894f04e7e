"""Nothing is proven by waiting: what is on its way is waited for, however long that takes."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from bson import Binary

from livedocs.testing.deployment import MARKS
from livedocs.testing.people import Sockets


@pytest.fixture
def notes(livedocs_server):
    return livedocs_server.database().notes


@pytest.fixture
def note(livedocs_server):
    """A document that alice may read."""
    made = uuid.uuid4()
    with livedocs_server.http(livedocs_server.oauth.service("orders")) as http:
        http.put(f"/v1/docs/notes/{made}", json={"n": 0}).raise_for_status()
        http.put(f"/v1/grants/{made}/user:alice", json={"role": "reader"}).raise_for_status()
    return made


async def test_what_the_server_has_not_read_yet_is_not_overlooked(livedocs_server, livedocs_sockets, notes, note):
    """The server stands still while write, mark and question are made; then all of it comes at once."""
    alice = await livedocs_sockets.connect("alice")
    await alice.join(note)
    await alice.expect_nothing()
    marks = livedocs_server._mongo["livedocs_observed"][MARKS]
    for number in range(1, 11):
        before = marks.find_one()["mark"]
        os.kill(livedocs_server._process.pid, signal.SIGSTOP)
        try:
            notes.update_one({"_id": Binary.from_uuid(note)}, {"$set": {"n": number}})
            nothing = livedocs_sockets.expect("notes", unseen_by=[alice]) if number % 2 else alice.expect_nothing()
            asking = asyncio.create_task(nothing)
            async with asyncio.timeout(10):
                while marks.find_one()["mark"] == before:
                    await asyncio.sleep(0)
        finally:
            os.kill(livedocs_server._process.pid, signal.SIGCONT)
        with pytest.raises(AssertionError, match="alice was to be shown nothing"):
            await asking
        await alice.expect("notes", {"n": number})


class Dam:
    """A link to the server that holds back what comes from there until it is opened."""

    def __init__(self, url):
        self._target = urlsplit(url)
        self.open = asyncio.Event()
        self.open.set()

    async def serve(self):
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _forward(self, reader, writer):
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        always = asyncio.Event()
        always.set()
        await asyncio.gather(_pump(reader, back, always), _pump(there, writer, self.open))

    async def close(self):
        self._server.close()
        await self._server.wait_closed()


async def _pump(source, target, gate):
    while data := await source.read(65536):
        await gate.wait()
        target.write(data)
    target.close()


async def test_what_a_socket_has_not_read_yet_is_not_overlooked(request, livedocs_server, notes, note):
    background = request.getfixturevalue("_livedocs_background")
    barrier = request.getfixturevalue("_livedocs_barrier")
    dam = Dam(livedocs_server.url)
    sockets = Sockets(background, replace(livedocs_server, url=await dam.serve()), barrier)
    alice = await sockets.connect("alice")
    await alice.join(note)
    dam.open.clear()
    notes.update_one({"_id": Binary.from_uuid(note)}, {"$set": {"n": 1}})
    asking = asyncio.create_task(alice.expect_nothing())
    await asyncio.sleep(0)
    # The observer's way is open: it has been shown the mark by the time that the next question is answered.
    await background.run(barrier.settle([]))
    assert not asking.done()
    dam.open.set()
    with pytest.raises(AssertionError, match="alice was to be shown nothing"):
        await asking
    await alice.close()
    await dam.close()
