from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import bson
import structlog
from bson import ObjectId, Timestamp

from livedocs.changes.event import DocumentChange, Lost
from livedocs.changes.normalise import Unresolved
from livedocs.changes.resolver import Resolver
from livedocs.codec.bsondecode import CODEC
from livedocs.model import Tenant

TENANT = Tenant("acme", "acme_db", {"notes": "_id", "test": "uuid"})


AT = Timestamp(1, 1)


class Finder:
    """Knows the documents it is given, and remembers what it was asked."""

    def __init__(self, known: dict[Any, UUID] | None = None) -> None:
        self.known = known or {}
        self.asked: list[list[Any]] = []
        self.times: list[Timestamp] = []

    async def uuids(self, tenant: Tenant, collection: str, ids: Any, at: Timestamp) -> dict[bytes, UUID]:
        assert (tenant, collection) == (TENANT, "test")
        self.asked.append(list(ids))
        self.times.append(at)
        return {own: uuid for one, uuid in self.known.items() if (own := identity(one)) in ids}


def identity(document_id: Any) -> bytes:
    """An `_id` as BSON: its type and its value."""
    element = bson.encode({"": document_id}, codec_options=CODEC)[4:-1]
    return element[:1] + element[2:]


def event(
    op: str,
    document_id: Any,
    *,
    collection: str = "test",
    uuid: UUID | None = None,
    before: UUID | None = None,
    settled: bool | None = None,
    changed: dict[str, Any] | None = None,
    at: Timestamp = AT,
) -> Unresolved:
    change = {
        "_id": {"_data": "82" + "0" * 16},
        "clusterTime": at,
        "documentKey": {"_id": document_id},
        "fullDocument": {"_id": document_id, "uuid": uuid},
        "updateDescription": {"updatedFields": changed or {}, "removedFields": [], "truncatedArrays": []},
    }
    known = uuid is not None if settled is None else settled
    raw = bson.encode(change, codec_options=CODEC)
    image = bson.encode({"_id": document_id, "uuid": before}, codec_options=CODEC) if before else None
    return Unresolved(TENANT, collection, op, change, raw, uuid, known, image=image)


async def rooms(resolver: Resolver, *events: Unresolved) -> list[tuple[str, UUID]]:
    return [(change.op, change.room.uuid) for change in await resolver.resolve(events)]


async def test_what_an_insert_said_serves_the_updates_and_the_delete_behind_it():
    finder, uuid, own = Finder(), uuid4(), ObjectId()
    resolver = Resolver(finder)
    assert await rooms(resolver, event("insert", own, uuid=uuid), event("update", own)) == [
        ("insert", uuid),
        ("update", uuid),
    ]
    assert await rooms(resolver, event("delete", own)) == [("delete", uuid)]
    assert finder.asked == []


async def test_the_pre_image_serves_where_nothing_was_remembered():
    finder, uuid = Finder(), uuid4()
    assert await rooms(Resolver(finder), event("delete", 1, before=uuid)) == [("delete", uuid)]
    assert finder.asked == []


async def test_the_rest_of_a_batch_is_looked_up_together():
    ids = [ObjectId() for _ in range(5)]
    known = {one: uuid4() for one in ids[:4]}
    finder = Finder(known)
    resolver = Resolver(finder)
    found = await rooms(resolver, *(event("update", one) for one in (*ids, *ids)))
    assert found == [("update", known[one]) for one in (*ids[:4], *ids[:4])]
    assert finder.asked == [[identity(one) for one in ids]]
    assert resolver.take_dropped() == 2
    assert resolver.take_dropped() == 0


async def test_the_look_up_is_as_of_the_first_event_that_needs_it():
    ids = [ObjectId() for _ in range(3)]
    finder = Finder({one: uuid4() for one in ids})
    named = event("insert", ids[2], uuid=uuid4(), at=Timestamp(4, 1))
    asking = [event("update", one, at=Timestamp(5, number)) for number, one in enumerate(ids)]
    await Resolver(finder).resolve([named, *asking])
    assert (finder.asked, finder.times) == ([[identity(one) for one in ids[:2]]], [Timestamp(5, 0)])


async def test_a_delete_that_nothing_explains_is_dropped_and_counted_never_guessed():
    finder = Finder({1: uuid4()})
    resolver = Resolver(finder)
    assert await rooms(resolver, event("delete", 1)) == []
    assert finder.asked == []
    assert resolver.take_dropped() == 1


async def test_a_collection_whose_deletes_lack_a_pre_image_is_named_in_the_log_once_until_it_may_be_another():
    resolver = Resolver(Finder())
    imaged = event("delete", 1)._replace(image=bson.encode({"_id": 1}))
    nameless = event("insert", 2, settled=True)
    with structlog.testing.capture_logs() as logs:
        # Documents without a UUID: their deletes have no room, and the collection is in order.
        await resolver.resolve([imaged, nameless, event("delete", 2)])
        assert logs == []
        for _ in range(2):
            await resolver.resolve([event("delete", number) for number in (3, 4)])
        assert [(line["event"], line["tenant"], line["collection"]) for line in logs] == [
            ("delete_without_pre_image", "acme", "test")
        ]
        resolver.forget("acme")
        await resolver.resolve([event("delete", 5)])
    assert len(logs) == 2


async def test_after_missed_events_nothing_remembered_is_trusted():
    finder, old, new = Finder(), uuid4(), uuid4()
    resolver = Resolver(finder)
    await resolver.resolve([event("insert", 1, uuid=old)])
    resolver.forget()
    finder.known[1] = new
    assert await rooms(resolver, event("update", 1)) == [("update", new)]


async def test_a_document_that_changes_its_uuid_is_remembered_with_the_new_one():
    old, new = uuid4(), uuid4()
    resolver = Resolver(Finder())
    await resolver.resolve([event("insert", 1, uuid=old)])
    moved = event("update", 1, uuid=new, changed={"uuid": new})
    assert await rooms(resolver, moved, event("update", 1)) == [("delete", old), ("update", new), ("update", new)]


async def test_a_document_created_again_under_the_same_id_is_another_one():
    first, second = uuid4(), uuid4()
    resolver = Resolver(Finder())
    batch = [
        event("insert", 1, uuid=first),
        event("delete", 1),
        event("insert", 1, uuid=second),
        event("update", 1),
    ]
    assert await rooms(resolver, *batch) == [
        ("insert", first),
        ("delete", first),
        ("insert", second),
        ("update", second),
    ]


async def test_the_memory_is_bounded_and_gives_up_the_oldest():
    finder = Finder()
    resolver = Resolver(finder, capacity=2)
    uuids = [uuid4() for _ in range(3)]
    await resolver.resolve([event("insert", number, uuid=uuid) for number, uuid in enumerate(uuids)])
    finder.known[0] = uuids[0]
    found = await rooms(resolver, *(event("update", number) for number in range(3)))
    assert found == [("update", uuid) for uuid in uuids]
    assert finder.asked == [[identity(0)]]


async def test_any_id_can_be_remembered_a_document_among_them():
    uuid, own = uuid4(), {"a": [1, {"b": 2}]}
    resolver = Resolver(Finder())
    found = await rooms(resolver, event("insert", own, uuid=uuid), event("delete", own))
    assert found == [("insert", uuid), ("delete", uuid)]


async def test_documents_keyed_by_id_need_no_memory():
    finder, uuid = Finder(), uuid4()
    resolver = Resolver(finder)
    named = event("delete", uuid, collection="notes", uuid=uuid, before=uuid)
    nameless = event("delete", "text", collection="notes", settled=True)
    assert await rooms(resolver, named, nameless) == [("delete", uuid)]
    assert resolver.take_dropped() == 1


async def test_what_is_forgotten_of_one_tenant_is_remembered_of_another():
    one, other, own = TENANT, Tenant("globex", "globex_db", {"test": "uuid"}), uuid4()
    resolver = Resolver(Finder())
    await resolver.resolve([event("insert", 1, uuid=own), event("insert", 1, uuid=own)._replace(tenant=other)])
    resolver.forget(one.slug)
    deletes = [event("delete", 1), event("delete", 1)._replace(tenant=other)]
    assert [change.room.tenant for change in await resolver.resolve(deletes)] == ["globex"]
    assert resolver.take_dropped() == 1


async def test_what_was_looked_up_for_an_earlier_event_gives_way_to_what_a_later_one_says():
    old, new = uuid4(), uuid4()
    found = await rooms(
        Resolver(Finder({1: old})),
        event("update", 1),
        event("update", 1, uuid=new, before=old, changed={"uuid": new}),
        event("update", 1),
    )
    assert found[0] == ("update", old)
    assert found[-1] == ("update", new)


async def test_what_nobody_knows_any_more_is_lost_and_told_and_never_taken_from_the_present():
    class Forgetful(Finder):
        async def uuids(self, *_: Any) -> None:
            return None

    known, uuid = ObjectId(), uuid4()
    resolver = Resolver(Forgetful())
    first = await resolver.resolve([event("insert", known, uuid=uuid)])
    assert [change.room.uuid for change in first] == [uuid]
    with structlog.testing.capture_logs() as logs:
        told = await resolver.resolve(
            [event("update", known), event("update", ObjectId()), event("delete", known)]
        )
    # The tenant is to begin anew: what was remembered of it cannot be trusted behind that.
    assert [type(change) for change in told] == [DocumentChange, Lost, Lost]
    assert resolver.take_dropped() == 0
    assert ("snapshot_gone", 1) in [(line["event"], line.get("events")) for line in logs]


async def test_the_pre_image_counts_more_than_what_is_remembered():
    """A tenant may have been unregistered for a while, and its documents may have moved meanwhile."""
    uuid, nameless, moved = uuid4(), ObjectId(), ObjectId()
    resolver = Resolver(Finder())
    assert await rooms(resolver, event("insert", nameless, settled=True)) == []
    assert await rooms(resolver, event("update", nameless, before=uuid)) == [("update", uuid)]
    await resolver.resolve([event("insert", moved, uuid=uuid4())])
    assert await rooms(resolver, event("update", moved, before=uuid)) == [("update", uuid)]


async def test_what_was_known_of_a_tenant_is_not_taken_for_none_once_something_of_it_was_lost():
    class Forgetful(Finder):
        async def uuids(self, *_: Any) -> None:
            return None

    known, uuid = ObjectId(), uuid4()
    tenant = Tenant("acme", "acme_db", {"test": "uuid", "others": "uuid"})
    resolver = Resolver(Forgetful())

    def other(op, **members):
        return event(op, known, collection="others", **members)._replace(tenant=tenant)

    assert await rooms(resolver, other("insert", uuid=uuid)) == [("insert", uuid)]
    # Of the one collection nobody knows any more what was then; the other's document was known until now.
    batch = [event("update", ObjectId()), other("update"), other("delete")]
    assert [type(change) for change in await resolver.resolve(batch)] == [Lost, Lost, Lost]
    assert resolver.take_dropped() == 0


async def test_a_broken_pre_image_costs_its_own_event_and_is_not_asked_for():
    broken, good, uuid = ObjectId(), ObjectId(), uuid4()
    finder = Finder({good: uuid})
    resolver = Resolver(finder)
    odd = event("update", broken)._replace(image=b"\x20\0\0\0\x05uuid\0\xff\xff\xff\x7f\0")
    assert resolver.resolve_known([odd, event("insert", ObjectId(), uuid=uuid)])
    changes = await resolver.resolve([odd, event("update", good)])
    assert [type(change) for change in changes] == [Lost, DocumentChange]
    assert finder.asked == [[identity(good)]]
