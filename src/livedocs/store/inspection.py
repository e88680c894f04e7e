"""What the documents of a collection hold where their UUID is to be: which of them are streamed, and which not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pymongo
from bson.binary import UUID_SUBTYPE, Binary
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError

from livedocs.model import CollectionKey
from livedocs.store.connection import MongoDocument

# Of a collection that takes longer to read than that, some documents are looked at.
_SECONDS = 5.0
_SAMPLE = 1000
_UUID_BYTES = 16
_LEGACY_SUBTYPE = 3
# Subtype 2 is missing: it counts its length twice, and is never of 16 bytes.
_SUBTYPES = (0, 1, 3, 4, 5, 6, 7, 8, 9, 128)
_USABLE = f"binData {UUID_SUBTYPE}"
_MEANINGS: Mapping[str, str] = {
    "binData 3": "legacy UUIDs, as Java, C# and Python drivers wrote them",
    "binData 0": "generic binary data",
    "string": "text, even where it reads as a UUID",
    "array": "arrays, whatever they hold",
    "missing": "no such field",
}


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What was found in the key of a collection's documents.

    Attributes:
        not_streamed: the number of documents that are not streamed by what their key holds: a BSON type as `$type`
            names it; for binary data of 16 bytes its subtype as well, `binData 3`.
        examined: how many documents were looked at.
        complete: whether those are all; otherwise they are a random sample.
    """

    not_streamed: Mapping[str, int]
    examined: int
    complete: bool

    @property
    def without_uuid(self) -> int:
        """The number of examined documents that are not streamed."""
        return sum(self.not_streamed.values())


async def inspect_key(collection: AsyncCollection[MongoDocument], key: CollectionKey) -> KeyReport:
    """Look at all documents, or at a sample of them when that takes longer than 5 seconds.

    Raises:
        PyMongoError: MongoDB cannot be read now.
    """
    try:
        with pymongo.timeout(_SECONDS):
            return await _report(collection, key, [], complete=True)
    except PyMongoError as error:
        if not error.timeout:
            raise
    return await _report(collection, key, [{"$sample": {"size": _SAMPLE}}], complete=False)


async def count_legacy(collection: AsyncCollection[MongoDocument], key: CollectionKey, *, most: int) -> int:
    """How many documents hold a legacy UUID (Binary subtype 3), counted up to `most` in the key's index.

    Raises:
        PyMongoError: MongoDB cannot be read now.
    """
    first, last = _bounds(_LEGACY_SUBTYPE)
    return await collection.count_documents({key: {"$gte": first, "$lte": last}}, limit=most)


def meaning(found: str) -> str:
    """What a name in `KeyReport.not_streamed` stands for, for people; empty where it says enough."""
    return _MEANINGS.get(found, "")


def _bounds(subtype: int) -> tuple[Binary, Binary]:
    """The first and the last value of 16 bytes: MongoDB orders binary data by length, then by subtype."""
    return Binary(bytes(_UUID_BYTES), subtype), Binary(b"\xff" * _UUID_BYTES, subtype)


async def _report(
    collection: AsyncCollection[MongoDocument],
    key: CollectionKey,
    stages: list[dict[str, Any]],
    *,
    complete: bool,
) -> KeyReport:
    group = {"$group": {"_id": _name_of(f"${key}"), "count": {"$sum": 1}}}
    async with await collection.aggregate([*stages, group]) as cursor:
        counts = {found["_id"]: int(found["count"]) async for found in cursor}
    unusable = {name: counts[name] for name in sorted(counts) if name != _USABLE}
    return KeyReport(unusable, sum(counts.values()), complete)


def _name_of(value: str) -> dict[str, Any]:
    """The aggregation expression that names what a field holds."""
    is_binary = {"$eq": [{"$type": value}, "binData"]}
    subtypes = [{"case": _within(value, *_bounds(subtype)), "then": f"binData {subtype}"} for subtype in _SUBTYPES]
    other_length = {
        "case": {"$ne": [{"$binarySize": value}, _UUID_BYTES]},
        "then": f"binData, not {_UUID_BYTES} bytes",
    }
    binary = {"$switch": {"branches": [*subtypes, other_length], "default": "binData, another subtype"}}
    return {"$cond": [is_binary, binary, {"$type": value}]}


def _within(value: str, first: Binary, last: Binary) -> dict[str, Any]:
    return {"$and": [{"$gte": [value, first]}, {"$lte": [value, last]}]}
