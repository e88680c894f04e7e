from __future__ import annotations

from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedocs import config
from livedocs.access.limits import Buckets, Limits, Rate, address_key
from livedocs.access.principal import Principal
from livedocs.errors import RateLimited, TooManyConnections
from livedocs.http.admin_shapes import Limits as LimitsShape
from livedocs.live.quotas import SocketQuotas
from livedocs.model import Tenant
from livedocs.store.tenants import LIMITS
from livedocs.telemetry import BOUNDS, Metrics


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


def a_tenant(slug="acme", **limits):
    return Tenant(slug, f"livedocs_{slug}", {}, limits=limits)


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
    # More than a bucket holds needs a full bucket: it is not for ever impossible. All of it counts.
    assert buckets.take("b", 0.0, 500) == 0
    assert buckets.take("b", 0.0) == pytest.approx(40.1)
    assert buckets.take("b", 39.9, 101) > 0
    assert buckets.take("b", 50.0, 101) == 0


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 40)), max_size=60))
def test_in_no_stretch_of_time_does_more_get_through_than_the_rate_and_a_burst(steps):
    buckets, now, taken = Buckets(Rate(3, burst=8)), 0.0, []
    for pause, count in steps:
        now += pause
        if not buckets.take("a", now, count):
            taken.append((now, count))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            # Of the last one, which may be larger than a burst, what a burst has.
            through = sum(count for _, count in taken[first:last]) + min(taken[last][1], 8)
            assert through <= 8 + 3 * (taken[last][0] - taken[first][0]) + 1e-6


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 40)), max_size=60))
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
        limits.caller("requests", somebody(subject), a_tenant())
    with pytest.raises(RateLimited, match="of this user"):
        limits.caller("requests", somebody(), a_tenant())
    with pytest.raises(RateLimited, match="of this tenant"):
        limits.caller("requests", somebody("user:bob"), a_tenant())
    # A tenant's troubles are its own, and so are those of a kind.
    limits.caller("requests", somebody(tenant="globex"), a_tenant("globex"))
    limits.caller("joins", somebody(), a_tenant())
    for _ in range(10_000):
        limits.address("events", "192.0.2.1")
    count = metrics.registry.get_sample_value
    assert count("livedocs_rate_limited_total", {"kind": "requests", "scope": "tenant"}) == 1


def test_a_tenants_own_rates_stand_in_place_of_the_servers_and_count_at_once():
    now = [0.0]
    limits = Limits(
        settings(limit_burst=1, limit_requests_per_user=0, limit_requests_per_tenant=2, limit_joins_per_tenant=2),
        Metrics(),
        clock=lambda: now[0],
    )

    def through(tenant, kind="requests", subject="user:alice"):
        count = 0
        while count < 50:
            try:
                limits.caller(kind, somebody(subject, tenant.slug), tenant)
            except RateLimited:
                break
            count += 1
        return count

    assert through(a_tenant(limit_requests_per_tenant=7)) == 7
    # Less from now on, then more: what was taken before counts as what it was, a share of the bucket.
    assert through(a_tenant(limit_requests_per_tenant=1)) == 0
    now[0] += 1
    assert through(a_tenant(limit_requests_per_tenant=1)) == 1
    now[0] += 0.5
    assert through(a_tenant(limit_requests_per_tenant=20)) == 10
    # Others, and other kinds, have the server's.
    assert through(a_tenant("globex", limit_joins_per_tenant=5)) == 2
    assert through(a_tenant("globex", limit_joins_per_tenant=5), "joins") == 5
    # A limit where the server has none.
    now[0] += 60
    assert through(a_tenant(limit_requests_per_user=3, limit_requests_per_tenant=40)) == 3
    assert through(a_tenant(limit_requests_per_user=3, limit_requests_per_tenant=40), subject="user:bob") == 3


def test_workers_share_what_a_tenant_has_of_its_own():
    one_of_two = settings(workers=2, limit_burst=1)
    limits, quotas = Limits(one_of_two, Metrics(), clock=lambda: 0.0), SocketQuotas(one_of_two)
    tenant = a_tenant(limit_events_per_tenant=6, max_sockets_per_tenant=3)
    for _ in range(3):
        limits.caller("events", somebody(), tenant)
    with pytest.raises(RateLimited):
        limits.caller("events", somebody(), tenant)
    for subject in ("user:alice", "user:bob"):
        quotas.connected(somebody(subject), tenant)
    with pytest.raises(TooManyConnections):
        quotas.connected(somebody("user:eve"), tenant)


@pytest.mark.parametrize("value", ["7", True, 0, -1, 2.5, None, [7]])
def test_what_is_no_limit_leaves_the_servers_in_force(value):
    limits = Limits(settings(limit_burst=1, limit_events_per_tenant=2), Metrics(), clock=lambda: 0.0)
    for _ in range(2):
        limits.caller("events", somebody(), a_tenant(limit_events_per_tenant=value))
    with pytest.raises(RateLimited):
        limits.caller("events", somebody(), a_tenant(limit_events_per_tenant=value))


def test_every_limit_of_a_tenant_is_a_setting_of_the_server_that_is_described():
    assert config.Settings.model_fields.keys() >= LIMITS
    assert {field.name for field in fields(LimitsShape)} == LIMITS


@contextmanager
def too_many(limit):
    """The refusal says which limit it was, as the metrics count it."""
    with pytest.raises(TooManyConnections) as refused:
        yield
    assert refused.value.data == {"limit": limit}
    assert tuple(limit.split(" per ")) in BOUNDS


def test_sockets_are_counted_by_process_address_user_and_tenant():
    quotas = SocketQuotas(
        settings(
            max_sockets=4,
            max_sockets_per_address=2,
            max_sockets_per_user=1,
            max_sockets_per_tenant=2,
            max_waiting_sockets=1,
        )
    )
    quotas.check_open("a", vouched=False)
    arrived = [quotas.opened("a", vouched=False)]
    with too_many("waiting sockets per server"):
        quotas.check_open("b", vouched=False)
    arrived.append(quotas.opened("a", vouched=True))
    with too_many("sockets per address"):
        quotas.check_open("a", vouched=True)
    arrived += [quotas.opened("b", vouched=True), quotas.opened("c", vouched=True)]
    with too_many("sockets per server"):
        quotas.check_open("d", vouched=True)
    quotas.connected(somebody(), a_tenant())
    with too_many("sockets per user"):
        quotas.connected(somebody(), a_tenant())
    quotas.connected(somebody("user:bob"), a_tenant())
    with too_many("sockets per tenant"):
        quotas.connected(somebody("user:eve"), a_tenant())
    quotas.connected(somebody(tenant="globex"), a_tenant("globex"))
    # Of its own, whether tighter or wider.
    with pytest.raises(TooManyConnections):
        quotas.connected(somebody("user:eve"), a_tenant(max_sockets_per_tenant=2))
    with pytest.raises(TooManyConnections):
        quotas.connected(somebody("user:bob"), a_tenant(max_sockets_per_tenant=3))
    quotas.connected(somebody("user:bob"), a_tenant(max_sockets_per_tenant=3, max_sockets_per_user=2))
    for who in (somebody(), somebody("user:bob"), somebody("user:bob"), somebody(tenant="globex")):
        quotas.disconnected(who)
    for arrival in arrived:
        quotas.ended(arrival)
    assert (quotas.open, quotas.waiting) == (0, 0)
    assert not quotas._addresses
    assert not quotas._waiting
    assert not quotas._users
    assert not quotas._tenants


def test_one_address_leaves_places_to_wait_for_those_of_others():
    quotas = SocketQuotas(settings(max_waiting_sockets=10, max_waiting_sockets_per_address=3))
    waiting = [quotas.opened("192.0.2.1", vouched=False) for _ in range(3)]
    with pytest.raises(TooManyConnections):
        quotas.check_open("192.0.2.1", vouched=False)
    # Whoever brought a credential along does not wait.
    quotas.check_open("192.0.2.1", vouched=True)
    quotas.check_open("192.0.2.2", vouched=False)
    # A good CONNECT makes room, and so does the end.
    quotas.vouched(waiting[0])
    quotas.vouched(waiting[0])
    assert quotas.waiting == 2
    waiting.append(quotas.opened("192.0.2.1", vouched=False))
    with pytest.raises(TooManyConnections):
        quotas.check_open("192.0.2.1", vouched=False)
    for arrival in waiting:
        quotas.ended(arrival)
    assert (quotas.open, quotas.waiting) == (0, 0)
    assert not quotas._waiting
