"""The ones at the sockets: each keeps a cursor per room, comes and goes, and returns by another process."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rig.deployment import Deployment, Process
from rig.recording import (
    Answered,
    Asked,
    Connection,
    Delivered,
    Entry,
    Forgery,
    Membership,
    Recording,
    Room,
    Told,
    Who,
)
from rig.wire import Refused, Wire


class Person:
    """One logical client over all its connections.

    Args:
        rooms: the UUIDs it wants to be in.
        numbers: for connections; shared by everyone.
        ttl: of its tokens, seconds; a new one for each connection when that is short.
        heard: the cursors that anybody was given, by room; everybody adds to them.
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
        heard: dict[Room, list[str]] | None = None,
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
        self._heard = {} if heard is None else heard
        self.memberships = [Membership(group) for group in who.groups]
        self._ticket: Any = None
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

    # -- at the OAuth provider --

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups it is in now."""
        return tuple(each.group for each in self.memberships if each.ended is None)

    def leave(self, group: str) -> None:
        """Be taken out of a group."""
        [membership] = [each for each in self.memberships if each.group == group and each.ended is None]
        membership.ended = time.monotonic()
        self._tell()
        # Only now is it certain.
        membership.ended = time.monotonic()

    def enter(self, group: str) -> None:
        """Be put into a group."""
        self.memberships.append(Membership(group, time.monotonic()))
        self._tell()

    def _tell(self) -> None:
        if self._token:
            self._deployment.provider.change(self._token, groups=list(self.groups))

    async def _connect(self, process: Process) -> Wire | None:
        provider = self._deployment.provider
        if not self._token or provider.ends(self._token) < time.time() + 3:
            self._token = provider.token(self._who.tenant, self._who.subject, groups=self.groups, ttl=self._ttl)
        every = tuple({each.group for each in self.memberships})
        who = Who(self._who.tenant, self._who.subject, every, provider.ends(self._token))
        number = next(self._numbers)
        connection = Connection(number, who, process.label_for(number), 0.0)
        connection.memberships = self.memberships
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
        forged, since = self._forge(uuid, since)
        if since is None and rng.random() < 0.3:
            # Several in one call.
            uuids = [uuid, *(other for other in self._rooms if other != uuid and other not in self.inside)]
        await wire.join(
            uuids,
            since=since,
            snapshot=rng.random() < (0.1 if since else 0.5),
            collections=None if since else collections,
            forged=forged,
            ticket=self._ticket,
        )

    def _forge(self, uuid: str, since: str | None) -> tuple[Forgery, str | None]:
        """Now and then, another cursor than one's own."""
        roll = self._rng.random()
        heard = self._heard.get(Room(self._who.tenant, uuid))
        if roll < 0.06 and heard:
            return "borrowed", self._rng.choice(heard)
        if roll < 0.10 and since is not None:
            return "made_up", made_up(since, self._rng)
        return "", since

    async def _fidget(self, wire: Wire) -> None:
        """Now and then leave a room, or join one it is in already."""
        roll = self._rng.random()
        if not self.inside or roll > 0.08:
            return
        uuid = self._rng.choice(list(self.inside))
        if roll < 0.04:
            await wire.leave([uuid])
        else:
            await wire.join([uuid], snapshot=roll < 0.06, ticket=self._ticket)

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
            self._keep(uuid, entry.meta["id"])
            if uuid in self.inside:
                self.inside[uuid] = str(entry.data.get("w", ""))
        elif isinstance(entry, Answered):
            self._answered(entry.body)
        elif isinstance(entry, Told):
            self._told(entry)
        else:
            assert isinstance(entry, Asked)

    def _answered(self, body: Any) -> None:
        self._ticket = body.get("ticket", self._ticket)
        for uuid, given in body.get("joined", {}).items():
            self._keep(uuid, given["cursor"])
            self.inside[uuid] = ""
            self.outside.pop(uuid, None)
        for uuid, refusal in body.get("refused", {}).items():
            self.inside.pop(uuid, None)
            self.outside[uuid] = refusal["code"]
        for uuid in body.get("left", ()):
            self.inside.pop(uuid, None)

    def _told(self, told: Told) -> None:
        if told.name == "$revoked":
            self.inside.pop(told.body["uuid"], None)
        elif told.name == "$resync":
            self._keep(told.body["uuid"], told.body["cursor"])
        elif told.name == "$ticket":
            self._ticket = told.body["ticket"]

    def _keep(self, uuid: str, cursor: str) -> None:
        self.cursors[uuid] = cursor
        heard = self._heard.setdefault(Room(self._who.tenant, uuid), [])
        # Some of all ages.
        if len(heard) < 200:
            heard.append(cursor)
        else:
            heard[self._rng.randrange(200)] = cursor


def made_up(cursor: str, rng: random.Random) -> str:
    """A cursor that no server has given out: an earlier one by the look of it, or one with a wrong end."""
    early = int(time.time()) - rng.randrange(2, 60)
    forms = [f"82{early:08X}00000001FF"]
    place = next((at for at in (1, 2) if cursor[at : at + 8].isalnum()), 1)
    if cursor[place : place + 8].isalnum():
        forms.append(f"{cursor[:place]}{early:08X}{cursor[place + 8 :]}")
    if len(cursor) > 40:
        forms.append(cursor[:-2] + ("00" if cursor[-2:] != "00" else "11"))
    # One that is as old as that has those very seconds.
    return rng.choice([form for form in forms if form != cursor])
