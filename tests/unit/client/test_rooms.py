"""The rooms of a subscription: each change told once, in order."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from livedocs._client.rooms import Join, Rooms
from livedocs.client import Change, Refused, Revoked, Role, Snapshot, Truncated
from livedocs.errors import RateLimited, UnexpectedAnswer

ONE = UUID("01234567-89ab-4cde-8f01-23456789abcd")
AT = datetime(2026, 1, 2, tzinfo=UTC)


def rooms(*uuids, since=None, collections=None, snapshot=True, ticket=None):
    return Rooms(uuids or (ONE,), since=since or {}, collections=collections, snapshot=snapshot, ticket=ticket)


def live(*uuids, cursor="10", **options):
    """Rooms that are joined."""
    made = rooms(*uuids, **options)
    for join in made.joins(0):
        told = {str(uuid): {"role": "reader", "cursor": cursor, "snapshot": {}} for uuid in join.uuids}
        made.answered(join, {"joined": told, "refused": {}}, 0)
    return made


def change(made, cursor, uuid=ONE, **meta):
    return made.received(
        "notes", ({"uuid": str(uuid), "n": cursor}, {"op": "update", "id": cursor, "at": AT, **meta})
    )


def rejoin(made, now=0.0, **told):
    made.disconnected()
    (join,) = made.joins(now)
    answer = {"joined": {str(ONE): {"role": "reader", "cursor": "99", **told}}, "refused": {}}
    return join, list(made.answered(join, answer, now))


def test_a_join_asks_for_a_snapshot_first_and_for_what_was_missed_afterwards():
    made = rooms(collections=["notes"])
    assert made.joins(0) == [Join((ONE,), {"snapshot": True, "collections": ["notes"]})]
    made = live()
    change(made, "20")
    made.disconnected()
    assert made.joins(0) == [Join((ONE,), {"since": "20"})]
    assert rooms(snapshot=False).joins(0) == [Join((ONE,), {"snapshot": False})]
    assert rooms(since={ONE: "5"}).joins(0) == [Join((ONE,), {"since": "5"})]


def test_the_newest_ticket_goes_with_every_join():
    made = rooms()
    (join,) = made.joins(0)
    assert "ticket" not in join.options
    told = {str(ONE): {"role": "reader", "cursor": "10", "snapshot": {}}}
    made.answered(join, {"joined": told, "refused": {}, "ticket": "first"}, 0)
    made.disconnected()
    (join,) = made.joins(0)
    assert join.options == {"since": "10", "ticket": "first"}
    made.answered(join, {"joined": told, "refused": {}}, 0)
    assert made.received("$ticket", ({"ticket": "second"},)) is None
    assert made.received("$ticket", ({"ticket": 5},)) is None
    assert made.ticket == "second"
    again = rooms(ticket="second")
    assert again.joins(0)[0].options == {"snapshot": True, "ticket": "second"}


def test_a_room_is_asked_for_once_on_a_connection():
    made = rooms()
    assert len(made.joins(0)) == 1
    assert made.joins(0) == []
    assert made.due() is None


def test_a_call_has_a_hundred_rooms_of_one_cursor_at_most():
    uuids = [uuid4() for _ in range(250)]
    made = rooms(*uuids, since={uuids[0]: "5"})
    sizes = sorted(len(join.uuids) for join in made.joins(0))
    assert sizes == [1, 49, 100, 100]


def test_a_change_is_told_once():
    made = live(cursor="10")
    assert change(made, "10") is None
    told = change(made, "20", removed=["a"], truncated=[{"field": "b", "newSize": 2}], txn=1)
    assert told == Change(
        ONE, "notes", "update", {"uuid": str(ONE), "n": "20"}, "20", AT, ("a",), (Truncated("b", 2),), 1
    )
    assert change(made, "20") is None
    assert change(made, "15") is None
    assert made.cursors == {ONE: "20"}


def test_what_is_replayed_is_told_although_the_answer_names_a_later_place():
    made = live(cursor="10")
    join, events = rejoin(made, cursor="10", resumed=2)
    assert join.options == {"since": "10"}
    assert events == []
    assert [change(made, cursor).cursor for cursor in ("11", "12")] == ["11", "12"]


def test_with_nothing_missed_the_place_of_the_answer_counts():
    made = live(cursor="10")
    rejoin(made, cursor="30", resumed=0)
    assert made.cursors == {ONE: "30"}


def test_an_answer_never_takes_a_room_back():
    made = live(cursor="10")
    change(made, "20")
    rejoin(made, cursor="15", resumed=1)
    assert change(made, "16") is None
    assert change(made, "21") is not None


def test_a_gap_is_told_as_a_snapshot():
    made = live(cursor="10")
    _, events = rejoin(made, cursor="30", resync="window", snapshot={"notes": []})
    assert events == [Snapshot(ONE, {"notes": []}, "30", "window", Role.READER)]
    told = made.received("$resync", ({"uuid": str(ONE), "reason": "slow", "cursor": "40", "snapshot": {}},))
    assert told == Snapshot(ONE, {}, "40", "slow")
    assert change(made, "35") is None
    assert change(made, "41") is not None


def test_nothing_is_told_of_a_room_before_it_is_joined_or_after_it_is_lost():
    made = live(cursor="10")
    made.disconnected()
    assert change(made, "20") is None
    rejoin(made, cursor="10")
    assert made.received("$revoked", ({"uuid": str(ONE), "reason": "expired"},)) == Revoked(ONE, "expired")
    assert change(made, "30") is None
    assert len(made) == 0


def test_a_refused_room_is_told_and_not_asked_for_again():
    made = rooms()
    (join,) = made.joins(0)
    (event,) = made.answered(join, {"joined": {}, "refused": {str(ONE): {"code": "forbidden"}}}, 0)
    assert isinstance(event, Refused)
    assert event.error.code == "forbidden"
    assert len(made) == 0


@pytest.mark.parametrize(
    ("answer", "due"),
    [
        ({"joined": {}, "refused": {str(ONE): {"code": "unavailable"}}}, 6.0),
        ({"joined": {}, "refused": {str(ONE): {"code": "rate_limited", "retry_after_ms": 3000}}}, 8.0),
        ({"joined": {}, "refused": {}, "code": "rate_limited", "retry_after_ms": 2000}, 7.0),
    ],
    ids=["unavailable", "joins too fast", "events too fast"],
)
def test_a_room_that_cannot_be_joined_now_is_asked_for_later(answer, due):
    made = rooms()
    (join,) = made.joins(5.0)
    assert made.answered(join, answer, 5.0) == []
    assert made.due() == due
    assert made.joins(due - 0.1) == []
    assert made.joins(due) == [join]


def test_a_cursor_that_is_none_is_made_up_for_by_a_snapshot():
    made = rooms(since={ONE: "x"})
    (join,) = made.joins(0)
    assert made.answered(join, {"joined": {}, "refused": {str(ONE): {"code": "invalid_cursor"}}}, 0) == []
    assert made.joins(0) == [Join((ONE,), {"snapshot": True})]


@pytest.mark.parametrize("answer", [None, [], {}, {"joined": []}])
def test_an_answer_of_another_shape_is_an_error(answer):
    made = rooms()
    (join,) = made.joins(0)
    with pytest.raises(UnexpectedAnswer):
        made.answered(join, answer, 0)


def test_a_call_that_is_refused_for_good_is_an_error():
    made = rooms()
    (join,) = made.joins(0)
    with pytest.raises(Exception, match="bad_request") as caught:
        made.answered(join, {"joined": {}, "refused": {}, "code": "bad_request"}, 0)
    assert not isinstance(caught.value, RateLimited)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("text",),
        ({"uuid": 1},),
        ({"uuid": "no uuid"}, {}),
        ({"uuid": str(uuid4())}, {"op": "update", "id": "20", "at": AT}),
        ({"uuid": str(ONE)},),
        ({"uuid": str(ONE)}, {"op": "rename", "id": "20", "at": AT}),
        ({"uuid": str(ONE)}, {"op": "update", "id": 20, "at": AT}),
    ],
    ids=["nothing", "text", "number", "no uuid", "another room", "no meta", "no such op", "no cursor"],
)
def test_what_is_no_change_of_a_room_tells_nothing(arguments):
    assert live().received("notes", arguments) is None
