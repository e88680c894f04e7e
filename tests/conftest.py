"""Real servers for the tests, each a process of its own on 127.0.0.1 that ends with the test run at the latest.

    mongod         session  a one-member replica set: `.uri`, `.members`
    oauth          session  the development OAuth provider: `.issuer`, `.port`, `.secret`, `.token(user)`,
                            `.server_port`
    deployment     module   a control database and tenants' databases of the module's own, migrated: `.uri`,
                            `.control_database`, `.databases["acme"]`, `.settings(**changes)`,
                            `.environ(**changes)`
    start_server   module   `start_server(**settings)` starts `livedocs serve` on a free port, waits for /readyz
    server         module   one such server, on the port that the provider sends browsers back to: `.url`,
                            `.ws_url`, `.metrics_url`, `.token(user)`, `.control_database`, `.databases`, `.pid`,
                            `.log`, `.stop()`, `.kill()`
    free_ports     session  `free_ports(3)`: ports that nobody uses, for servers a test starts itself

Documents and grants are shared by the tests of a module; a new UUID for each test keeps them apart.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bson.timestamp import Timestamp
from pymongo import MongoClient

from livedocs import config
from livedocs.changes.cursor import Cursors
from livedocs.changes.keyring import Keyring
from livedocs.demo import people
from livedocs.demo.leash import leashed
from livedocs.demo.mongod import wait_until
from livedocs.demo.replicaset import ReplicaSet
from livedocs.demo.token import fetch_token
from livedocs.model import SealingKeys, Tenant
from livedocs.store import migrate
from livedocs.store.connection import KEYS, connect
from livedocs.store.keys import parse_key
from livedocs.store.tenants import Tenants

HOST = "127.0.0.1"
READY = 30.0
# No proxy of the environment comes between the tests and this machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _free_ports(count: int) -> list[int]:
    # Below the range from which the system takes ports of outgoing connections: nobody gets one in the meantime.
    found: set[int] = set()
    while len(found) < count:
        port = random.randint(20000, 32000)  # noqa: S311
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)):
                found.add(port)
    return list(found)


def _spawn(module: list[str], environ: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            leashed([sys.executable, "-P", "-m", *module], signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environ, "PYTHONUNBUFFERED": "1"},
        )


def _answers(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert process.poll() is None, f"ended with status {process.returncode}:\n{log.read_text()}"
    try:
        with _direct.open(url, timeout=5) as response:
            return response.status == 200
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


def _own_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(config.PREFIX)}


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    return _free_ports


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    folder = tmp_path_factory.mktemp("mongod")
    replica_set = ReplicaSet(folder, _free_ports(1))
    replica_set.start()
    yield replica_set
    for member in replica_set.members:
        member.kill()
    shutil.rmtree(folder)


@dataclass
class Provider:
    """The development OAuth provider. It sends browsers back to the server on `server_port` and to no other."""

    port: int
    server_port: int
    secret: str
    process: subprocess.Popen[bytes]

    @property
    def issuer(self) -> str:
        return f"http://localhost:{self.port}"

    def token(self, user: str = "alice", *, scope: str | None = None, ttl: int | None = None) -> str:
        """An access token of a person or a service of the demo."""
        who = people.person(user) or people.service(user)
        assert who is not None, user
        assert who.tenant is not None, user
        return fetch_token(user=user, tenant=who.tenant, scope=scope, ttl=ttl, oauth_port=self.port)


@pytest.fixture(scope="session")
def oauth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    folder = tmp_path_factory.mktemp("oauth")
    port, server_port = _free_ports(2)
    secret = secrets.token_urlsafe(16)
    log = folder / "log"
    process = _spawn(
        [
            *("livedocs.demo.oauth", "--port", str(port), "--data-dir", str(folder)),
            *("--server-url", f"http://localhost:{server_port}"),
        ],
        {**_own_environ(), "LIVEDOCS_DEMO_CLIENT_SECRET": secret},
        log,
    )
    url = f"http://{HOST}:{port}/.well-known/openid-configuration"
    try:
        wait_until(lambda: _answers(process, url, log), READY, "the OAuth provider")
        yield Provider(port, server_port, secret, process)
    finally:
        process.kill()
        process.wait()


@dataclass
class Deployment:
    """A control database and the tenants' databases, in a mongod that other modules use as well."""

    uri: str
    control_database: str
    databases: dict[str, str]
    oauth: Provider

    def environ(self, **changes: Any) -> dict[str, str]:
        """The environment of a server; `changes` are settings by their name in lower case."""
        values = {
            "public_url": f"http://localhost:{self.oauth.server_port}",
            "allowed_origins": f"http://127.0.0.1:{self.oauth.server_port}",
            "metrics_bind": "",
            "mongodb_uri": self.uri,
            "control_database": self.control_database,
            "oauth_issuer": self.oauth.issuer,
            "oauth_client_id": people.LOGIN_CLIENT.client_id,
            "oauth_client_secret": self.oauth.secret,
            "oauth_audience": people.AUDIENCE,
            "shutdown_grace": 0,
            **changes,
        }
        return {config.PREFIX + name.upper(): str(value) for name, value in values.items()}

    def settings(self, **changes: Any) -> config.Settings:
        """The same as settings."""
        return config.load(self.environ(**changes))

    def token(self, user: str = "alice", *, scope: str | None = None, ttl: int | None = None) -> str:
        """An access token of a person or a service of the demo."""
        return self.oauth.token(user, scope=scope, ttl=ttl)

    def cursors(self) -> Cursors:
        """What makes and opens the cursors of its servers; one of them has to have started."""
        with MongoClient(self.uri) as client:
            keys = [parse_key(stored) for stored in client[self.control_database][KEYS].find()]
        ring = Keyring(_no_more)
        assert ring.learn(SealingKeys(keys, Timestamp(2**32 - 1, 1)))
        return Cursors(ring)


async def _no_more() -> SealingKeys:
    raise AssertionError


async def _register_tenants(settings: config.Settings, databases: dict[str, str]) -> None:
    client = connect(settings)
    try:
        tenants = Tenants(client, settings.control_database)
        for tenant in people.TENANTS:
            await tenants.create(Tenant(tenant.slug, databases[tenant.slug], tenant.collections))
    finally:
        await client.close()


@pytest.fixture(scope="module")
def deployment(mongod: ReplicaSet, oauth: Provider) -> Iterator[Deployment]:
    control = f"test_{secrets.token_hex(4)}"
    databases = {tenant.slug: f"{control}_{tenant.slug}" for tenant in people.TENANTS}
    made = Deployment(mongod.uri, control, databases, oauth)
    settings = made.settings()
    migrate.run(settings)
    # In a thread: the loop that asyncio.run makes and closes must not be the one that pytest-asyncio has set.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _register_tenants(settings, databases)).result()
    yield made
    with mongod.members[0].client() as client:
        for database in (control, *databases.values()):
            client.drop_database(database)


@dataclass
class Server:
    """A running `livedocs serve`."""

    deployment: Deployment
    port: int
    metrics_port: int
    process: subprocess.Popen[bytes]
    log: Path
    _stopped: bool = field(default=False, repr=False)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def ws_url(self) -> str:
        """Of the Socket.IO endpoint, for a client that speaks WebSocket itself."""
        return f"ws://localhost:{self.port}/socket.io/?EIO=4&transport=websocket"

    @property
    def metrics_url(self) -> str:
        return f"http://{HOST}:{self.metrics_port}/metrics"

    @property
    def control_database(self) -> str:
        return self.deployment.control_database

    @property
    def databases(self) -> dict[str, str]:
        return self.deployment.databases

    @property
    def pid(self) -> int:
        return self.process.pid

    def token(self, user: str = "alice", *, scope: str | None = None, ttl: int | None = None) -> str:
        """An access token of a person or a service of the demo."""
        return self.deployment.token(user, scope=scope, ttl=ttl)

    def stop(self) -> None:
        """As an operator does; it must end by itself and in order."""
        if self._stopped:
            return
        self._stopped = True
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = None
        assert status == 0, f"the server did not stop in order ({status}):\n{self.log.read_text()[-4000:]}"

    def kill(self) -> None:
        """As a crash does."""
        self._stopped = True
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def start_server(
    deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(port: int | None = None, **changes: Any) -> Server:
        given, metrics_port = _free_ports(2)
        port = port or given
        log = tmp_path_factory.mktemp("server") / "log"
        environ = deployment.environ(
            **{
                "bind": f"{HOST}:{port}",
                "metrics_bind": f"{HOST}:{metrics_port}",
                "public_url": f"http://localhost:{port}",
                "allowed_origins": f"http://{HOST}:{port}",
                **changes,
            }
        )
        process = _spawn(["livedocs", "serve"], _own_environ() | environ, log)
        server = Server(deployment, port, metrics_port, process, log)
        servers.append(server)
        url = f"http://{HOST}:{port}/readyz"
        try:
            wait_until(lambda: _answers(process, url, log), READY, "the server")
        except BaseException:
            server.kill()
            raise
        return server

    yield start
    # All of them are ended before one that did not end well is reported.
    faults = []
    for server in reversed(servers):
        try:
            server.stop()
        except AssertionError as error:
            faults.append(str(error))
    assert not faults, "\n".join(faults)


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Server], oauth: Provider) -> Server:
    return start_server(oauth.server_port)
