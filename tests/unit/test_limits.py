from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedocs import config
from livedocs.access.limits import Buckets, Limits, Rate, address_key
from livedocs.access.principal import Principal
from livedocs.errors import RateLimited, TooManyConnections
from livedocs.live.census import Census
from livedocs.telemetry import Metrics


def settings(**changes):
    required = {
        "public_url": "http://localhost:1",
        "mongodb_uri": "mongodb://localhost",
        "oauth_issuer": "http://localhost:2",
        "oauth_client_id": "livedocs",
        "oauth_client_secret": "secret",
        "oauth_audience": "livedocs",
    }
    return config.load({}, **required, **changes)


def somebody(subject="user:alice", tenant="acme"):
    return Principal(tenant, subject, "", frozenset(), frozenset(), datetime.now(UTC), "web", "t")


def test_so_many_at_once_then_so_many_a_second():
    buckets = Buckets(Rate(2, burst=6))
    assert [buckets.take("a", 100.0) for _ in range(6)] == [0.0] * 6
    assert buckets.take("a", 100.0) == pytest.approx(0.5)
    # Being refused costs nothing.
    assert buckets.take("a", 100.0) == pytest.approx(0.5)
    assert buckets.take("a", 100.5) == 0
    assert buckets.take("a", 100.5) > 0
    assert buckets.take("b", 100.5) == 0
    assert [buckets.take("a", 200.0) for _ in range(7)][-1] > 0


def test_several_are_taken_together_or_not_at_all():
    buckets = Buckets(Rate(10, burst=100))
    assert buckets.take("a", 0.0, 90) == 0
    assert buckets.take("a", 0.0, 20) == pytest.approx(1.0)
    assert buckets.take("a", 0.0, 10) == 0
    # More than a bucket holds is a full bucket, not for ever impossible.
    assert buckets.take("b", 0.0, 500) == 0
    assert buckets.take("b", 0.0) == pytest.approx(0.1)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 8)), max_size=60))
def test_in_no_stretch_of_time_does_more_get_through_than_the_rate_and_a_burst(steps):
    buckets, now, taken = Buckets(Rate(3, burst=8)), 0.0, []
    for pause, count in steps:
        now += pause
        if not buckets.take("a", now, count):
            taken.append((now, count))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            through = sum(count for _, count in taken[first : last + 1])
            assert through <= 8 + 3 * (taken[last][0] - taken[first][0]) + 1e-6


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 8)), max_size=60))
def test_whoever_waits_as_long_as_told_gets_through(steps):
    buckets, now = Buckets(Rate(3, burst=8)), 0.0
    for pause, count in steps:
        now += pause
        if wait := buckets.take("a", now, count):
            now += wait + 1e-6
            assert buckets.take("a", now, count) == 0


def test_memory_is_bounded_and_strangers_share_a_bucket_while_it_is_full():
    buckets = Buckets(Rate(1, burst=2), size=100)
    for number in range(100):
        assert buckets.take(f"early {number}", 0.0, 2) == 0
    refused = sum(buckets.take(f"stranger {number}", 0.0) > 0 for number in range(10_000))
    assert refused == 9_998
    assert len(buckets) == 101
    # Nobody who is held back was forgotten.
    assert all(buckets.take(f"early {number}", 0.0) > 0 for number in range(100))
    # Full buckets make room.
    assert buckets.take("later", 2.0) == 0
    assert len(buckets) <= 101


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "", True),
        ("no address", "", False),
    ],
)
def test_of_ipv6_a_network_counts_as_one_address(one, other, same):
    assert (address_key(one) == address_key(other)) is same


def test_user_tenant_and_address_have_limits_of_their_own():
    now, metrics = [0.0], Metrics()
    limits = Limits(
        settings(
            limit_burst=1,
            limit_requests_per_user=2,
            limit_requests_per_tenant=3,
            limit_requests_per_address=1,
            limit_events_per_address=0,
        ),
        metrics,
        clock=lambda: now[0],
    )
    limits.address("requests", "192.0.2.1")
    with pytest.raises(RateLimited) as refused:
        limits.address("requests", "192.0.2.1")
    assert refused.value.retry_after == pytest.approx(1.0)
    assert refused.value.data["limit"] == "requests per address"
    limits.address("requests", "192.0.2.2")
    for subject in ("user:alice", "user:alice", "client:alice"):
        limits.caller("requests", somebody(subject))
    with pytest.raises(RateLimited, match="of this user"):
        limits.caller("requests", somebody())
    with pytest.raises(RateLimited, match="of this tenant"):
        limits.caller("requests", somebody("user:bob"))
    # A tenant's troubles are its own, and so are those of a kind.
    limits.caller("requests", somebody(tenant="globex"))
    limits.caller("joins", somebody())
    for _ in range(10_000):
        limits.address("events", "192.0.2.1")
    count = metrics.registry.get_sample_value
    assert count("livedocs_rate_limited_total", {"kind": "requests", "scope": "tenant"}) == 1


def test_sockets_are_counted_by_process_address_user_and_tenant():
    census = Census(
        settings(
            max_sockets=4,
            max_sockets_per_address=2,
            max_sockets_per_user=1,
            max_sockets_per_tenant=2,
            max_waiting_sockets=1,
        )
    )
    census.check_open("a", vouched=False)
    census.opened("a", vouched=False)
    with pytest.raises(TooManyConnections):
        census.check_open("b", vouched=False)
    census.opened("a", vouched=True)
    with pytest.raises(TooManyConnections):
        census.check_open("a", vouched=True)
    census.opened("b", vouched=True)
    census.opened("c", vouched=True)
    with pytest.raises(TooManyConnections):
        census.check_open("d", vouched=True)
    census.connected(somebody())
    with pytest.raises(TooManyConnections):
        census.connected(somebody())
    census.connected(somebody("user:bob"))
    with pytest.raises(TooManyConnections):
        census.connected(somebody("user:eve"))
    census.connected(somebody(tenant="globex"))
    for who in (somebody(), somebody("user:bob"), somebody(tenant="globex")):
        census.disconnected(who)
    for address, vouched in (("a", False), ("a", True), ("b", True), ("c", True)):
        census.ended(address, vouched=vouched)
    assert (census.open, census.waiting) == (0, 0)
    assert not census._addresses
    assert not census._users
    assert not census._tenants
