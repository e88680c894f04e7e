"""Floods of what is no event, on a server of its own."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

MIB = 2**20


async def flood(made, packet, most):
    """Send so many of a packet, or as many as the server takes, and read nothing."""
    with contextlib.suppress(ConnectionError):
        for _ in range(most):
            await made.send(packet)


async def test_refused_namespaces_that_nobody_reads_cost_nothing_before_anybody_is_known(server, wire, look):
    """796 MB in 4 s, of a peer that had not said who it was."""
    made, seen = await wire(), look(server)
    memory = seen.resident()
    await flood(made, "40/" + "x" * 60_000 + ",", 2_000)
    assert seen.resident() - memory < 8 * MIB


@pytest.fixture(scope="module")
def strict(start_server):
    """Takes one event of a socket's, and then none for a long time."""
    return start_server(limit_events_per_user=0.01, limit_burst=1)


@pytest.mark.parametrize(
    ("user", "packet"),
    [("alice", "2"), ("bob", "3"), ("ada", "6"), ("carol", "430[]")],
    ids=["ping", "pong", "noop", "ack"],
)
async def test_what_is_no_event_counts_as_one(strict, wire, user, packet):
    made = await wire(user, "40", at=strict)
    # One that is taken, a hundred that are not, and the one too many.
    for _ in range(102):
        await made.send(packet)
    assert b"rate_limited" in await made.rest()


@pytest.mark.parametrize("packet", ["2", "6", "430[]"], ids=["ping", "noop", "ack"])
async def test_whoever_talks_of_other_things_than_connect_is_out(server, wire, packet):
    made = await wire("alice")
    for _ in range(11):
        await made.send(packet)
    async with asyncio.timeout(2):
        await made.rest()


async def test_a_namespace_that_does_not_exist_is_refused_and_the_right_one_still_opens(server, wire):
    made = await wire("alice")
    await made.send("40/admin,")
    assert (await made.text()).startswith("44/admin,")
    await made.send("40")
    assert (await made.text()).startswith("40")
