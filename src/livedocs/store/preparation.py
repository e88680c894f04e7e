"""Collections made what the API and the stream need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson.errors import BSONError
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from livedocs.errors import BadRequest
from livedocs.model import CollectionKey
from livedocs.store.connection import MongoDocument

# IndexOptionsConflict, IndexKeySpecsConflict: an index on the field is there, under other options.
_INDEX_EXISTS = frozenset({85, 86})
_NAMESPACE_EXISTS = 48


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


async def _index(database: AsyncDatabase[MongoDocument], collection: str) -> None:
    try:
        await database[collection].create_index("uuid")
    except OperationFailure as error:
        if error.code not in _INDEX_EXISTS:
            raise
