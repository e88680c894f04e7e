"""Registered collections that a view, a time series or a capped collection has taken the place of since.

Registration refuses them, but whoever may write to the database can make one later. In a transaction MongoDB
neither reads a capped collection nor inserts into a time series, and to a view it never writes. Such a collection
cannot be served; requests for the tenant's other collections must go on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from livedocs.errors import Unavailable
from livedocs.model import Tenant
from livedocs.store.connection import MongoDocument
from livedocs.store.failures import SNAPSHOT_UNAVAILABLE
from livedocs.store.preparation import found_unsuitable, named
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

_TRANSIENT = "TransientTransactionError"

T = TypeVar("T")
Question = Callable[[AsyncCollection[MongoDocument], AsyncClientSession | None], Awaitable[T]]


class Registered:
    """The registered collections of a tenant, as one transaction with its repetitions asks them.

    Args:
        database: the tenant's.
        tenant: whose collections.
    """

    def __init__(self, database: AsyncDatabase[MongoDocument], tenant: Tenant) -> None:
        self._database = database
        self._tenant = tenant
        # Why they are not asked in the transaction, by name; found out by an earlier repetition.
        self._aside: dict[str, str] = {}

    async def ask(
        self,
        name: str,
        question: Question[T],
        session: AsyncClientSession,
    ) -> T | None:
        """What one of several collections answers; None when what has its name now holds no documents itself.

        An error ends the transaction. Where the collection's kind is to blame, the transaction is run again; then
        a capped collection is read beside it.

        Raises:
            PyMongoError: it cannot be read. One with the label `TransientTransactionError` asks for a repetition.
        """
        reason = self._aside.get(name)
        if reason == "capped":
            # Everything that is committed, for nothing is known of what is about to be.
            return await question(self._database[name].with_options(read_concern=ReadConcern("local")), None)
        if reason is not None:
            return None
        try:
            return await question(self._database[name], session)
        except OperationFailure as error:
            reason = await self._to_blame(name, error)
            if reason is None:
                raise
            self._aside[name] = reason
            raise PyMongoError("a collection is set aside", error_labels=[_TRANSIENT]) from error

    async def ask_outside(self, name: str, question: Question[T]) -> T | None:
        """The same outside a transaction, as of now.

        Raises:
            PyMongoError: it cannot be read.
        """
        try:
            return await question(self._database[name], None)
        except OperationFailure as error:
            if await self._to_blame(name, error) in {None, "capped"}:
                raise
            return None

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[None]:
        """Around what needs this very collection: name it, and its kind, where that is to blame for an error.

        Raises:
            Unavailable: it cannot be served as it is now.
        """
        try:
            yield
        except OperationFailure as error:
            reason = await self._to_blame(name, error)
            if reason is None:
                raise
            detail = f"The collection cannot be served: it is {named(reason)} now."
            raise Unavailable(detail, collection=name, reason=reason) from error

    async def _to_blame(self, name: str, error: OperationFailure) -> str | None:
        """Why the collection is unsuitable, if it is and the error may be due to that."""
        if error.has_error_label(_TRANSIENT) and error.code != SNAPSHOT_UNAVAILABLE:
            return None
        reason = await found_unsuitable(self._database, name)
        if reason is not None:
            _log.error("collection_unreadable", tenant=self._tenant.slug, collection=name, reason=reason)
        return reason
