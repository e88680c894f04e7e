"""OAuth servers that nobody here wrote: npm's oidc-provider and PyPI's django-oauth-toolkit, each a process."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from livedocs import config
from livedocs.access import tokens
from livedocs.access.issuer import Issuer
from livedocs.access.oauth import LoginClient
from livedocs.demo.leash import leashed
from livedocs.demo.mongod import wait_until
from livedocs.telemetry import Metrics

CLIENTS = Path(__file__).parents[1] / "clients"


@dataclass
class Foreign:
    """One of them, and what is known of it."""

    name: str
    issuer: str
    secret: str
    introspection: str
    revocation: str
    token: str
    # Where a browser is sent back to.
    server_url: str = ""
    key_file: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def configure(self, **changes: Any) -> config.Settings:
        """The settings of a livedocs that relies on it."""
        values = {
            "public_url": self.server_url or "http://localhost:1",
            "mongodb_uri": "mongodb://localhost",
            "oauth_issuer": self.issuer,
            "oauth_client_id": "livedocs",
            "oauth_client_secret": self.secret,
            "oauth_audience": "livedocs",
            **self.settings,
            **changes,
        }
        return config.load({}, **values)

    def service_token(self, client: str = "acme-service") -> str:
        """A token from client credentials."""
        form = {"grant_type": "client_credentials", "scope": "livedocs:write"}
        answer = httpx.post(self.token, data=form, auth=(client, self.secret), trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    async def revoke(self, issuer: Issuer, token: str) -> int:
        """Have it end a token, with the credentials of whom it was issued to."""
        form = urlencode({"token": token, "token_type_hint": "access_token"})
        return (await issuer.post(self.revocation, form)).status


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            leashed(command, signal.SIGKILL), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        return "ready" in log.read_text()

    wait_until(ready, 60, command[0])
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def oidc_provider(
    free_ports: Callable[[int], list[int]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Foreign]:
    folder = tmp_path_factory.mktemp("oidc-provider")
    port, server_port = free_ports(2)
    key = ec.generate_private_key(ec.SECP256R1())
    key_file = folder / "key.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    options = {
        "port": port,
        "serverUrl": f"http://localhost:{server_port}",
        "secret": secrets.token_urlsafe(24),
        "publicKey": json.loads(ECAlgorithm.to_jwk(key.public_key())),
        "ttl": 600,
    }
    process = _start(["node", str(CLIENTS / "oidc-provider" / "server.mjs"), json.dumps(options)], folder / "log")
    url = f"http://localhost:{port}"
    try:
        yield Foreign(
            "oidc-provider",
            url,
            options["secret"],
            f"{url}/token/introspection",
            f"{url}/token/revocation",
            f"{url}/token",
            options["serverUrl"],
            key_file,
        )
    finally:
        _end(process)


@pytest.fixture(scope="session")
def django_oauth_toolkit(
    free_ports: Callable[[int], list[int]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Foreign]:
    folder = tmp_path_factory.mktemp("django")
    (port,) = free_ports(1)
    secret = secrets.token_urlsafe(24)
    program = CLIENTS / "django-oauth-toolkit" / "server.py"
    process = _start([sys.executable, str(program), str(port), str(folder), secret], folder / "log")
    url = f"http://127.0.0.1:{port}"
    introspection = f"{url}/livedocs/introspect/"
    try:
        yield Foreign(
            "django-oauth-toolkit",
            url,
            secret,
            introspection,
            f"{url}/o/revoke_token/",
            f"{url}/o/token/",
            settings={"oauth_introspection_url": introspection},
        )
    finally:
        _end(process)


@pytest.fixture(params=["oidc_provider", "django_oauth_toolkit"])
def foreign(request: pytest.FixtureRequest) -> Foreign:
    found: Foreign = request.getfixturevalue(request.param)
    return found


@dataclass
class Parts:
    """livedocs' side, relying on one of them."""

    issuer: Issuer
    tokens: Any
    login: LoginClient


@pytest.fixture
async def rely():
    started: list[Parts] = []

    def on(foreign: Foreign, **changes: Any) -> Parts:
        settings, now = foreign.configure(**changes), lambda: datetime.now(UTC)
        issuer = Issuer(settings, now=now)
        parts = Parts(
            issuer, tokens.of(settings, issuer, Metrics(), now=now), LoginClient(settings, issuer, now=now)
        )
        started.append(parts)
        return parts

    yield on
    for parts in started:
        for part in (parts.login, parts.tokens, parts.issuer):
            await part.aclose()
