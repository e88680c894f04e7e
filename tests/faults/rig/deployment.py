"""Everything real in a run: a replica set, an introspection service, server processes, links to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx
from pymongo import AsyncMongoClient, MongoClient

from livedocs import config
from livedocs.demo.leash import leashed
from livedocs.demo.replicaset import ReplicaSet
from livedocs.model import Tenant
from livedocs.store import migrate
from livedocs.store.connection import connect
from livedocs.store.tenants import Tenants
from rig.link import Link
from rig.provider import AUDIENCE, HOST, Provider

TENANTS = ("acme", "globex")
IMPORTING = "initech"
"""A tenant that nobody is connected to, so that it can be suspended."""
INTERVAL = 5
"""`introspection_interval`, seconds."""
COLLECTIONS: Mapping[str, Literal["_id", "uuid"]] = {"notes": "_id", "test": "uuid"}
_READY = 60.0
_OPTIONS: Mapping[str, Any] = {
    "tz_aware": True,
    "uuidRepresentation": "standard",
    "serverSelectionTimeoutMS": 4000,
    "socketTimeoutMS": 6000,
    "connectTimeoutMS": 2000,
    "heartbeatFrequencyMS": 1000,
}


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses, below the range of outgoing connections."""
    found: set[int] = set()
    while len(found) < count:
        port = random.randint(20000, 32000)  # noqa: S311
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)):
                found.add(port)
    return list(found)


@dataclass
class Process:
    """One `livedocs serve`, over all its incarnations on one port."""

    name: str
    port: int
    environ: Mapping[str, str]
    log: Path
    link: Link
    workers: int = 1
    incarnation: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """The name of this incarnation."""
        return f"{self.name}{self.incarnation}"

    def label_for(self, connection: int) -> str:
        """The name of what a connection reaches; nobody outside knows which of several workers that is."""
        return self.label if self.workers == 1 else f"{self.label}#{connection}"

    @property
    def running(self) -> bool:
        """Whether the process is there, stopped by SIGSTOP or not."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start it, and do not wait."""
        self.incarnation += 1
        own = {name: value for name, value in os.environ.items() if not name.startswith(config.PREFIX)}
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                leashed([sys.executable, "-P", "-m", "livedocs", "serve"], signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**own, **self.environ},
            )

    async def ready(self, *, limit: float = _READY, wanted: bool = True) -> float:
        """Wait until `/readyz` says so (or, unless `wanted`, until it does not). Returns the seconds it took."""
        began = time.monotonic()
        async with httpx.AsyncClient(trust_env=False, timeout=6) as client:
            while True:
                if not self.running:
                    raise RuntimeError(f"{self.label} ended:\n{self.log.read_text()[-4000:]}")
                try:
                    good = (await client.get(f"http://{HOST}:{self.port}/readyz")).status_code == 200
                except httpx.HTTPError:
                    good = False
                if good is wanted:
                    return time.monotonic() - began
                if time.monotonic() - began > limit:
                    raise TimeoutError(
                        f"{self.label} is {'not ' if wanted else ''}ready:\n{self.log.read_text()[-4000:]}"
                    )
                await asyncio.sleep(0.1)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> int:
        """End it as an operator does. Returns its status."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def kill_worker(self, rng: random.Random) -> None:
        """End one of several workers as a crash does; the server starts another one by itself."""
        os.kill(rng.choice(sorted(self._children())), signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, name: signal.Signals) -> None:
        if self._process is not None:
            for pid in (self._process.pid, *self._children()):
                # A worker may just have ended.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, name)

    def _children(self) -> list[int]:
        """The workers, where there are several."""
        if self.workers == 1 or self._process is None:
            return []
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Deployment:
    """A replica set of three, an introspection service and some server processes; tenants `acme` and `globex`.

    Args:
        folder: for data and logs.
        servers: how many servers.
        workers: how many processes each of them has.
        members: of the replica set.
        heartbeat_ms: how often the servers' drivers ask the members how they are; None leaves that to the driver.
        mongodb_options: further options of the servers' connection string.
        changes: further settings of the servers, by their name in lower case.
    """

    def __init__(
        self,
        folder: Path,
        *,
        servers: int = 2,
        workers: int = 1,
        members: int = 3,
        heartbeat_ms: int | None = None,
        mongodb_options: str = "",
        **changes: Any,
    ) -> None:
        self.folder = folder
        ports = free_ports(members + 2 * servers + 1)
        self.mongodb = ReplicaSet(
            folder / "mongodb",
            ports[:members],
            election_timeout_ms=2000,
            parameters={"enableTestCommands": "1"},
        )
        self.provider = Provider(ports[members])
        self.control = f"control_{secrets.token_hex(3)}"
        self.databases = {slug: f"{self.control}_{slug}" for slug in (*TENANTS, IMPORTING)}
        self._changes = {"workers": workers, **changes}
        heartbeat = f"heartbeatFrequencyMS={heartbeat_ms}" if heartbeat_ms else ""
        self._uri = "&".join(part for part in (self.mongodb.uri, heartbeat, mongodb_options) if part)
        self.processes = [
            Process(
                "ab"[index] if servers <= 2 else str(index),
                port,
                self.environ(port),
                folder / f"server{index}.log",
                Link(port),
                workers,
            )
            for index, port in enumerate(ports[members + 1 : members + 1 + servers])
        ]
        self.client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(self.mongodb.uri, **_OPTIONS)

    def environ(self, port: int) -> dict[str, str]:
        """The environment of a server on that port."""
        values = {
            "bind": f"{HOST}:{port}",
            "metrics_bind": "",
            "public_url": f"http://{HOST}:{port}",
            "mongodb_uri": self._uri,
            "control_database": self.control,
            "oauth_issuer": self.provider.issuer,
            "oauth_client_id": "livedocs",
            "oauth_client_secret": "secret",
            "oauth_audience": AUDIENCE,
            "oauth_introspection_url": f"{self.provider.issuer}/introspect",
            "oauth_timeout": 1,
            "introspection_cache": 5,
            "introspection_interval": INTERVAL,
            "history_window": 120,
            "socket_queue_bytes": 65536,
            "stream_lag_bound": 5,
            "shutdown_grace": 0,
            # Everyone comes from one address.
            **{name: 0 for name in config.Settings.model_fields if name.startswith("limit_") and "_per_" in name},
            **self._changes,
        }
        return {config.PREFIX + name.upper(): str(value) for name, value in values.items()}

    def blocking_client(self, **options: Any) -> MongoClient[dict[str, Any]]:
        """A client for threads."""
        return MongoClient(self.mongodb.uri, **{**_OPTIONS, **options})

    async def __aenter__(self) -> Self:
        """Start everything."""
        try:
            await asyncio.to_thread(self.mongodb.start)
            settings = config.load(self.environ(self.processes[0].port))
            await asyncio.to_thread(migrate.run, settings)
            client = connect(settings)
            tenants = Tenants(client, self.control)
            for slug, database in self.databases.items():
                await tenants.create(Tenant(slug, database, COLLECTIONS))
            await client.close()
            await self.provider.start()
            for process in self.processes:
                await process.link.start()
                process.spawn()
            for process in self.processes:
                await process.ready()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        await self.stop()

    async def stop(self) -> None:
        """End every process, by its id; nothing here waits for anything to be in order."""
        for process in self.processes:
            process.kill()
            await process.link.stop()
        await self.provider.stop()
        await self.client.close()
        for member in self.mongodb.members:
            member.kill()

    # -- faults of the replica set --

    async def primary(self, *, limit: float = 60) -> Any:
        """The member that takes writes, as soon as there is one."""
        async with asyncio.timeout(limit):
            while (found := await asyncio.to_thread(self.mongodb.primary)) is None:
                await asyncio.sleep(0.1)
            return found

    async def fail_point(
        self, name: str, mode: Mapping[str, Any] | str, data: Mapping[str, Any] | None = None
    ) -> None:
        """Configure a fail point of the primary."""
        primary = await self.primary()

        def configure() -> None:
            with primary.client() as client:
                client.admin.command(
                    {"configureFailPoint": name, "mode": mode, **({"data": data} if data else {})}
                )

        await asyncio.to_thread(configure)

    async def restart_members(self, members: Sequence[Any]) -> None:
        """Start members that were killed, and wait until everyone follows a primary."""
        for member in members:
            await asyncio.to_thread(member.start)
        await self.primary()
