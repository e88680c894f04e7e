"""Settings, read once at start from `LIVEDOCS_*` environment variables into a frozen object.

`load()` is the only way in. It refuses what is missing, unknown or unsafe and names every such setting at once,
never a value. `docs/settings.md` is generated from the fields below; a test compares the two.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from livedocs import addresses, mongodb_uri
from livedocs.addresses import host_and_port
from livedocs.errors import ConfigurationError

PREFIX = "LIVEDOCS_"
# Variables of the client commands and of the demo: no settings, and no typing errors either.
_OTHERS = frozenset({"LIVEDOCS_TOKEN", "LIVEDOCS_DEMO_CLIENT_SECRET"})


ASYMMETRIC = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
"""Signature algorithms. With HMAC, whoever knows the public key could sign (RFC 8725, 2.1)."""


def _words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
"""Several values in one variable, separated by commas or spaces."""


class Settings(BaseSettings):
    """Everything that can be set. Durations are seconds, sizes bytes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    # The server
    bind: str = Field("127.0.0.1:8000", description="Address and port of the public listener.")
    workers: int = Field(1, ge=1, le=64, description="Number of processes that share the port.")
    metrics_bind: str = Field(
        "127.0.0.1:9464",
        description="Address and port of the metrics listener; empty disables it. Further workers use the ports "
        "that follow.",
    )
    public_url: str = Field(description="The URL that browsers use: scheme and host, without a path.")
    allowed_origins: Words = Field(
        (),
        description="Further origins whose pages may use the cookie and read responses; that of the public URL "
        "always may.",
    )
    trusted_proxies: Words = Field(
        (),
        description="Addresses or networks of proxies whose X-Forwarded-For and -Proto headers are trusted.",
    )
    frontend_dir: Path | None = Field(None, description="Folder with a built front end to serve at `/`.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Minimum log level.")
    log_format: Literal["json", "console"] = Field("json", description="Log format: JSON, or text for people.")
    metrics_tenants: int = Field(
        100,
        ge=0,
        le=10000,
        description="Number of tenants with metrics of their own; all others are reported as `other`.",
    )
    traces: Literal["off", "otlp"] = Field(
        "off",
        description="Send spans to an OpenTelemetry collector, which the `OTEL_*` variables configure.",
    )
    shutdown_grace: float = Field(
        5.0, ge=0, le=300, description="Time that sockets have to reconnect elsewhere at shutdown."
    )

    # MongoDB
    mongodb_uri: SecretStr = Field(description="Connection string of the replica set or sharded cluster.")
    control_database: str = Field("livedocs", description="Database of tenants, grants and the audit log.")

    # OAuth
    oauth_issuer: str = Field(description="Issuer of the access tokens; discovery starts here.")
    oauth_client_id: str = Field(description="This server's client id at the issuer.")
    oauth_client_secret: SecretStr = Field(
        SecretStr(""),
        description="This server's client secret at the issuer; required unless it proves itself with a key.",
    )
    oauth_client_auth: Literal["client_secret_basic", "client_secret_post", "private_key_jwt"] = Field(
        "client_secret_basic", description="How this server authenticates at the issuer."
    )
    oauth_client_key_file: Path | None = Field(
        None, description="Private key (PEM: RSA, EC or Ed25519) for `private_key_jwt`."
    )
    oauth_client_key_id: str = Field("", description="The `kid` of that key at the issuer.")
    oauth_audience: str = Field(description="The audience (`aud`) that access tokens must have.")
    oauth_introspection_url: str = Field(
        "", description="Introspection endpoint (RFC 7662); found by discovery when empty."
    )
    oauth_mode: Literal["introspect", "jwt", "jwt+introspect"] = Field(
        "introspect",
        description="How access tokens are checked: by asking the issuer (RFC 7662); here, by their signature "
        "(RFC 9068), which cannot see a revocation; or here at once and by asking as well.",
    )
    oauth_jwks_url: str = Field("", description="The issuer's key set (RFC 7517); found by discovery when empty.")
    oauth_algorithms: Words = Field(
        ("RS256", "PS256", "ES256", "EdDSA"), description="Accepted signature algorithms of access tokens."
    )
    oauth_scopes: Words = Field(("openid", "offline_access"), description="Scopes that a browser login requests.")
    oauth_tenant_claim: str = Field("tenant", description="Path of the claim that names the tenant, dots between.")
    oauth_groups_claim: str = Field("groups", description="Path of the claim that lists the groups.")
    oauth_subject_claim: str = Field("sub", description="Path of the claim that identifies the user.")
    oauth_service_claims: Words = Field(
        (
            "gty=client-credentials",
            "idtyp=app",
            "sub={client_id}@clients",
            "username=service-account-{client_id}",
            "preferred_username=service-account-{client_id}",
            "username={client_id}",
        ),
        description="Claims that mark a token of a service, with no person behind it: `CLAIM=VALUE` each.",
    )
    oauth_token_types: Words = Field(
        ("at+jwt",), description="Accepted types (`typ`) of signed access tokens; add `JWT` for Auth0 and Entra."
    )
    oauth_timeout: float = Field(3.0, gt=0, le=60, description="Timeout of one call to the issuer.")
    introspection_cache: float = Field(
        30.0, ge=0, le=300, description="How long an introspection response is cached."
    )
    introspection_interval: float = Field(
        30.0, gt=0, le=3600, description="Interval between introspections of a token that has live sockets."
    )
    auth_grace: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="How long sockets stay, and in `jwt+introspect` signatures count, while the issuer is silent.",
    )

    # The stream
    history_window: float = Field(300.0, ge=0, le=86400, description="How far back a cursor can resume.")
    history_bytes: int = Field(
        64 * 2**20, ge=2**20, description="Maximum memory of the history, shared fairly among tenants."
    )
    stream_lag_bound: float = Field(
        15.0, gt=0, description="Lag of the change stream beyond which the server is not ready and refuses joins."
    )

    # Limits
    max_document_bytes: int = Field(
        2**20, ge=1024, le=15 * 2**20, description="Largest document that the API accepts."
    )
    max_shown_bytes: int = Field(
        2 * 2**20,
        ge=1024,
        le=15 * 2**20,
        description="Largest stored document that is decoded and shown; larger ones stall everybody for longer.",
    )
    max_shown_elements: int = Field(
        100_000,
        ge=100,
        le=1_000_000,
        description="Maximum number of fields and array items of a document that is shown.",
    )
    max_answer_bytes: int = Field(
        4 * 2**20, ge=65536, le=64 * 2**20, description="Largest response that holds more than one document."
    )
    max_bytes_in_flight_per_user: int = Field(
        24 * 2**20,
        ge=2**20,
        description="Maximum bytes of one user in request bodies, imports and unread responses.",
    )
    max_bytes_in_flight_per_tenant: int = Field(128 * 2**20, ge=2**20, description="The same of one tenant.")
    max_grants_per_uuid: int = Field(1000, ge=1, le=100_000, description="Maximum number of grants on one UUID.")
    max_groups: int = Field(
        1000,
        ge=0,
        le=10_000,
        description="Maximum number of groups of one user or service; a token with more is refused.",
    )
    max_imports_per_user: int = Field(
        4, ge=1, description="Maximum number of concurrent imports of one user, per server."
    )
    max_imports_per_tenant: int = Field(
        16, ge=1, description="Maximum number of concurrent imports of one tenant, per server."
    )
    max_message_bytes: int = Field(
        65536, ge=4096, le=2**20, description="Largest WebSocket message that is accepted."
    )
    max_sockets: int = Field(
        20000, ge=1, description="Maximum number of sockets, per server; its workers share the limits."
    )
    max_sockets_per_user: int = Field(50, ge=1, description="Maximum number of sockets of one user, per server.")
    max_sockets_per_tenant: int = Field(
        10000, ge=1, description="Maximum number of sockets of one tenant, per server."
    )
    max_sockets_per_address: int = Field(
        2000, ge=1, description="Maximum number of sockets from one address, per server."
    )
    max_waiting_sockets: int = Field(
        200, ge=0, description="Maximum number of accepted sockets that are not yet authenticated, per server."
    )
    max_waiting_sockets_per_address: int = Field(50, ge=0, description="The same from one address.")
    max_connections: int = Field(
        5000, ge=10, description="Maximum number of TCP connections that are not WebSockets, per server."
    )
    max_connections_per_address: int = Field(
        256,
        ge=2,
        description="The same from one address; behind a trusted proxy, its requests in progress.",
    )
    max_waiting_requests_per_address: int = Field(
        100, ge=1, description="Maximum number of unauthenticated HTTP requests in progress from one address."
    )
    max_unread_bytes_per_address: int = Field(
        64 * 2**20,
        ge=2**16,
        description="Unread response bytes of one address beyond which its requests are refused.",
    )
    max_rooms_per_socket: int = Field(1000, ge=1, description="Maximum number of rooms per socket.")
    connect_timeout: float = Field(5.0, gt=0, le=60, description="Time within which a socket must send CONNECT.")
    ping_interval: float = Field(25.0, gt=0, description="Engine.IO ping interval.")
    ping_timeout: float = Field(20.0, gt=0, description="Time within which a pong must arrive.")
    socket_queue_bytes: int = Field(2**20, ge=2**16, description="Maximum bytes queued for one slow socket.")
    socket_queue_messages: int = Field(
        1000, ge=10, description="Maximum number of messages queued for one slow socket."
    )
    socket_stall_timeout: float = Field(
        30.0,
        gt=0,
        description="Time without progress after which a slow peer is disconnected, on a socket or in a request.",
    )

    limit_burst: float = Field(
        10.0, ge=1, le=600, description="Burst size of every `LIMIT_` rate, as seconds' worth of it."
    )
    limit_connections_per_address: float = Field(
        500.0, ge=0, description="TCP connections per second from one address, per server; 0 disables the limit."
    )
    limit_handshakes_per_address: float = Field(
        100.0,
        ge=0,
        description="WebSocket handshakes per second from one address, per server; 0 disables the limit.",
    )
    limit_handshakes_per_user: float = Field(
        10.0, ge=0, description="WebSocket handshakes per second of one user, per server; 0 disables the limit."
    )
    limit_handshakes_per_tenant: float = Field(
        500.0, ge=0, description="WebSocket handshakes per second of one tenant, per server; 0 disables the limit."
    )
    limit_joins_per_address: float = Field(
        1000.0, ge=0, description="Rooms joined per second from one address, per server; 0 disables the limit."
    )
    limit_joins_per_user: float = Field(
        200.0, ge=0, description="Rooms joined per second of one user, per server; 0 disables the limit."
    )
    limit_joins_per_tenant: float = Field(
        5000.0, ge=0, description="Rooms joined per second of one tenant, per server; 0 disables the limit."
    )
    limit_events_per_address: float = Field(
        1000.0, ge=0, description="Socket events per second from one address, per server; 0 disables the limit."
    )
    limit_events_per_user: float = Field(
        100.0, ge=0, description="Socket events per second of one user, per server; 0 disables the limit."
    )
    limit_events_per_tenant: float = Field(
        5000.0, ge=0, description="Socket events per second of one tenant, per server; 0 disables the limit."
    )
    limit_requests_per_address: float = Field(
        500.0, ge=0, description="HTTP requests per second from one address, per server; 0 disables the limit."
    )
    limit_requests_per_user: float = Field(
        100.0, ge=0, description="HTTP requests per second of one user, per server; 0 disables the limit."
    )
    limit_requests_per_tenant: float = Field(
        2000.0, ge=0, description="HTTP requests per second of one tenant, per server; 0 disables the limit."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - only the environment counts
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment and explicit arguments only: one place to look."""
        return init_settings, env_settings

    @property
    def public_origin(self) -> str:
        """The origin (RFC 6454) of the public URL."""
        return self.public_url.rstrip("/")

    @property
    def oauth_client_key(self) -> bytes:
        """The private key of `private_key_jwt`, as the file has it; empty without one."""
        return self.oauth_client_key_file.read_bytes() if self.oauth_client_key_file is not None else b""

    @property
    def login_secret(self) -> bytes:
        """What every process of a deployment knows and nobody else: seals the cookie of a login under way."""
        return self.oauth_client_secret.get_secret_value().encode() or self.oauth_client_key

    @property
    def origins(self) -> frozenset[str]:
        """Every origin whose pages may use the cookie."""
        return frozenset({self.public_origin, *self.allowed_origins})

    @property
    def secure(self) -> bool:
        """Whether browsers reach the server over https: decides the cookies' prefix and their Secure attribute."""
        return self.public_url.startswith("https://")


def load(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """The settings of this process.

    Raises:
        ConfigurationError: naming every setting that is missing, unknown, malformed or unsafe.
    """
    environ = os.environ if environ is None else environ
    problems = [
        f"{name}: there is no such setting"
        for name in sorted(environ)
        if name.startswith(PREFIX)
        and name not in _OTHERS
        and name.removeprefix(PREFIX).lower() not in Settings.model_fields
    ]
    values = {
        name: environ[PREFIX + name.upper()] for name in Settings.model_fields if PREFIX + name.upper() in environ
    }
    try:
        settings = Settings(**{**values, **overrides})
    except ValidationError as error:
        found = {
            str(item["loc"][0]) if item["loc"] else "settings": _complaint(item["type"], item["msg"])
            for item in error.errors(include_input=False, include_url=False)
        }
        given = {**values, **overrides}
        if "oauth_client_secret" not in given and given.get("oauth_client_auth") != "private_key_jwt":
            found["oauth_client_secret"] = _complaint("missing", "")
        order = [*Settings.model_fields, "settings"]
        problems += [f"{PREFIX}{name.upper()}: {found[name]}" for name in sorted(found, key=order.index)]
        raise ConfigurationError(problems) from None
    problems += _unsafe(settings)
    if problems:
        raise ConfigurationError(problems)
    return settings


def _complaint(kind: str, message: str) -> str:
    return "is required" if kind == "missing" else message


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _url_problem(value: str, *, path_allowed: bool) -> str | None:
    """What is wrong with a URL that carries credentials over the network, or None."""
    url = urlsplit(value)
    if url.scheme not in {"http", "https"} or not url.hostname:
        return "is not an http(s) URL"
    if url.username or url.password or url.query or url.fragment:
        return "must not carry credentials, a query or a fragment"
    if not path_allowed and url.path not in {"", "/"}:
        return "must not have a path"
    if url.scheme == "http" and not is_loopback(url.hostname):
        return "must be https unless it is this machine"
    return None


def _proxy_problem(network: str) -> str | None:
    """What is wrong with a network whose word about others is to be believed, or None."""
    try:
        everybody = not ipaddress.ip_network(network, strict=False).prefixlen
    except ValueError:
        return "is not a list of addresses or networks"
    # Everybody would choose the address whose limits count.
    return "must not be everybody" if everybody else None


def _client_problem(settings: Settings) -> str | None:
    """What is wrong with the way in which this server proves itself to the issuer, or None."""
    if settings.oauth_client_auth != "private_key_jwt":
        missing = not settings.oauth_client_secret.get_secret_value().strip()
        return f"{PREFIX}OAUTH_CLIENT_SECRET: is required" if missing else None
    complaint = _key_complaint(settings)
    return f"{PREFIX}OAUTH_CLIENT_KEY_FILE: {complaint}" if complaint else None


def _key_complaint(settings: Settings) -> str | None:
    if settings.oauth_client_key_file is None:
        return "is required with private_key_jwt"
    try:
        key = load_pem_private_key(settings.oauth_client_key, password=None)
    except OSError:
        return "cannot be read"
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "is not an unencrypted private key in PEM"
    good = (
        isinstance(key, Ed25519PrivateKey)
        or (isinstance(key, RSAPrivateKey) and key.key_size >= 2048)
        or (isinstance(key, EllipticCurvePrivateKey) and key.curve.name in {"secp256r1", "secp384r1", "secp521r1"})
    )
    return None if good else "is neither RSA (2048 bits or more), P-256 to P-521 nor Ed25519"


def _token_problems(settings: Settings) -> list[str]:
    """What stands against how tokens are to be read."""
    problems = []
    if not all(re.fullmatch(r"[^=]+=.+", one) for one in settings.oauth_service_claims):
        problems.append(f"{PREFIX}OAUTH_SERVICE_CLAIMS: are words like idtyp=app, or sub={{client_id}}@clients")
    if "jwt" in map(str.lower, settings.oauth_token_types) and settings.oauth_audience == settings.oauth_client_id:
        # An ID token has that audience and that type.
        problems.append(f"{PREFIX}OAUTH_TOKEN_TYPES: JWT needs an audience that is not the client id")
    return problems


def _worker_problems(settings: Settings) -> list[str]:
    """What stands against several processes on one port."""
    if sys.platform != "linux":
        return [f"{PREFIX}WORKERS: more than one needs Linux, whose kernel spreads the connections"]
    public, metrics = (
        found[1] if found else None for found in map(host_and_port, (settings.bind, settings.metrics_bind or ""))
    )
    # Where it is nothing at all, that has been said.
    fits = public is not None or addresses.problem(settings.bind) is not None
    problems = [] if fits else [f"{PREFIX}BIND: is not an address and a port, as workers need it"]
    ports = range(metrics or 0, (metrics or 0) + settings.workers)
    if settings.metrics_bind and (not metrics or public in ports or ports[-1] > 65535):
        problems.append(f"{PREFIX}METRICS_BIND: leaves no port to each worker")
    return problems


def _missing_extras(settings: Settings) -> list[str]:
    """What is asked for but not installed."""
    try:
        if settings.traces == "off" or find_spec("opentelemetry.exporter.otlp.proto.http") is not None:
            return []
    except ModuleNotFoundError:
        # A package above it is missing.
        pass
    return [f"{PREFIX}TRACES: needs the extra `otel` of this package"]


def _unsafe(settings: Settings) -> list[str]:
    """Settings that parse but would put someone at risk."""
    problems = []
    for name in ("public_url", "oauth_issuer", "oauth_introspection_url", "oauth_jwks_url"):
        value = getattr(settings, name)
        complaint = _url_problem(value, path_allowed=name != "public_url") if value else None
        if complaint:
            problems.append(f"{PREFIX}{name.upper()}: {complaint}")
    for origin in settings.allowed_origins:
        complaint = _url_problem(origin, path_allowed=False)
        if complaint or origin.endswith("/"):
            problems.append(f"{PREFIX}ALLOWED_ORIGINS: {complaint or 'an origin has no path'}")
    found = filter(None, map(_proxy_problem, settings.trusted_proxies))
    problems += [f"{PREFIX}TRUSTED_PROXIES: {complaint}" for complaint in found]
    problems += [
        f"{PREFIX}{name.upper()}: is empty"
        for name in ("oauth_client_id", "oauth_audience", "oauth_issuer", "control_database")
        if not getattr(settings, name).strip()
    ]
    complaint = mongodb_uri.problem(settings.mongodb_uri.get_secret_value())
    problems += [f"{PREFIX}MONGODB_URI: {complaint}"] if complaint else []
    if not settings.oauth_algorithms or not ASYMMETRIC.issuperset(settings.oauth_algorithms):
        problems.append(f"{PREFIX}OAUTH_ALGORITHMS: must be one or more of {' '.join(sorted(ASYMMETRIC))}")
    problems += _token_problems(settings)
    client_problem = _client_problem(settings)
    problems += [client_problem] if client_problem else []
    problems += _missing_extras(settings)
    for name in ("bind", "metrics_bind"):
        where = getattr(settings, name)
        complaint = addresses.problem(where) if where or name == "bind" else None
        problems += [f"{PREFIX}{name.upper()}: {complaint}"] if complaint else []
    if settings.metrics_bind and settings.metrics_bind == settings.bind:
        problems.append(f"{PREFIX}METRICS_BIND: must not be the public listener")
    problems += _worker_problems(settings) if settings.workers > 1 else []
    if settings.frontend_dir is not None and not (settings.frontend_dir / "index.html").is_file():
        problems.append(f"{PREFIX}FRONTEND_DIR: holds no index.html; build the page first")
    return problems
