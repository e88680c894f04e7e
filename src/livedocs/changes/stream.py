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
from pymongo.errors import OperationFailure, PyMongoError

from livedocs.changes import cursor
from livedocs.changes.getmore import Answer
from livedocs.changes.reader import Reader, Selection, open_reader
from livedocs.model import Tenant
from livedocs.telemetry import Metrics, get_logger

log = get_logger(__name__)

_BACKOFF_FIRST, _BACKOFF_MOST = 0.1, 5.0


class Remedy(enum.Enum):
    """What to do about an error of the stream."""

    RESUME = "resume"
    TRIMMED = "trimmed"
    WITHOUT_IMAGES = "without_images"
    SKIP = "skip"
    START_OVER = "start_over"


_HISTORY_LOST = 286
_TOO_LARGE = frozenset({10334, 17280, 17419, 17420})
# 286 history lost, 280 and 9 unusable token, 260 invalid resume token, 136 capped position lost, 40585/50811 token
# of another pipeline or not found.
_POSITION_LOST = frozenset({_HISTORY_LOST, 280, 9, 260, 136, 40585, 40647, 40615, 50811})
_IMAGE_MISSING = 47
# Bytes of a document in an event that is left away when the event as a whole is too large.
_LARGE = 4 * 2**20


def reason_of(error: PyMongoError) -> str:
    """What went wrong, without the reply that PyMongo puts behind it: that may hold a document."""
    return str(error).partition(", full error")[0][:300]


def classify(error: PyMongoError, *, images: bool, trimmed: bool) -> Remedy:
    """The remedy for an error of the stream.

    Args:
        error: what the driver raised.
        images: whether the stream asked for pre-images, a part that can be left away.
        trimmed: whether it left away what is large in an event.
    """
    code = error.code if isinstance(error, OperationFailure) else None
    if code in _TOO_LARGE:
        if not trimmed:
            return Remedy.TRIMMED
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
    """The stream's selection: grants, tenants, registered collections, what makes a collection vanish, inquiries.

    `drop`, `rename` and `dropDatabase` stay in the match: selecting on collections alone would hide them.
    """
    selected: list[Mapping[str, Any]] = [
        {"ns.db": control, "ns.coll": {"$in": ["acl", "tenants"]}},
        {"ns.db": control, "ns.coll": "inquiries", "operationType": "insert"},
    ]
    selected += [
        {"ns.db": tenant.database, "ns.coll": {"$in": sorted(tenant.collections)}}
        for tenant in sorted(tenants, key=lambda tenant: tenant.slug)
        if tenant.collections
    ]
    databases = sorted({control, *(tenant.database for tenant in tenants)})
    gone = {"operationType": {"$in": ["drop", "rename", "dropDatabase"]}, "ns.db": {"$in": databases}}
    return [{"$match": {"$or": [*selected, gone]}}]


def _kept(field: str) -> dict[str, Any]:
    """A document of an event, unless it is large."""
    size = {"$bsonSize": {"$ifNull": [f"${field}", {}]}}
    return {"$cond": [{"$gt": [size, _LARGE]}, "$$REMOVE", f"${field}"]}


# An event of more than 16 MB makes the whole stream fail. Without its large documents it still tells its room.
TRIM: Sequence[Mapping[str, Any]] = (
    {
        "$addFields": {
            field: _kept(field) for field in ("fullDocument", "fullDocumentBeforeChange", "updateDescription")
        }
    },
)


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
        self._trimmed = False
        self._reopen = False
        # Why the next opening is not connected to the last; for `Opened`.
        self._reason = "start"
        # The cluster time that the open stream begins at; None when it goes on behind a token.
        self._begun_at: Timestamp | None = None
        # Whether the server answered since the last error: what is not heard from may be far behind.
        self.connected = False

    def reopen(self, token: str) -> None:
        """Open again behind that event with the tenants of now. The rest of the current batch will come again."""
        self._token = {"_data": token}
        self._reopen = True

    def begin_anew(self) -> None:
        """Have the next `batches` begin with what is committed by then, and say that changes were lost."""
        self._token, self._images, self._trimmed, self._reason = None, True, False, "history_lost"

    async def batches(self) -> AsyncGenerator[Batch | Opened]:
        """Every batch of the deployment's changes from `now - window` on, without end.

        An `Opened` comes ahead of the first batch and wherever the stream could not go on without a gap.
        """
        try:
            async with aclosing(self._follow()) as batches:
                async for batch in batches:
                    yield batch
        finally:
            # Nobody hears it any more.
            self.connected = False

    async def _follow(self) -> AsyncGenerator[Batch | Opened]:
        start: _Start | None = None
        failures = 0
        while True:
            try:
                if self._token is None and start is None:
                    start = await self._first_position(self._window if self._reason == "start" else 0.0)
                async with aclosing(await self._open(start)) as reader:
                    if self._token is None and start is not None:
                        yield Opened(start.floor, self._reason)
                    self._reopen = False
                    while not self._reopen and (answer := await reader.take()) is not None:
                        failures, self.connected = 0, True
                        batch = self._batch(answer)
                        yield batch
                        self._restore(batch)
                self._count("reopen")
            except PyMongoError as error:
                failures += 1
                self.connected = False
                remedy = classify(error, images=self._images, trimmed=self._trimmed)
                self._count(remedy.value)
                log.warning("stream_failed", remedy=remedy.value, error=reason_of(error), failures=failures)
                if remedy is Remedy.TRIMMED:
                    self._trimmed = True
                elif remedy is Remedy.WITHOUT_IMAGES:
                    self._images = False
                elif remedy is Remedy.RESUME:
                    await self._sleep(_backoff(failures))
                else:
                    start, self._reason = None, self._begin_again(remedy, error)
                    await self._sleep(_backoff(failures))

    def _restore(self, batch: Batch) -> None:
        """Ask for everything again once the event that was too large has been passed."""
        if (self._trimmed or not self._images) and batch.events:
            self._images, self._trimmed, self._reopen = True, False, True

    def _begin_again(self, remedy: Remedy, error: PyMongoError) -> str:
        """Give up the position. Returns why the next stream is not connected to the last."""
        lost = isinstance(error, OperationFailure) and error.code == _HISTORY_LOST
        if self._reason == "start" and self._token is None and lost and self._window >= 1:
            self._window /= 2
            log.warning("oplog_shorter_than_window", window_seconds=self._window)
            return "start"
        self._token, self._images, self._trimmed = None, True, False
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

    async def _open(self, start: _Start | None) -> Reader:
        self._begun_at = start.at if start is not None and self._token is None else None
        selection = Selection(
            [*pipeline(self._tenants(), self._control), *(TRIM if self._trimmed else ())],
            images=self._images,
            start_after=self._token,
            start_at=None if start is None else start.at,
        )
        return await open_reader(self._client, selection)

    def _batch(self, answer: Answer) -> Batch:
        if answer.token is not None:
            self._token = {"_data": answer.token}
        last: str = self._token["_data"] if self._token is not None else cursor.before(Timestamp(0, 0))
        if answer.events:
            return Batch(answer.events, last)
        at = cursor.cluster_time(last)
        # Nothing more to read means that everything up to the position's cluster time has been seen. But a stream
        # that begins at a time is there before anything of that time has happened.
        return Batch((), cursor.before(at) if at == self._begun_at else cursor.after(at))


def _backoff(failures: int) -> float:
    """Seconds until the next attempt: exponential, with full jitter, so that processes do not return in step."""
    most = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2 ** min(failures, 10))
    return random.uniform(most / 2, most)  # noqa: S311 - jitter, not a secret
