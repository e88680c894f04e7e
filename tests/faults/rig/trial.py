"""One run: load, people, faults; then peace, the truth, and the verdict."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from bson import Binary
from pymongo import WriteConcern
from pymongo.errors import PyMongoError

from rig import truth
from rig.checker import Verdict, check
from rig.cursors import opened, sealing
from rig.deployment import COLLECTIONS, INTERVAL, TENANTS, Deployment
from rig.load import Granter, Writer
from rig.nemesis import GROUPS, Nemesis
from rig.people import Person
from rig.recording import Recording, Room, Who
from rig.world import World

# Seconds until everyone is back after the last fault, at most.
_PATIENCE = 45.0
_USERS = 5


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is going on. Rates are a second, for one writer or granter of one tenant."""

    rooms: int = 6
    people: int = 12
    writers: int = 2
    writes: float = 25.0
    grants: float = 4.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run recorded, the truth about it, and what came of the comparison."""

    recording: Recording
    world: World
    verdict: Verdict


class Trial:
    """A run on a deployment that is up. Its UUIDs are new ones, the same in both tenants.

    Args:
        seed: decides the load, the people's behaviour and the faults' details; not the machine's timing.
    """

    def __init__(self, deployment: Deployment, seed: str, sizes: Sizes = Sizes()) -> None:
        self._deployment = deployment
        self._sizes = sizes
        self._rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._rooms = [UUID(int=self._rng.getrandbits(128), version=4) for _ in range(sizes.rooms)]
        self.recording = Recording(epoch=time.time() - time.monotonic(), interval=INTERVAL)

    async def run(self, faults: Sequence[str], *, pause: float = 1.0) -> Outcome:
        """Strike these faults one after the other under load, then check everything."""
        deployment = self._deployment
        with deployment.blocking_client() as client:
            begin = await asyncio.to_thread(truth.now, client)
            people, writers, granters = self._cast()
            for granter in granters:
                await granter.grant_all(0.6)
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                present = [group.create_task(person.run(stop)) for person in people]
                load = [group.create_task(writer.run(stop, self._sizes.writes)) for writer in writers]
                load += [group.create_task(granter.run(stop, self._sizes.grants)) for granter in granters]
                nemesis = Nemesis(deployment, self.recording, people, self._rng, self._fat)
                await asyncio.sleep(2 * pause)
                for name in faults:
                    await nemesis.strike(name)
                    await asyncio.sleep(pause)
                stop.set()
                await asyncio.wait(load)
                await self._settle(people)
                for task in present:
                    task.cancel()
            end = await asyncio.to_thread(truth.now, client)
            databases = {deployment.control: None} | {name: slug for slug, name in deployment.databases.items()}
            commits = await asyncio.to_thread(truth.read, client, begin, end, databases, ["acl", *COLLECTIONS])
            # The oplog knows positions, the recording cursors.
            self.recording = opened(self.recording, sealing(client[deployment.control]["keys"]))
        world = World(commits, COLLECTIONS)
        return Outcome(self.recording, world, check(self.recording, world))

    def _cast(self) -> tuple[list[Person], list[Writer], list[Granter]]:
        rng, sizes = self._rng, self._sizes
        numbers = itertools.count(1)
        names = [str(room) for room in self._rooms]
        people: list[Person] = []
        writers: list[Writer] = []
        granters: list[Granter] = []
        heard: dict[Room, list[str]] = {}
        for tenant in TENANTS:
            subjects = [*(f"user:u{number}" for number in range(_USERS)), *(f"group:{name}" for name in GROUPS)]
            for index in range(sizes.people):
                groups = tuple(name for name in GROUPS if rng.random() < 0.3)
                who = Who(tenant, f"user:u{index % _USERS}", groups)
                wanted = rng.sample(names, max(1, len(names) * 2 // 3))
                ttl = 15 if index == 0 else 7200
                own = random.Random(rng.getrandbits(64))  # noqa: S311
                people.append(
                    Person(
                        self._deployment,
                        self.recording,
                        who,
                        rooms=wanted,
                        rng=own,
                        numbers=numbers,
                        ttl=ttl,
                        heard=heard,
                    )
                )
            for index in range(sizes.writers):
                own = random.Random(rng.getrandbits(64))  # noqa: S311
                writers.append(
                    Writer(
                        self._deployment,
                        self.recording,
                        tenant=tenant,
                        rooms=self._rooms,
                        rng=own,
                        name=f"{tenant}{index}",
                    )
                )
            own = random.Random(rng.getrandbits(64))  # noqa: S311
            granters.append(
                Granter(
                    self._deployment,
                    self.recording,
                    tenant=tenant,
                    rooms=self._rooms,
                    subjects=[*subjects, "tenant:*"],
                    rng=own,
                )
            )
        return people, writers, granters

    async def _fat(self) -> None:
        """A burst of large changes, so that a batch takes time and who does not read falls behind."""
        text = "x" * 60_000
        for slug, database in self._deployment.databases.items():
            notes = self._deployment.client[database]["notes"]
            for number, room in enumerate(self._rooms):
                try:
                    await notes.update_one(
                        {"_id": Binary.from_uuid(room)},
                        {"$set": {"w": f"fat:{slug}:{number}:{time.monotonic()}", "fat": text}},
                    )
                    await notes.update_one({"_id": Binary.from_uuid(room)}, {"$unset": {"fat": 1}})
                except PyMongoError:
                    pass

    async def _settle(self, people: Sequence[Person]) -> None:
        """Mend everything, have everyone back in, and wait until a last change has reached them all."""
        deployment = self._deployment
        for process in deployment.processes:
            process.link.mend()
            try:
                await process.ready()
            except TimeoutError:
                self.recording.complaints.append(f"{process.label} is not ready again after the last fault")
        deadline = time.monotonic() + _PATIENCE
        for number in itertools.count():
            marker = f"end:{number}"
            await self._mark(marker)
            # Who came in behind this one's commit is told of the next.
            turn = time.monotonic() + 3
            while late := [person for person in people if not person.has_heard(marker)]:
                if time.monotonic() > turn:
                    break
                await asyncio.sleep(0.05)
            if not late:
                return
            if time.monotonic() > deadline:
                names = [(person.wire and person.wire.connection.number, person.outside) for person in late]
                self.recording.complaints.append(f"not everyone is back and was told of the last change: {names}")
                return

    async def _mark(self, marker: str) -> None:
        majority = WriteConcern("majority")
        for database in self._deployment.databases.values():
            notes: Any = self._deployment.client[database].get_collection("notes", write_concern=majority)
            for room in self._rooms:
                await notes.replace_one({"_id": Binary.from_uuid(room)}, {"w": marker}, upsert=True)
