from __future__ import annotations

import pytest

from livedocs import config
from livedocs.access.connections import Connections, Quota
from livedocs.access.limits import Limits
from livedocs.errors import RateLimited, TooManyBytes, TooManyConnections
from livedocs.runtime.workers import share
from livedocs.telemetry import Metrics

PROXY = "10.0.0.1"


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def connections(metrics, settings):
    made = settings(max_connections=10, max_connections_per_address=3, limit_connections_per_address=1)
    return Connections(made, metrics, Limits(made, metrics, clock=lambda: 0.0), lambda address: address == PROXY)


@pytest.fixture
def settings():
    def make(**changes):
        return config.load(
            {},
            public_url="http://localhost:1",
            mongodb_uri="mongodb://localhost",
            oauth_issuer="http://localhost:2",
            oauth_client_id="livedocs",
            oauth_client_secret="secret",
            oauth_audience="livedocs",
            **changes,
        )

    return make


def test_an_address_has_so_many_and_one_that_ends_makes_room(connections):
    for port in range(3):
        connections.opened(("192.0.2.1", port))
    with pytest.raises(TooManyConnections) as refused:
        connections.opened(("192.0.2.1", 9))
    assert refused.value.data["limit"] == "connections per address"
    connections.opened(("192.0.2.2", 1))
    connections.ended(("192.0.2.1", 0))
    # Said twice, and of one that was refused: counted once.
    connections.ended(("192.0.2.1", 0))
    connections.ended(("192.0.2.1", 9))
    connections.opened(("192.0.2.1", 10))
    with pytest.raises(TooManyConnections):
        connections.opened(("192.0.2.1", 11))


def test_of_a_proxy_only_the_sum_counts(connections):
    for port in range(10):
        connections.opened((PROXY, port))
    for peer in ((PROXY, 11), ("192.0.2.1", 1)):
        with pytest.raises(TooManyConnections) as refused:
            connections.opened(peer)
        assert refused.value.data["limit"] == "connections per server"


def test_an_address_that_comes_too_fast_is_refused(connections):
    for port in range(10):
        connections.opened(("192.0.2.1", port))
        connections.ended(("192.0.2.1", port))
    with pytest.raises(RateLimited):
        connections.opened(("192.0.2.1", 10))
    connections.opened(("192.0.2.2", 1))


def test_addresses_of_one_network_of_ipv6_are_one(metrics):
    quota = Quota("things", metrics, per_address=1)
    quota.add("2001:db8::1")
    with pytest.raises(TooManyConnections):
        quota.check("2001:db8::2")
    quota.check("2001:db8:0:1::1")


def test_what_is_refused_is_counted_by_kind_and_scope(metrics):
    quota = Quota("unread bytes", metrics, per_address=100, error=TooManyBytes)
    quota.add("192.0.2.1", 100)
    with pytest.raises(TooManyBytes, match="100 unread bytes at most"):
        quota.check("192.0.2.1")
    quota.remove("192.0.2.1", 60)
    quota.check("192.0.2.1", 60)
    labels = {"kind": "unread bytes", "scope": "address"}
    assert metrics.registry.get_sample_value("livedocs_limits_hit_total", labels) == 1


def test_nothing_is_remembered_of_who_has_gone(metrics):
    quota = Quota("things", metrics, per_address=1)
    for number in range(100):
        quota.add(f"192.0.2.{number}")
        quota.remove(f"192.0.2.{number}")
    assert not quota._addresses


def test_workers_share_them(settings):
    one = share(settings(workers=4, max_connections=10, bind="127.0.0.1:1"), 0)
    assert (one.max_connections, one.max_connections_per_address, one.max_waiting_requests_per_address) == (
        3,
        64,
        25,
    )
    assert one.limit_connections_per_address == 125
