"""The gate can fail: what it measures is what it says, and each bar is one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from stall.figures import MIB, BarMissed, Figures
from stall.stage import Watcher
from stall.worst import SHAPES, bodies

from livedocs.demo.leash import leashed

# A server with an event loop that computes for a while on one signal, and only stands still on another.
SERVER = """
import asyncio, signal, sys, time
from websockets.asyncio.server import serve

async def talk(socket):
    async for message in socket:
        await socket.send('40{"sid":"x"}')

def compute():
    end = time.process_time() + 0.15
    while time.process_time() < end:
        pass

async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, compute)
    loop.add_signal_handler(signal.SIGUSR2, time.sleep, 0.3)
    async with serve(talk, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def server():
    process = subprocess.Popen(leashed([sys.executable, "-c", SERVER], signal.SIGKILL), stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    process.kill()
    process.communicate()


async def after(server, name, what, least):
    """What the probe says once that figure has been reached after the signal."""
    process, port = server
    probe = Watcher("probe.py", port, "token", process.pid)
    try:
        await probe.ask("mark")
        os.kill(process.pid, name)
        async with asyncio.timeout(20):
            while True:
                found = await probe.ask("report")
                assert found is not None
                if found[what] >= least:
                    return found
    finally:
        probe.stop()


async def test_a_loop_that_computes_is_seen_by_its_cpu(server):
    found = await after(server, signal.SIGUSR1, "cpu_between_ticks", 0.14)
    assert found["cpu_between_ticks"] < 0.25


async def test_a_loop_that_only_waits_has_used_no_cpu(server):
    found = await after(server, signal.SIGUSR2, "longest_wait", 0.25)
    assert found["cpu_between_ticks"] < 0.05


GOOD = Figures("x", cpu=0.05, wait=9, memory=64 * MIB, users=1, late=0.25, events=9, total_cpu=9, seconds=9)


@pytest.mark.parametrize(
    ("figures", "faults"),
    [
        (GOOD, 0),
        (replace(GOOD, cpu=0.051), 1),
        (replace(GOOD, memory=64 * MIB + 1), 1),
        (replace(GOOD, memory=128 * MIB, users=2), 0),
        # A tenant's share is four users'.
        (replace(GOOD, memory=257 * MIB, users=9), 1),
        (replace(GOOD, memory=65 * MIB, allowed_memory=70 * MIB), 0),
        (replace(GOOD, late=0.251), 1),
        (replace(GOOD, died=True), 1),
        (replace(GOOD, cpu=1, late=1), 2),
    ],
)
def test_each_bar_is_one(figures, faults):
    assert len(figures.faults) == faults


@pytest.mark.parametrize("name", SHAPES)
def test_a_hostile_body_is_as_large_as_was_asked_for(name):
    assert 0.8 * MIB <= len(SHAPES[name](MIB)) <= 1.01 * MIB


def test_a_hostile_body_is_made_for_every_place_of_an_example():
    example = {"items": [{"document": {"a": 1}, "uuid": "x"}], "n": 1}
    named = [name for name, _ in bodies(example, 1000)]
    assert {"many items.0", "names in items.0.document", "names in items.0.document.a", "names in n"} <= set(named)


@pytest.fixture
def gate(request):
    """The gate's conftest, as pytest has loaded it."""
    path = str(Path(__file__).with_name("conftest.py"))
    return next(one for one in request.config.pluginmanager.get_plugins() if getattr(one, "__file__", "") == path)


@pytest.mark.parametrize(("misses", "measured"), [(0, 1), (2, 3), (99, 3)])
def test_what_misses_a_bar_is_measured_three_times_at_most(gate, misses, measured):
    seen = []

    def case(name):
        seen.append(name)
        if len(seen) <= misses:
            raise BarMissed(name)

    item = SimpleNamespace(obj=case, funcargs={"name": "a case", "fixture": "of no concern"})
    if misses < measured:
        assert gate.pytest_pyfunc_call(item)
    else:
        with pytest.raises(BarMissed):
            gate.pytest_pyfunc_call(item)
    assert seen == ["a case"] * measured


def test_a_failure_of_another_kind_is_not_measured_again(gate):
    seen = []

    def case():
        seen.append(None)
        raise AssertionError

    with pytest.raises(AssertionError):
        gate.pytest_pyfunc_call(SimpleNamespace(obj=case, funcargs={}))
    assert len(seen) == 1
