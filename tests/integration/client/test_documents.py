"""Documents through the client."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from bson import Binary, Decimal128, Int64, ObjectId

from livedocs.client import Client, GrantChange, Item, NewGrant, Role
from livedocs.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    IdempotencyKeyReused,
    InsufficientScope,
    InvalidField,
    InvalidToken,
    NotFound,
    PreconditionFailed,
)

EVERY_TYPE = {
    "text": "ü",
    "whole": 7,
    "large": Int64(2**60),
    "small": Int64(5),
    "real": 1.5,
    "price": Decimal128("12.50"),
    "at": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
    "id": ObjectId("0123456789abcdef01234567"),
    "key": UUID("01234567-89ab-4cde-8f01-23456789abcd"),
    "bytes": b"\x00\xff",
    "special": Binary(b"x", 0x80),
    "nothing": None,
    "list": [1, {"deep": [True]}],
}


async def test_every_type_survives_the_way_into_the_database_and_back(docs, livedocs_server):
    made = await docs.documents.create("notes", EVERY_TYPE)
    assert (await docs.documents.get("notes", made.uuid)).fields == EVERY_TYPE
    stored = livedocs_server.database().notes.find_one({"_id": Binary.from_uuid(made.uuid)})
    assert {name: value for name, value in stored.items() if name != "_id"} == EVERY_TYPE
    # A driver reads a 64-bit integer as Int64 and a 32-bit one as int.
    assert {name: type(stored[name]) for name in ("whole", "large", "small")} == {
        "whole": int,
        "large": Int64,
        "small": Int64,
    }


async def test_a_small_64_bit_integer_comes_back_as_an_int_and_only_the_type_given_keeps_it(docs, livedocs_server):
    """docs/python-client.md says so: relaxed Extended JSON has one form for it and for a 32-bit integer."""
    made = await docs.documents.create(
        "notes", {"small": Int64(5), "edge": Int64(2**53), "large": Int64(2**53 + 1)}
    )
    found = (await docs.documents.get("notes", made.uuid)).fields
    assert {name: type(value) for name, value in found.items()} == {"small": int, "edge": int, "large": Int64}
    own = Binary.from_uuid(made.uuid)
    await docs.documents.replace("notes", made.uuid, {"small": Int64(found["small"]), "n": 1})
    assert type(livedocs_server.database().notes.find_one({"_id": own})["small"]) is Int64
    async with docs.subscribe([made.uuid], snapshot=False) as events:
        await docs.documents.merge("notes", made.uuid, {"small": Int64(6)})
        change = await anext(aiter(events))
    assert (change.fields["small"], type(change.fields["small"])) == (6, int)


async def test_a_document_is_made_once_under_one_key(docs):
    first = await docs.documents.create("notes", {"n": 1}, key="order-1")
    again = await docs.documents.create("notes", {"n": 1}, key="order-1")
    assert first == again
    assert first.created
    with pytest.raises(IdempotencyKeyReused):
        await docs.documents.create("notes", {"n": 2}, key="order-1")
    with pytest.raises(Conflict):
        await docs.documents.create("notes", {"n": 2}, uuid=first.uuid)
    assert (await docs.documents.create("notes", {"n": 1})).uuid != first.uuid


async def test_a_state_that_has_passed_is_not_written_over(docs):
    made = await docs.documents.create("notes", {"n": 1}, uuid=uuid4())
    changed = await docs.documents.merge("notes", made.uuid, {"n": 2, "more": 1}, if_match=made.etag)
    assert changed.fields == {"n": 2, "more": 1}
    for write in (docs.documents.replace, docs.documents.merge):
        with pytest.raises(PreconditionFailed):
            await write("notes", made.uuid, {"n": 3}, if_match=made.etag)
    with pytest.raises(PreconditionFailed):
        await docs.documents.delete("notes", made.uuid, if_match=made.etag)
    with pytest.raises(PreconditionFailed):
        await docs.documents.replace("notes", made.uuid, {"n": 3}, if_none_match="*")
    replaced = await docs.documents.replace("notes", made.uuid, {"n": 3}, if_match=changed.etag)
    assert replaced.fields == {"n": 3}
    assert not replaced.created


async def test_what_has_not_changed_is_not_sent_again(docs):
    made = await docs.documents.create("notes", {"n": 1})
    assert await docs.documents.get_if_changed("notes", made.uuid, made.etag) is None
    await docs.documents.merge("notes", made.uuid, {"n": None, "m": 2})
    assert (await docs.documents.get_if_changed("notes", made.uuid, made.etag)).fields == {"m": 2}


async def test_a_minimal_answer_has_the_etag_alone(docs):
    uuid = uuid4()
    made = await docs.documents.replace("notes", uuid, {"n": 1}, minimal=True)
    assert (made.fields, made.created) == ({}, True)
    assert (await docs.documents.get("notes", uuid)).etag == made.etag


async def test_a_refusal_is_the_error_of_its_code(docs, livedocs_server):
    made = await docs.documents.create("notes", {"n": 1})
    await docs.documents.delete("notes", made.uuid)
    with pytest.raises(NotFound) as caught:
        await docs.documents.get("notes", made.uuid)
    assert (caught.value.code, caught.value.status) == ("not_found", 404)
    with pytest.raises(InvalidField) as caught:
        await docs.documents.create("notes", {"a": {"$b": 1}})
    assert caught.value.data["path"] == "a.$b"
    async with livedocs_server.client("bob") as bob:
        with pytest.raises(Forbidden):
            await bob.documents.get("notes", made.uuid)
    async with Client(livedocs_server.url, "nobodys-token") as nobody:
        with pytest.raises(InvalidToken):
            await nobody.documents.get("notes", made.uuid)


async def test_a_document_and_its_grants_are_written_together(docs, livedocs_server):
    uuid = uuid4()
    written = await docs.documents.upsert("notes", uuid, {"n": 1}, grants={"user:alice": "reader"})
    assert written.created
    async with livedocs_server.client("alice") as alice:
        assert (await alice.documents.get("notes", uuid)).etag == written.etag
        assert [one async for one in alice.documents.mine()] == [(uuid, Role.READER)]
        with pytest.raises(Forbidden):
            await alice.documents.upsert("notes", uuid, {"n": 2})
    with pytest.raises(InvalidField):
        await docs.documents.upsert("notes", uuid, {"": 1}, grants={"user:bob": "reader"})
    assert "user:bob" not in {grant.subject for grant in await docs.grants.of(uuid)}


async def test_more_than_a_request_takes_is_written_with_a_result_for_each_and_nothing_is_lost(
    docs, livedocs_server
):
    uuids = [uuid4() for _ in range(2300)]
    fields = [{"n": number} for number in range(2300)]
    fields[5], fields[1500], fields[2299] = {"$bad": 1}, {"bad": object()}, {"": 1}
    items = (
        Item(some, uuid, [NewGrant("user:alice", Role.READER)] if number % 2 else ())
        for number, (some, uuid) in enumerate(zip(fields, uuids, strict=True))
    )
    results = await docs.documents.bulk("notes", items)
    assert [result.uuid for result in results] == uuids
    failed = {number: result.error.code for number, result in enumerate(results) if result.error}
    assert failed == {5: "invalid_field", 1500: "invalid_document", 2299: "invalid_field"}
    notes = livedocs_server.database().notes
    assert notes.count_documents({}) == 2297
    assert notes.find_one({"_id": Binary.from_uuid(uuids[2298])})["n"] == 2298


async def test_an_import_says_which_lines_were_refused(docs, livedocs_server):
    async def items():
        for number in range(3000):
            yield Item({"n": number} if number != 1234 else {"$bad": 1})

    done = await docs.import_documents("notes", items())
    assert (done.lines, done.succeeded, done.failed) == (3000, 2999, 1)
    assert {line: error.code for line, error in done.refused.items()} == {1234: "invalid_field"}
    assert livedocs_server.database().notes.count_documents({}) == 2999


async def test_an_import_goes_on_where_it_was_cut_off(livedocs_server, orders, link):
    class CutOnce:
        """Cuts the link in the middle of the first time it is gone through."""

        def __init__(self) -> None:
            self.times = 0

        def __iter__(self):
            self.times += 1
            for number in range(5000):
                if (number, self.times) == (4000, 1):
                    link.cut()
                # Large enough that some of it has been sent by then.
                yield Item({"n": number, "padding": "x" * 2000})

    items = CutOnce()
    async with Client(link.url, livedocs_server.oauth.token(orders)) as client:
        done = await client.import_documents("notes", items)
    assert items.times == 2
    assert done.lines == 5000
    found = livedocs_server.database().notes.distinct("n")
    assert len(found) == 5000
    assert livedocs_server.database().notes.count_documents({}) == 5000


async def test_grants_are_put_listed_explained_and_taken_away(docs, admin):
    uuid = (await docs.documents.create("notes", {"n": 1})).uuid
    end = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    put = await admin.grants.put(uuid, "user:al/ice", "writer", expires_at=end, wait=5)
    assert (put.role, put.expires_at) == (Role.WRITER, end)
    assert put.receipt.applied
    assert {grant.subject for grant in await admin.grants.of(uuid)} == {"client:orders", "user:al/ice"}

    why = await admin.grants.explain(uuid, "user:al/ice")
    assert (why.allowed, why.role, why.until) == (True, Role.WRITER, end)
    assert [rule.kind for rule in why.rules if rule.applies] == ["subject"]
    assert (await admin.grants.explain(uuid, "user:bob")).reason == "no_grant"

    assert await admin.grants.delete(uuid, "user:al/ice") is None
    with pytest.raises(NotFound):
        await admin.grants.delete(uuid, "user:al/ice")
    await admin.grants.put(uuid, "group:staff", Role.READER)
    assert (await admin.grants.delete(uuid, "group:staff", wait=5)).applied


async def test_ownership_is_handed_over_in_one_step(docs, admin, livedocs_server):
    uuid = (await docs.documents.create("notes", {"n": 1})).uuid
    found = await docs.grants.transfer(uuid, "user:alice", keep="reader", wait=5)
    assert {grant.subject: grant.role for grant in found} == {
        "user:alice": Role.OWNER,
        "client:orders": Role.READER,
    }
    assert all(grant.receipt.applied for grant in found)
    with pytest.raises(Forbidden):
        await docs.grants.transfer(uuid, "client:orders")
    await admin.grants.transfer(uuid, "user:bob", giver="user:alice")
    async with livedocs_server.client("bob") as bob:
        assert [(held, grant.role) async for held, grant in bob.grants.held_by("user:bob")] == [(uuid, Role.OWNER)]
        with pytest.raises(InsufficientScope):
            await anext(bob.grants.held_by("user:alice"))


async def test_what_a_subject_has_comes_page_by_page(docs, admin, livedocs_server):
    uuids = sorted(uuid4() for _ in range(501))
    await docs.documents.bulk("notes", [Item({}, uuid, {"user:alice": "reader"}) for uuid in uuids])
    assert [uuid async for uuid, _ in admin.grants.held_by("user:alice")] == uuids
    async with livedocs_server.client("alice") as alice:
        assert [uuid async for uuid, _ in alice.documents.mine("notes")] == uuids


async def test_many_grants_change_in_order_with_a_result_for_each(docs, admin):
    uuid = (await docs.documents.create("notes", {"n": 1})).uuid
    changes = [GrantChange(uuid, f"user:u{number % 600}", "reader") for number in range(1200)]
    changes += [GrantChange(uuid, "user:u0", None), GrantChange(uuid, "nobody", "reader")]
    results = await admin.grants.bulk(changes)
    assert [result.status for result in results[:1201]] == [201] * 600 + [200] * 600 + [204]
    assert results[1201].error.code == "invalid_subject"
    # More than a page has.
    subjects = [grant.subject for grant in await admin.grants.of(uuid)]
    assert subjects == ["client:orders", *sorted(f"user:u{number}" for number in range(1, 600))]


async def test_a_time_without_its_zone_is_not_guessed(docs, admin):
    uuid = (await docs.documents.create("notes", {"n": 1})).uuid
    naive = datetime(2030, 1, 1)  # noqa: DTZ001
    with pytest.raises(BadRequest, match="time zone"):
        await admin.grants.put(uuid, "user:alice", "reader", expires_at=naive)
    (result,) = await admin.grants.bulk([GrantChange(uuid, "user:alice", "reader", naive)])
    assert result.error.code == "bad_request"
