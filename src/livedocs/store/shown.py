"""Documents that anybody may have written, read for somebody to see: any value, and no more than can be shown."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

import bson
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from livedocs.codec.bsondecode import decode
from livedocs.codec.bsonwalk import DOCUMENT, elements, find
from livedocs.errors import DocumentTooLarge
from livedocs.model import ShownBounds
from livedocs.presentation import is_clearly_shown, is_heavy, is_too_large
from livedocs.store.connection import RAW, MongoDocument
from livedocs.store.validation import CODEC


class ShownDocument(dict[str, Any]):
    """A stored document as far as it is shown.

    Attributes:
        size: its bytes as BSON.
        withheld: the same where it is beyond what is shown; then it has its `_id` and nothing more.
        heavy: whether encoding it may take longer than the event loop may stand still.
        raw: its BSON; empty where it is withheld.
    """

    size = 0
    withheld: int | None = None
    heavy = False
    raw = b""

    def require(self) -> None:
        """Refuse what needs to know the document.

        Raises:
            DocumentTooLarge: it is beyond what is shown.
        """
        if self.withheld is not None:
            detail = "The stored document is larger than this server shows."
            raise DocumentTooLarge(detail, bytes=self.withheld)


def version(document: Mapping[str, Any]) -> str:
    """What tells one state of a document from another: two have the same only if their BSON is the same.

    Raises:
        DocumentTooLarge: it is beyond what is shown.
    """
    if isinstance(document, ShownDocument):
        document.require()
    return version_of(bson.encode(document, codec_options=CODEC))


def version_of(raw: bytes) -> str:
    """The same, of its BSON."""
    return hashlib.sha256(raw).hexdigest()[:32]


async def find_shown(
    collection: AsyncCollection[MongoDocument],
    query: Mapping[str, Any],
    bounds: ShownBounds,
    *,
    most: int,
    session: AsyncClientSession | None,
) -> list[ShownDocument]:
    """The first documents by `_id` that the query finds, with times in UTC that do not say so.

    Raises:
        PyMongoError: MongoDB cannot be read now.
    """
    raw = collection.with_options(codec_options=RAW)
    cursor = raw.find(query, up_to(bounds.bytes), session=session).sort("_id").limit(most)
    return [await shown(bytes(answer.raw), bounds) for answer in await cursor.to_list()]


def up_to(most: int) -> dict[str, Any]:
    """The projection that has MongoDB keep back documents of more than `most` bytes, for `shown` to read."""
    size = {"$bsonSize": "$$ROOT"}
    return {"document": {"$cond": [{"$lte": [size, most]}, "$$ROOT", size]}}


async def shown(answer: bytes, bounds: ShownBounds) -> ShownDocument:
    """The document, or its `_id` and size, that such a projection has answered with."""
    place = find(answer, b"document")
    if place is None or place.kind != DOCUMENT:
        size = int.from_bytes(answer[place.begin : place.end], "little") if place is not None else 0
        return _withheld(answer, size)
    raw = answer[place.begin : place.end]
    if not is_clearly_shown(raw, bounds) and await asyncio.to_thread(is_too_large, raw, bounds):
        return _withheld(answer, len(raw))
    document = ShownDocument(await decoded(raw))
    document.size, document.heavy, document.raw = len(raw), is_heavy(raw), raw
    return document


async def decoded(raw: bytes) -> dict[str, Any]:
    """The document, decoded off the event loop if that takes long."""
    # To make 50,000 times aware takes 80 ms; without, 4.
    return await asyncio.to_thread(decode, raw, aware=False) if is_heavy(raw) else decode(raw, aware=False)


def _withheld(answer: bytes, size: int) -> ShownDocument:
    places = dict(elements(answer))
    place = places[b"_id"]
    value = answer[place.begin : place.end]
    whole = (len(value) + 10).to_bytes(4, "little") + bytes((place.kind,)) + b"_id\0" + value + b"\0"
    document = ShownDocument(decode(whole))
    document.size = document.withheld = size
    return document
