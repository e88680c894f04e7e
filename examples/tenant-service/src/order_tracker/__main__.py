"""Usage: python -m order_tracker place CUSTOMER ITEM PRICE | ship NUMBER PARCEL | follow NUMBER."""

from __future__ import annotations

import asyncio
import os
import sys
from uuid import UUID

from bson import Decimal128

from livedocs.client import Client, ClientCredentials
from order_tracker.tracker import Order, OrderTracker


def connect() -> Client:
    """The server and the credentials that the environment names."""
    credentials = ClientCredentials(
        os.environ["OAUTH_ISSUER"], os.environ["OAUTH_CLIENT_ID"], os.environ["OAUTH_CLIENT_SECRET"]
    )
    return Client(os.environ["DOCUMENTS_URL"], credentials)


async def main(arguments: list[str]) -> None:
    """Do one thing."""
    async with connect() as livedocs:
        tracker = OrderTracker(livedocs)
        match arguments:
            case ["place", customer, item, price]:
                print(await tracker.place(Order(customer, item, Decimal128(price))))
            case ["ship", number, parcel]:
                await tracker.ship(UUID(number), parcel)
            case ["follow", number]:
                async for state in tracker.states(UUID(number)):
                    print(state, flush=True)
            case _:
                sys.exit(__doc__)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
