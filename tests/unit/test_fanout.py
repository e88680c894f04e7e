from __future__ import annotations

import asyncio

import pytest

from livedocs.changes.event import CollectionGone
from livedocs.live.client import Bounds
from livedocs.live.delivery import Delivery
from livedocs.live.fanout import Fanout
from livedocs.live.memberships import Memberships
from livedocs.live.rooms import Membership, Rooms
from livedocs.model import Role


class Resyncs:
    def __init__(self):
        self.asked = {}

    def resync(self, client, rooms, reason):
        self.asked[client] = (set(rooms), reason)

    def mend(self, membership):
        self.resync(membership.member, [membership.room], "event_unreadable")


@pytest.fixture
async def fanout(stage):
    """A fan-out of its own: rooms and clients, and nothing that joins."""
    memberships = Memberships(Rooms(), metrics=stage.metrics, clock=stage.clock)
    delivery, resyncs = Delivery(stage.cursors, metrics=stage.metrics), Resyncs()
    fanout = Fanout(memberships, delivery, resyncs, metrics=stage.metrics)
    fanout.memberships, fanout.delivery, fanout.resyncs = memberships, delivery, resyncs
    yield fanout
    for room in memberships.rooms:
        for membership in tuple(memberships.rooms.of_room(room)):
            memberships.remove(membership)


def enter(stage, fanout, room, *subjects, expires_in=None, client=None):
    """A membership that rests on grants to those subjects."""
    client = client or stage.client()
    membership = Membership(room, client, frozenset(subjects or [client.principal.subject]))
    fanout.memberships.rooms.add(membership)
    membership.activate(membership.subjects, {}, None, "")
    for subject in membership.subjects:
        membership.apply(stage.database.grant(room, subject, expires_in=expires_in))
    assert fanout.memberships.settle(membership, "revoked")
    return client, membership


def metric(stage, name, **labels):
    return stage.metrics.registry.get_sample_value(f"livedocs_{name}", labels)


async def test_a_change_goes_to_its_room_and_to_no_other(stage, fanout):
    inside, _ = enter(stage, fanout, stage.room(1))
    elsewhere, _ = enter(stage, fanout, stage.room(2))
    other_tenant, _ = enter(stage, fanout, stage.room(1, "globex"), client=stage.client(tenant="globex"))
    change = stage.database.write(stage.room(1), n=1)
    fanout.change(change)
    assert inside.outbox.changes == [("notes", change.token)]
    assert elsewhere.outbox.frames == other_tenant.outbox.frames == []


async def test_everyone_gets_the_very_same_bytes(stage, fanout):
    clients = [enter(stage, fanout, stage.room())[0] for _ in range(3)]
    fanout.change(stage.database.write(stage.room()))
    assert len({id(client.outbox.frames[0]) for client in clients}) == 1


async def test_a_change_is_written_to_everyone_without_a_task_for_anyone(stage, fanout):
    # With a task per recipient, a packet was delivered behind the end of a membership.
    clients = [enter(stage, fanout, stage.room())[0] for _ in range(500)]
    before = asyncio.all_tasks()
    fanout.change(stage.database.write(stage.room()))
    assert asyncio.all_tasks() == before
    while any(not client.outbox.frames for client in clients):
        # A large room is written in slices, by the loop itself.
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


async def test_nothing_is_encoded_where_nobody_listens(stage, fanout):
    change = stage.database.write(stage.room())
    change = change._replace(raw=b"not BSON")
    fanout.change(change)


async def test_after_a_revoke_nothing_more_arrives(stage, fanout):
    room = stage.room()
    client, membership = enter(stage, fanout, room)
    fanout.change(stage.database.revoke(room))
    fanout.change(stage.database.write(room))
    assert client.outbox.messages == [["$revoked", {"uuid": str(room.uuid), "reason": "revoked"}]]
    assert not fanout.memberships.rooms.holds(membership)
    assert metric(stage, "evictions_total", reason="revoked") == 1


async def test_a_revocation_is_timed_from_its_commit_to_the_last_of_those_it_puts_out(stage, fanout):
    room = stage.room()
    for _ in range(3):
        enter(stage, fanout, room)
    revoked = stage.database.revoke(room)
    await stage.clock.advance(0.2)
    fanout.change(revoked)
    assert metric(stage, "evictions_total", reason="revoked") == 3
    assert metric(stage, "revocation_seconds_count") == 1
    assert metric(stage, "revocation_seconds_sum") == pytest.approx(0.2, abs=0.01)


async def test_a_grant_whose_end_puts_nobody_out_is_no_revocation(stage, fanout):
    room = stage.room()
    fanout.change(stage.database.revoke(room))
    enter(stage, fanout, room)
    fanout.change(stage.database.write(room))
    assert metric(stage, "revocation_seconds_count") == 0


async def test_one_grant_of_two_keeps_the_membership_and_decides_the_role(stage, fanout):
    room = stage.room()
    client, membership = enter(stage, fanout, room, "user:alice", "group:staff")
    fanout.change(stage.database.grant(room, "group:staff", Role.OWNER))
    assert membership.role is Role.OWNER
    fanout.change(stage.database.revoke(room, "group:staff"))
    assert membership.role is Role.READER
    assert client.outbox.frames == []
    fanout.change(stage.database.revoke(room, "user:alice"))
    assert len(client.outbox.frames) == 1


async def test_revoking_from_a_group_evicts_everyone_who_has_nothing_else(stage, fanout):
    room = stage.room()
    only = [enter(stage, fanout, room, "group:staff")[0] for _ in range(3)]
    also, _ = enter(stage, fanout, room, "group:staff", "user:alice")
    fanout.change(stage.database.revoke(room, "group:staff"))
    assert all(client.outbox.named("$revoked") for client in only)
    assert also.outbox.frames == []


async def test_a_grant_is_over_at_its_instant(stage, fanout):
    room = stage.room()
    client, membership = enter(stage, fanout, room, expires_in=10)
    await stage.clock.advance(9.9)
    assert fanout.memberships.rooms.holds(membership)
    await stage.clock.advance(0.1)
    assert client.outbox.messages == [["$revoked", {"uuid": str(room.uuid), "reason": "expired"}]]
    assert not fanout.memberships.rooms.holds(membership)


async def test_a_delete_by_the_ttl_monitor_is_an_expiry(stage, fanout):
    room = stage.room()
    client, _ = enter(stage, fanout, room)
    fanout.change(stage.database.revoke(room, ended=True))
    assert client.outbox.messages[0][1]["reason"] == "expired"


async def test_an_extended_grant_ends_at_its_new_instant_only(stage, fanout):
    room = stage.room()
    client, membership = enter(stage, fanout, room, expires_in=10)
    fanout.change(stage.database.grant(room, expires_in=20))
    await stage.clock.advance(15)
    assert fanout.memberships.rooms.holds(membership)
    await stage.clock.advance(5)
    assert client.outbox.named("$revoked")


async def test_a_grant_without_end_takes_the_end_away(stage, fanout):
    room = stage.room()
    _, membership = enter(stage, fanout, room, expires_in=10)
    fanout.change(stage.database.grant(room))
    assert membership.timer is None
    await stage.clock.advance(20)
    assert fanout.memberships.rooms.holds(membership)


async def test_a_grant_of_many_days_does_not_overrun_the_timers(stage, fanout):
    _, membership = enter(stage, fanout, stage.room(), expires_in=3 * 86_400)
    for _ in range(3):
        assert fanout.memberships.rooms.holds(membership)
        await stage.clock.advance(86_400)
    assert not fanout.memberships.rooms.holds(membership)


async def test_when_the_first_of_two_grants_ends_the_role_is_the_others(stage, fanout):
    room = stage.room()
    _, membership = enter(stage, fanout, room, "user:alice", "group:staff")
    fanout.change(stage.database.grant(room, "group:staff", Role.OWNER, expires_in=5))
    assert membership.role is Role.OWNER
    await stage.clock.advance(5)
    assert membership.role is Role.READER


async def test_a_grant_that_says_nothing_enforceable_ends_it(stage, fanout):
    room = stage.room()
    client, _ = enter(stage, fanout, room)
    change = stage.database.grant(room)
    object.__setattr__(change, "grant", None)
    fanout.change(change)
    assert client.outbox.named("$revoked")


async def test_a_membership_that_was_left_is_not_ended_again_by_its_timer(stage, fanout):
    client, membership = enter(stage, fanout, stage.room(), expires_in=5)
    assert fanout.memberships.remove(membership)
    assert not fanout.memberships.remove(membership)
    fanout.memberships.evict(membership, "revoked")
    await stage.clock.advance(10)
    assert client.outbox.frames == []


async def test_a_slow_socket_is_noted_once_and_harms_nobody_else(stage, fanout):
    room = stage.room()
    slow, _ = enter(stage, fanout, room, client=stage.client(bounds=Bounds(10, 5)))
    quick, _ = enter(stage, fanout, room)
    slow.outbox.waiting = (100, 1)
    for _ in range(3):
        fanout.change(stage.database.write(room))
    assert {client for client in fanout.delivery.backlogged if client.cut is not None} == {slow}
    assert slow.outbox.frames == []
    assert len(quick.outbox.frames) == 3
    assert metric(stage, "slow_sockets_total") == 1
    assert metric(stage, "deliveries_total") == 3


async def test_a_room_that_is_left_is_owed_nothing(stage, fanout):
    room = stage.room()
    client, membership = enter(stage, fanout, room)
    client.cut = {room, stage.room(2)}
    fanout.memberships.remove(membership)
    assert client.cut == {stage.room(2)}


async def test_a_gap_concerns_every_active_membership(stage, fanout):
    first, second = stage.room(1), stage.room(2)
    client, _ = enter(stage, fanout, first)
    enter(stage, fanout, second, client=client)
    _, membership = enter(stage, fanout, first)
    membership.hold_back()
    fanout.gap("history_lost")
    assert fanout.resyncs.asked == {client: ({first, second}, "history_lost")}


@pytest.mark.parametrize(
    ("tenant", "reason", "concerned"),
    [("acme", "collection_dropped", {"acme"}), (None, "grants_dropped", {"acme", "globex"})],
)
async def test_what_vanishes_at_once_concerns_its_tenant_or_all(stage, fanout, tenant, reason, concerned):
    for name in ("acme", "globex"):
        enter(stage, fanout, stage.room(1, name), client=stage.client(tenant=name))
    fanout.gone(CollectionGone("t", stage.database.at(), tenant, "notes"))
    assert {client.tenant.slug for client in fanout.resyncs.asked} == concerned
    assert {said for _, said in fanout.resyncs.asked.values()} == {reason}
