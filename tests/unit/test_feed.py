"""The one path from raw events to the listener, with a stream whose batches the test hands in."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import bson
import pytest
from bson import ObjectId
from bson.timestamp import Timestamp
from pymongo.errors import AutoReconnect

from livedocs.changes import cursor
from livedocs.changes.event import DocumentChange, GrantChange
from livedocs.changes.feed import Feed
from livedocs.changes.history import History
from livedocs.changes.progress import Progress
from livedocs.changes.resolver import Resolver
from livedocs.changes.stream import Batch, Opened
from livedocs.codec.bsondecode import CODEC
from livedocs.model import Grant, GrantKey, Role, Tenant, grant_document
from livedocs.telemetry import Metrics

BEGIN = int(time.time()) - 60  # later than all that happens in a test
ROOM, OTHER = UUID(int=1), UUID(int=2)
ACME = Tenant("acme", "acme_db", {"notes": "_id", "test": "uuid"})


def at(second):
    return Timestamp(BEGIN + second, 1)


def token(second, number=0):
    # KeyString's integer of three bytes, as the index within a transaction is one.
    return f"{cursor.before(at(second))}2D{number:06X}"


def event(second, op="insert", collection="notes", database="acme_db", number=0, **members):
    body = {
        "_id": {"_data": token(second, number)},
        "operationType": op,
        "clusterTime": at(second),
        "ns": {"db": database, "coll": collection},
        **members,
    }
    return bson.encode(body, codec_options=CODEC)


def identity(document_id):
    """An `_id` as BSON: its type and its value."""
    element = bson.encode({"": document_id}, codec_options=CODEC)[4:-1]
    return element[:1] + element[2:]


def insert(second, uuid=ROOM, **fields):
    return event(second, documentKey={"_id": uuid}, fullDocument={"_id": uuid, **fields})


def tenants(second):
    return event(second, "update", "tenants", "control", documentKey={"_id": "acme"})


def granted(second):
    document = grant_document(Grant(GrantKey("acme", ROOM, "user:alice"), Role.READER))
    return event(second, "insert", "acl", "control", documentKey={"_id": document["_id"]}, fullDocument=document)


class Stream:
    """Batches as they are put in; notes where it was told to open again."""

    def __init__(self):
        self.connected = True
        self.queue = asyncio.Queue()
        self.reopened = []

    def reopen(self, position):
        self.reopened.append(position)

    async def batches(self):
        while True:
            yield await self.queue.get()


class Listener:
    def __init__(self):
        self.heard = []

    def change(self, change):
        self.heard.append(change)

    def gone(self, change):
        self.heard.append(change)

    def gap(self, reason, tenant=None):
        self.heard.append(reason if tenant is None else (reason, tenant))

    def unreadable(self, room):
        self.heard.append(("unreadable", room))

    def unprepared(self, change):
        return False


class Finder:
    def __init__(self):
        self.known, self.failures, self.asked = {}, 0, []

    async def uuids(self, tenant, collection, ids, at):
        self.asked.append(list(ids))
        if self.failures:
            self.failures -= 1
            msg = "gone"
            raise AutoReconnect(msg)
        return {own: uuid for one, uuid in self.known.items() if (own := identity(one)) in ids}


class Registry:
    tenants = (ACME,)

    def by_database(self, database):
        return next((tenant for tenant in self.tenants if tenant.database == database), None)


class Fed:
    def __init__(self):
        self.stream, self.listener, self.finder, self.registry = Stream(), Listener(), Finder(), Registry()
        self.history, self.metrics = History(window=300, max_bytes=2**20), Metrics()
        self.changed = False
        self.progress = Progress(self.history, self.stream, self.metrics)
        self.feed = Feed(
            self.stream,
            Resolver(self.finder),
            self.history,
            self.listener,
            progress=self.progress,
            registry=self.registry,
            control="control",
            tenants_changed=self.tenants_changed,
            cover=self.cover,
            metrics=self.metrics,
        )

    async def cover(self, at):
        """Every key is known."""

    async def tenants_changed(self):
        # What came before has been told by now.
        self.listener.heard.append("registry read")
        return self.changed

    async def give(self, *events, position=None):
        last = bson.decode(events[-1])["_id"]["_data"] if events else None
        self.stream.queue.put_nowait(Batch(events, position or last))
        await self.taken()

    async def open(self, reason="start", second=0):
        self.stream.queue.put_nowait(Opened(cursor.before(at(second)), reason))
        await self.taken()

    async def taken(self):
        for _ in range(20):
            await asyncio.sleep(0)

    @property
    def seen(self):
        return [change.token if hasattr(change, "token") else change for change in self.listener.heard]


@pytest.fixture
async def fed():
    fed = Fed()
    task = asyncio.create_task(fed.feed.run())
    await fed.open()
    yield fed
    task.cancel()
    await asyncio.wait([task])


async def test_changes_reach_the_history_and_the_listener_in_order(fed):
    await fed.give(insert(1), granted(2), insert(3, OTHER))
    assert [type(change) for change in fed.listener.heard] == [DocumentChange, GrantChange, DocumentChange]
    assert fed.history.since(("acme", ROOM), "") == fed.listener.heard[:2]
    # What a receipt waits for: the position is written as soon as a grant has passed.
    await asyncio.wait_for(fed.progress.grants_passed(), 1)
    assert fed.progress.position == token(3)


async def test_what_means_nothing_here_moves_the_position_only(fed):
    foreign = event(5, database="other", documentKey={"_id": ROOM}, fullDocument={"_id": ROOM})
    await fed.give(foreign)
    assert fed.listener.heard == []
    assert fed.progress.position == token(5)


async def test_whoever_waits_for_a_cluster_time_waits_until_nothing_of_it_can_follow(fed):
    waiting = [asyncio.create_task(fed.progress.passed(at(second))) for second in (5, 3, 4)]
    await fed.give(insert(3))
    assert not any(task.done() for task in waiting)
    await fed.give(position=cursor.after(at(4)))
    assert [task.done() for task in waiting] == [False, True, True]
    await fed.progress.passed(at(2))
    waiting[0].cancel()
    await fed.give(position=cursor.after(at(9)))
    await asyncio.wait(waiting)
    await fed.give(insert(10))
    assert fed.seen[-1] == token(10)


async def test_it_is_live_while_the_stream_is_and_not_before_it_has_opened(fed):
    unopened = Fed().progress
    assert not unopened.live
    assert unopened.lag() == float("inf")
    assert fed.progress.live
    fed.stream.connected = False
    assert not fed.progress.live


async def test_the_lag_is_the_positions_age(fed):
    fifty_seconds_ago = int(time.time()) - BEGIN - 50
    await fed.open(second=fifty_seconds_ago)
    assert 49 <= fed.progress.lag() <= 60
    await fed.give(position=cursor.after(at(3600)))
    assert fed.progress.lag() == 0


async def test_a_gap_restarts_the_history_and_is_told(fed):
    await fed.give(insert(1))
    await fed.open("history_lost", 10)
    assert fed.seen == [token(1), "history_lost"]
    assert not fed.history.covers(token(1), "acme")
    assert fed.history.since(("acme", ROOM), "") == []


async def test_after_a_gap_nothing_remembered_is_trusted(fed):
    own = ObjectId()
    await fed.give(event(1, collection="test", documentKey={"_id": own}, fullDocument={"_id": own, "uuid": ROOM}))
    await fed.open("history_lost", 10)
    await fed.give(event(11, "delete", "test", documentKey={"_id": own}))
    assert fed.seen == [token(1), "history_lost"]
    assert fed.metrics.registry.get_sample_value("livedocs_events_unresolved_total") == 1


async def test_a_stream_that_stands_still_is_seen_to(fed, monkeypatch):
    """The figures are read when somebody asks, not when something comes."""
    figure = fed.metrics.registry.get_sample_value
    await fed.give(insert(1))
    assert figure("livedocs_stream_live") == 1
    assert figure("livedocs_history_events") == 1
    fed.stream.connected = False
    monkeypatch.setattr(time, "time", lambda: BEGIN + 61)
    assert figure("livedocs_stream_lag_seconds") == 60
    assert figure("livedocs_stream_live") == 0


async def test_documents_are_looked_up_again_until_it_works_and_order_is_kept(fed, clock):
    own = ObjectId()
    fed.finder.known[own] = ROOM
    fed.finder.failures = 2
    update = {"updatedFields": {"a": 1}, "removedFields": [], "truncatedArrays": []}
    await fed.give(event(1, "update", "test", documentKey={"_id": own}, updateDescription=update), insert(2))
    assert fed.listener.heard == []
    for _ in range(2):
        await clock.advance(0.5)
    assert fed.seen == [token(1), token(2)]
    assert len(fed.finder.asked) == 3


async def test_a_binary_that_only_claims_to_be_a_uuid_is_no_obstacle(fed):
    await fed.give(insert(1, odd=bson.Binary(b"abc", 4)))
    assert fed.seen == [token(1)]


async def test_a_changed_registry_opens_the_stream_again_behind_the_change(fed):
    fed.changed = True
    await fed.give(insert(1), tenants(2), insert(3))
    assert fed.seen == [token(1), "registry read"]
    assert fed.stream.reopened == [token(2)]
    assert fed.progress.position == token(2)
    # What was left of the batch comes again.
    await fed.give(insert(3))
    assert fed.seen == [token(1), "registry read", token(3)]


async def test_a_registry_as_it_was_changes_nothing(fed):
    await fed.give(insert(1), tenants(2), insert(3), tenants(4), insert(5))
    assert fed.seen == [token(1), "registry read", token(3), token(5)]
    assert fed.stream.reopened == []


async def test_what_comes_again_after_the_registry_is_resolved_as_if_for_the_first_time(fed):
    own = ObjectId()
    await fed.give(event(1, collection="test", documentKey={"_id": own}, fullDocument={"_id": own, "uuid": ROOM}))
    fed.changed = True
    gone = event(3, "delete", "test", documentKey={"_id": own})
    await fed.give(tenants(2), gone)
    await fed.give(gone)
    assert fed.seen == [token(1), "registry read", token(3)]
    assert fed.listener.heard[-1].op == "delete"


@pytest.mark.parametrize("kind", ["drop", "rename", "dropDatabase"])
async def test_a_collection_that_is_gone_is_told_and_not_resumed_across(fed, kind):
    await fed.give(insert(1), event(2, kind))
    assert fed.listener.heard[-1].tenant == "acme"
    assert not fed.history.covers(token(1), "acme")
    assert fed.history.covers(token(1), "globex")


async def test_a_collection_that_nobody_registered_may_vanish_unnoticed(fed):
    await fed.give(insert(1), event(2, "drop", "scratch"))
    assert fed.seen == [token(1)]
    assert fed.history.covers(token(1), "acme")


async def test_a_collection_renamed_onto_a_registered_one_is_told(fed):
    await fed.give(event(2, "rename", "scratch", to={"db": "acme_db", "coll": "notes"}))
    assert len(fed.listener.heard) == 1


async def test_the_grants_gone_concerns_everyone(fed):
    await fed.give(event(2, "drop", "acl", "control"))
    assert fed.listener.heard[-1].tenant is None
    assert not fed.history.covers(token(1), "globex")


async def test_documents_of_a_collection_that_was_replaced_are_not_taken_for_those_that_were_in_it(fed):
    """`$out` renames a new collection onto a registered one: the same `_id` may bear another UUID there."""
    own = ObjectId()
    update = {"updatedFields": {"a": 1}, "removedFields": [], "truncatedArrays": []}
    fed.finder.known[own] = OTHER
    await fed.give(
        event(1, collection="test", documentKey={"_id": own}, fullDocument={"_id": own, "uuid": ROOM}),
        event(2, "rename", "tmp.out", to={"db": "acme_db", "coll": "test"}),
        event(3, "update", "test", documentKey={"_id": own}, updateDescription=update),
    )
    assert fed.seen == [token(1), token(2), token(3)]
    assert fed.listener.heard[-1].room.uuid == OTHER
    # And across batches.
    fed.finder.known[own] = ROOM
    await fed.give(event(4, "drop", "test"))
    await fed.give(event(5, "update", "test", documentKey={"_id": own}, updateDescription=update))
    assert fed.listener.heard[-1].room.uuid == ROOM


async def test_of_two_changes_whose_cursors_do_not_show_their_order_the_second_is_withheld(fed):
    """As two shards commit them in one transaction: one time, one index, two documents of the UUID."""
    same = token(1, 7)
    tokens = [same + "6E11", same + "6E22", token(1, 8) + "6E00", token(2) + "6E00"]
    await fed.open()
    await fed.give(
        *(
            bson.encode(bson.decode(insert(int(index == 3) + 1)) | {"_id": {"_data": one}}, codec_options=CODEC)
            for index, one in enumerate(tokens)
        )
    )
    told = [change for change in fed.listener.heard if isinstance(change, DocumentChange)]
    assert [(change.token, change.withheld) for change in told] == list(
        zip(tokens, [None, "ambiguous_order", None, None], strict=True)
    )
    assert fed.history.since(told[0].room, tokens[0]) == told[1:]


GLOBEX = Tenant("globex", "globex_db", {"notes": "_id"})


def changed(second, document_id):
    description = {"updatedFields": {"a": 1}, "removedFields": [], "truncatedArrays": []}
    return event(second, "update", "test", documentKey={"_id": document_id}, updateDescription=description)


def created(second, document_id, uuid):
    document = {"_id": document_id, "uuid": uuid}
    return event(second, collection="test", documentKey={"_id": document_id}, fullDocument=document)


async def in_one_turn(fed, *events):
    """What is heard of a batch in the turn of the loop that it is read in."""
    fed.stream.queue.put_nowait(Batch(events, bson.decode(events[-1])["_id"]["_data"]))
    await asyncio.sleep(0)
    return len(fed.listener.heard)


async def test_a_few_changes_are_told_in_the_turn_they_are_read_in(fed):
    own = ObjectId()
    assert await in_one_turn(fed, insert(1), granted(2), created(3, own, OTHER), changed(4, own)) == 4
    assert fed.progress.position == token(4)
    # Many go by lanes, so that other tenants have their turns.
    assert await in_one_turn(fed, *(insert(second) for second in range(5, 10))) == 4
    await fed.taken()
    assert fed.seen == [token(second) for second in range(1, 10)]


async def test_what_has_to_be_looked_up_and_what_comes_behind_it_wait_in_the_lane(fed):
    own = ObjectId()
    fed.finder.known[own], fed.finder.failures = OTHER, 1
    assert await in_one_turn(fed, changed(1, own)) == 0
    await fed.taken()
    # Behind its tenant's lane, and ahead of nobody's.
    assert await in_one_turn(fed, insert(2)) == 0
    async with asyncio.timeout(5):
        while len(fed.seen) < 2:
            await asyncio.sleep(0.01)
    assert fed.seen == [token(1), token(2)]


async def test_one_of_a_few_that_cannot_be_told_costs_its_tenant_alone(fed, monkeypatch):
    def fail(*_):
        raise RuntimeError

    real = fed.history.append
    monkeypatch.setattr(fed.history, "append", lambda change: fail() if change.token == token(1) else real(change))
    # What comes behind it in the batch would be told without it.
    await fed.give(insert(1), insert(2))
    assert fed.seen == [("event_unreadable", "acme")]
    assert not fed.history.covers(cursor.before(at(1)), "acme")
    await fed.give(insert(3))
    assert fed.seen[1:] == [token(3)]


async def test_a_question_of_another_process_keeps_its_uuid(fed):
    heard = []
    fed.feed._inquired = heard.append
    question = {"kind": "holders", "tenant": "acme", "uuid": ROOM}
    body = {"_id": ObjectId(), "by": "p", "question": question}
    await fed.give(event(1, "insert", "inquiries", "control", documentKey={"_id": body["_id"]}, fullDocument=body))
    assert heard[0].question == question


def of_globex(second, uuid=OTHER):
    key = {"_id": uuid}
    return event(second, database="globex_db", documentKey=key, fullDocument=key)


async def test_a_tenant_whose_documents_cannot_be_looked_up_holds_up_no_other(fed):
    fed.registry.tenants = (ACME, GLOBEX)
    fed.finder.failures = 10**6
    await fed.give(event(1, "update", "test", documentKey={"_id": 1}, updateDescription=CHANGED), of_globex(2))
    assert fed.seen == [token(2)]
    assert (fed.history.position_of("globex"), fed.progress.position < token(1)) == (token(2), True)
    # Its own changes wait for one another; the other tenant's do not, nor does who waits for them.
    await fed.give(insert(3), of_globex(4))
    assert fed.seen == [token(2), token(4)]
    await asyncio.wait_for(fed.progress.passed(at(3), "globex"), 1)
    waiting = asyncio.create_task(fed.progress.passed(at(3), "acme"))
    everybody = asyncio.create_task(fed.progress.passed(at(3)))
    await fed.taken()
    assert not waiting.done()
    assert not everybody.done()
    assert fed.progress.lag("acme") > fed.progress.lag("globex") + 2
    assert fed.progress.lag("globex") == pytest.approx(fed.progress.lag(), abs=0.5)
    waiting.cancel()
    everybody.cancel()


async def test_what_is_everybodys_waits_for_all_tenants(fed):
    fed.registry.tenants = (ACME, GLOBEX)
    await fed.give(insert(1), of_globex(2), tenants(3), insert(4), of_globex(5))
    assert sorted(fed.seen[:2]) == [token(1), token(2)]
    assert fed.seen[2] == "registry read"
    assert sorted(fed.seen[3:]) == [token(4), token(5)]


CHANGED = {"updatedFields": {"n": 1}, "removedFields": [], "truncatedArrays": []}
