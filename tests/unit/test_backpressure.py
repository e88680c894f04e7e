"""Bodies are taken from the network as they are read, and what a request holds is given back at its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from livedocs.access.budgets import BytesInFlight
from livedocs.access.principal import Principal
from livedocs.errors import TooManyBytes
from livedocs.http import backpressure
from livedocs.http.backpressure import Pace, paced
from livedocs.telemetry import Metrics

KIB = 2**10
ALICE = Principal(
    "acme", "user:alice", "Alice", frozenset(), frozenset(), datetime(2030, 1, 1, tzinfo=UTC), "page", "t1"
)


@dataclass
class Budgets:
    max_bytes_in_flight_per_user: int = 100 * KIB
    max_bytes_in_flight_per_tenant: int = 200 * KIB


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_message_is_taken_ahead_of_its_reader_and_no_other():
    received = 0

    async def receive():
        nonlocal received
        received += 1
        return {"type": "http.request", "body": bytes(KIB), "more_body": True}

    async def app(scope, receive, send):
        pace = scope[backpressure._KEY]
        assert isinstance(pace, Pace)

        async def read_all():
            while True:
                await receive()

        reading = asyncio.create_task(read_all())
        await settle()
        assert received == 1
        for taken in range(2, 5):
            pace.taken(KIB)
            await settle()
            assert received == taken
        reading.cancel()

    await paced(app, BytesInFlight(Budgets(), Metrics()))({"type": "http"}, receive, None)
    assert received == 4


async def test_a_peer_that_goes_is_noticed_while_its_request_has_no_body():
    messages = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    async def app(scope, receive, send):
        assert [(await receive())["type"] for _ in range(2)] == ["http.request", "http.disconnect"]

    await paced(app, BytesInFlight(Budgets(), Metrics()))({"type": "http"}, receive, None)


@pytest.mark.parametrize("error", [None, ValueError], ids=["well", "badly"])
async def test_what_a_request_holds_is_given_back_however_it_ends(error):
    budgets = BytesInFlight(Budgets(), Metrics())

    async def app(scope, receive, send):
        scope[backpressure._KEY].hold(ALICE).grow(100 * KIB)
        with pytest.raises(TooManyBytes):
            budgets.hold(ALICE, 1)
        if error is not None:
            raise error

    try:
        await paced(app, budgets)({"type": "http"}, None, None)
    except ValueError:
        assert error is not None
    budgets.hold(ALICE, 100 * KIB)
