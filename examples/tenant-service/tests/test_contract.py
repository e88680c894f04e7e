"""What our customers see of their orders, on a real server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from bson import Decimal128
from order_tracker.tracker import AlreadyShipped, Order

LAMP = Order("alice", "lamp", Decimal128("19.90"))


async def test_a_customer_sees_the_order_and_another_one_does_not(tracker, livedocs_sockets):
    alice, bob = await livedocs_sockets.connect("alice"), await livedocs_sockets.connect("bob")
    number = await tracker.place(LAMP)
    (order,) = (await alice.join(number)).documents["orders"]
    assert (order["item"], order["price"], order["state"]) == ("lamp", Decimal128("19.90"), "placed")
    await bob.join_refused(number)

    await tracker.ship(number, "P-1")
    shipped = {"state": "shipped", "parcel": "P-1"}
    await livedocs_sockets.expect("orders", shipped, op="update", seen_by=[alice], unseen_by=[bob])


async def test_after_an_order_was_handed_over_its_old_customer_sees_nothing_more(tracker, livedocs_sockets):
    alice, bob = await livedocs_sockets.connect("alice"), await livedocs_sockets.connect("bob")
    number = await tracker.place(LAMP)
    await alice.join(number)
    await tracker.hand_over(number, "alice", "bob")
    await alice.expect("$revoked", {"uuid": number})
    await bob.join(number)

    await tracker.ship(number, "P-1")
    await livedocs_sockets.expect("orders", {"state": "shipped"}, seen_by=[bob], unseen_by=[alice])


async def test_support_sees_every_order_as_long_as_it_is_support(tracker, livedocs_server, livedocs_sockets):
    sam = await livedocs_sockets.connect(livedocs_server.oauth.person("sam", groups=["support"]))
    number = await tracker.place(LAMP)
    await sam.join(number)
    livedocs_server.oauth.set_groups("sam", [])
    await sam.expect("$revoked", {"uuid": number})
    await tracker.ship(number, "P-1")
    await sam.expect_nothing()


async def test_a_customer_cannot_change_an_order(tracker, livedocs_server):
    number = await tracker.place(LAMP)
    answer = livedocs_server.http("alice").patch(f"/v1/docs/orders/{number}", json={"price": 0})
    assert answer.json()["code"] == "forbidden"


async def test_an_order_that_was_shipped_is_not_cancelled(tracker, livedocs_sockets):
    alice = await livedocs_sockets.connect("alice")
    number = await tracker.place(LAMP)
    await alice.join(number)
    await tracker.cancel(number)
    await alice.expect("orders", {"state": "cancelled"})
    await tracker.ship(number, "P-1")
    with pytest.raises(AlreadyShipped):
        await tracker.cancel(number)
    await alice.expect("orders", {"state": "shipped"})
    await alice.expect_nothing()


async def test_yesterdays_orders_come_in_one_go_and_a_bad_one_holds_none_up(tracker, livedocs_server):
    orders = [Order(f"customer-{number}", "lamp", Decimal128("19.90")) for number in range(1500)]
    orders[700] = Order("\x00", "lamp", Decimal128("19.90"))
    results = await tracker.place_all(orders)
    assert [number for number, result in enumerate(results) if result.error] == [700]
    assert results[700].error.code == "invalid_subject"
    assert livedocs_server.database().orders.count_documents({}) == 1499


async def test_the_states_of_an_order_are_followed(tracker):
    number = await tracker.place(LAMP)
    states = tracker.states(number)
    async with asyncio.timeout(10):
        assert await anext(states) == "placed"
        await tracker.ship(number, "P-1")
        assert await anext(states) == "shipped"
    await states.aclose()


def test_the_command_does_it_too(livedocs_server, credentials, livedocs_blocking_sockets):
    """A process of its own, which gets its token from the OAuth service over HTTP."""

    def run(*arguments):
        environ = {
            **os.environ,
            "DOCUMENTS_URL": livedocs_server.url,
            "OAUTH_ISSUER": livedocs_server.oauth.issuer,
            "OAUTH_CLIENT_ID": credentials[0],
            "OAUTH_CLIENT_SECRET": credentials[1],
        }
        command = [sys.executable, "-m", "order_tracker", *arguments]
        folder = Path(__file__).parents[1] / "src"
        done = subprocess.run(
            command, cwd=folder, env=environ, capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout.strip()

    number = UUID(run("place", "alice", "lamp", "19.90"))
    alice = livedocs_blocking_sockets.connect("alice")
    alice.join(number)
    run("ship", str(number), "P-1")
    alice.expect("orders", {"state": "shipped"})
