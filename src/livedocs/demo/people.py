"""Who and what the demo has: tenants, people, groups, scopes and OAuth clients, as data.

The development provider logs these people in, `livedocs demo` registers these tenants, `livedocs token` asks for
tokens of these names. Nothing here is secret and nothing here is for any other use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from livedocs.model import CollectionKey

AUDIENCE: Final = "livedocs"
"""`aud` of every access token of the development provider."""

ACCESS_TOKEN_SECONDS: Final = 900
"""How long an access token lives unless the request asks otherwise."""

TTL_SECONDS: Final = range(1, 86401)
"""What a request may ask for with `ttl`, the provider's development extension."""

SCOPES: Final[Mapping[str, str]] = {
    "openid": "know who you are",
    "profile": "see your name",
    "offline_access": "stay logged in",
    "livedocs:write": "write every document of the tenant",
    "livedocs:admin": "manage every grant of the tenant",
    "livedocs:platform": "administer every tenant",
}
"""Every scope of the provider, and what granting it lets an application do."""


@dataclass(frozen=True, slots=True)
class DemoTenant:
    """A tenant of the demo. `collections` maps a collection to the field that holds its UUID."""

    slug: str
    title: str
    database: str
    collections: Mapping[str, CollectionKey]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can log in.

    Attributes:
        name: the user name, also the subject (`sub`) of the person's tokens.
        title: the name for people to read.
        may: what the login page says the person may do.
    """

    name: str
    title: str
    tenant: str
    groups: tuple[str, ...]
    scopes: tuple[str, ...]
    may: str


@dataclass(frozen=True, slots=True)
class DemoClient:
    """An OAuth client (RFC 6749, 2).

    Attributes:
        secret: None for a public client and for the login client, whose secret belongs to the data directory.
        confidential: whether the client authenticates itself.
        tenant: the tenant of a service; None for clients that act for people.
        introspects: whether the client may ask about any access token (RFC 7662).
    """

    client_id: str
    title: str
    confidential: bool
    grant_types: tuple[str, ...]
    scopes: tuple[str, ...]
    secret: str | None = None
    tenant: str | None = None
    introspects: bool = False


_COLLECTIONS: Final[Mapping[str, CollectionKey]] = {"notes": "_id", "test": "uuid"}

TENANTS: Final = (
    DemoTenant("acme", "Acme", "livedocs_acme", _COLLECTIONS),
    DemoTenant("globex", "Globex", "livedocs_globex", _COLLECTIONS),
)

_EVERYONE: Final = ("openid", "profile", "offline_access")

PEOPLE: Final = (
    Person("alice", "Alice", "acme", ("staff",), _EVERYONE, "Creates documents and shares them"),
    Person("bob", "Bob", "acme", ("staff",), _EVERYONE, "Sees what others share with him"),
    Person("ada", "Ada", "acme", (), (*_EVERYONE, "livedocs:admin"), "Administrator: manages every grant of Acme"),
    # The same group name as in the other tenant, on purpose: equal names must not meet.
    Person("carol", "Carol", "globex", ("staff",), _EVERYONE, "Works at Globex; sees nothing of Acme"),
)

LOGIN_CLIENT: Final = DemoClient(
    "livedocs",
    "livedocs",
    confidential=True,
    grant_types=("authorization_code", "refresh_token"),
    scopes=(*_EVERYONE, "livedocs:admin"),
    introspects=True,
)

CLI_CLIENT: Final = DemoClient(
    "livedocs-cli",
    "the livedocs command line",
    confidential=False,
    grant_types=("authorization_code",),
    scopes=("openid", "profile", "livedocs:admin"),
)
CLI_REDIRECT_URI: Final = "http://127.0.0.1/livedocs-cli"
"""Never followed: the command line reads the code out of the redirect itself."""

SERVICE_CLIENTS: Final = (
    DemoClient(
        "acme-service",
        "Acme's own service",
        confidential=True,
        grant_types=("client_credentials",),
        scopes=("livedocs:write",),
        # The same on every machine, so that it can stand in examples: it opens nothing but a demo on loopback.
        secret="acme-service-development-secret",  # noqa: S106
        tenant="acme",
    ),
    DemoClient(
        "acme-operator",
        "Whoever runs the deployment",
        confidential=True,
        grant_types=("client_credentials",),
        scopes=("livedocs:platform",),
        secret="acme-operator-development-secret",  # noqa: S106
        tenant="acme",
    ),
)


def person(name: str) -> Person | None:
    """The person of that name, as the demo starts out."""
    return next((one for one in PEOPLE if one.name == name), None)


def service(client_id: str) -> DemoClient | None:
    """The service client of that id."""
    return next((one for one in SERVICE_CLIENTS if one.client_id == client_id), None)
