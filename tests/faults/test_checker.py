"""The checker finds each kind of broken promise in a history that is good but for that."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from rig.checker import check
from rig.recording import (
    Answered,
    Asked,
    Connection,
    Delivered,
    Import,
    Membership,
    Recording,
    Room,
    Told,
    Who,
    Write,
)
from rig.world import Commit, World

KEYS = {"notes": "_id", "test": "uuid"}
R, S, T = UUID(int=1, version=4), UUID(int=2, version=4), UUID(int=3, version=4)


def token(time: int, sub: int = 0) -> str:
    return f"82{time:08X}00000001{'2B'}{sub:04X}"


def behind(time: int) -> str:
    return f"82{time:08X}00000001FF"


def grant(time: int, tenant: str, uuid: UUID, subject: str, *, op: str = "insert", **fields: Any) -> Commit:
    key = {"tenant": tenant, "uuid": uuid, "subject": subject}
    document = None if op == "delete" else {"_id": key, "role": "reader", **fields}
    return Commit(token(time), time, op, None, "acl", key, document)


def note(
    time: int, tenant: str, uuid: UUID, n: int, *, op: str = "update", sub: int = 0, txn: bool = False
) -> Commit:
    fields = {"n": n, "w": f"{tenant}:{time}"}
    document = {"_id": uuid, **fields} if op == "insert" else None
    return Commit(token(time, sub), time, op, tenant, "notes", uuid, document, {} if document else fields, txn=txn)


def commits() -> list[Commit]:
    return [
        grant(1, "acme", R, "user:alice"),
        grant(2, "acme", S, "user:alice"),
        grant(3, "acme", R, "user:bob"),
        grant(4, "globex", R, "user:alice"),
        note(5, "acme", R, 1, op="insert"),
        note(6, "globex", R, 100, op="insert"),
        note(7, "acme", S, 50, op="insert"),
        note(10, "acme", R, 2),
        Commit(token(11, 1), 11, "insert", "acme", "test", 7, {"_id": 7, "uuid": R, "w": "acme:11"}, txn=True),
        note(11, "acme", R, 3, sub=2, txn=True),
        note(12, "acme", S, 51),
        Commit(token(13), 13, "delete", "acme", "test", 7),
        note(14, "acme", R, 4),
        grant(15, "acme", R, "user:alice", op="delete"),
        note(16, "acme", R, 5),
        grant(17, "acme", R, "user:alice"),
        note(18, "acme", R, 6),
        note(19, "globex", R, 101),
        grant(20, "acme", R, "user:bob", op="replace", expires_at=None),
        grant(21, "acme", T, "group:crew"),
        note(22, "acme", T, 70, op="insert"),
        note(25, "acme", T, 71),
        note(35, "acme", T, 72),
        imported(36, 1),
        imported(44, 2),
        note(45, "acme", T, 73),
    ]


def imported(time: int, line: int) -> Commit:
    document = {"_id": UUID(int=100 + line, version=4), "w": f"import1:{line}"}
    return Commit(token(time, 7), time, "insert", "acme", "notes", document["_id"], document)


def says(
    time: int, tenant: str, uuid: UUID, n: int, sub: int = 0, *, op: str = "update", **meta: Any
) -> Delivered:
    data = {"uuid": str(uuid), "n": n, "w": f"{tenant}:{time}"}
    return Delivered(time + 0.1, "notes", data, _meta(time, sub, op, **meta))


def _meta(time: int, sub: int, op: str, **meta: Any) -> dict[str, Any]:
    return {"op": op, "id": token(time, sub), "at": {"$date": "x"}, "removed": [], "truncated": [], **meta}


def shown(tenant: str, n: int, time: int) -> dict[str, Any]:
    return {"notes": [{"uuid": str(R), "n": n, "w": f"{tenant}:{time}"}]}


def joined(at: float, number: int, uuid: UUID = R, **answer: Any) -> Answered:
    given = {"role": "reader", **answer}
    return Answered(at, number, {"joined": {str(uuid): given}, "refused": {}})


TEST_DOCUMENT = Delivered(
    11.1, "test", {"uuid": str(R), "_id": 7, "w": "acme:11"}, _meta(11, 1, "insert", txn="t", _id=7)
)
DELETED = Delivered(13.1, "test", {"uuid": str(R)}, _meta(13, 0, "delete", _id=7))


def history() -> Recording:
    """Alice of acme on `a1`, then on `b1` by her cursor; Bob of acme; Alice of globex in a room of that UUID."""
    recording = Recording(epoch=0.0)
    first = Connection(1, Who("acme", "user:alice"), "a1", 8, ended=11.5)
    first.entries += [
        Asked(8, 1, "JoinRoom", (str(R),), snapshot=True),
        joined(8.1, 1, cursor=behind(7), snapshot=shown("acme", 1, 5)),
        Asked(8.2, 2, "JoinRoom", (str(S),)),
        joined(8.3, 2, S, cursor=behind(7)),
        says(10, "acme", R, 2),
        TEST_DOCUMENT,
        says(11, "acme", R, 3, 2, txn="t"),
    ]
    bob = Connection(2, Who("acme", "user:bob"), "b1", 8)
    bob.entries += [
        Asked(8, 1, "JoinRoom", (str(R),)),
        joined(8.1, 1, cursor=behind(7)),
        says(10, "acme", R, 2),
        TEST_DOCUMENT,
        says(11, "acme", R, 3, 2, txn="t"),
        DELETED,
        says(14, "acme", R, 4),
        says(16, "acme", R, 5),
        says(18, "acme", R, 6),
    ]
    second = Connection(3, Who("acme", "user:alice"), "b1", 13.5)
    second.entries += [
        Asked(13.6, 1, "JoinRoom", (str(R),), since=token(11, 1)),
        joined(13.7, 1, cursor=token(11, 1), resumed=2),
        says(11, "acme", R, 3, 2, txn="t"),
        DELETED,
        says(14, "acme", R, 4),
        Told(15.2, "$revoked", {"uuid": str(R), "reason": "revoked"}),
        Asked(15.5, 2, "JoinRoom", (str(R),), since=token(14)),
        Answered(15.6, 2, {"joined": {}, "refused": {str(R): {"code": "forbidden"}}}),
        Asked(17.5, 3, "JoinRoom", (str(R),), since=token(14)),
        joined(17.6, 3, cursor=behind(17), resumed=0),
        Told(
            17.7,
            "$resync",
            {"uuid": str(R), "reason": "access", "cursor": behind(17), "snapshot": shown("acme", 5, 16)},
        ),
        says(18, "acme", R, 6),
    ]
    other = Connection(4, Who("globex", "user:alice"), "b1", 8)
    other.entries += [
        Asked(8, 1, "JoinRoom", (str(R),), snapshot=True),
        joined(8.1, 1, cursor=behind(7), snapshot=shown("globex", 100, 6)),
        says(19, "globex", R, 101),
    ]
    recording.connections += [first, bob, second, other]
    recording.writes += [
        Write(10, "acme", "notes", "update", "acme:10", "done"),
        Write(10, "acme", "notes", "update", "acme:999", "unknown"),
        Write(12, "acme", "notes", "update", "acme:12", "unknown"),
        Write(13, "acme", "test", "delete", "7", "done"),
    ]
    leave_and_enter_a_group(recording)
    # The second room's event, seen on the first connection just before its end.
    first.entries.append(says(12, "acme", S, 51))
    return recording


def leave_and_enter_a_group(recording: Recording) -> None:
    """Dave is taken out of the group at 30, Erin put into it at 24; an import loses its right at 40."""
    dave = Connection(5, Who("acme", "user:dave", ("crew",)), "b1", 22)
    dave.memberships.append(Membership("crew", ended=30))
    dave.entries += [
        Asked(22.5, 1, "JoinRoom", (str(T),)),
        joined(22.6, 1, T, cursor=behind(22)),
        says(25, "acme", T, 71),
        # Within two intervals.
        says(35, "acme", T, 72),
        Told(36, "$revoked", {"uuid": str(T), "reason": "revoked"}),
        # Something else, much later.
        Asked(60, 2, "LeaveRoom", (str(S),)),
        Answered(60.1, 2, {"left": []}),
    ]
    erin = Connection(6, Who("acme", "user:erin", ("crew",)), "b1", 24)
    erin.memberships.append(Membership("crew", began=24))
    erin.entries += [
        Asked(24.5, 1, "JoinRoom", (str(T),), since="82made-up", forged="made_up"),
        Answered(24.6, 1, {"joined": {}, "refused": {str(T): {"code": "invalid_cursor"}}}),
        # Dave's cursor, of before Erin was in the group.
        Asked(25.5, 2, "JoinRoom", (str(T),), since=behind(21), forged="borrowed"),
        joined(25.6, 2, T, cursor=behind(25), resumed=1),
        says(25, "acme", T, 71),
        Told(
            25.7,
            "$resync",
            {
                "uuid": str(T),
                "reason": "access",
                "cursor": behind(25),
                "snapshot": {"notes": [{"uuid": str(T), "n": 71, "w": "acme:25"}]},
            },
        ),
        says(35, "acme", T, 72),
        says(45, "acme", T, 73),
    ]
    recording.connections += [dave, erin]
    recording.imports.append(Import("import1", "acme", "token_revoked", began=33, cut=40, ended=44))


def kinds(recording: Recording) -> set[str]:
    return {violation.kind for violation in check(recording, World(commits(), KEYS)).violations}


def test_a_good_history_is_found_good():
    verdict = check(history(), World(commits(), KEYS))
    assert verdict.violations == []
    assert verdict.counts["events"] == 21
    assert verdict.counts["revoked_of_groups"] == verdict.counts["imports_that_wrote"] == 1
    assert verdict.counts["unknown_happened"] == verdict.counts["unknown_did_not"] == 1
    assert [(process, at) for process, at, _ in verdict.revocations] == [("b1", 15)]
    assert verdict.revocations[0][2] == pytest.approx(0.2)


def entries(recording: Recording, connection: int) -> list[Any]:
    return recording.connections[connection - 1].entries


def place(recording: Recording, connection: int, wanted: str) -> int:
    """The index of the event with that token."""
    return next(
        index
        for index, entry in enumerate(entries(recording, connection))
        if isinstance(entry, Delivered) and entry.meta["id"] == wanted
    )


def index_of(recording: Recording, connection: int, kind: type, nth: int = 0) -> int:
    return [i for i, entry in enumerate(entries(recording, connection)) if isinstance(entry, kind)][nth]


def drop(connection: int, wanted: str) -> Callable[[Recording], None]:
    def mutate(recording: Recording) -> None:
        del entries(recording, connection)[place(recording, connection, wanted)]

    return mutate


def double(recording: Recording) -> None:
    index = place(recording, 2, token(14))
    entries(recording, 2).insert(index, entries(recording, 2)[index])


def reorder(recording: Recording) -> None:
    index = place(recording, 2, token(14))
    found = entries(recording, 2)
    found[index], found[index + 1] = found[index + 1], found[index]


def deliver_between_revoke_and_word(recording: Recording) -> None:
    index = index_of(recording, 3, Told)
    entries(recording, 3).insert(index, says(16, "acme", R, 5))


def deliver_after_word(recording: Recording) -> None:
    index = index_of(recording, 3, Told)
    entries(recording, 3).insert(index + 1, says(16, "acme", R, 5))


def never_say_revoked(recording: Recording) -> None:
    del entries(recording, 3)[index_of(recording, 3, Told) :]


def stay_in_over_a_break(recording: Recording) -> None:
    found = entries(recording, 3)
    del found[index_of(recording, 3, Told) : -1]


def deliver_to_the_wrong_tenant(recording: Recording) -> None:
    entries(recording, 2).append(says(19, "globex", R, 101))


def change_answer(connection: int, nth: int, **changes: Any) -> Callable[[Recording], None]:
    def mutate(recording: Recording) -> None:
        given = entries(recording, connection)[index_of(recording, connection, Answered, nth)].body["joined"][
            str(R)
        ]
        for name, value in changes.items():
            if value is None:
                del given[name]
            else:
                given[name] = value

    return mutate


def resume_silently(recording: Recording) -> None:
    del entries(recording, 3)[index_of(recording, 3, Told, 1)]


def change_resync(**changes: Any) -> Callable[[Recording], None]:
    def mutate(recording: Recording) -> None:
        index = index_of(recording, 3, Told, 1)
        told = entries(recording, 3)[index]
        body = {name: value for name, value in {**told.body, **changes}.items() if value is not None}
        entries(recording, 3)[index] = replace(told, body=body)

    return mutate


def change_event(connection: int, wanted: str, part: str, **changes: Any) -> Callable[[Recording], None]:
    def mutate(recording: Recording) -> None:
        index = place(recording, connection, wanted)
        event = entries(recording, connection)[index]
        changed = replace(event, **{part: {**getattr(event, part), **changes}})
        entries(recording, connection)[index] = changed

    return mutate


def other_collection(recording: Recording) -> None:
    index = place(recording, 2, token(14))
    entries(recording, 2)[index] = replace(entries(recording, 2)[index], collection="test")


def tear_the_transaction(recording: Recording) -> None:
    found = entries(recording, 1)
    found.insert(place(recording, 1, token(11, 2)), found.pop(place(recording, 1, token(12))))


def let_a_stranger_in(recording: Recording) -> None:
    recording.connections[1].who = Who("acme", "user:mallory")


def end_the_token(recording: Recording) -> None:
    recording.connections[1].who = Who("acme", "user:bob", token_ends=17.0)


def refuse_a_reader(recording: Recording) -> None:
    refusal = {"joined": {}, "refused": {str(S): {"code": "forbidden"}}}
    entries(recording, 3)[:] = [
        Asked(60, 9, "JoinRoom", (str(S),)),
        Answered(60.1, 9, refusal),
        *entries(recording, 3)[len(entries(recording, 3)) :],
    ]


def revoke_a_reader(recording: Recording) -> None:
    entries(recording, 2).append(Told(19, "$revoked", {"uuid": str(R), "reason": "revoked"}))


def malformed_control(recording: Recording) -> None:
    entries(recording, 3)[index_of(recording, 3, Told)] = Told(15.2, "$revoked", {"uuid": str(R)})


def strange_control(recording: Recording) -> None:
    entries(recording, 2).append(Told(19, "$surprise", {}))


def answer_for_another_room(recording: Recording) -> None:
    entries(recording, 2)[1].body["refused"][str(S)] = {"code": "forbidden"}


def lose_a_write(recording: Recording) -> None:
    recording.writes.append(Write(10, "acme", "notes", "update", "acme:998", "done"))


def a_refused_write_happened(recording: Recording) -> None:
    recording.writes.append(Write(10, "acme", "notes", "update", "acme:14", "nothing"))


def the_nemesis_saw_something(recording: Recording) -> None:
    recording.complaints.append("somebody new got in while nobody could be asked")


def speak_after_goodbye(recording: Recording) -> None:
    entries(recording, 2).insert(
        place(recording, 2, token(18)), Told(17, "$goaway", {"reason": "expired", "within_ms": 0})
    )


def deliver_much_later_to_who_left_the_group(recording: Recording) -> None:
    entries(recording, 5)[index_of(recording, 5, Told)] = says(45, "acme", T, 73)


def keep_who_left_the_group(recording: Recording) -> None:
    del entries(recording, 5)[index_of(recording, 5, Told)]


def let_in_who_left_the_group(recording: Recording) -> None:
    entries(recording, 5).extend(
        [Asked(61, 3, "JoinRoom", (str(T),)), joined(61.1, 3, T, cursor=behind(45))],
    )


def replay_from_before_the_group(recording: Recording) -> None:
    place_of_event = place(recording, 6, token(25))
    entries(recording, 6).insert(place_of_event, says(22, "acme", T, 70, op="insert"))


def take_a_cursor_that_was_made_up(recording: Recording) -> None:
    entries(recording, 6)[1] = joined(24.6, 1, T, cursor=behind(22), resumed=0)


def refuse_a_cursor_that_was_given_out(recording: Recording) -> None:
    found = entries(recording, 2)
    found[0] = replace(found[0], since=behind(7))
    found[1] = Answered(8.1, 1, {"joined": {}, "refused": {str(R): {"code": "invalid_cursor"}}})


def let_an_import_go_on(recording: Recording) -> None:
    recording.imports[0].cut = 33.5


VIOLATIONS: dict[str, tuple[Callable[[Recording], None], str]] = {
    "an event dropped in the middle": (drop(1, token(10)), "lost"),
    "an event dropped at the end": (drop(3, token(18)), "lost"),
    "an event dropped ahead of the revoke": (drop(3, token(14)), "lost"),
    "a delete dropped": (drop(2, token(13)), "lost"),
    "a replayed event dropped": (drop(3, token(11, 2)), "lost"),
    "an event doubled": (double, "duplicate"),
    "two events exchanged": (reorder, "out_of_order"),
    "an event committed after the revoke": (deliver_between_revoke_and_word, "no_grant_at_commit"),
    "an event after $revoked": (deliver_after_word, "uninvited"),
    "no $revoked": (never_say_revoked, "not_revoked"),
    "a membership that outlived a break": (stay_in_over_a_break, "after_revoke"),
    "an event of another tenant": (deliver_to_the_wrong_tenant, "wrong_tenant"),
    "an event nobody committed": (change_event(2, token(14), "meta", id=token(14, 9)), "invented"),
    "a wrong snapshot at a join": (change_answer(1, 0, snapshot=shown("acme", 2, 5)), "wrong_snapshot"),
    "another tenant's snapshot": (change_answer(4, 0, snapshot=shown("acme", 1, 5)), "wrong_snapshot"),
    "an empty snapshot": (change_answer(1, 0, snapshot={}), "wrong_snapshot"),
    "an old snapshot in a resync": (change_resync(snapshot=shown("acme", 4, 14)), "wrong_snapshot"),
    "a resync without a snapshot": (change_resync(snapshot=None), "malformed"),
    "a gap without a resync": (resume_silently, "missing_resync"),
    "a position too late": (change_answer(2, 0, cursor=behind(10)), "out_of_order"),
    "a position too early": (change_answer(4, 0, cursor=behind(5)), "lost"),
    "resumed one too many": (change_answer(3, 0, resumed=3), "wrong_count"),
    "resumed one too few": (change_answer(3, 0, resumed=1), "wrong_count"),
    "neither resumed nor resync": (change_answer(3, 0, resumed=None), "malformed"),
    "a wrong value": (change_event(2, token(14), "data", n=5), "wrong_content"),
    "a value too many": (change_event(2, token(14), "data", secret=1), "wrong_content"),
    "a wrong kind of change": (change_event(2, token(14), "meta", op="replace"), "wrong_content"),
    "a removal nobody made": (change_event(2, token(14), "meta", removed=["n"]), "wrong_content"),
    "the _id of a document whose key it is": (change_event(2, token(14), "meta", _id=7), "wrong_content"),
    "a wrong collection": (other_collection, "wrong_content"),
    "a transaction torn apart": (tear_the_transaction, "torn_transaction"),
    "a stranger let in": (let_a_stranger_in, "no_grant"),
    "an event after the token's end": (end_the_token, "after_token_end"),
    "a role nobody gave": (change_answer(2, 0, role="owner"), "no_grant"),
    "a reader refused": (refuse_a_reader, "wrongly_refused"),
    "a reader revoked": (revoke_a_reader, "unjustified_revoke"),
    "a control event without its reason": (malformed_control, "malformed"),
    "a control event nobody knows": (strange_control, "malformed"),
    "an answer about another room": (answer_for_another_room, "malformed"),
    "an event after goodbye": (speak_after_goodbye, "after_end"),
    "an acknowledged write lost": (lose_a_write, "lost_write"),
    "a refused write that happened": (a_refused_write_happened, "ghost_write"),
    "an event long after the group was left": (deliver_much_later_to_who_left_the_group, "after_group_removal"),
    "a membership that outlived the group's": (keep_who_left_the_group, "kept_after_group_removal"),
    "one let in who had left the group": (let_in_who_left_the_group, "no_grant"),
    "a replay of what was before the group": (replay_from_before_the_group, "before_group"),
    "a cursor taken that was made up": (take_a_cursor_that_was_made_up, "forged_cursor"),
    "a cursor refused that was given out": (refuse_a_cursor_that_was_given_out, "malformed"),
    "an import that outlived its right": (let_an_import_go_on, "import_outlived"),
    "what a fault found wrong itself": (the_nemesis_saw_something, "complaint"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_the_checker_finds(name: str):
    mutate, kind = VIOLATIONS[name]
    recording = copy.deepcopy(history())
    mutate(recording)
    assert kind in kinds(recording)


@pytest.mark.parametrize(("came", "violations"), [([55], set()), ([], {"lost"})])
def test_a_group_that_was_left_before_owes_nothing_behind_the_revoke(came: list[int], violations: set[str]):
    """Only what was committed ahead of the revoke of her own grant is due; the group's lasted longer."""
    made = [
        grant(1, "acme", R, "user:alice"),
        grant(2, "acme", R, "group:crew"),
        note(5, "acme", R, 1, op="insert"),
        note(55, "acme", R, 2),
        grant(60, "acme", R, "user:alice", op="delete"),
        note(62, "acme", R, 3),
        grant(64, "acme", R, "group:crew", op="delete"),
    ]
    recording = replace(history(), connections=[], writes=[], imports=[])
    alice = Connection(1, Who("acme", "user:alice", ("crew",)), "a1", 50)
    alice.memberships.append(Membership("crew", ended=10))
    alice.entries += [
        Asked(50, 1, "JoinRoom", (str(R),)),
        joined(50.1, 1, cursor=behind(50)),
        *(says(at, "acme", R, 2) for at in came),
        Told(63, "$revoked", {"uuid": str(R), "reason": "revoked"}),
    ]
    recording.connections.append(alice)
    found = check(recording, World(made, KEYS)).violations
    assert {violation.kind for violation in found} == violations


def test_a_move_is_a_delete_in_the_old_room_and_a_whole_document_in_the_new():
    made = Commit(token(1), 1, "insert", "acme", "test", 7, {"_id": 7, "uuid": R, "n": 1})
    moved = Commit(token(2), 2, "update", "acme", "test", 7, None, {"uuid": S})
    world = World([made, moved], KEYS)
    assert [(event.op, dict(event.data)) for event in world.events[Room("acme", str(R))]] == [
        ("insert", {"uuid": str(R), "_id": 7, "n": 1}),
        ("delete", {"uuid": str(R)}),
    ]
    assert [(event.op, dict(event.data)) for event in world.events[Room("acme", str(S))]] == [
        ("insert", {"uuid": str(S), "_id": 7, "n": 1})
    ]


def test_the_state_at_a_position_is_what_the_changes_up_to_it_make():
    document = {"_id": 7, "uuid": R, "list": [1, 2, 3], "deep": {"a": 1, "b": 2}}
    changes = [
        Commit(token(1), 1, "insert", "acme", "test", 7, document),
        Commit(
            token(2), 2, "update", "acme", "test", 7, None, {"list.0": 9, "deep.c": 3}, ["deep.b"],
            [{"field": "list", "newSize": 1}],
        ),
        Commit(token(3), 3, "update", "acme", "test", 7, None, {"list.1": 8}),
        Commit(token(4), 4, "delete", "acme", "test", 7),
    ]  # fmt: skip
    world, room = World(changes, KEYS), Room("acme", str(R))
    assert world.state(room, behind(0)) == {}
    assert world.state(room, behind(1)) == {
        "test": [{"uuid": str(R), "_id": 7, "list": [1, 2, 3], "deep": {"a": 1, "b": 2}}]
    }
    assert world.state(room, behind(2))["test"][0]["list"] == [9]
    assert world.state(room, behind(3))["test"][0] == {
        "uuid": str(R), "_id": 7, "list": [9, 8], "deep": {"a": 1, "c": 3}
    }  # fmt: skip
    assert world.state(room, behind(4)) == {}
