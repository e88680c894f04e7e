"""The one change stream of the process, over the whole deployment, held open as long as the process lives.

The driver resumes once by itself; everything else is classified here: `classify` is the table of MongoDB's error
codes, `Stream.batches` the supervisor that acts on it. What it yields is raw: reading it is `normalise`'s work.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from livedocs.changes import cursor
from livedocs.model import Tenant
from livedocs.telemetry import Metrics, get_logger

log = get_logger(__name__)

BATCH = 1000
# How long the server waits for events before it answers with none. Bounds how stale an idle position is.
AWAIT_MS = 100
_BACKOFF_FIRST, _BACKOFF_MOST = 0.1, 5.0
# Least time between two questions. Events that come faster are fetched together: a question costs this process as
# much as delivering to twenty sockets. Rarer events are not kept waiting.
_SPACING = 0.004
# No answer at all for that long means the connection is dead, whatever TCP thinks.
_SILENCE = 20.0
# Seconds in which a read that was cancelled ends, or is cancelled again.
_CLOSING = 0.5


class Remedy(enum.Enum):
    """What to do about an error of the stream."""

    RESUME = "resume"
    WITHOUT_IMAGES = "without_images"
    SKIP = "skip"
    START_OVER = "start_over"


_HISTORY_LOST = 286
_TOO_LARGE = frozenset({10334, 17280, 17419, 17420})
# 286 history lost, 280 and 9 unusable token, 260 invalid resume token, 136 capped position lost, 40585/50811 token
# of another pipeline or not found.
_POSITION_LOST = frozenset({_HISTORY_LOST, 280, 9, 260, 136, 40585, 40647, 40615, 50811})
_IMAGE_MISSING = 47


def reason_of(error: PyMongoError) -> str:
    """What went wrong, without the reply that PyMongo puts behind it: that may hold a document."""
    return str(error).partition(", full error")[0][:300]


def classify(error: PyMongoError, *, images: bool) -> Remedy:
    """The remedy for an error of the stream.

    Args:
        error: what the driver raised.
        images: whether the stream asked for pre-images, the part that can be left away.
    """
    code = error.code if isinstance(error, OperationFailure) else None
    if code in _TOO_LARGE:
        return Remedy.WITHOUT_IMAGES if images else Remedy.SKIP
    if code == _IMAGE_MISSING and images:
        return Remedy.WITHOUT_IMAGES
    if code in _POSITION_LOST or error.has_error_label("NonResumableChangeStreamError"):
        return Remedy.START_OVER
    return Remedy.RESUME


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in stream order, as raw BSON, and the position after them."""

    events: Sequence[bytes]
    position: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream that begins behind `floor`: what was before it is not connected to what follows.

    `reason` is why: `start` the first time, then the code that clients get with `$resync`.
    """

    floor: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a stream without a token begins: at `at`, inclusive, with everything behind `floor` in it."""

    at: Timestamp
    floor: str


def pipeline(tenants: Collection[Tenant], control: str) -> list[Mapping[str, Any]]:
    """The stream's selection: grants, tenants, registered collections, and what makes a collection vanish.

    `drop`, `rename` and `dropDatabase` stay in the match: selecting on collections alone would hide them.
    """
    selected: list[Mapping[str, Any]] = [{"ns.db": control, "ns.coll": {"$in": ["acl", "tenants"]}}]
    selected += [
        {"ns.db": tenant.database, "ns.coll": {"$in": sorted(tenant.collections)}}
        for tenant in sorted(tenants, key=lambda tenant: tenant.slug)
        if tenant.collections
    ]
    databases = sorted({control, *(tenant.database for tenant in tenants)})
    gone = {"operationType": {"$in": ["drop", "rename", "dropDatabase"]}, "ns.db": {"$in": databases}}
    return [{"$match": {"$or": [*selected, gone]}}]


class Stream:
    """Opens, follows and re-opens the change stream.

    Args:
        client: a client of its own, so that the stream never waits for a pooled connection.
        window: seconds of history to read at the start.
        tenants: the registered tenants, asked at every opening.
        control: name of the control database.
        sleep: waits between attempts; injected for tests.
    """

    def __init__(
        self,
        client: AsyncMongoClient[RawBSONDocument],
        *,
        window: float,
        tenants: Callable[[], Collection[Tenant]],
        control: str,
        metrics: Metrics,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._window = window
        self._tenants = tenants
        self._control = control
        self._metrics = metrics
        self._sleep = sleep
        self._token: Mapping[str, Any] | None = None
        self._images = True
        self._reopen = False
        # Whether the server answered since the last error: what is not heard from may be far behind.
        self.connected = False

    def reopen(self, token: str) -> None:
        """Open again behind that event with the tenants of now. The rest of the current batch will come again."""
        self._token = {"_data": token}
        self._reopen = True

    async def batches(self) -> AsyncGenerator[Batch | Opened]:
        """Every batch of the deployment's changes from `now - window` on, without end.

        An `Opened` comes ahead of the first batch and wherever the stream could not go on without a gap.
        """
        start: _Start | None = None
        reason = "start"
        failures = 0
        while True:
            try:
                if self._token is None and start is None:
                    start = await self._first_position(self._window if reason == "start" else 0.0)
                async with await self._open(start) as stream:
                    if self._token is None and start is not None:
                        yield Opened(start.floor, reason)
                    self._reopen = False
                    async with aclosing(self._follow(stream)) as batches:
                        async for batch in batches:
                            failures, self.connected = 0, True
                            yield batch
                            self._restore_images(batch)
                            if self._reopen:
                                break
                self._count("reopen")
            except PyMongoError as error:
                failures += 1
                self.connected = False
                remedy = classify(error, images=self._images)
                self._count(remedy.value)
                log.warning("change stream failed", remedy=remedy.value, error=reason_of(error), failures=failures)
                if remedy is Remedy.WITHOUT_IMAGES:
                    self._images = False
                elif remedy is Remedy.RESUME:
                    await self._sleep(_backoff(failures))
                else:
                    start, reason = None, self._begin_again(remedy, error, reason)
                    await self._sleep(_backoff(failures))

    def _restore_images(self, batch: Batch) -> None:
        """Ask for pre-images again once the event that was too large with them has been passed."""
        if not self._images and batch.events:
            self._images = self._reopen = True

    def _begin_again(self, remedy: Remedy, error: PyMongoError, reason: str) -> str:
        """Give up the position. Returns why the next stream is not connected to the last."""
        lost = isinstance(error, OperationFailure) and error.code == _HISTORY_LOST
        if reason == "start" and self._token is None and lost and self._window >= 1:
            self._window /= 2
            log.warning("the oplog is shorter than the history window", window_seconds=self._window)
            return "start"
        self._token, self._images = None, True
        # An event that cannot be read at all is passed by starting behind what is committed now.
        return "event_too_large" if remedy is Remedy.SKIP else "history_lost"

    def _count(self, cause: str) -> None:
        self._metrics.stream_restarts.labels(cause).inc()

    async def _first_position(self, window: float) -> _Start:
        """`now - window` in cluster time; `now` is what a majority has.

        A later snapshot read is never older than this: it asks the same majority-committed state.
        """
        reply = await self._client[self._control].command(
            {"find": "acl", "limit": 1, "projection": {"_id": 1}, "readConcern": {"level": "snapshot"}}
        )
        at: Timestamp = dict(reply["cursor"]).get("atClusterTime") or reply["operationTime"]
        if window:
            since = Timestamp(max(1, at.time - int(window)), 0)
            return _Start(since, cursor.before(since))
        return _Start(Timestamp(at.time, at.inc + 1), cursor.after(at))

    async def _open(self, start: _Start | None) -> AsyncChangeStream[RawBSONDocument]:
        where: dict[str, Any] = {"start_after": self._token}
        if self._token is None and start is not None:
            where = {"start_at_operation_time": start.at}
        return await self._client.watch(
            pipeline(self._tenants(), self._control),
            full_document_before_change="whenAvailable" if self._images else None,
            max_await_time_ms=AWAIT_MS,
            batch_size=BATCH,
            # From 6.1 on, updates then say which of their paths are ambiguous.
            show_expanded_events=True,
            **where,
        )

    async def _follow(self, stream: AsyncChangeStream[RawBSONDocument]) -> AsyncGenerator[Batch]:
        """Batches of an open stream."""
        reader = _Reader(stream)
        try:
            while events := await reader.take():
                yield self._batch(events, stream)
        finally:
            await reader.aclose()

    def _batch(
        self, gathered: Sequence[RawBSONDocument | None], stream: AsyncChangeStream[RawBSONDocument]
    ) -> Batch:
        events = [bytes(event.raw) for event in gathered if event is not None]
        # Nothing more to read means that everything up to the position's cluster time has been seen.
        newest = gathered[-1]
        idle = newest is None
        # The driver's own token may be further, but it makes a deep copy of it each time it is asked.
        resume = stream.resume_token if newest is None else newest["_id"]
        if resume is not None:
            self._token = {"_data": resume["_data"]}
        last: str = self._token["_data"] if self._token is not None else cursor.before(Timestamp(0, 0))
        return Batch(events, cursor.after(cursor.cluster_time(last)) if idle else last)


class _Reader:
    """Reads an open stream in one task, which is never cancelled in mid-read except to close.

    It does not yield to the loop while the server's last answer lasts, so that what it has gathered when somebody
    else runs is that answer.
    """

    def __init__(self, stream: AsyncChangeStream[RawBSONDocument]) -> None:
        self._stream = stream
        self._gathered: list[RawBSONDocument | None] = []
        self._ready, self._taken = asyncio.Event(), asyncio.Event()
        self._time = asyncio.get_running_loop().time
        self._heard = self._time()
        # A time-out around each wait would cost more than the wait: this is looked at now and then.
        self._watch = asyncio.get_running_loop().call_later(_SILENCE, self._listen)
        self._task = asyncio.create_task(self._read(), name="change-stream-reader")
        self._task.add_done_callback(lambda _: self._ready.set())

    async def _read(self) -> None:
        asked = 0.0
        while self._stream.alive:
            if not _answers_from_memory(self._stream):
                early = asked + _SPACING - self._time()
                if early > 0:
                    await asyncio.sleep(early)
                asked = self._time()
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

    async def take(self) -> list[RawBSONDocument | None]:
        """What has been read since the last time; None is an answer without an event. Empty at the stream's end.

        Raises:
            PyMongoError: what the reading died of, or that nothing is heard any more.
        """
        self._heard = self._time()
        await self._ready.wait()
        self._ready.clear()
        events, self._gathered = self._gathered, []
        self._taken.set()
        if not events:
            if not self._task.done():
                msg = f"no answer from the change stream for {_SILENCE:.0f} s"
                raise PyMongoError(msg)
            self._task.result()
        return events

    async def aclose(self) -> None:
        """End the reading."""
        self._watch.cancel()
        # PyMongo 4.20 now and then swallows a cancellation that comes just as it begins to read: the stream
        # would be closing for ever. So it is asked until it has ended.
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CLOSING)
        if not self._task.cancelled():
            self._task.exception()


def _answers_from_memory(stream: AsyncChangeStream[RawBSONDocument]) -> bool:
    """Whether the next `try_next` returns an event that the driver has already, without asking the server.

    The driver does not say, so this looks at what it keeps for itself; where it no longer does, the answer is yes,
    and questions are asked without a pause between them.
    """
    known = getattr(getattr(stream, "_cursor", None), "_has_next", None)
    return known is None or bool(known())


def _backoff(failures: int) -> float:
    """Seconds until the next attempt: exponential, with full jitter, so that processes do not return in step."""
    most = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2 ** min(failures, 10))
    return random.uniform(most / 2, most)  # noqa: S311 - jitter, not a secret
