"""Who was in a group when: what a ticket binds, how it goes on across sockets, and what breaks it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bson.timestamp import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from livedocs.changes import cursor
from livedocs.live import tickets as module
from livedocs.live.tickets import MOST_CHARACTERS, Tickets

REACH = 360


class Stream:
    def __init__(self, time=1000):
        self.time = time

    @property
    def position(self):
        return cursor.after(Timestamp(self.time, 1))


@pytest.fixture
def stream():
    return Stream()


@pytest.fixture
def tickets(stage, stream):
    return Tickets(stage.keyring, stream, reach=REACH)


@pytest.fixture
def connect(stage, tickets):
    """A socket of somebody in these groups, just introspected."""

    def connect(subject="user:alice", *, groups=("staff",), tenant="acme", at=tickets):
        client = stage.client(subject, groups=groups, tenant=tenant)
        at.seen(client, client.principal)
        return client

    return connect


def joined(tickets, client, at, ticket=None):
    """What a join does: a look at that time, with the ticket that came along; the new ticket."""
    tickets.admit(client, ticket, Timestamp(at, 1))
    return tickets.issue(client)


def since(tickets, client, group="staff"):
    """The cluster time from which on access through the group is replayed; None: from now."""
    position = tickets.attested(client, f"group:{group}", "")
    return cursor.cluster_time(position).time if position else None


# --- observing ---


def test_a_group_counts_from_the_first_look(tickets, connect):
    client = connect()
    assert since(tickets, client) is None
    joined(tickets, client, 1010)
    joined(tickets, client, 1020)
    assert since(tickets, client) == 1010


def test_a_look_that_is_older_than_the_observation_does_not_bring_the_group_forward(tickets, connect, stream):
    stream.time = 1030
    client = connect()
    joined(tickets, client, 1010)
    assert since(tickets, client) == 1030


def test_the_caller_itself_and_the_tenant_need_no_ticket(tickets, connect):
    client = connect()
    for subject in ("user:alice", "client:alice", "tenant:*"):
        assert tickets.attested(client, subject, "now") == ""
    assert tickets.attested(client, "group:staff", "now") == "now"


def test_a_group_that_is_lost_and_regained_counts_from_anew(tickets, stage, connect, stream):
    client = connect()
    joined(tickets, client, 1010)
    stream.time = 1030
    tickets.seen(client, stage.principal())
    assert since(tickets, client) is None
    stream.time = 1060
    tickets.seen(client, stage.principal(groups=["staff"]))
    assert since(tickets, client) is None
    joined(tickets, client, 1070)
    assert since(tickets, client) == 1070


def test_a_room_that_still_goes_by_the_groups_of_before_vouches_for_nothing(tickets, stage, connect, stream):
    client = connect()
    joined(tickets, client, 1010)
    tickets.seen(client, stage.principal())
    # The introspection has said so; the memberships are only now being looked at.
    assert client.principal.groups == {"staff"}
    joined(tickets, client, 1020)
    assert since(tickets, client) is None


# --- across sockets ---


def test_a_ticket_carries_the_past_to_the_next_socket_at_another_process(tickets, stage, connect, stream):
    ticket = joined(tickets, connect(), 1010)
    other = Tickets(stage.keyring, stream, reach=REACH)
    stream.time = 1200
    again = connect(at=other)
    joined(other, again, 1201, ticket)
    assert since(other, again) == 1010


def test_whoever_returns_again_and_again_keeps_their_past(tickets, connect, stream):
    ticket = joined(tickets, connect(), 1010)
    for time in range(1300, 4000, 300):
        stream.time = time
        again = connect()
        ticket = joined(tickets, again, time + 1, ticket)
        assert since(tickets, again) == 1010


def test_without_a_ticket_the_past_is_gone(tickets, connect, stream):
    joined(tickets, connect(), 1010)
    stream.time = 1020
    again = connect()
    joined(tickets, again, 1021)
    assert since(tickets, again) == 1021


@pytest.mark.parametrize(("away", "kept"), [(REACH, True), (REACH + 1, False)])
def test_a_ticket_counts_for_a_window_and_two_intervals(tickets, connect, stream, away, kept):
    ticket = joined(tickets, connect(), 1010)
    stream.time += away
    again = connect()
    joined(tickets, again, stream.time, ticket)
    assert since(tickets, again) == (1010 if kept else stream.time)


def test_a_later_ticket_of_the_same_socket_is_newer(tickets, connect, stream):
    client = connect()
    joined(tickets, client, 1010)
    stream.time = 1900
    tickets.seen(client, client.principal)
    ticket = joined(tickets, client, 1901)
    stream.time = 2000
    again = connect()
    joined(tickets, again, 2001, ticket)
    assert since(tickets, again) == 1010


# --- who is not helped by a ticket ---


def test_a_colleagues_ticket_is_none(tickets, connect):
    ticket = joined(tickets, connect("user:bob"), 1010)
    for client in (connect("user:alice"), connect("client:bob"), connect("user:bob", tenant="globex")):
        joined(tickets, client, 1020, ticket)
        assert since(tickets, client) == 1020


def test_a_ticket_says_nothing_of_a_group_that_was_not_in_it(tickets, connect, stream):
    ticket = joined(tickets, connect(groups=["crew"]), 1010)
    stream.time = 1020
    newcomer = connect(groups=["crew", "staff"])
    joined(tickets, newcomer, 1021, ticket)
    assert (since(tickets, newcomer, "crew"), since(tickets, newcomer)) == (1010, 1021)


def test_a_group_that_is_lost_is_not_kept_by_a_ticket(tickets, connect, stream):
    ticket = joined(tickets, connect(), 1010)
    client = connect(groups=[])
    ticket = joined(tickets, client, 1020, ticket)
    stream.time = 1030
    again = connect()
    joined(tickets, again, 1031, ticket)
    assert since(tickets, again) == 1031


def test_a_ticket_of_before_a_loss_that_was_seen_does_not_bridge_it(tickets, stage, connect, stream):
    client = connect()
    old = joined(tickets, client, 1010)
    stream.time = 1030
    tickets.seen(client, stage.principal())
    stream.time = 1060
    tickets.seen(client, stage.principal(groups=["staff"]))
    new = joined(tickets, client, 1061, old)
    assert since(tickets, client) == 1061
    again = connect()
    joined(tickets, again, 1070, old)
    assert since(tickets, again) == 1070
    # What has been seen since then goes on.
    third = connect()
    joined(tickets, third, 1080, new)
    assert since(tickets, third) == 1061


def test_losses_past_counting_make_tickets_void_instead_of_being_forgotten(tickets, connect, stream, monkeypatch):
    monkeypatch.setattr(module, "_MOST_LOSSES", 2)
    ticket = joined(tickets, connect(), 1010)
    stream.time = 1020
    tickets.lost("acme", "user:alice", "group:staff", Timestamp(1015, 1))
    for number in range(3):
        tickets.lost("acme", f"user:u{number}", "group:staff", Timestamp(1016 + number, 1))
    again = connect()
    joined(tickets, again, 1021, ticket)
    assert since(tickets, again) == 1021


def test_losses_out_of_reach_are_forgotten(tickets):
    tickets.lost("acme", "user:alice", "group:staff", Timestamp(1000, 1))
    tickets.lost("acme", "user:bob", "group:staff", Timestamp(1001 + REACH, 1))
    assert list(tickets._losses) == [("acme", "user:bob", "group:staff")]


# --- forging ---


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bit_of_a_ticket_can_be_changed(sealed, data):
    tickets, principal, ticket = sealed
    place = data.draw(st.integers(0, len(ticket) - 1))
    other = chr(ord(ticket[place]) ^ (1 << data.draw(st.integers(0, 6))))
    assert tickets.open(ticket[:place] + other + ticket[place + 1 :], principal) is None


@pytest.fixture
def sealed(tickets, connect):
    client = connect()
    return tickets, client.principal, joined(tickets, client, 1010)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t",
        "tAAAA",
        "t" + "A" * 12,
        "t" + "A" * 2044,
        "t" + "A" * 40,
        "x",
        "t" * 10**6,
        "tAA=",
        "taaa\n",
        "tééé",
    ],
)
def test_what_is_no_ticket_is_none(sealed, text):
    tickets, principal, _ = sealed
    assert tickets.open(text, principal) is None


def test_a_ticket_is_no_cursor_and_no_other_spelling_of_itself(sealed):
    tickets, principal, ticket = sealed
    assert tickets.open(ticket, principal) is not None
    for text in (ticket + "=", ticket + "AAAA", ticket[:-4], " " + ticket):
        assert tickets.open(text, principal) is None


# --- many groups ---


@pytest.mark.parametrize("count", [0, 1, 150, 180, 200, 5000])
def test_a_ticket_stays_small(tickets, connect, stream, count):
    groups = [f"group-{number}" for number in range(count)]
    ticket = joined(tickets, connect(groups=groups), 1010)
    assert len(ticket) <= MOST_CHARACTERS
    stream.time = 1020
    again = connect(groups=groups)
    assert joined(tickets, again, 1021, ticket)
    assert {since(tickets, again, group) for group in groups} == ({1010} if groups else set())


def test_too_many_groups_are_kept_as_a_set_or_not_at_all(tickets, connect, stream):
    groups = [f"group-{number}" for number in range(300)]
    ticket = joined(tickets, connect(groups=groups), 1010)
    stream.time = 1020
    for other in ([*groups, "staff"], groups[1:]):
        client = connect(groups=other)
        joined(tickets, client, 1021, ticket)
        assert {since(tickets, client, group) for group in other} == {1021}


def test_of_too_many_groups_with_several_beginnings_the_latest_counts_for_all(tickets, stage, connect, stream):
    client = connect(groups=["staff"])
    joined(tickets, client, 1010)
    groups = ["staff", *(f"group-{number}" for number in range(300))]
    tickets.seen(client, stage.principal(groups=groups))
    ticket = joined(tickets, client, 1050)
    again = connect(groups=groups)
    joined(tickets, again, 1060, ticket)
    assert (since(tickets, again, "staff"), since(tickets, again, "group-1")) == (1050, 1050)


def test_every_beginning_of_its_own_fits_or_all_are_one(tickets, stage, connect, stream):
    client, groups = connect(groups=[]), []
    for number in range(120):
        groups.append(f"group-{number}")
        stream.time += 1
        tickets.seen(client, stage.principal(groups=groups))
        assert len(joined(tickets, client, stream.time)) <= MOST_CHARACTERS


def test_a_group_may_have_any_name(tickets, connect, stream):
    groups = ["", "\x00", "\ud800", "staff,crew", "é" * 300]
    ticket = joined(tickets, connect(groups=groups), 1010)
    again = connect(groups=groups)
    joined(tickets, again, 1020, ticket)
    assert {since(tickets, again, group) for group in groups} == {1010}


# --- what a client is told ---


def test_only_who_has_been_given_a_ticket_is_sent_newer_ones(tickets, connect):
    client = connect()
    tickets.admit(client, None, Timestamp(1010, 1))
    tickets.renew(client)
    assert client.outbox.named("$ticket") == []
    ticket = tickets.issue(client)
    tickets.renew(client)
    assert client.outbox.named("$ticket") == [["$ticket", {"ticket": ticket}]]


def test_scopes_are_bound_as_groups_are(tickets, connect, stream):
    client = connect(groups=[])
    tickets.seen(client, replace(client.principal, scopes=frozenset({"livedocs:read"})))
    joined(tickets, client, 1010)
    assert client.standing.since("scope:livedocs:read") == Timestamp(1010, 1)
