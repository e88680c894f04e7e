"""An OAuth service that says what a test has it say, and a clock that stands still until it is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import respx

from livedocs import config
from livedocs.access.breaker import Breaker
from livedocs.access.introspection import Introspector
from livedocs.access.issuer import Issuer
from livedocs.telemetry import Metrics

ISSUER = "https://id.example/realm"


class Clock:
    """Time as a test wants it. Whole seconds at first, as NumericDates are."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    def stamp(self, seconds: float = 0) -> int:
        return int((self.at + timedelta(seconds=seconds)).timestamp())


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def configure():
    def settings(**overrides):
        values = {
            "public_url": "http://localhost:8000",
            "mongodb_uri": "mongodb://localhost",
            "oauth_issuer": ISSUER,
            "oauth_client_id": "livedocs",
            "oauth_client_secret": "s3cret:with/odd ü",
            "oauth_audience": "livedocs",
            "oauth_introspection_url": f"{ISSUER}/introspect",
            "oauth_timeout": 0.5,
        }
        return config.load({}, **{**values, **overrides})

    return settings


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
async def start_introspector(configure, clock, metrics):
    started = []

    def start(**overrides):
        settings = configure(**overrides)
        issuer = Issuer(settings, now=clock)
        introspector = Introspector(
            settings, issuer, metrics, now=clock, breaker=Breaker(limit=3, jitter=lambda _low, high: high)
        )
        started.extend([introspector, issuer])
        return introspector

    yield start
    for part in started:
        await part.aclose()


@pytest.fixture
def introspector(start_introspector):
    return start_introspector()


@pytest.fixture
def provider():
    with respx.mock(assert_all_called=False) as router:
        yield router


@pytest.fixture
def introspection(provider):
    return provider.post(f"{ISSUER}/introspect", name="introspect")


@pytest.fixture
def active(clock):
    """The answer for a good token, with what a test changes; None takes a member away."""

    def answer(**changes):
        body = {
            "active": True,
            "sub": "alice",
            "client_id": "livedocs",
            "username": "Alice",
            "iss": ISSUER,
            "aud": "livedocs",
            "exp": clock.stamp(300),
            "nbf": clock.stamp(-10),
            "scope": "openid livedocs:write",
            "tenant": "acme",
            "groups": ["staff", "editors"],
            **changes,
        }
        return {name: value for name, value in body.items() if value is not None}

    return answer
