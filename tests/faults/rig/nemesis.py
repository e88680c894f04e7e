"""What goes wrong during a run. Each fault mends what it broke before it ends."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from pymongo.errors import PyMongoError

from livedocs import config
from livedocs.model import Tenant
from livedocs.store.connection import connect
from livedocs.store.tenants import Tenants
from rig.deployment import INTERVAL, Deployment
from rig.groups import INTERVALS
from rig.imports import WHYS, Importer
from rig.people import Person
from rig.provider import Mode
from rig.recording import Connection, Fault, Recording, Who
from rig.wire import Refused, Wire

GROUPS = ("staff", "crew")
"""What people may be in."""
_MOVES = 8

Act = Callable[["Nemesis"], Awaitable[str]]


class Nemesis:
    """Strikes one fault after another and writes down when.

    Args:
        people: some of them are made to stall.
        fat: writes a lot into one room, so that who does not read falls behind.
    """

    def __init__(
        self,
        deployment: Deployment,
        recording: Recording,
        people: Sequence[Person],
        rng: random.Random,
        fat: Callable[[], Awaitable[None]],
    ) -> None:
        self.deployment = deployment
        self.recording = recording
        self.people = people
        self.rng = rng
        self.fat = fat

    async def strike(self, name: str) -> None:
        """Let one fault happen, from its beginning to its mending."""
        began = time.monotonic()
        detail = await FAULTS[name](self)
        self.recording.faults.append(Fault(name, began, time.monotonic(), detail))


async def kill_primary(nemesis: Nemesis) -> str:
    """Power cut of the primary."""
    primary = await nemesis.deployment.primary()
    primary.kill()
    await nemesis.deployment.primary()
    await asyncio.sleep(nemesis.rng.uniform(0.5, 2))
    await nemesis.deployment.restart_members([primary])
    return str(primary.port)


async def freeze_primary(nemesis: Nemesis) -> str:
    """The primary hangs, with its connections open; another is elected, and then it is back."""
    primary = await nemesis.deployment.primary()
    primary.pause()
    try:
        await asyncio.sleep(nemesis.rng.uniform(5, 8))
    finally:
        primary.resume()
    await nemesis.deployment.primary()
    return str(primary.port)


async def step_down(nemesis: Nemesis) -> str:
    """A planned election."""
    primary = await nemesis.deployment.primary()

    def ask() -> None:
        with primary.client() as client, suppress(PyMongoError):
            client.admin.command("replSetStepDown", 5, force=True)

    await asyncio.to_thread(ask)
    await nemesis.deployment.primary()
    return str(primary.port)


async def lose_majority(nemesis: Nemesis) -> str:
    """Two of three members are gone for a while."""
    primary = await nemesis.deployment.primary()
    others = [member for member in nemesis.deployment.mongodb.members if member is not primary]
    for member in others:
        member.kill()
    await asyncio.sleep(nemesis.rng.uniform(4, 7))
    await nemesis.deployment.restart_members(others)
    return str(primary.port)


async def kill_server(nemesis: Nemesis) -> str:
    """A server process crashes in the middle of a batch and is started again."""
    process = nemesis.rng.choice(nemesis.deployment.processes)
    await nemesis.fat()
    if process.workers > 1 and nemesis.rng.random() < 0.5:
        process.kill_worker(nemesis.rng)
        await process.ready()
        return f"{process.label}, one worker"
    process.kill()
    await asyncio.sleep(nemesis.rng.uniform(0.2, 1))
    process.spawn()
    await process.ready()
    return process.label


async def freeze_server(nemesis: Nemesis) -> str:
    """A server process hangs for a while."""
    process = nemesis.rng.choice(nemesis.deployment.processes)
    process.pause()
    try:
        await asyncio.sleep(nemesis.rng.uniform(1, 3))
    finally:
        process.resume()
    return process.label


async def cut_sockets(nemesis: Nemesis) -> str:
    """Every connection to one process is cut, and stays so for a moment."""
    process = nemesis.rng.choice(nemesis.deployment.processes)
    process.link.cut()
    await asyncio.sleep(nemesis.rng.uniform(0.2, 1))
    process.link.mend()
    return process.label


async def stall_sockets(nemesis: Nemesis) -> str:
    """Nothing comes through to or from one process, and nobody is told."""
    process = nemesis.rng.choice(nemesis.deployment.processes)
    process.link.stall()
    await asyncio.sleep(nemesis.rng.uniform(1, 4))
    process.link.mend()
    return process.label


async def cut_stream(nemesis: Nemesis) -> str:
    """The primary ends the connections of the change streams."""
    data = {"failCommands": ["getMore", "aggregate"], "closeConnection": True, "appName": "livedocs-stream"}
    with suppress(PyMongoError):
        await nemesis.deployment.fail_point("failCommand", {"times": nemesis.rng.randrange(1, 12)}, data)
    await asyncio.sleep(2)
    await _off(nemesis, "failCommand")
    return ""


async def stall_reads(nemesis: Nemesis) -> str:
    """The primary answers the servers late: joins hang in the middle, streams are behind."""
    data = {
        "failCommands": ["find", "getMore", "aggregate"],
        "blockConnection": True,
        "blockTimeMS": nemesis.rng.randrange(200, 1500),
        "appName": nemesis.rng.choice(["livedocs", "livedocs-stream"]),
    }
    with suppress(PyMongoError):
        await nemesis.deployment.fail_point("failCommand", "alwaysOn", data)
    await asyncio.sleep(nemesis.rng.uniform(2, 4))
    await _off(nemesis, "failCommand")
    return str(data["appName"])


async def fail_reads(nemesis: Nemesis) -> str:
    """getMore fails on the server side, as while members change their state."""
    code = nemesis.rng.choice([6, 43, 91, 189, 262, 11602, 13436])
    with suppress(PyMongoError):
        await nemesis.deployment.fail_point(
            "failGetMoreAfterCursorCheckout", {"times": nemesis.rng.randrange(1, 6)}, {"errorCode": code}
        )
    await asyncio.sleep(2)
    await _off(nemesis, "failGetMoreAfterCursorCheckout")
    return str(code)


async def lose_history(nemesis: Nemesis) -> str:
    """The oplog no longer holds the position of the streams."""
    data = {
        "failCommands": ["getMore"],
        "errorCode": 286,
        "errorLabels": ["NonResumableChangeStreamError"],
        "appName": "livedocs-stream",
    }
    with suppress(PyMongoError):
        await nemesis.deployment.fail_point("failCommand", "alwaysOn", data)
    # Long enough for every process to ask once.
    await asyncio.sleep(0.5)
    await _off(nemesis, "failCommand")
    return ""


async def _off(nemesis: Nemesis, name: str) -> None:
    """Switch a fail point off, on whichever member it was set."""
    for member in nemesis.deployment.mongodb.members:

        def switch(member: Any = member) -> None:
            with suppress(PyMongoError), member.client(timeout=3) as client:
                client.admin.command({"configureFailPoint": name, "mode": "off"})

        await asyncio.to_thread(switch)


async def stall_client(nemesis: Nemesis) -> str:
    """A client reads nothing while its room is busy."""
    ready = [person for person in nemesis.people if person.wire is not None and person.inside]
    if not ready:
        return "nobody"
    person = nemesis.rng.choice(ready)
    wire = person.wire
    assert wire is not None
    person.stalled = True
    wire.stop_reading()
    try:
        for _ in range(6):
            await nemesis.fat()
        await asyncio.sleep(nemesis.rng.uniform(0.5, 2))
    finally:
        wire.read_on()
        person.stalled = False
    return str(wire.connection.number)


def _provider(mode: Mode) -> Act:
    async def trouble(nemesis: Nemesis) -> str:
        provider = nemesis.deployment.provider
        await provider.set(mode)
        try:
            await _nobody_new(nemesis, mode)
            await asyncio.sleep(nemesis.rng.uniform(1, 3))
        finally:
            await provider.set("good")
        return ""

    trouble.__doc__ = f"The introspection service: {mode}."
    return trouble


async def _nobody_new(nemesis: Nemesis, mode: str) -> None:
    """A token that nobody has asked about yet gets no one in while nobody can be asked."""
    deployment = nemesis.deployment
    token = deployment.provider.token("acme", "user:stranger")
    for process in deployment.processes:
        connection = Connection(0, Who("acme", "user:stranger"), process.label, 0.0)
        try:
            wire = await Wire.open(process.port, token, connection, lambda _: None)
        except Refused as refused:
            if "503" not in str(refused) and process.running:
                nemesis.recording.complaints.append(f"provider {mode}: {process.label} answered {refused}")
        else:
            nemesis.recording.complaints.append(f"provider {mode}: {process.label} let somebody in")
            await wire.close()


async def new_tenant(nemesis: Nemesis) -> str:
    """A tenant is registered: the streams are opened again with it, without losing their place."""
    deployment = nemesis.deployment
    client = connect(config.load(deployment.environ(deployment.processes[0].port)))
    slug = f"extra-{nemesis.rng.randrange(10**9)}"
    try:
        await Tenants(client, deployment.control).create(
            Tenant(slug, f"{deployment.control}_{slug}", {"notes": "_id"})
        )
    except Exception as error:  # noqa: BLE001 - registered next time
        return type(error).__name__
    finally:
        await client.close()
    return slug


async def change_groups(nemesis: Nemesis) -> str:
    """The provider takes some out of a group and puts others into one; then that gets the time it may take."""
    moves = []
    for person in nemesis.rng.sample(list(nemesis.people), len(nemesis.people)):
        if len(moves) == _MOVES:
            break
        if person.groups:
            group = nemesis.rng.choice(person.groups)
            person.leave(group)
            moves.append(f"-{group}")
        else:
            group = nemesis.rng.choice(GROUPS)
            person.enter(group)
            moves.append(f"+{group}")
    await asyncio.sleep(INTERVALS * INTERVAL + 3)
    return " ".join(moves)


async def cut_imports(nemesis: Nemesis) -> str:
    """Imports run while their token is revoked, their user leaves the group, their tenant is suspended."""
    deployment, number = nemesis.deployment, nemesis.rng.randrange(10**9)
    answers = await asyncio.gather(
        *(
            Importer(deployment, nemesis.recording, why, f"import{number}{why}").run(
                nemesis.rng.choice(deployment.processes)
            )
            for why in WHYS
        )
    )
    return ", ".join(answers)


FAULTS: dict[str, Act] = {
    "kill_primary": kill_primary,
    "freeze_primary": freeze_primary,
    "step_down": step_down,
    "lose_majority": lose_majority,
    "kill_server": kill_server,
    "freeze_server": freeze_server,
    "cut_sockets": cut_sockets,
    "stall_sockets": stall_sockets,
    "cut_stream": cut_stream,
    "stall_reads": stall_reads,
    "fail_reads": fail_reads,
    "lose_history": lose_history,
    "stall_client": stall_client,
    "provider_gone": _provider("gone"),
    "provider_error_500": _provider("error_500"),
    "provider_slow": _provider("slow"),
    "provider_wrong_shape": _provider("wrong_shape"),
    "new_tenant": new_tenant,
    "change_groups": change_groups,
    "cut_imports": cut_imports,
}
