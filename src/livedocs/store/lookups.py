"""From a document's `_id` to its UUID, for change events that carry only the former."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from livedocs.codec.bsonwalk import ARRAY, DOCUMENT, Element, elements, uuid_at
from livedocs.model import Tenant
from livedocs.store.connection import RAW, MongoDocument
from livedocs.store.failures import SNAPSHOT_GONE
from livedocs.store.preparation import found_unsuitable


class Lookups:
    """One `find` for all the documents asked for. Satisfies `changes.resolver.Finder`.

    An `_id` goes there and back as BSON: it may be anything that MongoDB stores, and more than PyMongo decodes.
    """

    def __init__(self, client: AsyncMongoClient[MongoDocument]) -> None:
        self._client = client

    async def uuids(
        self, tenant: Tenant, collection: str, ids: Sequence[bytes], at: Timestamp
    ) -> Mapping[bytes, UUID] | None:
        """The UUIDs the documents had at that time, by `_id`: its BSON type and its BSON value.

        None where the server keeps no history of that time any more. The present says nothing of it: since then a
        document may have moved to another UUID, whose readers must not be told what it was before. Only a capped
        collection, which has no history at all, is read as it is now.

        Raises:
            PyMongoError: MongoDB cannot be read now.
        """
        try:
            return await self._found(tenant, collection, ids, {"level": "snapshot", "atClusterTime": at})
        except OperationFailure as error:
            if error.code not in SNAPSHOT_GONE:
                raise
            if await found_unsuitable(self._client[tenant.database], collection) != "capped":
                return None
            return await self._found(tenant, collection, ids, {"level": "majority"})

    async def _found(
        self, tenant: Tenant, collection: str, ids: Sequence[bytes], concern: Mapping[str, Any]
    ) -> Mapping[bytes, UUID]:
        command = {
            "find": collection,
            "filter": RawBSONDocument(_among(ids)),
            "projection": {"uuid": 1},
            "readConcern": concern,
        }
        # Said twice: one is for the first batch, the other for all further ones.
        raw = self._client[tenant.database].with_options(codec_options=RAW)
        cursor = await raw.cursor_command(command, codec_options=RAW)
        found: dict[bytes, UUID] = {}
        async with cursor:
            async for document in cursor:
                answer = bytes(document.raw)
                places = dict(elements(answer))
                uuid = uuid_at(answer, places.get(b"uuid"))
                if uuid is not None:
                    found[_value(answer, places[b"_id"])] = uuid
        return found


def _value(raw: bytes, place: Element) -> bytes:
    return bytes((place.kind,)) + raw[place.begin : place.end]


def _among(ids: Sequence[bytes]) -> bytes:
    """The filter `{_id: {$in: ids}}`."""
    array = _document((one[0], str(number).encode(), one[1:]) for number, one in enumerate(ids))
    return _document([(DOCUMENT, b"_id", _document([(ARRAY, b"$in", array)]))])


def _document(members: Iterable[tuple[int, bytes, bytes]]) -> bytes:
    """A BSON document of those members, each a type, a name and a value."""
    body = b"".join(bytes((kind,)) + name + b"\0" + value for kind, name, value in members)
    return (len(body) + 5).to_bytes(4, "little") + body + b"\0"
