"""The store and the HTTP interface in this process, on the module's own databases."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from livedocs.access.authenticate import Authenticator
from livedocs.access.connections import Quota
from livedocs.access.issuer import Issuer
from livedocs.access.limits import Limits
from livedocs.access.oauth import LoginClient
from livedocs.access.principal import Principal
from livedocs.errors import InvalidToken
from livedocs.http.admission import Admission
from livedocs.http.app import Services, build
from livedocs.http.caller import Proxies
from livedocs.http.exchanges import Exchanges
from livedocs.store.audit_log import AuditLog
from livedocs.store.batches import Batches
from livedocs.store.connection import connect
from livedocs.store.deletions import Deletions
from livedocs.store.documents import Documents
from livedocs.store.grants import Grants
from livedocs.store.idempotency import IdempotencyKeys
from livedocs.store.processes import Processes
from livedocs.store.tenants import TenantDirectory, Tenants
from livedocs.telemetry import Metrics


class KnownTokens:
    """Understands the tokens that a test has handed out, without a provider."""

    def __init__(self) -> None:
        self.principals: dict[str, Principal] = {}

    async def principal(self, token: str, *, fresh: bool = False, address: str = "") -> Principal:
        try:
            return self.principals[token]
        except KeyError:
            raise InvalidToken from None

    def forget(self, token_id: str) -> None:
        """There is nothing to forget."""


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        assert self.headers["Content-Type"] == "application/problem+json"
        return self.json["code"]


@dataclass
class Client:
    """Sends requests to the application as somebody."""

    app: Any
    headers: dict[str, str] = field(default_factory=dict)
    principal: Principal | None = None

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """`body` is sent as JSON unless it is bytes; underscores in header names stand for hyphens."""
        sent = dict(self.headers)
        if body is not None:
            sent["Content-Type"] = "application/json"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        response = await self.app.test_client().open(path, method=method, headers=sent, data=data)
        return Answer(response.status_code, response.headers, await response.get_data())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, **headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return await self.request("POST", path, body, **headers)

    async def put(self, path: str, body: Any = None, **headers: str) -> Answer:
        return await self.request("PUT", path, body, **headers)

    async def patch(self, path: str, body: Any = None, **headers: str) -> Answer:
        return await self.request("PATCH", path, body, **headers)

    async def delete(self, path: str, **headers: str) -> Answer:
        return await self.request("DELETE", path, **headers)


class Api:
    """The application, and clients that speak as somebody."""

    def __init__(self, app: Any, tokens: KnownTokens, metrics: Metrics, origin: str) -> None:
        self.app = app
        self.origin = origin
        self.metrics = metrics
        self._tokens = tokens

    def anybody(self, **headers: str) -> Client:
        return Client(self.app, {name.replace("_", "-"): value for name, value in headers.items()})

    def someone(
        self, subject: str = "user:alice", *, tenant: str = "acme", groups: tuple[str, ...] = (), scope: str = ""
    ) -> Client:
        token = f"token-{len(self._tokens.principals)}"
        principal = Principal(
            tenant,
            subject,
            subject.partition(":")[2].capitalize(),
            frozenset(groups),
            frozenset(scope.split()),
            datetime.now(UTC) + timedelta(hours=1),
            "livedocs",
            token,
        )
        self._tokens.principals[token] = principal
        return Client(self.app, {"Authorization": f"Bearer {token}"}, principal)

    def service(self, subject: str = "client:acme-service") -> Client:
        return self.someone(subject, scope="livedocs:write")


@pytest.fixture
async def mongo(deployment):
    client = connect(deployment.settings())
    yield client
    await client.close()


@pytest.fixture
def control(mongo, deployment):
    """The control database."""
    return mongo[deployment.control_database]


@pytest.fixture
def start_api(mongo, deployment):
    issuers = []

    async def start(**changes: Any) -> Api:
        services, known = changes.pop("services", {}), changes.pop("tenants", None)
        settings, metrics, tokens = deployment.settings(**changes), Metrics(), KnownTokens()
        directory = TenantDirectory(Tenants(mongo, settings.control_database))
        await directory.refresh()
        issuer = Issuer(settings, now=lambda: datetime.now(UTC))
        issuers.append(issuer)
        app = build(
            Services(
                **{
                    "settings": settings,
                    "metrics": metrics,
                    "authenticator": Authenticator(tokens, known or directory, secure=settings.secure),
                    "documents": Documents(mongo, settings.control_database),
                    "grants": Grants(mongo, settings.control_database),
                    "batches": Batches(mongo, settings.control_database),
                    "idempotency": IdempotencyKeys(mongo, settings.control_database),
                    "processes": Processes(mongo, settings.control_database),
                    "registry": Tenants(mongo, settings.control_database),
                    "deletions": Deletions(mongo, settings.control_database),
                    "audit": AuditLog(mongo, settings.control_database),
                    "login": LoginClient(settings, issuer, now=lambda: datetime.now(UTC)),
                    **services,
                }
            )
        )
        # As the server has it around everything.
        limits = Limits(settings, metrics, clock=time.monotonic)
        unread = Quota("unread bytes", metrics, per_address=settings.max_unread_bytes_per_address)
        admission = Admission(app.asgi_app, settings, limits, metrics, unread)
        app.asgi_app = Exchanges(admission, metrics, Proxies(settings.trusted_proxies))
        return Api(app, tokens, metrics, settings.public_origin)

    return start


@pytest.fixture
async def api(start_api):
    return await start_api()
