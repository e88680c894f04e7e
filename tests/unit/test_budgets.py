"""Bytes in flight: bounded for a user and for a tenant, and given back."""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from livedocs.access.budgets import BytesInFlight
from livedocs.access.principal import Principal
from livedocs.errors import TooManyBytes
from livedocs.telemetry import Metrics

MIB = 2**20
END = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def budgets():
    limits = {"max_bytes_in_flight_per_user": 2 * MIB, "max_bytes_in_flight_per_tenant": 3 * MIB}
    return BytesInFlight(SimpleNamespace(**limits), Metrics())


@pytest.fixture
def principal():
    return Principal("acme", "user:alice", "Alice", frozenset(), frozenset(), END, "page", "t1")


def test_a_user_over_the_budget_is_refused_and_told_when_to_come_back(budgets, principal):
    held = budgets.hold(principal, 2 * MIB)
    with pytest.raises(TooManyBytes) as refused:
        budgets.hold(principal, 1)
    assert refused.value.retry_after
    held.release()
    budgets.hold(principal, 2 * MIB)


def test_the_users_of_a_tenant_share_its_budget_and_those_of_another_do_not(budgets, principal):
    other = replace(principal, subject="user:bob")
    stranger = replace(principal, tenant="globex")
    budgets.hold(principal, 2 * MIB)
    budgets.hold(other, MIB)
    with pytest.raises(TooManyBytes):
        budgets.hold(other, 1)
    budgets.hold(stranger, 2 * MIB)


def test_what_was_refused_is_not_counted(budgets, principal):
    with pytest.raises(TooManyBytes):
        budgets.hold(principal, 3 * MIB)
    with budgets.hold(principal, 2 * MIB) as held:
        with pytest.raises(TooManyBytes):
            held.grow(1)
        assert held.bytes == 2 * MIB
    budgets.hold(principal, 2 * MIB)
