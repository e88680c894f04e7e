from __future__ import annotations

from uuid import uuid4

from bson import ObjectId

from livedocs.presentation import present, present_changes


def test_a_document_keyed_by_id_is_shown_with_uuid_in_its_place():
    uuid = uuid4()
    shown = present({"_id": uuid, "b": 1, "a": 2}, "_id", uuid)
    assert list(shown.items()) == [("uuid", str(uuid)), ("b", 1), ("a", 2)]


def test_a_document_keyed_by_uuid_keeps_its_own_id():
    uuid, own = uuid4(), ObjectId()
    assert present({"_id": own, "a": 2, "uuid": uuid}, "uuid", uuid) == {"uuid": str(uuid), "_id": own, "a": 2}


def test_a_field_called_uuid_never_says_anything_but_the_room():
    uuid = uuid4()
    assert present({"_id": uuid, "uuid": "another"}, "_id", uuid) == {"uuid": str(uuid), "$uuid": "another"}
    assert present_changes({"uuid": "another", "uuid.a": 1, "uuids": 2}, "_id", uuid) == {
        "uuid": str(uuid),
        "$uuid": "another",
        "$uuid.a": 1,
        "uuids": 2,
    }
    assert present_changes({"uuid": uuid, "a": 1}, "uuid", uuid) == {"uuid": str(uuid), "a": 1}
