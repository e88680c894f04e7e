"""The poison gate: a writer of one tenant stores everything that BSON has a form for, and nobody else notices.

The documents are made by hand and sent as they are, past every driver's own checks, into rooms of both key kinds
by insert, update, replace and delete. What each of them has to look like is written down beside it: nothing here
decodes BSON. The process survives, neighbours receive their events in order, and the room receives the truth or a
`$resync` with a reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import pymongo
import pytest
import pytest_asyncio
from bson.binary import Binary
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure
from tests.gates.poisons import POISONS, Poison, document, element, text
from tests.integration.sockets.conftest import Peer, opened

SHOWN, REFUSED = 200, {413, 422}
KEYS = {"notes": b"_id", "test": b"uuid"}
PATIENCE = 30.0


@dataclass
class Room:
    """A room, the peer in it, and what it has received."""

    tenant: str
    uuid: UUID
    peer: Peer

    @property
    def events(self) -> list[list[Any]]:
        return [event for event in self.peer.seen if event[1].get("uuid") == str(self.uuid)]

    async def until_fence(self, number: int) -> None:
        await self.peer.until(
            lambda: any(event[0] == "test" and event[1].get("fence") == number for event in self.events), PATIENCE
        )


class Writer:
    """Any program with access to the database."""

    def __init__(self, deployment: Any) -> None:
        self.client: pymongo.MongoClient[Any] = pymongo.MongoClient(deployment.uri, uuidRepresentation="standard")
        self.deployment = deployment
        self.refused = ""

    def database(self, tenant: str) -> Any:
        return self.client[self.deployment.databases[tenant]]

    def grant(self, room: Room | UUID, subject: str, tenant: str = "acme") -> None:
        uuid = room if isinstance(room, UUID) else room.uuid
        key = {"tenant": tenant, "uuid": Binary.from_uuid(uuid), "subject": subject}
        acl = self.client[self.deployment.control_database]["acl"]
        acl.replace_one({"_id": key}, {"role": "owner", "granted_by": "test"}, upsert=True)

    def send(self, command: dict[str, Any], database: Any = None) -> bool:
        """A write command. False when MongoDB itself refuses it."""
        try:
            reply = (database if database is not None else self.database("acme")).command(command)
        except OperationFailure as error:
            self.refused = str(error)[:200]
            return False
        if reply.get("writeErrors"):
            self.refused = str(reply["writeErrors"][0]["errmsg"])[:200]
        return not reply.get("writeErrors")

    def insert(self, collection: str, raw: bytes, database: Any = None) -> bool:
        return self.send({"insert": collection, "documents": [RawBSONDocument(raw)]}, database)

    def update(self, collection: str, query: bytes, change: bytes) -> bool:
        one = {"q": RawBSONDocument(query), "u": RawBSONDocument(change)}
        return self.send({"update": collection, "updates": [one]})

    def delete(self, collection: str, uuid: UUID, number: int) -> None:
        query = {"_id": uuid} if collection == "notes" else {"uuid": uuid, "_id": number}
        self.database("acme")[collection].delete_one(query)

    def fence(self, room: Room, number: int) -> None:
        self.database(room.tenant)["test"].insert_one({"uuid": room.uuid, "fence": number})


def binary_uuid(uuid: UUID) -> bytes:
    return struct.pack("<iB", 16, 4) + uuid.bytes


def keyed(collection: str, uuid: UUID, number: int, *elements: bytes) -> bytes:
    """A document of that collection in that room."""
    if collection == "notes":
        return document(element(5, binary_uuid(uuid), b"_id"), *elements)
    own = element(0x10, struct.pack("<i", number), b"_id")
    return document(own, element(5, binary_uuid(uuid), b"uuid"), *elements)


def query(collection: str, uuid: UUID, number: int) -> bytes:
    if collection == "notes":
        return document(element(5, binary_uuid(uuid), b"_id"))
    return document(element(0x10, struct.pack("<i", number), b"_id"))


@dataclass
class Stage:
    """The writer, and those who look on."""

    server: Any
    writer: Writer
    poisoned: Room
    neighbour: Room
    elsewhere: Room
    api: httpx.AsyncClient
    fences: int = 0
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def number(self) -> int:
        """An `_id` that no document has."""
        return next(self.numbers)

    async def passed(self) -> None:
        """Everything written so far has reached everybody."""
        self.fences += 1
        for room in (self.poisoned, self.neighbour, self.elsewhere):
            self.writer.fence(room, self.fences)
        for room in (self.poisoned, self.neighbour, self.elsewhere):
            await room.until_fence(self.fences)

    def received(self, start: int) -> list[list[Any]]:
        """What the poisoned room has received since, without fences."""
        return [event for event in self.poisoned.events[start:] if "fence" not in event[1]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(deployment: Any, server: Any) -> AsyncIterator[Stage]:
    writer = Writer(deployment)
    rooms = []
    async with contextlib.AsyncExitStack() as stack:
        for tenant, user in (("acme", "alice"), ("acme", "bob"), ("globex", "carol")):
            headers = {"Authorization": f"Bearer {server.token(user)}"}
            peer = await opened(server.ws_url, headers=headers)
            stack.push_async_callback(peer.close)
            room = Room(tenant, uuid4(), peer)
            writer.grant(room, f"user:{user}", tenant)
            answer = await peer.call("JoinRoom", [str(room.uuid)], within=PATIENCE)
            assert answer["joined"]
            rooms.append(room)
        headers = {"Authorization": f"Bearer {server.token('alice')}"}
        api = httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False, timeout=PATIENCE)
        stack.push_async_callback(api.aclose)
        yield Stage(server, writer, *rooms, api)
        writer.client.close()


def figures(server: Any) -> dict[str, float]:
    """What the server counts of its own faults."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(server.metrics_url, timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith(("livedocs_part_restarts_total", "livedocs_contained_errors_total")):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def without_key(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in {"uuid", "_id"}}


def path(stage: Stage, collection: str, number: int) -> str:
    """Of the document of that number; where the key is `uuid`, the fences are others of the same UUID."""
    return f"/v1/docs/{collection}/{stage.poisoned.uuid}" + (f"?_id={number}" if collection == "test" else "")


async def see(stage: Stage, collection: str, number: int, expected: dict[str, Any]) -> None:
    """What a new reader gets: over HTTP, and with a snapshot."""
    uuid = stage.poisoned.uuid
    answer = await stage.api.get(path(stage, collection, number))
    assert answer.status_code == SHOWN or answer.status_code in REFUSED, answer.text[:300]
    if answer.status_code == SHOWN:
        assert without_key(answer.json()) == expected
    joined = await stage.poisoned.peer.call(
        "JoinRoom", [str(uuid)], {"snapshot": True, "collections": [collection]}, within=PATIENCE
    )
    shown = [
        document for document in joined["joined"][str(uuid)]["snapshot"][collection] if "fence" not in document
    ]
    assert [without_key(one) for one in shown] == [expected]
    await stage.poisoned.peer.call("JoinRoom", [str(uuid)], within=PATIENCE)


@pytest.mark.parametrize("collection", KEYS)
@pytest.mark.parametrize("poison", POISONS, ids=[poison.name for poison in POISONS])
@pytest.mark.asyncio(loop_scope="module")
async def test_everything_bson_has_a_form_for_is_shown_and_harms_nobody(
    stage: Stage, poison: Poison, collection: str
) -> None:
    uuid, number, writer = stage.poisoned.uuid, stage.number(), stage.writer
    before, start = figures(stage.server), len(stage.poisoned.events)
    whole = keyed(collection, uuid, number, *poison.elements)
    where = query(collection, uuid, number)
    # Into a room that nobody is in, a collection and a database that nobody has registered.
    assert writer.insert(collection, keyed(collection, uuid4(), stage.number(), *poison.elements)), writer.refused
    writer.insert("unregistered", document(*poison.elements))
    writer.insert(
        "unregistered", document(*poison.elements), writer.client[f"{writer.deployment.control_database}_x"]
    )

    expected: list[tuple[str, dict[str, Any]]] = []
    assert writer.insert(collection, whole), writer.refused
    expected.append(("insert", poison.shown))
    await see(stage, collection, number, poison.shown)
    assert writer.update(collection, where, document(element(3, document(element(1, bytes(8), b"n")), b"$set")))
    expected.append(("update", {"n": 0.0}))
    if poison.settable and writer.update(
        collection, where, document(element(3, document(*poison.elements), b"$set"))
    ):
        # What is set to what it is, is no change.
        pass
    assert writer.update(collection, where, keyed(collection, uuid, number, element(1, bytes(8), b"n")))
    expected.append(("replace", {"n": 0.0}))
    if poison.settable and writer.update(
        collection, where, document(element(3, document(*poison.elements), b"$set"))
    ):
        expected.append(("update", poison.shown))
    assert writer.update(collection, where, whole)
    expected.append(("replace", poison.shown))
    await see(stage, collection, number, poison.shown)
    writer.delete(collection, uuid, number)
    expected.append(("delete", {}))
    await stage.passed()

    received = stage.received(start)
    if any(event[0].startswith("$") for event in received):
        reasons = {event[1]["reason"] for event in received if event[0] == "$resync"}
        assert reasons <= {"ambiguous_path"}
        assert {event[0] for event in received} <= {collection, "$resync"}
    else:
        assert [(event[2]["op"], without_key(event[1])) for event in received] == expected
    assert stage.poisoned.peer.undescribed == []
    assert figures(stage.server) == before


TOO_LARGE = {
    "16 MB of text": [element(2, text(b"x" * 16_700_000), b"text")],
    "too many elements": [element(4, document(*(element(10, b"", b"0") for _ in range(150_000))), b"items")],
}


@pytest.mark.parametrize("collection", KEYS)
@pytest.mark.parametrize("elements", TOO_LARGE.values(), ids=TOO_LARGE)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_too_large_is_named_and_harms_nobody(
    stage: Stage, elements: list[bytes], collection: str
) -> None:
    uuid, number, writer = stage.poisoned.uuid, stage.number(), stage.writer
    before, start = figures(stage.server), len(stage.poisoned.events)
    whole, where = keyed(collection, uuid, number, *elements), query(collection, uuid, number)
    assert writer.insert(collection, whole), writer.refused
    answer = await stage.api.get(path(stage, collection, number))
    assert (answer.status_code, answer.json()["code"]) == (413, "document_too_large")
    await stage.poisoned.peer.until(
        lambda: any(event[0] == "$resync" for event in stage.received(start)), PATIENCE
    )
    resync = next(event for event in stage.received(start) if event[0] == "$resync")
    assert resync[1]["reason"] in {"document_too_large", "event_too_large", "event_unreadable"}
    assert {"uuid": str(uuid), "$too_large": len(whole)} in resync[1]["snapshot"][collection]
    assert writer.update(collection, where, keyed(collection, uuid, number, element(1, bytes(8), b"n")))
    writer.delete(collection, uuid, number)
    await stage.passed()
    assert figures(stage.server) == before


@pytest.mark.asyncio(loop_scope="module")
async def test_an_event_that_mongodb_cannot_send_as_a_whole_concerns_its_tenant_alone(stage: Stage) -> None:
    """A document of nearly 16 MB with a long `_id`, which the event names three times."""
    writer, start = stage.writer, len(stage.poisoned.events)
    own = element(2, text(b"i" * 100_000), b"_id")
    key = element(5, binary_uuid(stage.poisoned.uuid), b"uuid")
    whole = document(own, key, element(2, text(b"x" * 16_480_000), b"text"))
    assert writer.insert("test", whole), writer.refused
    await stage.poisoned.peer.until(
        lambda: any(event[0] == "$resync" for event in stage.received(start)), PATIENCE
    )
    [resync] = [event for event in stage.received(start) if event[0] == "$resync"]
    assert resync[1]["reason"] == "event_unreadable"
    assert {"uuid": str(stage.poisoned.uuid), "$too_large": len(whole)} in resync[1]["snapshot"]["test"]
    writer.database("acme")["test"].delete_many({"_id": "i" * 100_000})
    await stage.passed()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_neighbours_have_received_everything_in_order_and_the_process_is_the_same(stage: Stage) -> None:
    """Last in this file."""
    await stage.passed()
    fences = [("test", number) for number in range(1, stage.fences + 1)]
    neighbours = [
        [(event[0], event[1].get("fence")) for event in room.events] for room in (stage.neighbour, stage.elsewhere)
    ]
    # A document of which not even MongoDB's event says where it belongs concerns its tenant, and no other.
    resyncs = [event for event in stage.neighbour.events if event[0] == "$resync"]
    assert {event[1]["reason"] for event in resyncs} <= {"event_unreadable"}
    assert neighbours[1] == fences
    if not resyncs:
        assert neighbours[0] == fences
    assert stage.server.process.poll() is None
    assert set(figures(stage.server).values()) == {0.0}
    assert [room.peer.undescribed for room in (stage.poisoned, stage.neighbour, stage.elsewhere)] == [[], [], []]
    await asyncio.sleep(0)
