from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from livedocs.access.acl import Allowed, Denied
from livedocs.http.explanation import Held, explain
from livedocs.model import Grant, GrantKey, Role

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SOON = NOW + timedelta(minutes=1)
ROOM = uuid4()


def grant(subject, role=Role.READER, expires_at=None):
    return Grant(GrantKey("acme", ROOM, subject), role, expires_at)


GRANTS = [
    grant("group:staff", Role.WRITER),
    grant("tenant:*", Role.READER, NOW - timedelta(seconds=1)),
    grant("user:alice", Role.OWNER),
    grant("user:bob", Role.READER, SOON),
]


def kinds(found):
    return [(rule.kind, rule.applies) for rule in found.rules]


def test_the_grants_of_others_are_no_rule_for_the_subject():
    found = explain(GRANTS, "user:alice", Held(frozenset()), NOW)
    assert found.decision == Allowed(Role.OWNER, None)
    assert kinds(found) == [("subject", True), ("group", False), ("tenant", False)]


@pytest.mark.parametrize(
    ("groups", "decision", "applies"),
    [
        (None, Denied("expired"), None),
        (frozenset(), Denied("expired"), False),
        (frozenset({"staff"}), Allowed(Role.WRITER, None), True),
        (frozenset({"sta"}), Denied("expired"), False),
    ],
)
def test_a_groups_grant_counts_as_far_as_the_groups_are_known(groups, decision, applies):
    found = explain(GRANTS, "user:carol", Held(groups), NOW)
    assert found.decision == decision
    assert kinds(found) == [("group", applies), ("tenant", False)]


def test_an_end_that_is_yet_to_come_is_said():
    assert explain(GRANTS, "user:bob", Held(), NOW).decision == Allowed(Role.READER, SOON)
    assert explain(GRANTS, "user:bob", Held(), SOON).decision == Denied("expired")


def test_a_group_is_explained_by_its_own_grant_and_everyones():
    found = explain(GRANTS, "group:staff", Held(), NOW)
    assert found.decision == Allowed(Role.WRITER, None)
    assert kinds(found) == [("subject", True), ("tenant", False)]


def test_without_any_grant_there_is_none():
    assert explain([], "user:bob", Held(), NOW).decision == Denied("no_grant")


ALL = frozenset({"livedocs:write", "livedocs:admin", "livedocs:platform", "openid"})


def scopes(subject, held):
    return [scope for scope, _ in explain([], subject, held, NOW).scopes]


@pytest.mark.parametrize(
    ("subject", "counting", "confined"),
    [
        ("client:acme-service", ["livedocs:write", "livedocs:admin"], ["livedocs:write"]),
        ("user:ada", ["livedocs:admin"], []),
        ("group:staff", [], []),
        ("tenant:*", [], []),
    ],
)
def test_of_the_scopes_that_somebody_holds_those_that_count_are_named(subject, counting, confined):
    assert scopes(subject, Held(scopes=ALL)) == counting
    assert scopes(subject, Held(scopes=ALL, confined=True)) == confined
    for lacking in counting:
        assert lacking not in scopes(subject, Held(scopes=ALL - {lacking}))
    assert scopes(subject, Held()) == []
