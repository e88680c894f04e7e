"""How an open change stream is read: one answer of the server after the other.

`DirectReader` asks on the connection that the cursor was opened on, with one prepared message, and cuts the
events out of the answer. The driver's own way, `DriverReader`, makes four tasks for each question and looks into
each event, which is more work than all that follows; it is there for drivers this was not written against. This is
the only module of `changes/` that touches PyMongo's private attributes.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import pymongo
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import AutoReconnect, PyMongoError

from livedocs.changes import getmore
from livedocs.changes.answers import Answers
from livedocs.changes.getmore import Answer
from livedocs.runtime import tasks
from livedocs.telemetry import get_logger

log = get_logger(__name__)

TESTED = ("4.20.",)

BATCH = 1000
# How long the server waits for events before it answers with none. Bounds how stale an idle position is.
AWAIT_MS = 100
# No answer at all for that long means the connection is dead, whatever TCP thinks.
_SILENCE = 20.0
# Seconds between two looks at whether the connection still is one.
_LOOK = 1.0
# Seconds in which a cursor is given up.
_CLOSING = 0.5


@dataclass(frozen=True, slots=True)
class Selection:
    """What a stream is opened with.

    Attributes:
        pipeline: the stages behind `$changeStream`.
        images: whether pre-images are asked for, where there are any.
        start_after: the token to go on behind.
        start_at: the cluster time to begin at, inclusive; where there is no token.
    """

    pipeline: Sequence[Mapping[str, Any]]
    images: bool
    start_after: Mapping[str, Any] | None
    start_at: Timestamp | None


class Reader(Protocol):
    """Reads one open stream."""

    async def take(self) -> Answer | None:
        """The next answer, with or without events; None at the stream's end. Cancelled only to close.

        Raises:
            PyMongoError: what the reading died of, or that nothing is heard any more.
        """

    async def aclose(self) -> None:
        """End the reading and give up the cursor."""


async def open_reader(client: AsyncMongoClient[RawBSONDocument], selection: Selection) -> Reader:
    """Open a change stream over the whole deployment.

    Raises:
        PyMongoError: it cannot be opened like that, or not now.
    """
    if isinstance(client, AsyncMongoClient) and pymongo.version.startswith(TESTED):
        return await DirectReader.open(client, selection)
    _warn(pymongo.version)
    return await DriverReader.open(client, selection)


@functools.cache
def _warn(version: str) -> None:
    """Say it once, however often the stream is opened."""
    advice = "Another PyMongo than the tested ones: each event costs more. Install the locked version."
    log.warning("stream_read_by_driver", version=version, advice=advice)


_numbers = itertools.count(1)


class DirectReader:
    """Reads on the cursor's own connection.

    The next question is on its way while an answer is being worked on, so that the server works meanwhile; no more
    than one answer waits to be taken.
    """

    def __init__(self, client: AsyncMongoClient[RawBSONDocument], connection: Any, cursor: Any) -> None:
        self._client = client
        # Gives the connection back.
        self._held = AsyncExitStack()
        self._connection = connection
        self._cursor: int = cursor["id"]
        self._namespace: str = cursor["ns"]
        number = next(_numbers)
        former = connection.conn.get_conn
        self._answers = Answers(former.transport, former, number=number, largest=connection.max_message_size)
        # The same every time: one question at a time is open, so nothing needs to tell them apart.
        self._message = getmore.question(number, self._cursor, self._namespace, batch=BATCH, wait_ms=AWAIT_MS)
        # What came with the opening, until it has been taken.
        events = [bytes(event.raw) for event in cursor["firstBatch"]]
        self._first: Answer | None = Answer(self._cursor, events, cursor["postBatchResumeToken"]["_data"])
        self._loop = asyncio.get_running_loop()
        # Since when an answer is being waited for, or None.
        self._waiting: float | None = None
        self._watch = self._loop.call_later(_LOOK, self._look)
        self._answers.ask(self._message)

    @classmethod
    async def open(cls, client: AsyncMongoClient[RawBSONDocument], selection: Selection) -> DirectReader:
        """Check out a connection, and open the cursor on it."""
        stage: dict[str, Any] = {"allChangesForCluster": True, "showExpandedEvents": True}
        if selection.images:
            stage["fullDocumentBeforeChange"] = "whenAvailable"
        if selection.start_after is not None:
            stage["startAfter"] = selection.start_after
        elif selection.start_at is not None:
            stage["startAtOperationTime"] = selection.start_at
        command = {
            "aggregate": 1,
            "pipeline": [{"$changeStream": stage}, *selection.pipeline],
            "cursor": {"batchSize": BATCH},
        }
        async with AsyncExitStack() as stack:
            checkout = await client._conn_for_reads(ReadPreference.PRIMARY, None, "aggregate")  # noqa: SLF001
            connection, preference = await stack.enter_async_context(checkout)
            reply = await connection.command("admin", command, preference, codec_options=client.codec_options)
            opened = cls(client, connection, reply["cursor"])
            opened._held = stack.pop_all()
            return opened

    async def take(self) -> Answer | None:
        """The next answer, with or without events; None when the server has ended the cursor.

        Raises:
            PyMongoError: the server refuses, or cannot be heard any more.
        """
        first, self._first = self._first, None
        # Without events it says nothing yet: the server has not looked further than where it was told to begin.
        if first is not None and first.events:
            return first
        if not self._cursor:
            return None
        self._waiting = self._loop.time()
        answer = getmore.answer(await self._answers.read())
        self._waiting = None
        self._cursor = answer.cursor
        if self._cursor:
            self._answers.ask(self._message)
        return answer

    def _look(self) -> None:
        """Now and then: a time-out around each wait would cost more than the wait."""
        waiting = self._waiting
        if waiting is not None and self._loop.time() - waiting > _SILENCE:
            self._answers.give_up(AutoReconnect(f"no answer from the change stream for {_SILENCE:.0f} s"))
        elif self._connection.cancel_context.cancelled:
            # The driver, which watches the server, has given up on it.
            self._answers.give_up(AutoReconnect("the server cannot be reached"))
        self._watch = self._loop.call_later(_LOOK, self._look)

    async def aclose(self) -> None:
        """Give up the cursor and its connection."""
        self._watch.cancel()
        try:
            # An answer may be on its way: nobody else can use this connection.
            await self._connection.close_conn(None)
        finally:
            await self._held.aclose()
        cursor, self._cursor = self._cursor, 0
        if cursor:
            database, _, collection = self._namespace.partition(".")
            # Without an answer the server ends it by itself, ten minutes later.
            with suppress(PyMongoError, TimeoutError):
                async with asyncio.timeout(_CLOSING):
                    await self._client[database].command({"killCursors": collection, "cursors": [cursor]})


class DriverReader:
    """Reads through the driver's own change stream, in one task that is cancelled in mid-read only to close.

    It does not yield to the loop while the server's last answer lasts, so that what it has gathered when somebody
    else runs is that answer.
    """

    def __init__(self, stream: AsyncChangeStream[RawBSONDocument]) -> None:
        self._stream = stream
        self._gathered: list[RawBSONDocument | None] = []
        self._ready, self._taken = asyncio.Event(), asyncio.Event()
        self._time = asyncio.get_running_loop().time
        self._heard = self._time()
        self._watch = asyncio.get_running_loop().call_later(_SILENCE, self._listen)
        self._task = asyncio.create_task(self._read(), name="change-stream-reader")
        self._task.add_done_callback(lambda _: self._ready.set())

    @classmethod
    async def open(cls, client: AsyncMongoClient[RawBSONDocument], selection: Selection) -> DriverReader:
        """Open the stream as the driver does."""
        where: dict[str, Any] = {"start_after": selection.start_after}
        if selection.start_after is None and selection.start_at is not None:
            where = {"start_at_operation_time": selection.start_at}
        stream = await client.watch(
            selection.pipeline,
            full_document_before_change="whenAvailable" if selection.images else None,
            max_await_time_ms=AWAIT_MS,
            batch_size=BATCH,
            # From 6.1 on, updates then say which of their paths are ambiguous.
            show_expanded_events=True,
            **where,
        )
        return cls(stream)

    async def _read(self) -> None:
        while self._stream.alive:
            answer = await self._stream.try_next()
            self._gathered.append(answer)
            self._ready.set()
            if len(self._gathered) >= BATCH:
                self._taken.clear()
                await self._taken.wait()

    def _listen(self) -> None:
        """Wake whoever waits, with nothing to take, when nothing has been heard for too long."""
        left = self._heard + _SILENCE - self._time()
        # What has been heard and not been taken yet is no silence.
        if left <= 0 and not self._gathered:
            self._ready.set()
        self._watch = asyncio.get_running_loop().call_later(max(left, 1.0), self._listen)

    async def take(self) -> Answer | None:
        """What has been read since the last time; None at the stream's end.

        Raises:
            PyMongoError: what the reading died of, or that nothing is heard any more.
        """
        self._heard = self._time()
        await self._ready.wait()
        self._ready.clear()
        gathered, self._gathered = self._gathered, []
        self._taken.set()
        if not gathered:
            if not self._task.done():
                msg = f"no answer from the change stream for {_SILENCE:.0f} s"
                raise PyMongoError(msg)
            self._task.result()
            return None
        newest = gathered[-1]
        # The driver's own token may be further, but it makes a deep copy of it each time it is asked.
        resume = self._stream.resume_token if newest is None else newest["_id"]
        events = [bytes(event.raw) for event in gathered if event is not None]
        return Answer(1, events, resume["_data"] if resume else None)

    async def aclose(self) -> None:
        """End the reading."""
        self._watch.cancel()
        await tasks.end([self._task])
        with suppress(PyMongoError):
            await self._stream.close()
