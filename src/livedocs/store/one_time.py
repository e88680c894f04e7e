"""Reads that belong together, all as of one cluster time (read concern `snapshot`, outside a transaction).

Whoever is allowed by what the first read says is shown what was there at that very moment: not what was written
behind the revoke that came in between. So the grants are read first, and what they guard only where they allow it.

Source: https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import OperationFailure

from livedocs.store.failures import SNAPSHOT_GONE

_ATTEMPTS = 3

Result = TypeVar("Result")


async def at_one_time(
    client: AsyncMongoClient[dict[str, Any]], read: Callable[[AsyncClientSession], Awaitable[Result]]
) -> Result:
    """What `read` returns, which may be called again: at a later time, when the first has left MongoDB's history.

    Raises:
        PyMongoError: MongoDB cannot be read now.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            async with client.start_session(snapshot=True) as session:
                return await read(session)
        except OperationFailure as error:
            if error.code not in SNAPSHOT_GONE:
                raise
    async with client.start_session(snapshot=True) as session:
        return await read(session)
