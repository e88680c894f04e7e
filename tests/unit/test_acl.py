from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from livedocs.access.acl import Allowed, Denied, decide
from livedocs.model import Grant, GrantKey, Role

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def grant(role: Role, seconds: float | None = None) -> Grant:
    ends = None if seconds is None else NOW + timedelta(seconds=seconds)
    return Grant(GrantKey("acme", uuid4(), "user:a"), role, ends)


def test_no_grant_is_no():
    assert decide([], NOW) == Denied("no_grant")


def test_grants_that_have_all_ended_are_no():
    assert decide([grant(Role.OWNER, 0), grant(Role.READER, -1)], NOW) == Denied("expired")


def test_the_highest_role_in_force_counts():
    assert decide([grant(Role.READER), grant(Role.WRITER), grant(Role.OWNER, -1)], NOW) == Allowed(
        Role.WRITER, None
    )


def test_a_role_that_is_too_low_is_no():
    assert decide([grant(Role.WRITER)], NOW, needs=Role.OWNER) == Denied("role_too_low")


def test_the_answer_holds_until_the_first_end():
    decision = decide([grant(Role.OWNER, 5), grant(Role.READER, 9), grant(Role.READER)], NOW)
    assert decision == Allowed(Role.OWNER, NOW + timedelta(seconds=5))


@given(st.lists(st.tuples(st.sampled_from(Role), st.none() | st.integers(-3, 3))))
def test_until_its_end_an_answer_does_not_change_and_more_grants_never_allow_less(drawn):
    grants = [grant(role, seconds) for role, seconds in drawn]
    decision = decide(grants, NOW)
    if isinstance(decision, Allowed):
        if decision.until is not None:
            assert decision.until > NOW
            before = decide(grants, decision.until - timedelta(microseconds=1))
            assert isinstance(before, Allowed)
            assert before.role == decision.role
        more = decide([*grants, grant(Role.OWNER)], NOW)
        assert isinstance(more, Allowed)
        assert more.role >= decision.role
