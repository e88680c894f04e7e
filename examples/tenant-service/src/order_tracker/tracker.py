"""Orders of a shop, as documents that their customers can watch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from bson import Decimal128

from livedocs.client import Change, Client, Item, Result, Role, Snapshot
from livedocs.errors import PreconditionFailed

ORDERS = "orders"
SUPPORT = "group:support"


class AlreadyShipped(Exception):
    """An order that is on its way cannot be cancelled."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer has ordered."""

    customer: str
    item: str
    price: Decimal128

    def document(self) -> dict[str, Any]:
        """As it is stored when it is new."""
        placed_at = datetime.now(UTC)
        return {"item": self.item, "price": self.price, "state": "placed", "placed_at": placed_at}

    def grants(self) -> Mapping[str, Role]:
        """Who may see it: whoever has placed it, and those who answer questions about it."""
        return {f"user:{self.customer}": Role.READER, SUPPORT: Role.READER}


class OrderTracker:
    """Keeps orders in livedocs. The service owns the documents; customers read theirs.

    Args:
        livedocs: with the scope `livedocs:write`.
    """

    def __init__(self, livedocs: Client) -> None:
        self._livedocs = livedocs

    async def place(self, order: Order) -> UUID:
        """A new order; its customer sees it from the same moment on."""
        number = uuid4()
        await self._livedocs.documents.upsert(ORDERS, number, order.document(), grants=order.grants())
        return number

    async def place_all(self, orders: Iterable[Order]) -> list[Result]:
        """Yesterday's orders of another system, however many; a result for each."""
        items = (Item(order.document(), grants=order.grants()) for order in orders)
        return await self._livedocs.documents.bulk(ORDERS, items)

    async def ship(self, number: UUID, parcel: str) -> None:
        """The order is on its way."""
        await self._livedocs.documents.merge(ORDERS, number, {"state": "shipped", "parcel": parcel})

    async def cancel(self, number: UUID) -> None:
        """The order is off, unless it was shipped first, by whoever else is at work.

        Raises:
            AlreadyShipped: it was.
        """
        while True:
            order = await self._livedocs.documents.get(ORDERS, number)
            if order.fields["state"] == "shipped":
                raise AlreadyShipped(number)
            try:
                await self._livedocs.documents.merge(ORDERS, number, {"state": "cancelled"}, if_match=order.etag)
            except PreconditionFailed:
                continue
            return

    async def hand_over(self, number: UUID, old: str, new: str) -> None:
        """Another customer takes the order; the old one is out of it, on every server, when this returns."""
        await self._livedocs.grants.put(number, f"user:{new}", "reader")
        await self._livedocs.grants.delete(number, f"user:{old}", wait=10)

    async def states(self, number: UUID) -> AsyncIterator[str]:
        """Every state of an order from now on, whatever happens to the connection."""
        async with self._livedocs.subscribe([number], collections=[ORDERS]) as events:
            async for event in events:
                match event:
                    case Snapshot():
                        for order in event.documents.get(ORDERS, ()):
                            yield order["state"]
                    case Change(fields={"state": str() as state}):
                        yield state
