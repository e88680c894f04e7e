from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from livedocs.access.principal import Principal
from livedocs.errors import Conflict, Forbidden, NotFound
from livedocs.http import grant_rules as rules
from livedocs.model import Grant, GrantKey, Role
from livedocs.store.grant_book import GrantBook

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER, EARLIER = NOW + timedelta(hours=1), NOW - timedelta(hours=1)


def key(subject):
    return GrantKey("acme", UUID(int=1), subject)


def state(*held):
    """Grants as (subject, role) or (subject, role, end)."""
    return [Grant(key(item[0]), item[1], *item[2:]) for item in held]


def book(held, who, most=1000):
    return GrantBook(UUID(int=1), held, subjects=who.subjects, most=most, now=NOW, total=len(held))


def caller(subject="user:alice", *, groups=(), scopes=()):
    return Principal("acme", subject, "", frozenset(groups), frozenset(scopes), LATER, "livedocs", "t")


ADMIN = caller("user:ada", scopes=["livedocs:admin"])
SERVICE = caller("client:s", scopes=["livedocs:write"])


@pytest.mark.parametrize(
    ("held", "who"),
    [
        (state(("user:alice", Role.OWNER)), caller()),
        (state(("group:staff", Role.OWNER)), caller(groups=["staff"])),
        (state(("tenant:*", Role.OWNER)), caller()),
        (state(("user:alice", Role.OWNER, LATER)), caller()),
        (state(("user:bob", Role.OWNER)), ADMIN),
        (state(), ADMIN),
        (state(), SERVICE),
        (state(("client:s", Role.OWNER)), SERVICE),
    ],
)
def test_who_manages_grants(held, who):
    rules.require_manager(book(held, who), who)


@pytest.mark.parametrize(
    ("held", "who"),
    [
        (state(), caller()),
        (state(("user:alice", Role.WRITER)), caller()),
        (state(("user:bob", Role.OWNER)), caller()),
        (state(("group:staff", Role.OWNER)), caller(groups=["other"])),
        (state(("user:alice", Role.OWNER, EARLIER)), caller()),
        (state(("user:alice", Role.OWNER, NOW)), caller()),
        (state(("user:bob", Role.READER)), SERVICE),
        # A service and a user of one name are different subjects.
        (state(("user:s", Role.OWNER)), SERVICE),
        (state(), caller(scopes=["livedocs:write"])),
        (state(), caller("client:s")),
    ],
)
def test_who_does_not(held, who):
    for attempt in (
        lambda: rules.require_manager(book(held, who), who),
        lambda: rules.put(book(held, who), who, key("user:eve"), Role.OWNER, None),
        lambda: rules.remove(book(held, who), who, key("user:bob")),
    ):
        with pytest.raises(Forbidden):
            attempt()


def test_a_grant_names_who_gave_it_and_when():
    held = state(("user:alice", Role.OWNER))
    granted = rules.put(book(held, caller()), caller(), key("user:bob"), Role.READER, LATER)
    assert granted == Grant(key("user:bob"), Role.READER, LATER, "user:alice", NOW)


@pytest.mark.parametrize(
    ("held", "role", "end"),
    [
        (state(("user:alice", Role.OWNER)), Role.WRITER, None),
        (state(("user:alice", Role.OWNER)), Role.OWNER, LATER),
        (state(("user:alice", Role.OWNER), ("user:bob", Role.OWNER, EARLIER)), Role.READER, None),
        (state(("user:alice", Role.OWNER), ("user:bob", Role.OWNER, LATER)), Role.READER, None),
        (state(("user:alice", Role.OWNER, LATER)), Role.WRITER, None),
    ],
)
def test_the_last_lasting_owner_is_not_demoted(held, role, end):
    with pytest.raises(Conflict):
        rules.put(book(held, caller()), caller(), key("user:alice"), role, end)
    assert rules.put(book(held, ADMIN), ADMIN, key("user:alice"), role, end).role is role


def test_an_owner_goes_when_another_one_stays():
    held = state(("user:alice", Role.OWNER), ("group:staff", Role.OWNER))
    rules.remove(book(held, caller()), caller(), key("user:alice"))
    with pytest.raises(Conflict):
        rules.remove(book(held[:1], caller()), caller(), key("user:alice"))


def test_what_is_not_there_cannot_be_removed():
    with pytest.raises(NotFound):
        rules.remove(book(state(("user:alice", Role.OWNER)), caller()), caller(), key("user:bob"))
