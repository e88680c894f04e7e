"""A server under attack: the programs that measure it, the callers, their data."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
from bson.binary import Binary
from pymongo import MongoClient

from livedocs.demo.leash import leashed
from livedocs.demo.mongod import MongodError
from stall.crowd import Crowd
from stall.figures import FIGURES, BarMissed, Figures
from stall.http import Reply, send

_HERE = Path(__file__).parent
_CONTROL_SECONDS = 3.0
_LEAST_SECONDS = 0.5
_ATTEMPTS = 3
# What stays behind in memory hides what the next case takes: then it is a new process's turn.
_LEFT_BEHIND = 24 * 2**20


class Watcher:
    """One of the programs that measure."""

    def __init__(self, program: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            leashed([sys.executable, _HERE / program, *map(str, arguments)], signal.SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    async def ask(self, command: str) -> dict[str, float] | None:
        """A command and its answer; None when it has ended, as it does with the server."""
        return await asyncio.to_thread(self._ask, command)

    def _ask(self, command: str) -> dict[str, float] | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(command.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self._process.stdout.readline()
        found: dict[str, float] | None = json.loads(line) if line else None
        return found

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@dataclass
class Attack:
    """A case under way. `note` stands in the table."""

    note: str = ""


class Stage:
    """A server, who measures it, and what attacks need.

    Args:
        deployment: its databases.
        start_server: starts one more.
    """

    def __init__(self, deployment: Any, start_server: Callable[[], Any]) -> None:
        self.deployment = deployment
        self._start_server = start_server
        self.server: Any = None
        self.mongo: MongoClient[dict[str, Any]] = MongoClient(
            deployment.uri, uuidRepresentation="standard", tz_aware=True
        )
        self.control = self.mongo[deployment.control_database]
        self.acme = self.mongo[deployment.databases["acme"]]
        self.globex = self.mongo[deployment.databases["globex"]]
        self._watchers: list[Watcher] = []
        self._tokens: dict[str, str] = {}
        self._room = uuid4()
        self._quiet = 0.0
        self._usual = 0.0
        self.crowds: list[Crowd] = []

    # -- the server and who measures it --

    async def start(self) -> None:
        """Start everything and take the control run."""
        self.globex.notes.insert_one({"_id": self._room, "n": 0})
        self.grant(self._room, "user:carol", tenant="globex")
        await self._launch()
        await self._ask("mark")
        await asyncio.sleep(_CONTROL_SECONDS)
        probe, neighbour = await self._ask("report")
        assert probe is not None
        assert neighbour is not None
        self._usual = neighbour["p99"] * probe["share"]

    async def _launch(self) -> None:
        # In this thread, whose end would be the server's: it is on the leash of whoever starts it.
        self.server = self._started()
        carol = self.token("carol")
        probe = Watcher("probe.py", self.port, carol, self.server.pid)
        neighbour = Watcher(
            *("neighbour.py", self.port, carol, self.deployment.uri),
            *(self.deployment.databases["globex"], self._room, self.deployment.databases["acme"]),
        )
        self._watchers = [probe, neighbour]
        # Both have connected.
        await self._ask("mark")
        # Whatever is done for the first time is done now.
        for user in ("alice", "ada", "acme-service"):
            await self.request("GET", "/v1/me", user)
            crowd = await self.crowd(user, 1)
            await crowd.call("Check", "x")
            await crowd.close()
        await self.request("POST", "/v1/docs/notes:bulk", "alice", {"items": [{"document": {"n": 1}}]})
        found = await probe.ask("mark")
        assert found is not None
        self._quiet = found["resident"]

    def _started(self) -> Any:
        for _ in range(_ATTEMPTS - 1):
            # On a machine that is very busy it may take longer than tests wait for it.
            with contextlib.suppress(MongodError):
                return self._start_server()
        return self._start_server()

    async def _ask(self, command: str) -> list[dict[str, float] | None]:
        # The neighbour waits until all of its events have come; what they were late by is in the probe's figures.
        neighbour = await self._watchers[1].ask(command)
        return [await self._watchers[0].ask(command), neighbour]

    async def stop(self) -> None:
        """End everything but the server, which whoever started it ends."""
        await self._leave()
        self.mongo.close()

    async def _leave(self) -> None:
        for crowd in self.crowds:
            await crowd.close()
        self.crowds.clear()
        for watcher in self._watchers:
            watcher.stop()
        self._watchers = []

    async def renew(self) -> None:
        """Put a new server process in the place of this one."""
        await self._leave()
        self.server.kill()
        await self._launch()

    @property
    def port(self) -> int:
        """Of the server."""
        found: int = self.server.port
        return found

    # -- measuring --

    async def settled(self, *, keep: bool = False) -> None:
        """Wait until the server has read everything that was written, and does nothing else any more.

        A new process takes its place where much memory has stayed behind, unless `keep` says not to.
        """
        if self.server.process.poll() is not None:
            await self.renew()
        while True:
            await self._ask("mark")
            await asyncio.sleep(0.25)
            probe, _ = await self._ask("report")
            if probe is None:
                await self.renew()
            elif probe["cpu"] < 0.12:
                break
        if probe["resident"] > self._quiet + _LEFT_BEHIND and not keep:
            await self.renew()

    @contextlib.asynccontextmanager
    async def attack(self, name: str, *, users: int = 1, memory: int = 0) -> AsyncIterator[Attack]:
        """Measure what is done inside.

        Args:
            name: of the case.
            users: how many users take part: memory may grow by 64 MiB for each, and 256 MiB for a tenant.
            memory: how many bytes it may grow by instead.
        """
        await self._ask("mark")
        under_way = Attack()
        began = time.monotonic()
        try:
            yield under_way
        finally:
            await asyncio.sleep(max(0.15, _LEAST_SECONDS - (time.monotonic() - began)))
            probe, neighbour = await self._ask("report")
            died = self.server.process.poll() is not None
            probe, neighbour = probe or {}, neighbour or {}
            FIGURES.append(
                Figures(
                    name,
                    cpu=probe.get("cpu_between_ticks", 0),
                    wait=probe.get("longest_wait", 0),
                    memory=int(probe.get("resident_peak", 0) - probe.get("resident_before", 0)),
                    users=users,
                    late=neighbour.get("p99", 60) * probe.get("share", 1.0) - self._usual,
                    share=probe.get("share", 1.0),
                    events=int(neighbour.get("events", 0)),
                    total_cpu=probe.get("cpu", 0),
                    seconds=time.monotonic() - began,
                    died=died or not probe,
                    note=under_way.note,
                    allowed_memory=memory,
                )
            )
            for crowd in self.crowds:
                await crowd.close()
            self.crowds.clear()

    def check(self, name: str) -> None:
        """Hold the last case against the bars."""
        found = FIGURES[-1]
        assert found.name == name
        if found.faults:
            raise BarMissed(f"{name}: {'; '.join(found.faults)}")

    # -- callers --

    def token(self, user: str) -> str:
        """Of somebody of the demo, for the whole run."""
        if user not in self._tokens:
            self._tokens[user] = self.deployment.token(user, ttl=7200)
        return self._tokens[user]

    def forget(self, user: str) -> None:
        """Have a new token made next time."""
        self._tokens.pop(user, None)

    async def request(
        self, method: str, path: str, user: str | None = "alice", body: Any = None, **options: Any
    ) -> Reply:
        """One request on a connection of its own; a body that is no bytes is sent as JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        return await send(self.port, method, path, token=self.token(user) if user else None, body=data, **options)

    async def crowd(self, user: str, count: int, **options: Any) -> Crowd:
        """Sockets of somebody, which are closed at the end of the case."""
        crowd = await Crowd.open(self.port, self.token(user), count, **options)
        self.crowds.append(crowd)
        return crowd

    async def groups(self, user: str, groups: list[str]) -> None:
        """Put somebody into groups at the provider."""
        url = f"http://localhost:{self.deployment.oauth.port}/dev/users/{user}"
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(url, json={"groups": groups})
        assert answer.status_code == 200, answer.text
        self.forget(user)

    # -- data, written past the server --

    def grant(self, uuid: UUID, *subjects: str, role: str = "owner", tenant: str = "acme") -> None:
        """Grants of subjects on a UUID."""
        self._insert_grants([(uuid, subject) for subject in subjects], role, tenant)

    def grant_many(self, uuids: Sequence[UUID], subject: str, *, role: str = "owner") -> None:
        """Grants of one subject on many UUIDs."""
        self._insert_grants([(uuid, subject) for uuid in uuids], role, "acme")

    def _insert_grants(self, keys: Sequence[tuple[UUID, str]], role: str, tenant: str) -> None:
        now = datetime.now(UTC)
        self.control.acl.insert_many(
            [
                {
                    "_id": {"tenant": tenant, "uuid": Binary.from_uuid(uuid), "subject": subject},
                    "role": role,
                    "granted_by": "user:alice",
                    "granted_at": now,
                }
                for uuid, subject in keys
            ],
            ordered=False,
        )

    @staticmethod
    def uuid(text: str) -> UUID:
        """Of its text."""
        return UUID(text)

    @staticmethod
    def binary(uuid: UUID) -> Binary:
        """As it is stored."""
        return Binary.from_uuid(uuid)

    def document(self, *subjects: str, collection: str = "notes", **fields: Any) -> UUID:
        """A document that those may see; alice when nobody is named."""
        uuid = uuid4()
        key = {"_id": uuid} if collection == "notes" else {"uuid": uuid}
        self.acme[collection].insert_one({**key, **fields})
        self.grant(uuid, *(subjects or ("user:alice",)))
        return uuid
