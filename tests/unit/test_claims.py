from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from livedocs.access.claims import Expectations, Refused, claim, is_answer, judge

NOW = datetime(2030, 1, 1, tzinfo=UTC)
EXPECTED = Expectations("https://id.example", "livedocs", "livedocs", "tenant", "groups", "sub")
ANSWER = {"active": True, "exp": NOW.timestamp() + 60, "aud": "livedocs", "tenant": "acme", "sub": "alice"}


def judged(**changes):
    return judge({**ANSWER, **changes}, EXPECTED, token_id="id", now=NOW)


@pytest.mark.parametrize("active", ["true", "false", 1, [True], {"a": 1}, None, False])
def test_nothing_but_true_is_active(active):
    assert judged(active=active) == Refused("inactive")
    assert judged(active=True).subject == "user:alice"


def test_a_token_ends_at_exp_rounded_down():
    assert judged(exp=NOW.timestamp() + 0.9) == Refused("expired")
    assert judged(exp=NOW.timestamp() + 1.9).expires_at == NOW + timedelta(seconds=1)


@pytest.mark.parametrize("exp", [float("nan"), float("inf"), -float("inf"), 1e18, 10**400, [], {}, False])
def test_an_end_that_is_no_moment_is_no_end(exp):
    assert judged(exp=exp) == Refused("exp")


@pytest.mark.parametrize("body", [None, [], "x", 1, True, {}, {"active": "true"}, {"active": 1}, {"active": None}])
def test_only_an_object_with_a_boolean_active_is_an_answer(body):
    assert not is_answer(body)
    assert is_answer({"active": False})


def test_a_claim_is_found_by_its_own_name_before_its_path():
    answer = {"a.b": 1, "a": {"b": 2, "c": {"d": 3}}}
    assert [claim(answer, path) for path in ("a.b", "a.c.d", "a.c.x", "x", "a.c.d.e")] == [1, 3, None, None, None]


def test_a_name_for_people_decides_nothing_and_is_short():
    principal = judged(name="client:acme-service" * 100)
    assert principal.subject == "user:alice"
    assert len(principal.name) == 200


def test_groups_of_odd_names_are_refused_as_no_grant_could_hold_them():
    assert judged(groups=["staff\n"]) == Refused("groups")
    assert judged(groups=["x" * 256]) == Refused("groups")
    assert judged(groups=["a:b", "tenant:*"]).groups == {"a:b", "tenant:*"}
