"""A livedocs server on a real mongod, for tests: started once, emptied between tests."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from bson.binary import Binary
from pymongo import MongoClient
from pymongo.database import Database

from livedocs import config
from livedocs.client import Client, Retries
from livedocs.demo.leash import leashed
from livedocs.demo.mongod import MongodError, wait_until
from livedocs.demo.replicaset import ReplicaSet
from livedocs.model import CollectionKey, Grant, GrantKey, Role, Tenant, grant_document
from livedocs.store import migrate
from livedocs.store.connection import ACL, AUDIT, GUARDS, IDEMPOTENCY, connect
from livedocs.store.tenants import Tenants
from livedocs.testing.background import Background
from livedocs.testing.oauth import AUDIENCE, SERVER_ID, Identity, OAuth

HOST = "127.0.0.1"
OBSERVER = Identity("observer", "livedocs-testing")
"""Nobody of the tests': it looks on in a tenant of its own; see `barrier.py`."""
MARKS = "marks"
MARK = UUID("6c697665-646f-4373-8000-000000000001")
"""The document that the observer looks at."""

_READY = 60.0
_CONTROL = "livedocs_test"
_OBSERVED = "livedocs_observed"
# No proxy of the environment comes between the tests and this machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# What happens at the OAuth service shows at once, and no limit stands in a test's way.
_FOR_TESTS = {
    "metrics_bind": "",
    "introspection_cache": 0,
    "introspection_interval": 0.3,
    "shutdown_grace": 0,
    "limit_connections_per_address": 0,
    **{
        f"limit_{kind}_per_{whom}": 0
        for kind in ("handshakes", "joins", "events", "requests")
        for whom in ("address", "user", "tenant")
    },
}


class ServerFailed(Exception):
    """The server did not start, or has ended; the message has the end of its log."""


@dataclass
class Deployment:
    """A running server, and what it runs on.

    Attributes:
        url: of the server.
        oauth: whom it asks about tokens.
        mongo_uri: of its MongoDB.
        log: the server's output.
    """

    url: str
    oauth: OAuth
    mongo_uri: str
    log: Path
    _mongo: MongoClient[dict[str, Any]] = field(repr=False)
    _process: subprocess.Popen[bytes] = field(repr=False)
    # By tenant; those of the tests.
    _databases: Mapping[str, str] = field(repr=False)
    _http: list[httpx.Client] = field(default_factory=list, repr=False)

    def database(self, tenant: str | None = None) -> Database[dict[str, Any]]:
        """A tenant's database, of the first tenant if none is named: any service may write to it as it likes."""
        return self._mongo[self._databases[tenant or next(iter(self._databases))]]

    def headers(self, who: str | Identity) -> dict[str, str]:
        """The Authorization header of somebody, for any HTTP library."""
        return {"Authorization": f"Bearer {self.oauth.token(who)}"}

    def http(self, who: str | Identity) -> httpx.Client:
        """A synchronous HTTP client that speaks for somebody; closed after the test."""
        client = httpx.Client(base_url=self.url, headers=self.headers(who), trust_env=False)
        self._http.append(client)
        return client

    def client(self, who: str | Identity, *, retries: Retries | None = None) -> Client:
        """A `livedocs.client.Client` that speaks for somebody; a context, for the test's own event loop."""
        return Client(self.url, self.oauth.token(who), retries=retries or Retries())

    def check(self) -> None:
        """Make sure that the server still runs.

        Raises:
            ServerFailed: it does not.
        """
        if self._process.poll() is not None:
            raise ServerFailed(f"the livedocs server has ended:\n{_tail(self.log)}")

    def reset(self) -> None:
        """Take away every document and grant, and what the OAuth service has issued.

        Raises:
            ServerFailed: the server has ended.
        """
        self.check()
        self.close_clients()
        self.oauth.reset(tenant=OBSERVER.tenant)
        control = self._mongo[_CONTROL]
        # Nothing of an earlier test counts any more once its grants are gone: so they go first.
        control[ACL].delete_many({"_id.uuid": {"$ne": Binary.from_uuid(MARK)}})
        for name in (GUARDS, IDEMPOTENCY, AUDIT):
            control[name].delete_many({})
        for database in self._databases.values():
            for name in self._mongo[database].list_collection_names(filter={"type": "collection"}):
                if not name.startswith("system."):
                    self._mongo[database][name].delete_many({})

    def close_clients(self) -> None:
        """Close the clients that `http` has handed out."""
        for client in self._http:
            client.close()
        self._http.clear()

    def mark(self, mark: str) -> None:
        """Write what the observer is shown once everything before has been."""
        marks = self._mongo[_OBSERVED][MARKS]
        marks.replace_one({"_id": Binary.from_uuid(MARK)}, {"mark": mark}, upsert=True)


def free_port() -> int:
    """A port that nobody uses, below the range from which the system takes those of outgoing connections."""
    while True:
        port = random.randint(20000, 32000)  # noqa: S311
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)):
                return port


@contextlib.contextmanager
def mongod(folder: Path) -> Iterator[ReplicaSet]:
    """A MongoDB replica set of one member, gone with its data afterwards.

    Raises:
        MongodError: there is no mongod; the message says what to install.
    """
    replica_set = ReplicaSet(folder, [free_port()])
    replica_set.start()
    try:
        yield replica_set
    finally:
        for member in replica_set.members:
            member.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def deployed(
    folder: Path,
    mongo_uri: str,
    oauth: OAuth,
    *,
    tenants: Mapping[str, Mapping[str, CollectionKey]],
    settings: Mapping[str, Any],
    background: Background,
) -> Iterator[Deployment]:
    """A server with these tenants.

    Args:
        folder: for its log.
        mongo_uri: of its MongoDB, which nobody else uses.
        oauth: whom it asks about tokens.
        tenants: by slug, their collections and the field that holds a document's UUID.
        settings: further ones of the server, by their names in lower case without the prefix.
        background: a loop for what has to be prepared.

    Raises:
        ServerFailed: it did not start.
    """
    port = free_port()
    url = f"http://{HOST}:{port}"
    environ = _environ(
        {
            "bind": f"{HOST}:{port}",
            "public_url": url,
            "mongodb_uri": mongo_uri,
            "control_database": _CONTROL,
            "oauth_issuer": oauth.issuer,
            "oauth_client_id": SERVER_ID,
            "oauth_client_secret": oauth.server_secret,
            "oauth_audience": AUDIENCE,
            **_FOR_TESTS,
            **settings,
        }
    )
    loaded = config.load(environ)
    databases = {slug: f"{_CONTROL}_{slug}" for slug in tenants}
    registered = {slug: Tenant(slug, database, tenants[slug]) for slug, database in databases.items()}
    observed = Tenant(OBSERVER.tenant, _OBSERVED, {MARKS: "_id"})
    migrate.run(loaded)
    background.wait(_register(loaded, [*registered.values(), observed]))
    mongo: MongoClient[dict[str, Any]] = MongoClient(
        mongo_uri, tz_aware=True, uuidRepresentation="standard", w="majority"
    )
    log = folder / "livedocs.log"
    with mongo:
        key = GrantKey(OBSERVER.tenant, MARK, OBSERVER.subject)
        grant = Grant(key, Role.READER, granted_by="livedocs.testing", granted_at=datetime.now(UTC))
        mongo[_CONTROL][ACL].insert_one(grant_document(grant))
        with _serving(environ, url, log) as process:
            deployment = Deployment(url, oauth, mongo_uri, log, mongo, process, databases)
            yield deployment
            deployment.close_clients()


def _environ(settings: Mapping[str, Any]) -> dict[str, str]:
    """The server's environment: nothing of the settings that this process happens to have."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(config.PREFIX)}
    return {**own, **{config.PREFIX + name.upper(): str(value) for name, value in settings.items()}}


async def _register(settings: config.Settings, tenants: Iterable[Tenant]) -> None:
    client = connect(settings)
    try:
        registry = Tenants(client, settings.control_database)
        for tenant in tenants:
            await registry.create(tenant)
    finally:
        await client.close()


@contextlib.contextmanager
def _serving(environ: Mapping[str, str], url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            leashed([sys.executable, "-P", "-m", "livedocs", "serve"], signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        try:
            wait_until(lambda: _ready(process, url, log), _READY, "the livedocs server")
        except MongodError as error:
            raise ServerFailed(f"{error}; its output was:\n{_tail(log)}") from None
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    if process.poll() is not None:
        raise ServerFailed(f"the livedocs server ended with status {process.returncode}:\n{_tail(log)}")
    try:
        with _direct.open(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
