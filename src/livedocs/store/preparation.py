"""Collections made what the API and the stream need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson.errors import BSONError
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from livedocs.errors import BadRequest, UnsuitableCollection
from livedocs.model import CollectionKey
from livedocs.store.connection import MongoDocument

# IndexOptionsConflict, IndexKeySpecsConflict: an index on the field is there, under other options.
_INDEX_EXISTS = frozenset({85, 86})
_NAMESPACE_EXISTS = 48
_UNSUITABLE = {"view": "a view", "timeseries": "a time series", "capped": "a capped collection"}


JsonSchema = Mapping[str, Any]
"""A JSON Schema as MongoDB's `$jsonSchema` takes it."""


async def prepare(
    database: AsyncDatabase[MongoDocument],
    collection: str,
    key: CollectionKey,
    json_schema: JsonSchema | None = None,
) -> None:
    """Make a collection, or take the one there is; safe to repeat.

    It must exist, for a transaction cannot create one under every topology, and with key `uuid` updates and
    deletes are resolved by pre-image and look-ups by index.

    Args:
        database: the tenant's.
        collection: its name.
        key: where its documents hold their UUID.
        json_schema: what MongoDB is to hold every later write to (`$jsonSchema`); None leaves its validator alone.

    Raises:
        BadRequest: MongoDB cannot, or does not take the schema.
        UnsuitableCollection: what has that name is a view, a time series or capped.
    """
    options: dict[str, Any] = {"changeStreamPreAndPostImages": {"enabled": True}} if key == "uuid" else {}
    if json_schema is not None:
        options["validator"] = {"$jsonSchema": dict(json_schema)}
    try:
        try:
            await database.command({"create": collection, **options})
        except OperationFailure as error:
            if error.code != _NAMESPACE_EXISTS:
                raise
            await _refuse_unsuitable(database, collection)
            if options:
                await database.command({"collMod": collection, **options})
        if key == "uuid":
            await _index(database, collection)
    except OperationFailure as error:
        if error.code is None or error.has_error_label("RetryableWriteError"):
            raise
        reason = (error.details or {}).get("codeName", "refused")
        raise BadRequest(
            f"MongoDB cannot prepare this collection for streaming: {reason}.", collection=collection
        ) from error
    except (BSONError, OverflowError) as error:
        raise BadRequest("json_schema has no BSON form.", collection=collection) from error


def unsuitable(listed: Mapping[str, Any]) -> str | None:
    """Why a collection, as `listCollections` shows it, cannot be streamed: `view`, `timeseries` or `capped`.

    A view and a time series have no change events; a capped collection is not read in a transaction.
    """
    reason = "capped" if listed["options"].get("capped") else str(listed["type"])
    return None if reason == "collection" else reason


async def found_unsuitable(database: AsyncDatabase[MongoDocument], collection: str) -> str | None:
    """The same of what has that name now; None when nothing has it."""
    async for listed in await database.list_collections(filter={"name": collection}):
        return unsuitable(listed)
    return None


def named(reason: str) -> str:
    """What such a collection is called in a sentence."""
    return _UNSUITABLE.get(reason, reason)


async def _refuse_unsuitable(database: AsyncDatabase[MongoDocument], collection: str) -> None:
    reason = await found_unsuitable(database, collection)
    if reason is not None:
        detail = f"This is {named(reason)}. Register a collection that is none."
        raise UnsuitableCollection(detail, collection=collection, reason=reason)


async def _index(database: AsyncDatabase[MongoDocument], collection: str) -> None:
    try:
        await database[collection].create_index("uuid")
    except OperationFailure as error:
        if error.code not in _INDEX_EXISTS:
            raise
