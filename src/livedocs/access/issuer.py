"""The OAuth service as this server talks to it: discovery, and bounded calls as an authenticated client.

Discovery is OpenID Connect Discovery 1.0, section 4, or else RFC 8414, section 3. Answers come back as values; who
asked decides what they mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import orjson
from authlib.oauth2.rfc8414 import get_well_known_url

from livedocs.access import client_auth
from livedocs.access.limits import address_key
from livedocs.access.single_flight import SingleFlight
from livedocs.access.turns import NoTurn, Turns
from livedocs.config import Settings, is_loopback
from livedocs.errors import AuthUnavailable
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

# No answer that is needed here comes near; more is a fault, or somebody who wants our memory.
_MOST_BYTES = 256 * 1024
_METADATA_FRESH = timedelta(hours=1)
_METADATA_RETRY = timedelta(minutes=1)
_LIMITS = httpx.Limits(max_connections=50, max_keepalive_connections=10, keepalive_expiry=30.0)
# Of these, the ones for calls that anybody can bring about, with made-up tokens, codes and cookies. A flood
# of those leaves the others to ask whether whoever is in may stay.
_STRANGERS = 40
# Of those, the ones for one address at a time: a flood of made-up tokens from one address leaves the others to
# newcomers from elsewhere, however slow the provider is.
_STRANGERS_PER_ADDRESS = 10
# Calls that may wait on behalf of one address.
_WAITING_PER_ADDRESS = 500
_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `body` is the JSON value, or None when it was not JSON."""

    status: int
    body: Any


@dataclass(frozen=True, slots=True)
class Fault:
    """No answer. `crowded` is our own doing: no connection of the pool came free in time."""

    reason: Literal["crowded", "timeout", "connection", "too_large", "encoding"]


@dataclass(frozen=True, slots=True)
class Metadata:
    """The parts of the provider's metadata that this server uses; an endpoint it does not have is None."""

    authorization_endpoint: str | None
    token_endpoint: str | None
    introspection_endpoint: str | None
    revocation_endpoint: str | None
    end_session_endpoint: str | None
    jwks_uri: str | None
    # RFC 9207, 3: then every authorization response carries `iss`.
    iss_parameter: bool


def parse_metadata(body: object, issuer: str) -> Metadata | str:
    """The metadata in a discovery answer, or what is wrong with it.

    The issuer must be the configured one, octet for octet (RFC 8414, 3.3): otherwise another provider could pass
    its endpoints off as this one's and be sent our secret. For the same reason endpoints are https, or on this
    machine.
    """
    if not isinstance(body, dict):
        return "not an object"
    if body.get("issuer") != issuer:
        return "another issuer"
    endpoints: dict[str, str | None] = {}
    for name in Metadata.__dataclass_fields__.keys() - {"iss_parameter"}:
        value = body.get(name)
        if value is not None and not _safe_url(value):
            return f"unsafe {name}"
        endpoints[name] = value
    return Metadata(**endpoints, iss_parameter=body.get("authorization_response_iss_parameter_supported") is True)


def _safe_url(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        url = urlsplit(value)
        host = url.hostname
    except ValueError:
        return False
    return bool(host) and (url.scheme == "https" or (url.scheme == "http" and is_loopback(host or "")))


class Issuer:
    """One provider. Calls never follow redirects, end in time and read no more than they must.

    Args:
        settings: `oauth_*`.
        now: the clock, aware UTC.
    """

    def __init__(self, settings: Settings, *, now: Callable[[], datetime]) -> None:
        self.name = settings.oauth_issuer
        self._now = now
        self._timeout = settings.oauth_timeout
        self._auth = client_auth.of(settings, now=now)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(self._timeout, pool=self._timeout / 2),
            limits=_LIMITS,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "livedocs"},
            # A proxy of the environment cannot reach a provider on this machine.
            trust_env=not is_loopback(urlsplit(self.name).hostname or ""),
        )
        self._strangers = Turns(_STRANGERS, per_key=_STRANGERS_PER_ADDRESS, most_waiting=_WAITING_PER_ADDRESS)
        self._discoveries: SingleFlight[None] = SingleFlight()
        # The newest metadata that was in order; used on when a later fetch fails.
        self._metadata: Metadata | None = None
        self._metadata_until: datetime | None = None

    async def metadata(self) -> Metadata:
        """The provider's metadata, fetched when first needed and again now and then.

        Raises:
            AuthUnavailable: it could never be had, or is not this issuer's.
        """
        if self._metadata is not None and self._metadata_until is not None and self._now() < self._metadata_until:
            return self._metadata
        await self._discoveries.share("metadata", self._discover)
        if self._metadata is None:
            raise AuthUnavailable
        return self._metadata

    async def post(self, url: str, form: str, *, vouched: bool = False, address: str = "") -> Answer | Fault:
        """POST a form to one of the provider's endpoints, with our own credentials.

        Args:
            url: of the endpoint.
            form: what to send.
            vouched: whether it is about a token that was good before.
            address: of whoever has brought it about, if it is not; those whose address is not known share one.
        """
        if vouched:
            return await self._post(url, form)
        try:
            # As long as a call waits for a connection.
            async with self._strangers.turn(address_key(address), within=self._timeout / 2):
                return await self._post(url, form)
        except NoTurn:
            return Fault("crowded")

    async def _post(self, url: str, form: str) -> Answer | Fault:
        proven, headers = self._auth.apply(form)
        return await self._call("POST", url, proven.encode(), {**_FORM, **headers})

    async def get(self, url: str) -> Answer | Fault:
        """GET a public JSON document of the provider."""
        return await self._call("GET", url, None, {"Accept": "application/json"})

    async def aclose(self) -> None:
        """Close every connection."""
        await self._discoveries.aclose()
        await self._client.aclose()

    async def _discover(self) -> None:
        found = await self._find_metadata()
        if isinstance(found, Metadata):
            self._metadata, self._metadata_until = found, self._now() + _METADATA_FRESH
        else:
            _log.error("discovery_failed", issuer=self.name, reason=found)
            self._metadata_until = self._now() + _METADATA_RETRY

    async def _find_metadata(self) -> Metadata | str:
        problem = ""
        for url in (
            self.name.rstrip("/") + "/.well-known/openid-configuration",
            get_well_known_url(self.name, external=True).rstrip("/"),
        ):
            answer = await self.get(url)
            if isinstance(answer, Fault):
                return answer.reason
            if answer.status == 200:
                return parse_metadata(answer.body, self.name)
            problem = f"status {answer.status}"
        return problem

    async def _call(self, method: str, url: str, content: bytes | None, headers: dict[str, str]) -> Answer | Fault:
        try:
            # httpx limits each read; only this limits a provider that sends an octet now and then.
            async with asyncio.timeout(self._timeout):
                return await self._exchange(method, url, content, headers)
        except httpx.PoolTimeout:
            return Fault("crowded")
        except (TimeoutError, httpx.TimeoutException):
            return Fault("timeout")
        except (httpx.HTTPError, httpx.InvalidURL):
            return Fault("connection")

    async def _exchange(
        self, method: str, url: str, content: bytes | None, headers: dict[str, str]
    ) -> Answer | Fault:
        async with self._client.stream(method, url, content=content, headers=headers) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                # Not asked for, and a few octets of it may unfold to gigabytes.
                return Fault("encoding")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MOST_BYTES:
                    return Fault("too_large")
        try:
            return Answer(response.status_code, orjson.loads(body))
        except orjson.JSONDecodeError:
            return Answer(response.status_code, None)
