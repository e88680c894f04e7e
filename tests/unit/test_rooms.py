from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from livedocs.changes.event import DocumentChange, GrantChange, RoomKey
from livedocs.live.rooms import Membership, Rooms, State, access_since, held_throughout
from livedocs.model import Grant, GrantKey, Role

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ROOM = RoomKey("acme", UUID(int=1))
ALICE, STAFF = "user:alice", "group:staff"
BOTH = frozenset({ALICE, STAFF})


def grant(subject=ALICE, role=Role.READER, *, ends=None):
    expires_at = None if ends is None else NOW + timedelta(seconds=ends)
    return Grant(GrantKey(*ROOM, subject), role, expires_at)


def granted(token, given=None, *, subject=ALICE, before=None, wall=0):
    at = NOW + timedelta(seconds=wall)
    return GrantChange(token, Timestamp(1, 1), ROOM, subject, given, before, at)


def written(token, collection="notes"):
    return DocumentChange(token, Timestamp(1, 1), ROOM, collection, "_id", "update", NOW, None, b"")


def membership(room=ROOM, member="socket", subjects=BOTH):
    made = Membership(room, member, subjects)
    made.activate(made.subjects, {}, None, "5")
    return made


# -- one membership --


def test_only_what_is_behind_its_position_is_for_a_membership():
    wanted = membership()
    assert not wanted.wants(written("5"))
    assert wanted.wants(written("50"))


def test_only_an_active_membership_gets_anything_and_is_told_anything():
    pending, held_back, ended = Membership(ROOM, "socket", BOTH), membership(), membership()
    held_back.hold_back()
    ended.end()
    ended.hold_back()
    for one, state in ((pending, State.PENDING), (held_back, State.RESYNCING), (ended, State.ENDED)):
        assert (one.state, one.active) == (state, False)
        assert not one.wants(written("6"))
        assert not one.concerns(granted("6"))


def test_only_the_collections_asked_for_are_wanted():
    some = membership()
    some.collections = frozenset({"tasks"})
    assert [some.wants(written("6", name)) for name in ("notes", "tasks")] == [False, True]


def test_grants_to_others_and_those_the_snapshot_knew_do_not_concern_it():
    one = membership()
    assert one.concerns(granted("6", subject=STAFF))
    assert not one.concerns(granted("6", subject="user:bob"))
    assert not one.concerns(granted("5"))


def test_its_role_is_the_highest_of_what_is_left():
    one = membership()
    one.apply(granted("6", grant(ALICE, Role.READER)))
    one.apply(granted("7", grant(STAFF, Role.OWNER), subject=STAFF))
    assert one.decide(NOW).role is Role.OWNER
    one.apply(granted("8", None, subject=STAFF))
    assert one.decide(NOW).role is Role.READER
    one.apply(granted("9", None))
    assert one.decide(NOW).reason == "no_grant"


# -- all of them --


def test_a_membership_that_was_replaced_is_not_taken_out_in_its_successors_place():
    rooms = Rooms()
    former, successor = membership(), membership()
    rooms.add(former)
    rooms.add(successor)
    assert not rooms.remove(former)
    assert not rooms.holds(former)
    assert rooms.holds(successor)
    assert list(rooms.of_room(ROOM)) == [successor]


def test_equal_uuids_of_two_tenants_are_two_rooms():
    rooms = Rooms()
    ours, theirs = membership(), membership(RoomKey("globex", ROOM.uuid))
    rooms.add(ours)
    rooms.add(theirs)
    assert list(rooms.of_room(ROOM)) == [ours]
    assert rooms.get("socket", theirs.room) is theirs
    assert rooms.tenants == {"acme": 1, "globex": 1}


PLACES = st.tuples(st.sampled_from("abc"), st.integers(1, 3))


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "remove former"]), PLACES), max_size=60))
def test_both_indexes_always_agree(steps):
    rooms, model, former = Rooms(), {}, []
    for what, (member, number) in steps:
        room = RoomKey("acme", UUID(int=number))
        if what == "add":
            made = membership(room, member)
            former.append(model.get((member, room)))
            model[member, room] = made
            rooms.add(made)
        elif what == "remove":
            gone = model.pop((member, room), None)
            assert rooms.remove(gone or membership(room, member)) == (gone is not None)
        elif former and former[-1] is not None:
            assert not rooms.remove(former.pop())
        by_room = {m for room in rooms for m in rooms.of_room(room)}
        by_member = {m for member in "abc" for m in rooms.of_member(member).values()}
        assert by_room == by_member == set(model.values())
        assert all(rooms.get(member, room) is made for (member, room), made in model.items())
        assert len(rooms) == len({room for _, room in model})
        assert dict(rooms.tenants) == ({"acme": len(rooms)} if model else {})
    assert set(rooms._rooms) == {room for _, room in model}
    assert set(rooms._members) == {member for member, _ in model}


# -- what a snapshot's grants have become since --


def test_grants_after_the_snapshot_are_applied_to_it():
    held = held_throughout([grant()], [granted("6", grant(STAFF), subject=STAFF), written("7")], BOTH, NOW)
    assert held == {ALICE: grant(), STAFF: grant(STAFF)}


@pytest.mark.parametrize(
    ("at_snapshot", "changes"),
    [
        ([], []),
        ([grant(ends=0)], []),
        ([grant()], [granted("6", None)]),
        ([grant()], [granted("6", None), granted("7", grant())]),
        ([], [granted("6", grant())]),
        ([grant()], [granted("6", grant(ends=0))]),
        ([grant(), grant(STAFF)], [granted("6", None), granted("7", None, subject=STAFF)]),
    ],
)
def test_a_moment_without_any_grant_ends_it(at_snapshot, changes):
    assert held_throughout(at_snapshot, changes, BOTH, NOW) is None


def test_a_grant_taken_over_by_another_has_no_such_moment():
    changes = [granted("6", grant(STAFF), subject=STAFF), granted("7", None)]
    assert held_throughout([grant()], changes, BOTH, NOW) == {STAFF: grant(STAFF)}


def test_grants_to_subjects_that_are_not_the_callers_keep_nobody_in():
    assert held_throughout([grant()], [granted("6", grant(STAFF), subject=STAFF)], frozenset({ALICE}), NOW) == {
        ALICE: grant()
    }


# -- since when --


@pytest.mark.parametrize(
    ("changes", "held", "begun"),
    [
        ([], {ALICE: grant()}, ""),
        ([granted("6", grant())], {ALICE: grant()}, "6"),
        ([granted("6", grant(), before=grant())], {ALICE: grant()}, ""),
        ([granted("6", grant(), before=grant(ends=5), wall=4)], {ALICE: grant()}, ""),
        ([granted("6", grant(), before=grant(ends=5), wall=5)], {ALICE: grant()}, "6"),
        (
            [granted("4", grant()), granted("5", None, before=grant()), granted("6", grant())],
            {ALICE: grant()},
            "6",
        ),
        ([granted("6", grant())], {ALICE: grant(), STAFF: grant(STAFF)}, ""),
        ([granted("6", grant())], {ALICE: grant(), STAFF: grant(STAFF, ends=0)}, "6"),
        (
            [granted("6", grant(STAFF), subject=STAFF), granted("7", grant())],
            {ALICE: grant(), STAFF: grant(STAFF)},
            "6",
        ),
    ],
)
def test_access_begins_where_the_first_of_the_grants_in_force_did(changes, held, begun):
    assert access_since(changes, held, NOW, lambda _: "") == begun


@pytest.mark.parametrize(
    ("attested", "begun"),
    [("", "6"), ("5", "6"), ("8", "7"), ("65", "65")],
    ids=["always", "before the grant", "after the other grant", "between"],
)
def test_a_grant_to_a_group_counts_from_when_the_caller_was_seen_in_it(attested, begun):
    changes = [granted("6", grant(STAFF), subject=STAFF), granted("7", grant())]
    held = {ALICE: grant(), STAFF: grant(STAFF)}
    assert access_since(changes, held, NOW, {ALICE: "", STAFF: attested}.__getitem__) == begun
