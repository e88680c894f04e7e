"""The ones at the sockets: each keeps a cursor per room, comes and goes, and returns by another process."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence

from rig.deployment import Deployment, Process
from rig.recording import Answered, Asked, Connection, Delivered, Entry, Recording, Told, Who
from rig.wire import Refused, Wire


class Person:
    """One logical client over all its connections.

    Args:
        rooms: the UUIDs it wants to be in.
        numbers: for connections; shared by everyone.
        ttl: of its tokens, seconds; a new one for each connection when that is short.
    """

    def __init__(
        self,
        deployment: Deployment,
        recording: Recording,
        who: Who,
        *,
        rooms: Sequence[str],
        rng: random.Random,
        numbers: Iterator[int],
        ttl: float = 7200,
    ) -> None:
        self._deployment = deployment
        self._recording = recording
        self._who = who
        self._rooms = rooms
        self._rng = rng
        self._numbers = numbers
        self._ttl = ttl
        self._turns = itertools.cycle(deployment.processes)
        for _ in range(rng.randrange(len(deployment.processes))):
            next(self._turns)
        self._token = ""
        self.wire: Wire | None = None
        self.cursors: dict[str, str] = {}
        # What it takes itself to be in now, and the marker it last saw there.
        self.inside: dict[str, str] = {}
        # Where it was refused last time it asked, and why.
        self.outside: dict[str, str] = {}
        self.stalled = False

    async def run(self, stop: asyncio.Event) -> None:
        """Connect, behave, lose the connection, again and again; stay connected once told to stop."""
        while True:
            process = next(self._turns)
            wire = await self._connect(process)
            if wire is None:
                await asyncio.sleep(self._rng.uniform(0.1, 0.4))
                continue
            self.wire = wire
            try:
                await self._stay(wire, stop)
            finally:
                self.inside.clear()
                self.outside.clear()
                await wire.close()

    async def _connect(self, process: Process) -> Wire | None:
        provider = self._deployment.provider
        if not self._token or provider.ends(self._token) < time.time() + 3:
            self._token = provider.token(
                self._who.tenant, self._who.subject, groups=self._who.groups, ttl=self._ttl
            )
        who = Who(self._who.tenant, self._who.subject, self._who.groups, provider.ends(self._token))
        number = next(self._numbers)
        connection = Connection(number, who, process.label_for(number), 0.0)
        try:
            wire = await Wire.open(process.link.port, self._token, connection, self._hear)
        except Refused:
            return None
        self._recording.connections.append(connection)
        return wire

    async def _stay(self, wire: Wire, stop: asyncio.Event) -> None:
        rng = self._rng
        leaves_at = time.monotonic() + rng.expovariate(1 / 12)
        while wire.is_open:
            for uuid in rng.sample(self._rooms, len(self._rooms)):
                if uuid not in self.inside and wire.is_open and not self.stalled:
                    await self._join(wire, uuid)
            if not stop.is_set() and not self.stalled:
                if time.monotonic() > leaves_at:
                    wire.abort("left")
                    return
                await self._fidget(wire)
            await asyncio.sleep(rng.uniform(0.1, 0.5))

    async def _join(self, wire: Wire, uuid: str) -> None:
        rng = self._rng
        since = self.cursors.get(uuid) if rng.random() < 0.85 else None
        collections = ("notes",) if rng.random() < 0.1 else None
        uuids = [uuid]
        if since is None and rng.random() < 0.3:
            # Several in one call.
            uuids = [uuid, *(other for other in self._rooms if other != uuid and other not in self.inside)]
        await wire.join(
            uuids,
            since=since,
            snapshot=rng.random() < (0.1 if since else 0.5),
            collections=None if since else collections,
        )

    async def _fidget(self, wire: Wire) -> None:
        """Now and then leave a room, or join one it is in already."""
        roll = self._rng.random()
        if not self.inside or roll > 0.08:
            return
        uuid = self._rng.choice(list(self.inside))
        if roll < 0.04:
            await wire.leave([uuid])
        else:
            await wire.join([uuid], snapshot=roll < 0.06)

    def has_heard(self, marker: str) -> bool:
        """Whether it is back, and in each of its rooms has seen that change or may not."""
        if self.wire is None or not self.wire.is_open:
            return False
        return all(
            self.inside[uuid] == marker if uuid in self.inside else self.outside.get(uuid) == "forbidden"
            for uuid in self._rooms
        )

    def _hear(self, entry: Entry) -> None:
        if isinstance(entry, Delivered):
            uuid = entry.data["uuid"]
            self.cursors[uuid] = entry.meta["id"]
            if uuid in self.inside:
                self.inside[uuid] = str(entry.data.get("w", ""))
        elif isinstance(entry, Answered):
            for uuid, given in entry.body.get("joined", {}).items():
                self.cursors[uuid] = given["cursor"]
                self.inside[uuid] = ""
                self.outside.pop(uuid, None)
            for uuid, refusal in entry.body.get("refused", {}).items():
                self.inside.pop(uuid, None)
                self.outside[uuid] = refusal["code"]
            for uuid in entry.body.get("left", ()):
                self.inside.pop(uuid, None)
        elif isinstance(entry, Told):
            if entry.name == "$revoked":
                self.inside.pop(entry.body["uuid"], None)
            elif entry.name == "$resync":
                self.cursors[entry.body["uuid"]] = entry.body["cursor"]
        else:
            assert isinstance(entry, Asked)
