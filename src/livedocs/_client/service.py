"""A server, as a service talks to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

import httpx

from livedocs._client.bulk import Bulk
from livedocs._client.documents import Documents
from livedocs._client.grants import Grants
from livedocs._client.imports import Imports, Items
from livedocs._client.requests import Requests
from livedocs._client.retries import Retries
from livedocs._client.rooms import Rooms
from livedocs._client.tokens import Token, source_of
from livedocs._client.values import Imported

if TYPE_CHECKING:
    from livedocs._client.subscription import Subscription

_DEFAULT = Retries()


class Client:
    """A server, asked with one token source. Close it, or use it as a context.

    Attributes:
        documents: reads and writes documents.
        grants: says who may see them.

    Args:
        url: of the server: scheme and host, without a path.
        token: an access token, a function that gives one, or a source such as `ClientCredentials`.
        retries: when a request is sent again, and how late.
        timeout: seconds of silence after which a request has failed.
        transport: in place of the network, for tests.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        retries: Retries = _DEFAULT,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._retries = retries
        self._tokens = source_of(token)
        self._requests = Requests(self._url, self._tokens, retries, timeout=timeout, transport=transport)
        bulk = Bulk(self._requests, retries)
        self.documents = Documents(self._requests, bulk)
        self.grants = Grants(self._requests, bulk)

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close its HTTP connections. A subscription is a context of its own."""
        await self._requests.aclose()

    async def import_documents(self, collection: str, items: Items, *, key: str | None = None) -> Imported:
        """Write any number of documents in bounded memory.

        After a lost connection, or with another token when the first is refused, it goes on if `items` can be
        begun anew, as a list can and a generator cannot. Called again with the same `key` and items within a day,
        it goes on as well. What was done before this call, or by a request of it that was cut off, counts in
        `lines` and nowhere else: `failed` and `refused` are those of the last request.

        Args:
            collection: a registered one.
            items: the documents, in the same order each time.
            key: the import's name at the server.

        Raises:
            LivedocsError, ClientError: why it ended before its time.
        """
        return await Imports(self._requests, self._retries).run(collection, items, key=key)

    def subscribe(
        self,
        uuids: Iterable[UUID],
        *,
        collections: Sequence[str] | None = None,
        since: Mapping[UUID, str] | None = None,
        ticket: str | None = None,
        snapshot: bool = True,
        buffer: int = 1000,
    ) -> Subscription:
        """Follow documents: `async with client.subscribe([uuid]) as events: async for event in events: ..`.

        Args:
            uuids: of the documents.
            collections: only these; all of the tenant's when None.
            since: cursors, by UUID, of the last changes known: what was missed comes first.
            ticket: of the subscription that the cursors are from.
            snapshot: whether a UUID without a cursor begins with a `Snapshot`, or with the next change.
            buffer: events that may wait for the caller.

        Needs the `client` extra.
        """
        from livedocs._client.subscription import Subscription  # noqa: PLC0415 - websockets is an extra

        rooms = Rooms(uuids, since=since or {}, collections=collections, snapshot=snapshot, ticket=ticket)
        return Subscription(self._url, self._tokens, rooms, self._retries, buffer=buffer)
