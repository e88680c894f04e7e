"""A subscription outlives the server that it is connected to."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from livedocs.client import Change, Client, Retries

QUICK = Retries(first=0.02)


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_each_change_comes_once_when_another_server_takes_over(start_server, link_to, end):
    first, second = start_server(), start_server()
    link = await link_to(first.url)
    note, found = uuid4(), []

    async def write():
        async with Client(second.url, second.token("acme-service"), retries=QUICK) as service:
            for number in range(1, 31):
                await service.documents.merge("notes", note, {"n": number})
                if number == 15:
                    link.target = second.url
                    await asyncio.to_thread(getattr(first, end))

    async with Client(second.url, second.token("acme-service"), retries=QUICK) as service:
        await service.documents.upsert("notes", note, {"n": 0}, grants={"user:alice": "reader"})
    async with (
        Client(link.url, first.token("alice"), retries=QUICK) as alice,
        alice.subscribe([note]) as events,
        asyncio.timeout(30),
    ):
        await anext(events)
        writing = asyncio.create_task(write())
        while len(found) < 30:
            found.append(await anext(events))
        await writing
    assert all(isinstance(event, Change) for event in found)
    assert [event.fields["n"] for event in found] == list(range(1, 31))
    assert link.opened > 1
