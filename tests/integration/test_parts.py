"""A part of a running server dies: the process stays, says that it is not ready, and goes on."""

from __future__ import annotations

import asyncio

import pytest

from livedocs.app import Server


@pytest.fixture
async def running(deployment, free_ports):
    [port] = free_ports(1)
    url = f"http://localhost:{port}"
    settings = deployment.settings(bind=f"127.0.0.1:{port}", public_url=url, allowed_origins=url)
    server, stop = Server(settings), asyncio.Event()
    task = asyncio.create_task(server.run(stop.wait))
    await asyncio.wait_for(server._ready(), 30)
    yield server
    stop.set()
    await asyncio.wait_for(task, 30)


async def test_a_feed_that_dies_is_started_again_and_has_everybody_begin_anew(running, mongo, deployment):
    gaps, taken, real = [], asyncio.Event(), running._feed._told_at_once
    down = []

    def fail(batch):
        running._feed._told_at_once = watched
        raise ZeroDivisionError

    def watched(batch):
        taken.set()
        return real(batch)

    def gap(reason, tenant=None):
        down.append(running._parts._down.copy())
        gaps.append((reason, tenant))

    running._feed._listener.gap = gap
    running._feed._told_at_once = fail
    notes = mongo[deployment.databases["acme"]]["notes"]
    await notes.insert_one({"n": 1})
    async with asyncio.timeout(20):
        while not gaps:
            await asyncio.sleep(0.01)
            down.append(running._parts._down.copy())
    assert {"changes"} in down
    assert gaps == [("history_lost", None)]
    assert running._parts.running()
    value = running.metrics.registry.get_sample_value("livedocs_part_restarts_total", {"part": "changes"})
    assert value == 1
    await notes.insert_one({"n": 2})
    async with asyncio.timeout(20):
        await taken.wait()
