"""Anything that can happen to memberships, in any order, against what a patient observer would expect.

Whoever follows a room keeps the documents a client would keep: the snapshot it was given and every event on top.
Whatever happened, this must hold:

    an event arrived only if a grant was in force when it was committed, once, and in commit order
    nothing of a room arrives behind its `$revoked`
    nobody is refused or evicted who had a grant throughout
    once all is delivered, whoever is in a room holds a grant and has exactly what the database has
"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from livedocs.changes import cursor
from livedocs.changes.event import DocumentChange
from livedocs.live.client import Bounds
from livedocs.live.slow import SlowSockets
from livedocs.model import Role

PEOPLE = {
    "alice": ("acme", "user:alice", ("staff",)),
    "bob": ("acme", "user:bob", ("staff", "guests")),
    "alice of globex": ("globex", "user:alice", ("staff",)),
}
SUBJECTS = ("user:alice", "user:bob", "group:staff", "group:guests", "tenant:*")
NUMBERS = (1, 2)
PLACES = [("acme", 1), ("acme", 1), ("acme", 2), ("globex", 1)]


class Room:
    """What one person has of one room."""

    def __init__(self):
        self.documents = {}
        self.cursor = None
        self.inside = False
        # Cursor of every event seen since the last snapshot.
        self.seen = []
        # How many changes the snapshot held that the membership rests on.
        self.since = 0


class Person:
    """A socket, and what its owner keeps across sockets."""

    def __init__(self, tenant, subject, groups):
        self.tenant, self.subject, self.groups = tenant, subject, groups
        self.rooms = {number: Room() for number in NUMBERS}
        self.client = None
        self.read = 0

    @property
    def subjects(self):
        return {self.subject, "tenant:*", *(f"group:{name}" for name in self.groups)}


people = st.sampled_from(sorted(PEOPLE))
rooms = st.sampled_from([1, 1, 2])
places = st.sampled_from(PLACES)
happenings = st.sampled_from(
    ["write", "grant", "grant briefly", "only briefly", "revoke", "break", "time", "arrive", "lose"]
)


class Memberships(RuleBasedStateMachine):
    stage_type = None

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stage = self.run(self.build())
        self.people = {name: Person(*who) for name, who in PEOPLE.items()}
        for person in self.people.values():
            self.connect(person)
        self.pending = None

    async def build(self):
        stage = self.stage_type()
        self.slow = SlowSockets(
            stage.delivery.backlogged,
            stage.resyncs,
            stall_timeout=10**6,
            clock=asyncio.get_running_loop().time,
        )
        return stage

    def run(self, work):
        return self.loop.run_until_complete(work)

    def connect(self, person):
        person.client = self.stage.client(
            person.subject, groups=person.groups, tenant=person.tenant, bounds=Bounds(2000, 1000)
        )
        person.read = 0
        for room in person.rooms.values():
            room.inside = False

    def pass_time(self, seconds=0.0):
        self.run(self.stage.clock.advance(seconds))
        self.watch()

    # -- what happens in the database --

    @initialize(granted=st.sets(st.sampled_from([*PEOPLE, "group:staff"])))
    def begin(self, granted):
        """Some may come in at once, so that there is something to take away."""
        for tenant, number in sorted(set(PLACES)):
            self.stage.database.write(self.stage.room(number, tenant), op="insert")
            for name in sorted(granted):
                subject = PEOPLE[name][1] if name in PEOPLE else name
                self.stage.database.grant(self.stage.room(number, tenant), subject)

    @rule(
        place=places,
        subject=st.sampled_from(SUBJECTS),
        role=st.sampled_from(Role),
        lifetime=st.sampled_from([None, None, 3, 50]),
    )
    def grant(self, place, subject, role, lifetime):
        tenant, number = place
        self.stage.database.grant(self.stage.room(number, tenant), subject, role, expires_in=lifetime)

    @rule(place=places, which=st.integers(0, 4), then=st.sampled_from(["", "write", "write", "write and grant"]))
    def revoke(self, place, which, then):
        """One of the grants, and what somebody may try at once."""
        tenant, number = place
        room = self.stage.room(number, tenant)
        held = sorted(self.stage.database.grants(room, len(self.stage.database.log)))
        if not held:
            return
        subject = held[which % len(held)]
        self.stage.database.revoke(room, subject)
        if then:
            self.change(room)
        if then == "write and grant":
            self.stage.database.grant(room, subject)

    @rule(
        place=places,
        collection=st.sampled_from(["notes", "tasks"]),
        ops=st.lists(st.sampled_from(["insert", "update", "update", "delete"]), min_size=1, max_size=4),
    )
    def write(self, place, collection, ops):
        tenant, number = place
        room = self.stage.room(number, tenant)
        for op in ops:
            exists = collection in self.stage.database.documents(room, len(self.stage.database.log))
            if op == "insert" or not exists:
                self.change(room, collection, "replace" if exists else "insert")
            else:
                self.change(room, collection, op)

    def change(self, room, collection="notes", op="update"):
        """One of a few fields, so that a change that was missed shows for long."""
        number = len(self.stage.database.log)
        self.stage.database.write(room, collection, op=op, **{f"f{number % 4}": number})

    @rule(seconds=st.sampled_from([1, 2, 60, 400]))
    def time_passes(self, seconds):
        self.pass_time(seconds)

    @rule()
    def expired_grants_are_deleted(self):
        """MongoDB's TTL monitor."""
        for tenant in ("acme", "globex"):
            for number in NUMBERS:
                room = self.stage.room(number, tenant)
                held = self.stage.database.grants(room, len(self.stage.database.log))
                for subject, grant in held.items():
                    if not grant.in_force(self.stage.clock()):
                        self.stage.database.revoke(room, subject, ended=True)

    # -- what happens to the stream --

    @rule(count=st.integers(1, 4))
    def some_changes_arrive(self, count):
        self.run(self.in_loop(self.stage.deliver, count))
        self.watch()

    @rule()
    def all_changes_arrive(self):
        self.run(self.in_loop(self.stage.deliver))
        self.watch()

    @rule()
    def changes_are_lost(self):
        self.run(self.in_loop(self.stage.lose_the_stream))
        self.pass_time()

    async def in_loop(self, act, *arguments):
        act(*arguments)

    # -- what the sockets do --

    @rule(name=people, wanted=st.sampled_from([(1,), (1,), (1, 2)]), resume=st.booleans(), lag=st.integers(0, 3))
    def join(self, name, wanted, resume, lag):
        self.begin_join(name, wanted, resume, None, lag)
        self.finish_join(0)

    @precondition(lambda self: self.pending is None)
    @rule(
        name=people,
        wanted=st.sampled_from([(1,), (1,), (1, 2)]),
        resume=st.booleans(),
        step=st.sampled_from(["before_time", "after_time"]),
        lag=st.integers(0, 3),
    )
    def begin_join(self, name, wanted, resume, step, lag):
        if self.pending is not None:
            self.finish_join(0)
        person = self.people[name]
        cursors = {person.rooms[number].cursor for number in wanted}
        options = {"snapshot": True}
        if resume and None not in cursors:
            options = {"since": min(cursors)}
            # One cursor for several rooms: each has to have been followed up to there and no further.
            wanted = [number for number in wanted if person.rooms[number].cursor == min(cursors)]
        self.stage.reader.upto = self.upto(lag)
        stop = self.stage.stop_reader(step) if step else None
        task = self.run(self.start(person, wanted, options))
        self.pending = (person, task, stop, wanted)

    async def start(self, person, wanted, options):
        wishes = [self.stage.room(number, person.tenant) for number in wanted]
        task = self.stage.start_join(person.client, *wishes, **options)
        await asyncio.sleep(0)
        return task

    def upto(self, lag):
        """A snapshot is of a moment that the majority has: never before what the stream has brought already."""
        return max(self.stage.delivered, len(self.stage.database.log) - lag)

    @precondition(lambda self: self.pending is not None)
    @rule(lag=st.integers(0, 3))
    def finish_join(self, lag):
        _, task, stop, _ = self.pending
        if stop is not None:
            self.stage.reader.upto = self.upto(lag)
            stop.go()
        self.stage.reader.before_time = self.stage.reader.after_time = self.at_once
        self.run(self.stage.clock.advance(0))
        while not task.done():
            # It waits for the stream, or looks again after a while.
            self.run(self.in_loop(self.stage.deliver))
            self.stage.reader.upto = None
            self.run(self.stage.clock.advance(0.2))
        task.result()
        self.watch()
        self.pending = None
        self.stage.reader.upto = None

    @precondition(lambda self: self.pending is None)
    @rule(
        name=people,
        resume=st.booleans(),
        step=st.sampled_from(["before_time", "after_time"]),
        meanwhile=st.lists(happenings, min_size=1, max_size=5),
        lag=st.integers(0, 3),
    )
    def join_while_things_happen(self, name, resume, step, meanwhile, lag):
        self.begin_join(name, (1,), resume, step, lag)
        self.happen(name, meanwhile)
        self.finish_join(lag)

    @rule(name=people, meanwhile=st.lists(happenings, min_size=1, max_size=5))
    def come_back_after_things_happened(self, name, meanwhile):
        self.reconnect(name)
        self.happen(name, meanwhile)
        self.all_changes_arrive()
        self.join(name, (1,), resume=True, lag=0)

    def happen(self, name, happenings):
        person = self.people[name]
        place, room = (person.tenant, 1), self.stage.room(1, person.tenant)
        first, *_, last = sorted(person.subjects)
        acts = {
            "write": lambda: self.change(room),
            "grant": lambda: self.grant(place, first, Role.READER, None),
            "grant briefly": lambda: self.grant(place, last, Role.READER, 3),
            "only briefly": lambda: (self.grant(place, first, Role.READER, 3), self.cut_off(person, but=first)),
            "revoke": lambda: self.revoke(place, 0, "write"),
            "break": lambda: (
                self.cut_off(person),
                self.change(room),
                self.grant(place, first, Role.READER, None),
            ),
            "time": lambda: self.time_passes(4),
            "arrive": self.all_changes_arrive,
            "lose": self.changes_are_lost,
        }
        for what in happenings:
            acts[what]()

    def cut_off(self, person, but=None):
        """Every grant that lets the person in ends."""
        room = self.stage.room(1, person.tenant)
        for subject in self.stage.database.grants(room, len(self.stage.database.log)):
            if subject in person.subjects and subject != but:
                self.stage.database.revoke(room, subject)

    async def at_once(self):
        """No stop."""

    @rule(name=people, number=rooms)
    def leave(self, name, number):
        person = self.people[name]
        self.watch()
        self.run(self.stage.leave(person.client, self.stage.room(number, person.tenant)))
        person.rooms[number].inside = False

    @rule(name=people)
    def reconnect(self, name):
        person = self.people[name]
        if self.pending is not None and self.pending[0] is person:
            self.finish_join(0)
        self.watch()
        self.stage.disconnect(person.client)
        self.connect(person)

    @rule(name=people)
    def stall(self, name):
        self.people[name].client.outbox.waiting = (2001, 1)

    @rule(name=people)
    def drain(self, name):
        self.people[name].client.outbox.waiting = (0, 0)
        self.run(self.in_loop(self.slow.check))
        self.pass_time()

    # -- what is observed --

    def watch(self):
        for person in self.people.values():
            messages = person.client.outbox.messages
            for message in messages[person.read :]:
                self.see(person, message)
            person.read = len(messages)

    def see(self, person, message):
        name, body = message[0], message[1]
        if name == "ack":
            answer = message[2]
            for uuid, content in answer["joined"].items():
                self.see_joined(person.rooms[int(uuid[-1])], content)
            for uuid, refusal in answer["refused"].items():
                self.see_refused(person, int(uuid[-1]), refusal["code"])
            return
        number = int(body["uuid"][-1])
        room = person.rooms[number]
        if name == "$revoked":
            assert room.inside
            assert self.was_interrupted(person, number, room.since)
            room.inside = False
        elif name == "$resync":
            assert room.inside
            self.see_snapshot(room, body)
        else:
            self.see_change(person, number, name, body, message[2])

    def see_joined(self, room, content):
        room.inside = True
        room.since = self.index(content["cursor"])
        if "snapshot" in content:
            self.see_snapshot(room, content)

    def see_snapshot(self, room, content):
        room.documents = {
            name: {field: value for field, value in document.items() if field != "uuid"}
            for name, (document,) in content["snapshot"].items()
        }
        room.cursor, room.seen = content["cursor"], []
        room.since = self.index(content["cursor"])

    def see_refused(self, person, number, code):
        person.rooms[number].inside = False
        if code == "forbidden" and self.pending is not None and self.pending[0] is person:
            # Left or never allowed at some moment since; the earliest a look can have been is the grants' history.
            assert self.was_interrupted(person, number, 0)

    def see_change(self, person, number, collection, data, meta):
        room = person.rooms[number]
        assert room.inside, "an event behind the end of the membership"
        place = next(i for i, change in enumerate(self.stage.database.log) if change.token == meta["id"])
        change = self.stage.database.log[place]
        assert change.room == self.stage.room(number, person.tenant)
        held = self.stage.database.grants(change.room, place)
        assert any(grant.in_force(change.wall) for subject, grant in held.items() if subject in person.subjects), (
            "an event that no grant in force let through"
        )
        assert room.cursor is None or meta["id"] > room.cursor, "an event twice or out of order"
        room.cursor = meta["id"]
        fields = {name: value for name, value in data.items() if name != "uuid"}
        if meta["op"] == "delete":
            room.documents.pop(collection, None)
        elif meta["op"] == "update":
            room.documents.setdefault(collection, {}).update(fields)
        else:
            room.documents[collection] = fields

    def index(self, position):
        """How many changes lie at or before a cursor."""
        return sum(change.token <= position for change in self.stage.database.log)

    def was_interrupted(self, person, number, since):
        """Whether, of what was known after that many changes or more, nothing lets the person in any longer.

        A grant that ends on time ends even where the stream has not brought the next one yet.
        """
        room, now = self.stage.room(number, person.tenant), self.stage.clock()
        for count in range(since, len(self.stage.database.log) + 1):
            held = self.stage.database.grants(room, count)
            if not any(grant.in_force(now) for subject, grant in held.items() if subject in person.subjects):
                return True
        return False

    @rule()
    def everything_settles(self):
        if self.pending is not None:
            self.finish_join(0)
        for name in self.people:
            self.drain(name)
        self.all_changes_arrive()
        while self.stage.resyncs._stale:
            self.pass_time(0.2)
        self.watch()
        log = self.stage.database.log
        for person in self.people.values():
            for number, room in person.rooms.items():
                key = self.stage.room(number, person.tenant)
                membership = self.stage.rooms.get(person.client, key)
                assert (membership is not None) == room.inside
                if membership is None:
                    continue
                held = self.stage.database.grants(key, len(log))
                expected = {subject: grant for subject, grant in held.items() if subject in person.subjects}
                assert membership.active
                assert membership.held == expected
                assert any(grant.in_force(self.stage.clock()) for grant in expected.values())
                assert room.documents == {
                    name: {field: value for field, value in document.items() if field != "_id"}
                    for name, (document,) in self.stage.database.documents(key, len(log)).items()
                }
                newest = [c.token for c in log if isinstance(c, DocumentChange) and c.room == key]
                assert not newest or room.cursor >= newest[-1] or room.cursor >= cursor.after(log[-1].at)
        assert all(client.cut is None for client in self.stage.delivery.backlogged)

    def teardown(self):
        self.everything_settles()
        for person in self.people.values():
            self.stage.disconnect(person.client)
        assert len(self.stage.rooms) == 0
        self.run(self.stage.aclose())
        self.loop.close()


@pytest.mark.parametrize("steps", [25, 60])
def test_memberships_keep_every_promise_whatever_happens(staged, steps):
    machine = type("Machine", (Memberships,), {"stage_type": staged})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100 if steps < 50 else 40,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
