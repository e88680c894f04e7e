"""Grants and documents as they were together at one cluster time: what a join is decided by and starts from.

The grants are read with read concern `snapshot` first; the cluster time that reply names (`cursor.atClusterTime`)
is then asked for in each read of the documents. The reply's `operationTime` would not do: it may be later than the
data read, and what lies between would be lost to the joining socket.

Source: https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import UUID

from bson.binary import Binary
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.command_cursor import AsyncCommandCursor
from pymongo.errors import ExecutionTimeout, OperationFailure

from livedocs.codec.bsondecode import decode
from livedocs.codec.bsonwalk import DOCUMENT, elements, uuid_at
from livedocs.errors import AnswerTooLarge
from livedocs.model import (
    CollectionKey,
    Grant,
    GrantKey,
    ShownBounds,
    Snapshot,
    SnapshotRequest,
    Stored,
    Tenant,
    TooLarge,
    Unreadable,
    grant_id,
    parse_grant,
)
from livedocs.presentation import is_clearly_shown, is_too_large
from livedocs.store.connection import ACL, RAW, MongoDocument
from livedocs.store.failures import SNAPSHOT_GONE, SNAPSHOT_UNAVAILABLE, translated
from livedocs.telemetry import get_logger

log = get_logger(__name__)

_SECONDS = 10.0
_ATTEMPTS = 3
# Everything in the first reply, whatever its number; 16 MB are the bound, and getMore takes it from there.
_BATCH = 2**31 - 1
# Grants that one command asks for: a caller with 1,000 groups and 100 UUIDs would make one of 16 MB, which no
# server takes and whose making alone holds up everybody.
_GRANTS_AT_ONCE = 1000
# A document of up to so many bytes comes with the first reply, a hundred of them at a time.
_SMALL = 2**15
# Documents that are larger, and bytes of them unless it is one, come in one reply.
_AT_ONCE = 16
_PART = 2**21
_SIZE = {"$bsonSize": "$$ROOT"}
# Unauthorized, AuthenticationFailed: no collection's own fault.
_REFUSED = frozenset({13, 18})


class Snapshots:
    """Reads rounds of grants and documents. Satisfies `access.rounds.SnapshotReader`.

    Args:
        client: of the deployment.
        control_database: where the grants are.
        bounds: of a document that is shown.
        most_bytes: of the documents of one round, as BSON.
    """

    def __init__(
        self,
        client: AsyncMongoClient[MongoDocument],
        control_database: str,
        bounds: ShownBounds = ShownBounds(),  # noqa: B008 - frozen
        *,
        most_bytes: int = 4 * 2**20,
    ) -> None:
        self._client = client
        self._control_database = control_database
        self._bounds = bounds
        self._most_bytes = most_bytes

    async def read(self, tenant: Tenant, requests: Sequence[SnapshotRequest]) -> list[Snapshot]:
        """One round: a read of the grants and, at the same cluster time, one of each registered collection.

        Args:
            tenant: whose grants and documents.
            requests: what is looked at; documents are read of the UUIDs that one of them wants them of and holds a
                grant on.

        Returns:
            What each request sees: grants of its own subjects, and documents only where it holds one.

        Raises:
            AnswerTooLarge: the documents have more bytes than one round may read; ask for fewer UUIDs, or with
                fewer requests.
            Unavailable: MongoDB cannot be read now.
        """
        with translated(seconds=_SECONDS):
            for _ in range(_ATTEMPTS - 1):
                try:
                    return await self._round(tenant, requests)
                except OperationFailure as error:
                    # A collection was created after the first read, or the time has left the history that the
                    # server keeps. A new round at a new time is the answer to both.
                    if error.code not in SNAPSHOT_GONE:
                        raise
            return await self._round(tenant, requests, last=True)

    async def _round(
        self, tenant: Tenant, requests: Sequence[SnapshotRequest], *, last: bool = False
    ) -> list[Snapshot]:
        """One try at it; the reads of the documents fail together when T is out of reach."""
        at, grants = await self._grants(tenant.slug, requests)
        held = [_held(request, grants) for request in requests]
        wanted = list(
            dict.fromkeys(
                uuid for request, mine in zip(requests, held, strict=True) for uuid in _due(request, mine)
            )
        )
        documents: dict[UUID, dict[str, list[Stored]]] = {}
        left_out: frozenset[UUID] = frozenset()
        if wanted:
            documents, left_out = await self._all_documents(tenant, wanted, at, last=last)
        if left_out and len(requests) > 1:
            # Each of them is due what fits into a round of its own.
            raise AnswerTooLarge
        shared: dict[Any, Any] = {}
        return [
            Snapshot(
                at,
                mine,
                {uuid: documents[uuid] for uuid in _due(request, mine) if uuid not in left_out},
                shared,
                left_out,
            )
            for request, mine in zip(requests, held, strict=True)
        ]

    async def _all_documents(
        self, tenant: Tenant, uuids: Sequence[UUID], at: Timestamp, *, last: bool
    ) -> tuple[dict[UUID, dict[str, list[Stored]]], frozenset[UUID]]:
        """The documents of UUIDs by collection, and the UUIDs whose documents did not fit."""
        space = _Space(self._most_bytes, alone=len(uuids) == 1)
        keys = tenant.collections

        async def of_each(reads: Mapping[str, Coroutine[Any, Any, _Found]]) -> dict[str, _Found | None]:
            # All of them are awaited even when one fails: no read is left running behind the caller's back.
            replies = await asyncio.gather(*reads.values(), return_exceptions=True)
            found: dict[str, _Found | None] = {}
            for name, reply in zip(reads, replies, strict=True):
                if not isinstance(reply, BaseException):
                    found[name] = reply
                elif _of_collection(reply, last=last):
                    # It has been made a capped one, say: nobody's reason to be without the other collections.
                    log.error("collection_unreadable", tenant=tenant.slug, collection=name, error=_reason(reply))
                    found[name] = None
                else:
                    raise reply
            return found

        found = await of_each(
            {
                name: self._small_documents((tenant.database, name), key, uuids, at, space)
                for name, key in keys.items()
            }
        )
        left_out = space.choose(uuids, [documents for documents in found.values() if documents is not None])
        due = {name: _due_sizes(documents, left_out) for name, documents in found.items() if documents is not None}
        large = await of_each(
            {
                name: self._large_documents((tenant.database, name), keys[name], sizes, at)
                for name, sizes in due.items()
                if sizes
            }
        )
        documents: dict[UUID, dict[str, list[Stored]]] = {uuid: {} for uuid in uuids if uuid not in left_out}
        for name in keys:
            small = found[name]
            if small is None or large.get(name, ()) is None:
                for of_uuid in documents.values():
                    of_uuid[name] = [Unreadable()]
                continue
            # In the order of their `_id`, too, and of the same cluster time: what was left to be read, one by one.
            read = _by_uuid(large.get(name) or ())
            for uuid, document in small:
                if uuid in documents:
                    stored = document if not isinstance(document, _Due) else read[uuid].popleft()
                    documents[uuid].setdefault(name, []).append(stored)
        return documents, left_out

    async def _grants(
        self, tenant: str, requests: Sequence[SnapshotRequest]
    ) -> tuple[Timestamp, dict[UUID, list[Grant]]]:
        """Every grant of those asked for, by UUID: whose is for the caller to tell apart."""
        keys = list(
            dict.fromkeys(
                (uuid, subject) for request in requests for uuid in request.uuids for subject in request.subjects
            )
        )
        at: Any = None
        grants: dict[UUID, list[Grant]] = {}
        # Causal consistency would add an afterClusterTime of its own.
        async with self._client.start_session(causal_consistency=False) as session:
            for start in range(0, max(1, len(keys)), _GRANTS_AT_ONCE):
                ids = [grant_id(GrantKey(tenant, *key)) for key in keys[start : start + _GRANTS_AT_ONCE]]
                reply = await self._client[self._control_database].command(
                    {
                        "find": ACL,
                        "filter": {"_id": {"$in": ids}},
                        "batchSize": _BATCH,
                        # All of them at the time of the first.
                        "readConcern": {"level": "snapshot", **({"atClusterTime": at} if at else {})},
                    },
                    session=session,
                    codec_options=RAW,
                )
                at = reply["cursor"]["atClusterTime"] if at is None else at
                async for document in self._all(reply["cursor"], session):
                    grant = parse_grant(decode(bytes(document.raw)))
                    if grant is not None:
                        grants.setdefault(grant.key.uuid, []).append(grant)
        found: Timestamp = at
        return found, grants

    async def _all(self, cursor: Mapping[str, Any], session: AsyncClientSession) -> AsyncIterator[RawBSONDocument]:
        """The documents of a command's first reply and of those that follow it."""
        batch = cursor["firstBatch"]
        while True:
            for document in batch:
                yield document
            if not cursor["id"]:
                return
            reply = await self._client[self._control_database].command(
                {"getMore": cursor["id"], "collection": ACL},
                session=session,
                codec_options=RAW,
            )
            cursor = reply["cursor"]
            batch = cursor["nextBatch"]

    async def _small_documents(
        self,
        place: tuple[str, str],
        key: CollectionKey,
        uuids: Sequence[UUID],
        at: Timestamp,
        space: _Space,
    ) -> _Found:
        """The documents of a collection, which is named by database and name, in the order of their `_id`.

        Of large ones only their sizes: how many of them are read is decided before they are.
        """
        found: _Found = []
        limit = min(_SMALL, self._bounds.bytes)
        shown = {"$cond": [{"$lte": [_SIZE, limit]}, "$$ROOT", _SIZE]}
        async with await self._find(place, key, uuids, at, shown) as cursor:
            async for answer in cursor:
                uuid, document = _read(bytes(answer.raw))
                if uuid is None:
                    continue
                if isinstance(document, int):
                    large = TooLarge(document) if document > self._bounds.bytes else _Due(document)
                    found.append((uuid, large))
                else:
                    found.append((uuid, space.admit(await self._bounded(document))))
                if space.full:
                    break
        return found

    async def _large_documents(
        self, place: tuple[str, str], key: CollectionKey, sizes: Mapping[UUID, Sequence[int]], at: Timestamp
    ) -> _Found:
        """As many large documents of each UUID as there are sizes, a few at a time."""
        found: _Found = []
        for uuids in _parts(sizes):
            left = {uuid: len(sizes[uuid]) for uuid in uuids}
            large = {"$expr": {"$and": [{"$gt": [_SIZE, _SMALL]}, {"$lte": [_SIZE, self._bounds.bytes]}]}}
            async with await self._find(place, key, uuids, at, "$$ROOT", large, batch=_AT_ONCE) as cursor:
                async for answer in cursor:
                    uuid, document = _read(bytes(answer.raw))
                    if uuid is None or isinstance(document, int) or not left[uuid]:
                        continue
                    left[uuid] -= 1
                    found.append((uuid, await self._bounded(document)))
                    if not any(left.values()):
                        break
        return found

    async def _find(  # noqa: PLR0917 - a command's parts
        self,
        place: tuple[str, str],
        key: CollectionKey,
        uuids: Sequence[UUID],
        at: Timestamp,
        shown: Any,
        condition: Mapping[str, Any] = MappingProxyType({}),
        *,
        batch: int = 101,
    ) -> AsyncCommandCursor[RawBSONDocument]:
        database, collection = place
        command = {
            "find": collection,
            # An array that holds the UUID is no key.
            "filter": {
                key: {"$in": [Binary.from_uuid(uuid) for uuid in uuids], "$not": {"$type": "array"}},
                **condition,
            },
            "sort": {"_id": 1},
            "projection": {"_id": 0, "key": f"${key}", "document": shown},
            "readConcern": {"level": "snapshot", "atClusterTime": at},
            "batchSize": batch,
            # Views and time series have no such thing and refuse: what has no change events is no live document.
            "showRecordId": True,
        }
        # Said twice: one is for the first batch, the other for all further ones.
        raw = self._client[database].with_options(codec_options=RAW)
        cursor = await raw.cursor_command(command, codec_options=RAW)
        return cursor.batch_size(batch)

    async def _bounded(self, document: bytes) -> Stored:
        if is_clearly_shown(document, self._bounds):
            return document
        # Counting takes longer than the event loop may stand still.
        if await asyncio.to_thread(is_too_large, document, self._bounds):
            return TooLarge(len(document))
        return document


@dataclass(frozen=True, slots=True)
class _Due:
    """In place of a large document that is still to be read: its size, bytes."""

    size: int


_Found = list[tuple[UUID, "Stored | _Due"]]


class _Space:
    """How many bytes of documents a round may still read.

    Args:
        most: bytes.
        alone: whether they are all of one UUID; then what does not fit is left out, with a word in its place.
    """

    # What a document takes beside its bytes.
    _OVERHEAD = 200

    def __init__(self, most: int, *, alone: bool) -> None:
        self._left = most
        self._alone = alone
        self.full = False

    def admit(self, document: Stored) -> Stored:
        """The document, or what is to stand in its place.

        Raises:
            AnswerTooLarge: it does not fit, and fewer UUIDs might.
        """
        size = len(document) if isinstance(document, bytes) else 0
        self._left -= size + self._OVERHEAD
        if self._left >= 0:
            return document
        if not self._alone:
            raise AnswerTooLarge
        self.full = True
        return TooLarge(size) if size else document

    def choose(self, uuids: Sequence[UUID], found: Collection[_Found]) -> frozenset[UUID]:
        """Find room for the large documents, in the order of the UUIDs. Returns those that there is none for.

        The first UUID with any is never left out: of its documents those that do not fit become `TooLarge`.
        """
        sizes: Counter[UUID] = Counter()
        for documents in found:
            for uuid, document in documents:
                if isinstance(document, _Due):
                    sizes[uuid] += document.size
        left_out = set()
        for place, uuid in enumerate(uuid for uuid in uuids if sizes[uuid]):
            if sizes[uuid] <= self._left:
                self._left -= sizes[uuid]
            elif place:
                left_out.add(uuid)
            else:
                for documents in found:
                    self._cut(documents, uuid)
        return frozenset(left_out)

    def _cut(self, documents: _Found, uuid: UUID) -> None:
        for place, (owner, document) in enumerate(documents):
            if owner == uuid and isinstance(document, _Due):
                if document.size <= self._left:
                    self._left -= document.size
                else:
                    self._left = 0
                    documents[place] = owner, TooLarge(document.size)


def _due_sizes(documents: _Found, left_out: Collection[UUID]) -> dict[UUID, list[int]]:
    """The sizes of what is still to be read of a collection, by UUID."""
    sizes: dict[UUID, list[int]] = {}
    for uuid, document in documents:
        if isinstance(document, _Due) and uuid not in left_out:
            sizes.setdefault(uuid, []).append(document.size)
    return sizes


def _parts(sizes: Mapping[UUID, Sequence[int]]) -> Iterator[list[UUID]]:
    """The UUIDs in parts whose documents come in one reply."""
    part: list[UUID] = []
    count = total = 0
    for uuid, of_uuid in sizes.items():
        if part and (total + sum(of_uuid) > _PART or count + len(of_uuid) > _AT_ONCE):
            yield part
            part, count, total = [], 0, 0
        part.append(uuid)
        count, total = count + len(of_uuid), total + sum(of_uuid)
    yield part


def _by_uuid(documents: Iterable[tuple[UUID, Stored | _Due]]) -> dict[UUID, deque[Stored]]:
    found: dict[UUID, deque[Stored]] = {}
    for uuid, document in documents:
        if not isinstance(document, _Due):
            found.setdefault(uuid, deque()).append(document)
    return found


def _read(answer: bytes) -> tuple[UUID | None, bytes | int]:
    """The UUID and the document, or its size, of one answer to the query of documents."""
    places = dict(elements(answer))
    document, uuid = places[b"document"], uuid_at(answer, places.get(b"key"))
    if document.kind == DOCUMENT:
        return uuid, answer[document.begin : document.end]
    return uuid, int.from_bytes(answer[document.begin : document.end], "little")


def _of_collection(error: BaseException, *, last: bool) -> bool:
    """Whether a read has failed because of what it read, and not because MongoDB cannot be read now.

    A capped collection has no snapshots at all and says the same as one that has none of that time yet; only
    the last of several attempts tells them apart.
    """
    if not isinstance(error, OperationFailure):
        return isinstance(error, BSONError | LookupError | ValueError)
    if error.code == SNAPSHOT_UNAVAILABLE:
        return last
    return not (
        isinstance(error, ExecutionTimeout)
        or error.code in SNAPSHOT_GONE | _REFUSED
        or error.has_error_label("TransientTransactionError")
    )


def _reason(error: BaseException) -> str:
    """What went wrong; MongoDB's own words may quote a document."""
    return f"{type(error).__name__} {error.code}" if isinstance(error, OperationFailure) else type(error).__name__


def _held(request: SnapshotRequest, grants: Mapping[UUID, Sequence[Grant]]) -> dict[UUID, list[Grant]]:
    """Of the grants that a round has read the request's own: others may have asked for the same UUID."""
    return {
        uuid: [grant for grant in grants.get(uuid, ()) if grant.key.subject in request.subjects]
        for uuid in request.uuids
    }


def _due(request: SnapshotRequest, held: Mapping[UUID, Sequence[Grant]]) -> list[UUID]:
    """The UUIDs whose documents the request is to see, in its order: wanted, and with a grant of its own."""
    return [uuid for uuid in request.uuids if uuid in request.with_documents and held.get(uuid)]
