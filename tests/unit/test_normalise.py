from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import bson
import pytest
from bson import ObjectId, Timestamp
from bson.binary import Binary
from hypothesis import given
from hypothesis import strategies as st

from livedocs.changes.event import CollectionGone, GrantChange, TenantsChange
from livedocs.changes.normalise import Unresolved, place, read
from livedocs.changes.updates import ambiguous, updated
from livedocs.codec.bsondecode import CODEC
from livedocs.live.payload import payload
from livedocs.model import GrantKey, Role, Tenant, grant_id

TENANT = Tenant("acme", "acme_db", {"notes": "_id", "test": "uuid"})
AT = Timestamp(1_800_000_000, 7)
WALL = datetime(2026, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
TOKEN = "826B0487B2000000072B022C0100296E5A1004"
OTHER = "8" + TOKEN[1:] + "00"


class Registry:
    def by_database(self, database: str) -> Tenant | None:
        return TENANT if database == TENANT.database else None


def raw(op: str, collection: str = "notes", *, database: str = "acme_db", **members: Any) -> bytes:
    event = {
        "_id": {"_data": TOKEN},
        "operationType": op,
        "clusterTime": AT,
        "wallTime": WALL,
        "ns": {"db": database, "coll": collection},
        **members,
    }
    return bson.encode(event, codec_options=CODEC)


def understood(*arguments: Any, **members: Any) -> Any:
    return read(raw(*arguments, **members), Registry(), "control")


def description(
    changed: dict[str, Any] | None = None, removed: list[str] | None = None, truncated: list[Any] | None = None
) -> dict[str, Any]:
    return {"updatedFields": changed or {}, "removedFields": removed or [], "truncatedArrays": truncated or []}


def shown(item: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    assert isinstance(item, Unresolved)
    (change,) = place(item, item.uuid, item.uuid)
    return payload(change, change.token)


# --- documents keyed by _id ---


def test_an_insert_is_the_whole_document():
    uuid = uuid4()
    event = understood("insert", documentKey={"_id": uuid}, fullDocument={"_id": uuid, "a": {"b": 1}})
    data, meta = shown(event)
    assert data == {"uuid": str(uuid), "a": {"b": 1}}
    assert meta == {"op": "insert", "id": TOKEN, "at": WALL.replace(tzinfo=None), "removed": [], "truncated": []}


def test_an_update_is_the_changed_fields_with_what_was_removed_and_truncated():
    uuid = uuid4()
    event = understood(
        "update",
        documentKey={"_id": uuid},
        updateDescription=description({"a.b": 5}, ["c"], [{"field": "l", "newSize": 2}]),
    )
    data, meta = shown(event)
    assert data == {"uuid": str(uuid), "a.b": 5}
    assert (meta["removed"], meta["truncated"]) == (["c"], [{"field": "l", "newSize": 2}])


def test_truncated_arrays_may_come_without_any_changed_field():
    event = understood(
        "update",
        documentKey={"_id": uuid4()},
        updateDescription=description(truncated=[{"field": "l", "newSize": 0}]),
    )
    data, meta = shown(event)
    assert list(data) == ["uuid"]
    assert meta["truncated"] == [{"field": "l", "newSize": 0}]


def test_a_delete_is_the_uuid():
    uuid = uuid4()
    assert shown(understood("delete", documentKey={"_id": uuid}))[0] == {"uuid": str(uuid)}


def test_events_of_one_transaction_say_so():
    session = {"id": uuid4(), "uid": b"x"}
    event = understood("delete", documentKey={"_id": uuid4()}, lsid=session, txnNumber=bson.Int64(9))
    assert shown(event)[1]["txn"] == f"{session['id']}:9"


def test_a_document_whose_id_is_no_uuid_has_no_room():
    for document_id in (ObjectId(), "text", Binary(b"x" * 16, 3), str(uuid4())):
        event = understood("delete", documentKey={"_id": document_id})
        assert isinstance(event, Unresolved)
        assert (event.uuid, event.settled) == (None, True)


# --- documents keyed by uuid ---


def test_what_the_event_says_of_the_uuid_is_found_in_it():
    uuid, before = uuid4(), uuid4()
    own = ObjectId()
    inserted = understood("insert", "test", documentKey={"_id": own}, fullDocument={"_id": own, "uuid": uuid})
    assert (inserted.uuid, inserted.settled) == (uuid, True)
    key = {"documentKey": {"_id": own}}
    moved = understood("update", "test", **key, updateDescription=description({"uuid": uuid}))
    assert (moved.uuid, moved.uuid_before, moved.settled) == (uuid, None, True)
    removed = understood("update", "test", **key, updateDescription=description(removed=["uuid"]))
    assert (removed.uuid, removed.settled) == (None, True)
    plain = understood("update", "test", **key, updateDescription=description({"a": 1}))
    assert (plain.uuid, plain.settled) == (None, False)
    image = {"fullDocumentBeforeChange": {"_id": own, "uuid": before}}
    assert understood("delete", "test", **key, **image).uuid_before == before
    assert understood("delete", "test", **key, fullDocumentBeforeChange=None).uuid_before is None


def test_a_document_that_moves_is_a_delete_in_the_old_room_and_whole_in_the_new():
    old, new, own = uuid4(), uuid4(), ObjectId()
    event = understood(
        "update",
        "test",
        documentKey={"_id": own},
        updateDescription=description({"uuid": new, "n.m": 2}, ["gone"]),
        fullDocumentBeforeChange={"_id": own, "uuid": old, "n": {"m": 1}, "gone": 1},
    )
    left, entered = place(event, new, old)
    assert (left.room.uuid, left.op, payload(left, left.token)[0]) == (old, "delete", {"uuid": str(old)})
    assert (entered.room.uuid, entered.op) == (new, "insert")
    assert payload(entered, entered.token)[0] == {"uuid": str(new), "_id": own, "n": {"m": 2}}


def test_a_replacement_without_a_uuid_leaves_the_room():
    old, own = uuid4(), ObjectId()
    event = understood("replace", "test", documentKey={"_id": own}, fullDocument={"_id": own})
    (left,) = place(event, None, old)
    assert (left.room.uuid, left.op) == (old, "delete")
    assert place(event, None, None) == []


# --- grants, tenants and what vanishes ---


def acl(op: str, subject: str = "user:bob", **members: Any) -> Any:
    key = grant_id(GrantKey("acme", UUID(int=5), subject))
    return understood(op, "acl", database="control", documentKey={"_id": key}, **members), key


def test_a_grant_that_is_put_or_replaced_is_read_from_the_event():
    for op in ("insert", "replace"):
        key = grant_id(GrantKey("acme", UUID(int=5), "user:bob"))
        change, _ = acl(op, fullDocument={"_id": key, "role": "writer", "expires_at": WALL})
        assert isinstance(change, GrantChange)
        assert change.room == ("acme", UUID(int=5))
        assert (change.subject, change.grant.role, change.grant.expires_at) == ("user:bob", Role.WRITER, WALL)


def test_a_grant_that_is_deleted_is_gone_and_one_whose_time_was_over_has_ended():
    change, key = acl("delete")
    assert (change.grant, change.ended) == (None, False)
    past = {"_id": key, "role": "reader", "expires_at": WALL}
    assert acl("delete", fullDocumentBeforeChange=past)[0].ended
    lasting = {"_id": key, "role": "reader"}
    assert not acl("delete", fullDocumentBeforeChange=lasting)[0].ended


def test_a_grant_updated_in_place_is_its_pre_image_with_the_changes():
    _, key = acl("delete")
    before = {"_id": key, "role": "reader", "granted_by": "x"}
    change, _ = acl("update", fullDocumentBeforeChange=before, updateDescription=description({"role": "owner"}))
    assert change.grant.role is Role.OWNER
    assert change.before.role is Role.READER


def test_a_grant_that_cannot_be_understood_allows_nothing():
    _, key = acl("delete")
    assert acl("update", updateDescription=description({"role": "owner"}))[0].grant is None
    assert acl("insert", fullDocument={"_id": key, "role": "god"})[0].grant is None
    foreign = {**key, "subject": "user:eve"}
    assert acl("insert", fullDocument={"_id": foreign, "role": "owner"})[0].grant is None
    before = {"_id": key, "role": "reader"}
    change, _ = acl("update", fullDocumentBeforeChange=before, updateDescription=description({"role": None}))
    assert change.grant is None


def test_tenants_and_vanished_collections_are_told():
    assert isinstance(understood("update", "tenants", database="control", documentKey={"_id": "x"}), TenantsChange)
    assert understood("drop") == CollectionGone(TOKEN, AT, "acme", "notes")
    to = {"db": "acme_db", "coll": "notes"}
    assert understood("rename", "other", to=to) == CollectionGone(TOKEN, AT, "acme", "other")
    assert understood("rename", "other", to={**to, "coll": "another"}) is None
    assert understood("drop", "other") is None
    whole = bson.encode({**bson.decode(raw("dropDatabase"), CODEC), "ns": {"db": "acme_db"}}, codec_options=CODEC)
    assert read(whole, Registry(), "control") == CollectionGone(TOKEN, AT, "acme", None)
    assert understood("drop", "acl", database="control") == CollectionGone(TOKEN, AT, None, None)


@pytest.mark.parametrize(
    ("op", "collection", "database"),
    [
        ("insert", "unregistered", "acme_db"),
        ("insert", "notes", "elsewhere"),
        ("insert", "audit", "control"),
        ("createIndexes", "notes", "acme_db"),
        ("modify", "acl", "control"),
        ("drop", "audit", "control"),
    ],
)
def test_the_rest_means_nothing_here(op, collection, database):
    assert understood(op, collection, database=database, documentKey={"_id": 1}, fullDocument={"_id": 1}) is None


def test_dates_beyond_pythons_and_text_that_is_not_utf_8_do_not_stop_the_stream():
    uuid = uuid4()
    document = {"_id": uuid, "far": bson.DatetimeMS(300_000_000_000_000), "text": "aXb"}
    broken = raw("insert", documentKey={"_id": uuid}, fullDocument=document).replace(b"aXb", b"a\xffb")
    data, _ = shown(read(broken, Registry(), "control"))
    assert data["text"] == "a�b"


# --- update descriptions ---

NAMES = st.sampled_from("abc")
TREES = st.recursive(
    st.integers(0, 9),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=8,
)


def difference(before: Any, after: Any, path: str, found: dict[str, Any]) -> None:
    """What changed between two documents, as MongoDB describes it."""
    for name in before.keys() | after.keys():
        here = f"{path}.{name}" if path else name
        if name not in after:
            found["removedFields"].append(here)
        elif name not in before:
            found["updatedFields"][here] = after[name]
        elif isinstance(before[name], dict) and isinstance(after[name], dict):
            difference(before[name], after[name], here, found)
        elif isinstance(before[name], list) and isinstance(after[name], list):
            if len(after[name]) < len(before[name]):
                found["truncatedArrays"].append({"field": here, "newSize": len(after[name])})
            for index, item in enumerate(after[name]):
                if index >= len(before[name]) or before[name][index] != item:
                    found["updatedFields"][f"{here}.{index}"] = item
        elif before[name] != after[name]:
            found["updatedFields"][here] = after[name]


@given(st.dictionaries(NAMES, TREES), st.dictionaries(NAMES, TREES))
def test_a_description_applied_to_the_document_before_gives_the_one_after(before, after):
    found = description()
    difference(before, after, "", found)
    kept = repr(before)
    assert updated(before, found) == after
    assert repr(before) == kept


@pytest.mark.parametrize(
    ("before", "path", "doubt"),
    [
        ({"a": {"b": 1}}, "a.b", False),
        ({"a": {}}, "a.b", False),
        ({"a": [1, 2]}, "a.1", False),
        ({"a": [1]}, "a.1", False),
        ({"a": [{"b": 1}]}, "a.0.b", False),
        ({"x.y": 1}, "a", False),
        ({"a": {}, "a.b": 2}, "a.b", True),
        ({}, "a.b", True),
        ({"a": 5}, "a.b", True),
        ({"a": {"x.y": 1}}, "a.x.y", True),
        (None, "a.b", False),
        # Nor for a new field named `a.b`: no event of 6.0 tells the two apart (docs/guarantees.md).
        ({"a": {"b": 1}, "c": 2}, "a.b", False),
    ],
)
def test_a_path_is_doubtful_when_the_pre_image_shows_that_it_could_mean_two_things(before, path, doubt):
    for changes in (description({path: 1}), description(removed=[path])):
        assert ambiguous(changes, before) is doubt


def test_where_mongodb_says_which_paths_are_ambiguous_nothing_is_guessed():
    changes = {**description({"a.b": 1}), "disambiguatedPaths": {}}
    assert not ambiguous(changes, {})
    changes["disambiguatedPaths"] = {"a.b": ["a.b"]}
    assert ambiguous(changes, None)
    changes["disambiguatedPaths"] = {"a.0": ["a", 0]}
    assert not ambiguous(changes, None)
