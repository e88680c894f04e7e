"""The servers that are measured, each a process of its own, and what they need around them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from livedocs import config
from livedocs.demo.leash import leashed
from livedocs.demo.replicaset import ReplicaSet
from livedocs.model import Tenant
from livedocs.store import migrate
from livedocs.store.connection import connect
from livedocs.store.tenants import Tenants

HERE = Path(__file__).parent
HOST = "127.0.0.1"
DATABASE = "bench_acme"
CONTROL = "bench_livedocs"
COLLECTION = "test"
READY = 60.0
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

SYSTEMS = {
    "livedocs": "livedocs, authentication and ACL on",
    "node": "the tutorial's design on Node.js: socket.io and mongodb",
    "pymongo": "the same on python-socketio with PyMongo",
    "motor": "the same on python-socketio with Motor",
}


def free_ports(count: int) -> list[int]:
    """Ports below the range that outgoing connections are given."""
    found: set[int] = set()
    while len(found) < count:
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)):
                found.add(port)
    return list(found)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every system is measured with."""

    mongodb: ReplicaSet
    introspection: subprocess.Popen[bytes]
    introspection_port: int
    folder: Path

    @property
    def uri(self) -> str:
        """Of the MongoDB that all of them use."""
        return self.mongodb.uri

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [self.introspection.pid, self.mongodb.members[0].pid]

    def livedocs_settings(self, port: int) -> dict[str, str]:
        """The environment of livedocs: its defaults but for addresses and the number of sockets of one user."""
        values: dict[str, object] = {
            "bind": f"{HOST}:{port}",
            "metrics_bind": "",
            "public_url": f"http://localhost:{port}",
            "mongodb_uri": self.uri,
            "control_database": CONTROL,
            "oauth_issuer": f"http://{HOST}:{self.introspection_port}",
            "oauth_introspection_url": f"http://{HOST}:{self.introspection_port}/introspect",
            "oauth_client_id": "livedocs",
            "oauth_client_secret": "bench",
            "oauth_audience": "livedocs",
            "max_sockets_per_user": 20000,
            # The whole load comes from one address, and some of it from one user.
            "max_sockets_per_tenant": 20000,
            "max_sockets_per_address": 20000,
            "max_connections_per_address": 5000,
            "limit_connections_per_address": 0,
            **{
                f"limit_{kind}_per_{scope}": 0
                for kind in ("handshakes", "joins", "events", "requests")
                for scope in ("address", "user", "tenant")
            },
            "shutdown_grace": 0,
        }
        return {config.PREFIX + name.upper(): str(value) for name, value in values.items()}


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[Surroundings]:
    """A fresh replica set of one member with the tenant registered, and the stand-in for the OAuth service."""
    mongo_port, introspection_port = free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    with ReplicaSet(folder, [mongo_port]) as mongodb:
        service = subprocess.Popen(
            leashed([sys.executable, HERE / "introspection.py", "--port", str(introspection_port)], signal.SIGKILL)
        )
        try:
            around = Surroundings(mongodb, service, introspection_port, folder)
            asyncio.run(_register(config.load(around.livedocs_settings(1))))
            yield around
        finally:
            service.kill()
            service.wait()


async def _register(settings: config.Settings) -> None:
    await asyncio.to_thread(migrate.run, settings)
    client = connect(settings)
    try:
        await Tenants(client, CONTROL).create(Tenant("acme", DATABASE, {COLLECTION: "uuid"}))
    finally:
        await client.close()


@dataclass(frozen=True, slots=True)
class Running:
    """A system under test."""

    name: str
    port: int
    pid: int


@contextlib.contextmanager
def running(name: str, around: Surroundings) -> Iterator[Running]:
    """Start a system, wait until it answers, and stop it in the end."""
    (port,) = free_ports(1)
    where = ["--port", str(port), "--uri", around.uri, "--database", DATABASE, "--collection", COLLECTION]
    # PYTHONPATH: another version of the source can be measured.
    environ = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    match name:
        case "livedocs":
            command = [sys.executable, "-P", "-m", "livedocs", "serve"]
            environ |= around.livedocs_settings(port)
        case "node":
            command = ["node", str(HERE / "peers/node/server.js"), *where]
            environ["NODE_ENV"] = "production"
        case _:
            command = [sys.executable, str(HERE / "peers/python/server.py"), *where, "--driver", name]
    log = around.folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            leashed(command, signal.SIGKILL), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ
        )
    try:
        _wait_until_ready(process, port, "/readyz" if name == "livedocs" else "/socket.io/?EIO=4", log)
        yield Running(name, port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    deadline = time.monotonic() + READY
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"did not start:\n{log.read_text()[-3000:]}")
        try:
            with _direct.open(f"http://{HOST}:{port}{path}", timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
            # Engine.IO refuses a request without a transport, which says that it listens.
            if path != "/readyz":
                return
        except OSError:
            pass
        time.sleep(0.1)


def warm_tokens(system: Running, tokens: list[str]) -> None:
    """Have each token introspected, so that connecting finds the answer remembered."""
    connection = http.client.HTTPConnection(HOST, system.port, timeout=20)
    for token in tokens:
        connection.request("GET", "/v1/me", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"a token was refused: {answer.status}")
    connection.close()
