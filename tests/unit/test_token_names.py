"""Who a token may say that somebody is, and in how many groups."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from livedocs.access.claims import Expectations, Refused, judge
from livedocs.access.principal import Principal

NOW = datetime(2030, 1, 1, tzinfo=UTC)
EXPECTED = Expectations("https://id.example", "livedocs", "livedocs", "tenant", "groups", "sub", max_groups=3)
ANSWER = {"active": True, "exp": NOW.timestamp() + 60, "aud": "livedocs", "tenant": "acme", "sub": "alice"}
HIDDEN = ["al\u202eice", "alice\u200b", "alice ", "\x9balice", "al\u2028ice", "e\u0301lise", "\ud800"]


def judged(**changes):
    return judge({**ANSWER, **changes}, EXPECTED, token_id="id", now=NOW)


@pytest.mark.parametrize("name", HIDDEN, ids=ascii)
def test_a_token_of_a_name_that_no_grant_can_hold_is_refused(name):
    assert judged(sub=name) == Refused("subject")
    assert judged(sub=name, client_id=name) == Refused("subject")
    assert judged(client_id=name) == Refused("subject")
    assert judged(groups=["staff", name]) == Refused("groups")


def test_a_token_of_too_many_groups_is_refused_and_none_is_left_out():
    assert judged(groups=["a", "b", "c"]).groups == {"a", "b", "c"}
    assert judged(groups=["a", "b", "c", "d"]) == Refused("groups")
    # Counted as the provider says them: what is read is bounded, not what is left of it.
    assert judged(groups=["a"] * 4) == Refused("groups")


@pytest.mark.parametrize("name", ["Al\u202eice", "\x1b[2J", "a\u200bb"], ids=ascii)
def test_a_name_for_people_with_something_hidden_in_it_is_not_shown(name):
    assert judged(name=name, username="alicia").name == "alicia"
    assert judged(name=name).name == "alice"
    assert judged(name="  Alice A. ").name == "Alice A."


def test_the_subjects_of_a_caller_are_sorted_once():
    groups = frozenset({"b", "a", "c"})

    def principal(subject, of):
        return Principal("acme", subject, "", of, frozenset(), NOW, "livedocs", "t")

    alice, bob = principal("user:alice", groups), principal("user:bob", frozenset(groups))
    assert alice.subjects == ("user:alice", "group:a", "group:b", "group:c", "tenant:*")
    # The very same objects, for everybody who is in the same groups.
    assert all(one is other for one, other in zip(alice.subjects[1:-1], bob.subjects[1:-1], strict=True))
