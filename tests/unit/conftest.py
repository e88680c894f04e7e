"""A stage for the core: real history, rooms, fan-out and joins over a database that lives in memory.

stage      one per test: `.database` commits, `.deliver()` is the change stream, `.reader` is where a join reads;
           a `Pause` in one of the reader's steps stops a join exactly there
staged     the class of `stage`, for tests that need many of them
log        `log()` sets logging up as a server does and returns a function that gives the lines
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import bson
import pytest
import structlog
from bson.timestamp import Timestamp
from tests.unit.joining import STEPS

from livedocs import config
from livedocs.access.budgets import BytesInFlight
from livedocs.access.principal import Principal
from livedocs.access.snapshot_batcher import SnapshotBatcher
from livedocs.changes import cursor
from livedocs.changes.event import DocumentChange, GrantChange, RoomChange, RoomKey
from livedocs.changes.history import History
from livedocs.changes.keyring import Keyring
from livedocs.codec.bsondecode import CODEC
from livedocs.errors import InvalidCursor
from livedocs.live.activation import Activation
from livedocs.live.calls import Calls
from livedocs.live.client import Bounds, Client
from livedocs.live.delivery import Delivery
from livedocs.live.fanout import Fanout
from livedocs.live.frames import Frame
from livedocs.live.join_snapshots import JoinSnapshots
from livedocs.live.joins import Joins
from livedocs.live.memberships import Memberships
from livedocs.live.protocol import Call
from livedocs.live.resyncs import Resyncs
from livedocs.live.rooms import Rooms
from livedocs.live.tickets import Tickets
from livedocs.model import Grant, GrantKey, Role, SealingKey, SealingKeys, Snapshot, SnapshotRequest, Tenant
from livedocs.telemetry import Metrics, configure_logging

ENVIRONMENT = {
    "LIVEDOCS_PUBLIC_URL": "http://localhost:8000",
    "LIVEDOCS_MONGODB_URI": "mongodb://localhost",
    "LIVEDOCS_OAUTH_ISSUER": "http://localhost:8001",
    "LIVEDOCS_OAUTH_CLIENT_ID": "livedocs",
    "LIVEDOCS_OAUTH_CLIENT_SECRET": "s",
    "LIVEDOCS_OAUTH_AUDIENCE": "livedocs",
}
START = datetime(2030, 1, 1, tzinfo=UTC)
TENANTS = {slug: Tenant(slug, f"{slug}_data", {"notes": "_id", "tasks": "_id"}) for slug in ("acme", "globex")}


class Clock:
    """Wall time and the loop's time, which go on together and only when told to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = START
        self._elapsed = 1000.0
        loop.time = lambda: self._elapsed

    def __call__(self) -> datetime:
        return self.now

    second = timedelta(seconds=1)

    async def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self._elapsed += seconds
        await idle()


async def idle() -> None:
    """Let everything run that can run without anything happening from outside."""
    for _ in range(30):
        await asyncio.sleep(0)


class Pause:
    """A place where somebody stops until told to go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._go = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self._go.wait()

    def go(self) -> None:
        self._go.set()


class Outbox:
    """Keeps what is written. `waiting` is what the peer has not taken, set by the test."""

    path = "direct"

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.waiting = (0, 0)
        self.taken = 0
        self.closed: int | None = None
        self.aborted = False

    def write(self, frame: Frame) -> None:
        if self.closed is None and not self.aborted:
            self.frames.append(frame)

    def offer(self, frame: Frame) -> int:
        return -1

    def backlog(self) -> tuple[int, int]:
        return self.waiting

    async def writable(self) -> None:
        """There is room."""

    def close(self, code: int) -> None:
        self.closed = code

    def abort(self) -> None:
        self.aborted = True

    @property
    def texts(self) -> list[str]:
        return [frame.text.decode() for frame in self.frames]

    @property
    def messages(self) -> list[list[Any]]:
        """`["ack", number, ..]` and `[event, ..]` in the order written."""
        found = []
        for text in self.texts:
            if text.startswith("43"):
                digits = len(text[2:]) - len(text[2:].lstrip("0123456789"))
                found.append(["ack", int(text[2 : 2 + digits]), *json.loads(text[2 + digits :])])
            elif text.startswith("42"):
                found.append(json.loads(text[2:]))
        return found

    def named(self, name: str) -> list[list[Any]]:
        return [message for message in self.messages if message[0] == name]

    @property
    def changes(self) -> list[tuple[str, str]]:
        """Every room event as (collection, cursor)."""
        return [(m[0], m[2]["id"]) for m in self.messages if not m[0].startswith("$") and m[0] != "ack"]


class Database:
    """Everything committed, in order; a snapshot of any moment of it."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.log: list[RoomChange] = []
        self.begin = Timestamp(int(START.timestamp()), 1)

    def _next(self, after: RoomChange | None = None) -> tuple[Timestamp, str]:
        """A cluster time, or that of an earlier change of the same transaction, and a token."""
        number = len(self.log) + 2
        at = Timestamp(int(self.clock().timestamp()), number) if after is None else after.at
        return at, f"{cursor.before(at)}2B{number:06X}"

    def at(self, count: int | None = None) -> Timestamp:
        """The cluster time after that many changes; of all without a number."""
        done = self.log[:count]
        return done[-1].at if done else self.begin

    def grant(self, room, subject="user:alice", role=Role.READER, *, expires_in=None, ended=False) -> GrantChange:
        expires_at = None if expires_in is None else self.clock() + timedelta(seconds=expires_in)
        return self._grant(room, subject, Grant(GrantKey(*room, subject), role, expires_at), ended=ended)

    def revoke(self, room, subject="user:alice", *, ended=False) -> GrantChange:
        return self._grant(room, subject, None, ended=ended)

    def _grant(self, room: RoomKey, subject: str, grant: Grant | None, *, ended: bool) -> GrantChange:
        before = self.grants(room, len(self.log)).get(subject)
        at, token = self._next()
        change = GrantChange(token, at, room, subject, grant, before, self.clock(), ended)
        self.log.append(change)
        return change

    def write(self, room, collection="notes", *, op="update", txn_with=None, **fields) -> DocumentChange:
        at, token = self._next(txn_with)
        fields = fields or {"n": len(self.log)}
        event: dict[str, Any] = {"_id": {"_data": token}, "clusterTime": at}
        if op == "update":
            event["updateDescription"] = {"updatedFields": fields, "removedFields": [], "truncatedArrays": []}
        elif op != "delete":
            event["fullDocument"] = {"_id": room.uuid, **fields}
        raw = bson.encode(event, codec_options=CODEC)
        change = DocumentChange(token, at, room, collection, "_id", op, self.clock(), None, raw)
        self.log.append(change)
        return change

    def grants(self, room: RoomKey, count: int) -> dict[str, Grant]:
        held: dict[str, Grant] = {}
        for change in self.log[:count]:
            if isinstance(change, GrantChange) and change.room == room:
                if change.grant is None:
                    held.pop(change.subject, None)
                else:
                    held[change.subject] = change.grant
        return held

    def documents(self, room: RoomKey, count: int) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, dict[str, Any]] = {}
        for change in self.log[:count]:
            if isinstance(change, DocumentChange) and change.room == room:
                event = bson.decode(change.raw, codec_options=CODEC)
                if change.op == "delete":
                    found.pop(change.collection, None)
                elif change.op == "update":
                    found.setdefault(change.collection, {"_id": room.uuid}).update(
                        event["updateDescription"]["updatedFields"]
                    )
                else:
                    found[change.collection] = event["fullDocument"]
        return {name: [dict(document)] for name, document in found.items()}


async def _at_once() -> None:
    """A step without a pause."""


class Reader:
    """Where joins read. A snapshot's time is fixed between the two steps, in which a test may stop it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.before_time: Callable[[], Awaitable[None]] = _at_once
        self.after_time: Callable[[], Awaitable[None]] = _at_once
        # How many changes the next snapshots hold; all that are committed when None.
        self.upto: int | None = None
        self.rounds: list[tuple[str, tuple[SnapshotRequest, ...]]] = []

    @property
    def requests(self) -> list[SnapshotRequest]:
        """Everything that was looked at, whichever round it was in."""
        return [request for _, requests in self.rounds for request in requests]

    async def read(self, tenant: Tenant, requests: Sequence[SnapshotRequest]) -> list[Snapshot]:
        self.rounds.append((tenant.slug, tuple(requests)))
        await self.before_time()
        count = len(self._database.log) if self.upto is None else self.upto
        shared: dict[Any, Any] = {}
        snapshots = [self._seen(tenant, request, count, shared) for request in requests]
        await self.after_time()
        return snapshots

    def _seen(self, tenant: Tenant, request: SnapshotRequest, count: int, shared: dict[Any, Any]) -> Snapshot:
        grants = {
            uuid: [
                grant
                for subject, grant in self._database.grants(RoomKey(tenant.slug, uuid), count).items()
                if subject in request.subjects
            ]
            for uuid in request.uuids
        }
        documents = {
            uuid: {
                name: [bson.encode(document, codec_options=CODEC) for document in found]
                for name, found in self._database.documents(RoomKey(tenant.slug, uuid), count).items()
            }
            for uuid in request.with_documents
            if grants[uuid]
        }
        return Snapshot(self._database.at(count), grants, documents, shared)


class Plain:
    """Cursors that are the positions themselves; sealing has tests of its own."""

    def seal(self, position: str) -> str:
        return position

    def open(self, text: object) -> str:
        if not isinstance(text, str) or not text.startswith("82"):
            raise InvalidCursor
        return text


def known_keys() -> Keyring:
    """A keyring of one key that counts for ever."""

    async def load() -> SealingKeys:
        raise AssertionError

    ring = Keyring(load)
    ring.learn(SealingKeys([SealingKey(0, 0, 0, b"k" * 32)], Timestamp(2**32 - 1, 1)))
    return ring


async def covered(at: Timestamp) -> None:
    """Every key is known."""


class Progress:
    """What joins know of the feed."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.live = True
        self.behind = 0.0
        self.waited = asyncio.Event()
        self._waiters: list[tuple[Timestamp, asyncio.Future[None]]] = []

    def lag(self, tenant: str | None = None) -> float:
        return self.behind

    async def passed(self, at: Timestamp, tenant: str | None = None) -> None:
        if self._history.passed(at):
            return
        future = asyncio.get_running_loop().create_future()
        self._waiters.append((at, future))
        self.waited.set()
        await future

    def advanced(self) -> None:
        for at, future in self._waiters:
            if self._history.passed(at) and not future.done():
                future.set_result(None)


class Stage:
    """Everything between the stream and the sockets, with the two ends in the test's hands."""

    tenants = TENANTS

    def __init__(
        self, *, window: float = 300, max_bytes: int = 2**20, most_rooms: int = 100, most_bytes: int = 2**22
    ) -> None:
        self.clock = Clock(asyncio.get_running_loop())
        self.database = Database(self.clock)
        self.history = History(window=window, max_bytes=max_bytes)
        self.history.restart(cursor.before(self.database.begin))
        self.metrics = Metrics()
        self.budgets = BytesInFlight(config.load(ENVIRONMENT), self.metrics)
        self.rooms = Rooms()
        self.cursors = Plain()
        self.memberships = Memberships(self.rooms, metrics=self.metrics, clock=self.clock)
        self.delivery = Delivery(self.cursors, metrics=self.metrics)
        self.reader = Reader(self.database)
        self.progress = Progress(self.history)
        snapshots = JoinSnapshots(
            SnapshotBatcher(self.reader),
            self.history,
            self.progress,
            lag_bound=15,
            most_bytes=most_bytes,
            cover=covered,
        )
        self.keyring = known_keys()
        self.tickets = Tickets(self.keyring, self.history, reach=window + 60)
        activation = Activation(self.history, self.memberships, self.delivery.prepared, self.tickets)
        self.resyncs = Resyncs(
            snapshots,
            activation,
            self.memberships,
            self.delivery,
            self.cursors,
            most_bytes=most_bytes,
            metrics=self.metrics,
        )
        self.fanout = Fanout(self.memberships, self.delivery, self.resyncs, metrics=self.metrics)
        self.joins = Joins(
            snapshots,
            self.history,
            activation,
            self.memberships,
            delivery=self.delivery,
            resyncs=self.resyncs,
            cursors=self.cursors,
            tickets=self.tickets,
            most_rooms=most_rooms,
            most_bytes=most_bytes,
            metrics=self.metrics,
        )
        self.calls = Calls(self.joins, self.memberships, self._no_tokens, self.metrics, cursors=self.cursors)
        self.delivered = 0
        self._acks: dict[Client, int] = defaultdict(int)

    async def _no_tokens(self, client: Client, token: str) -> None:
        raise AssertionError

    def room(self, number: int = 1, tenant: str = "acme") -> RoomKey:
        return RoomKey(tenant, UUID(int=number))

    def principal(
        self, subject: str = "user:alice", *, groups: Sequence[str] = (), tenant: str = "acme", known_as: str = "t"
    ) -> Principal:
        expires_at = START + timedelta(days=1)
        return Principal(tenant, subject, subject, frozenset(groups), frozenset(), expires_at, "web", known_as)

    def client(
        self,
        subject: str = "user:alice",
        *,
        groups: Sequence[str] = (),
        tenant: str = "acme",
        bounds: Bounds | None = None,
    ) -> Client:
        return Client(
            subject,
            self.principal(subject, groups=groups, tenant=tenant),
            TENANTS[tenant],
            Outbox(),
            bounds or Bounds(2**20, 1000),
            address="127.0.0.1",
            since=0.0,
            backlogged=self.delivery.backlogged,
            unread=self.budgets.hold(self.principal(subject, tenant=tenant)),
        )

    def stop_reader(self, step: str) -> Pause:
        """Have the next request stop there: `before_time` or `after_time`."""
        stop = Pause()
        setattr(self.reader, step, stop)
        return stop

    # -- the stream --

    def deliver(self, count: int | None = None) -> None:
        """What the feed does with the next changes; with all there are without a number."""
        for change in self.database.log[self.delivered :][:count]:
            self.delivered += 1
            self.history.append(change)
            self.fanout.change(change)
        if self.delivered:
            position = self.database.log[self.delivered - 1]
            idle = self.delivered == len(self.database.log)
            self.history.advance(cursor.after(position.at) if idle else position.token)
        else:
            self.history.advance(cursor.after(self.database.begin))
        self.progress.advanced()

    def lose_the_stream(self) -> None:
        """What the feed does when the history is lost: everything that is not delivered yet never will be."""
        self.delivered = len(self.database.log)
        self.history.restart(cursor.after(self.database.at()))
        self.fanout.gap("history_lost")

    # -- a socket --

    def start_join(self, client: Client, *rooms: RoomKey, ack: bool = True, **options: Any) -> asyncio.Task[None]:
        """JoinRoom as it comes from the socket."""
        self._acks[client] += 1
        call = Call(
            "JoinRoom",
            ([str(room.uuid) for room in rooms], options) if options else ([str(room.uuid) for room in rooms],),
            self._acks[client] if ack else None,
        )
        return asyncio.get_running_loop().create_task(self.calls.answer(client, call))

    async def join(self, client: Client, *rooms: RoomKey, **options: Any) -> dict[str, Any]:
        """JoinRoom's answer."""
        await asyncio.wait_for(self.start_join(client, *rooms, **options), 5)
        return self.answer(client)

    def answer(self, client: Client) -> dict[str, Any]:
        return client.outbox.named("ack")[-1][2]

    async def leave(self, client: Client, *rooms: RoomKey) -> None:
        await self.calls.answer(client, Call("LeaveRoom", ([str(room.uuid) for room in rooms],), None))

    def disconnect(self, client: Client) -> None:
        """What the endpoint does when a socket has gone."""
        client.closed = client.closed or "gone"
        for membership in tuple(self.rooms.of_member(client).values()):
            self.memberships.remove(membership)

    async def aclose(self) -> None:
        for room in self.rooms:
            for membership in tuple(self.rooms.of_room(room)):
                self.memberships.remove(membership)
        await self.resyncs.aclose()
        await self.joins.aclose()


@pytest.fixture
def in_time():
    """A test whose clock stands still must not be able to wait for ever."""

    def give_up(*_):
        pytest.fail("it waits for something that does not come")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
async def stage(in_time):
    stage = Stage()
    yield stage
    await stage.aclose()


@pytest.fixture
def log(capsys):
    """Logging set up as a server does; gives the lines, and puts everything back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    others = {
        name: logging.getLogger(name).level for name in ("httpx", "httpcore", "pymongo", "asyncio", "urllib3")
    }

    def start(**changes):
        configure_logging(config.load(ENVIRONMENT, **changes))
        return lambda: [line for line in capsys.readouterr().err.splitlines() if line]

    yield start
    root.handlers[:], root.level = handlers, level
    for name, value in others.items():
        logging.getLogger(name).setLevel(value)
    for name in ("engineio", "socketio"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def staged():
    return Stage


@pytest.fixture(scope="session")
def outbox():
    return Outbox


@pytest.fixture(scope="session")
def settled():
    return idle


@pytest.fixture
async def clock(in_time):
    return Clock(asyncio.get_running_loop())


@pytest.fixture
def deadline():
    """`with deadline(seconds)`: more CPU than that is a failure; what else runs on the machine does not count."""

    @contextmanager
    def within(seconds: float) -> Iterator[None]:
        begin = time.process_time()
        yield
        assert time.process_time() - begin < seconds

    return within


@pytest.fixture(params=STEPS)
def step(request: pytest.FixtureRequest) -> str:
    """Where a join is stopped."""
    where: str = request.param
    return where


@pytest.fixture(params=["stream behind", "stream ahead"])
def stream(request: pytest.FixtureRequest) -> str:
    """Whether the stream is behind the snapshot of the join, or ahead of it."""
    where: str = request.param
    return where
