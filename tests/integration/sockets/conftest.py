"""A Socket.IO peer on the bare wire, so that tests see every frame and can send what no client library would."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pymongo
import pytest
from bson.binary import Binary
from jsonschema import Draft7Validator
from pymongo.database import Database
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from livedocs.http.socket_contract import MESSAGES, OPERATIONS
from livedocs.http.socket_schemas import COMPONENTS

WITHIN = 10.0

_SENT = [name for operation in OPERATIONS.values() if operation.action == "send" for name in operation.messages]
_CHANGES = [name for name in _SENT if MESSAGES[name].room and MESSAGES[name].event is None]
_SCHEMAS = {
    name: Draft7Validator({"$ref": f"#/components/schemas/{name}", "components": {"schemas": COMPONENTS}})
    for name in COMPONENTS
}


def described(name: str, payload: Any) -> bool:
    """Whether a payload is what the AsyncAPI document says of that message."""
    return _SCHEMAS[MESSAGES[name].schema].is_valid(payload)


def message_of(event: list[Any]) -> str | None:
    """The message of the AsyncAPI document that an event from the server is; None when it is none."""
    named = [name for name in _SENT if MESSAGES[name].event == event[0]] or _CHANGES
    found = [name for name in named if described(name, event[1:])]
    return found[0] if len(found) == 1 else None


class Peer:
    """One socket. Events are kept in order until they are expected; acknowledgements by their number."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: deque[list[Any]] = deque()
        self.seen: list[list[Any]] = []
        self.tickets: list[str] = []
        self.acks: dict[int, list[Any]] = {}
        # Calls by their number, and what the AsyncAPI document does not know of all that has come.
        self.calls: dict[int, str] = {}
        self.undescribed: list[Any] = []
        self.messages: set[str] = set()
        self.refusal: dict[str, Any] | None = None
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self._changed = asyncio.Event()
        self._number = 0
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.reading.wait()
                self._take(str(await self.socket.recv()))
                self._changed.set()
        self.closed.set()
        self._changed.set()

    def _take(self, text: str) -> None:
        if text == "2":
            self._pong = asyncio.ensure_future(self.socket.send("3"))
        elif text.startswith("40"):
            self._note("connected", json.loads(text[2:]))
            self.connected.set()
        elif text.startswith("44"):
            self.refusal = json.loads(text[text.index("{") :])
            self._note("connectError", self.refusal)
            self.connected.set()
        elif text.startswith("42"):
            event = json.loads(text[2:])
            self._note(message_of(event), event[1:])
            if event[0] == "$ticket":
                # It comes with every introspection: whenever that is.
                self.tickets.append(event[1]["ticket"])
            else:
                self.events.append(event)
                self.seen.append(event)
        elif text.startswith("43"):
            start = text.index("[")
            number, payload = int(text[2:start]), json.loads(text[start:])
            self.acks[number] = payload
            name = self.calls.get(number, "")
            if name in OPERATIONS:
                self._note(OPERATIONS[name].reply[0], payload)

    def _note(self, name: str | None, payload: Any) -> None:
        if name is None or not described(name, payload):
            self.undescribed.append((name, payload))
        else:
            self.messages.add(name)

    async def until(self, condition: Callable[[], bool], within: float = WITHIN) -> None:
        """Wait until something that the reader brings about is so."""
        async with asyncio.timeout(within):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def emit(self, name: str, *arguments: Any) -> None:
        await self.socket.send("42" + json.dumps([name, *arguments]))

    async def call(self, name: str, *arguments: Any, within: float = WITHIN) -> Any:
        """Emit and wait for the acknowledgement; its first argument."""
        self._number += 1
        number = self._number
        self.calls[number] = name[:1].lower() + name[1:]
        await self.socket.send(f"42{number}" + json.dumps([name, *arguments]))
        await self.until(lambda: number in self.acks or self.closed.is_set(), within)
        return self.acks[number][0]

    async def expect(self, name: str, within: float = WITHIN) -> list[Any]:
        """The arguments of the next event, which has to be of that name."""
        await self.until(lambda: bool(self.events) or self.closed.is_set(), within)
        assert self.events, f"closed while waiting for {name}"
        event = self.events.popleft()
        assert event[0] == name, f"expected {name}, got {event}"
        return event[1:]

    async def settled(self) -> None:
        """Everything the server had to say before this call has been read: an echo comes behind it."""
        mark = uuid4().hex
        await self.call("Check", mark)
        await self.until(lambda: ["Check", mark] in self.seen)
        self.events = deque(event for event in self.events if event != ["Check", mark])

    async def close(self) -> None:
        self.reading.set()
        await self.socket.close()
        await self._reader


Open = Callable[..., Awaitable[Peer]]


async def opened(
    url: str, *, connect_packet: str | None = "40", headers: dict[str, str] | None = None, **options: Any
) -> Peer:
    """A peer that has sent CONNECT and was answered."""
    socket = await connect(
        url, additional_headers=headers or {}, compression=None, max_size=None, proxy=None, **options
    )
    peer = Peer(socket)
    if connect_packet is not None:
        await socket.send(connect_packet)
        async with asyncio.timeout(WITHIN):
            await peer.connected.wait()
    return peer


@pytest.fixture
async def open_peer(server: Any) -> AsyncIterator[Open]:
    """`open_peer("alice")` opens a socket with a bearer token; keyword arguments as for `opened`."""
    peers: list[Peer] = []

    async def open_(user: str | None = "alice", *, url: str | None = None, **options: Any) -> Peer:
        if user is not None:
            options["headers"] = {"Authorization": f"Bearer {server.token(user)}", **options.get("headers", {})}
        peer = await opened(url or server.ws_url, **options)
        peers.append(peer)
        return peer

    yield open_
    for peer in peers:
        await peer.close()
    assert [peer.undescribed for peer in peers if peer.undescribed] == []


@pytest.fixture
async def api(server: Any) -> AsyncIterator[Callable[[str], httpx.AsyncClient]]:
    """`api("alice")` is an HTTP client that speaks for alice."""
    clients: dict[str, httpx.AsyncClient] = {}

    def of(user: str) -> httpx.AsyncClient:
        if user not in clients:
            headers = {"Authorization": f"Bearer {server.token(user)}"}
            clients[user] = httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False)
        return clients[user]

    yield of
    for client in clients.values():
        await client.aclose()


@pytest.fixture(scope="module")
def mongo(deployment: Any) -> Iterator[pymongo.MongoClient[dict[str, Any]]]:
    with pymongo.MongoClient(deployment.uri, uuidRepresentation="standard", tz_aware=True) as client:
        yield client


@pytest.fixture(scope="module")
def acme(deployment: Any, mongo: pymongo.MongoClient[dict[str, Any]]) -> Database[dict[str, Any]]:
    return mongo[deployment.databases["acme"]]


@pytest.fixture
def grant(deployment: Any, mongo: pymongo.MongoClient[dict[str, Any]]) -> Callable[..., None]:
    """`grant(uuid, "user:bob", "reader")` writes straight into the ACL; role None takes it away."""
    acl = mongo[deployment.control_database]["acl"]

    def put(uuid: UUID, subject: str, role: str | None = "reader", *, tenant: str = "acme", **fields: Any) -> None:
        key = {"tenant": tenant, "uuid": Binary.from_uuid(uuid), "subject": subject}
        if role is None:
            acl.delete_one({"_id": key})
        else:
            acl.replace_one({"_id": key}, {"role": role, "granted_by": "test", **fields}, upsert=True)

    return put
