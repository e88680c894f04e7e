from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from bson import Binary, Code, Decimal128, Int64, ObjectId, Timestamp

from livedocs.codec import extjson
from livedocs.errors import DocumentTooLarge, InvalidDocument, InvalidField, TooDeep
from livedocs.runtime.slices import at_once
from livedocs.store.validation import MAX_NAMES, MOST_DOUBTS, validate, validating

MIB = 2**20


def check(document, **options):
    validate(document, max_bytes=options.pop("max_bytes", MIB), **options)


def nested(levels):
    """A document of that many levels, itself the first."""
    document = {}
    for _ in range(levels - 1):
        document = {"a": document}
    return document


def test_every_value_of_bson_is_taken():
    check(
        {
            "text": "héllo 🐟",
            "number": -(2**63),
            "long": Int64(2**63 - 1),
            "decimal": Decimal128("1.10"),
            "double": float("nan"),
            "yes": True,
            "nothing": None,
            "at": datetime.now(UTC),
            "id": ObjectId(),
            "uuid_inside": {"uuid": uuid4(), "_id": 1},
            "bytes": Binary(b"\x00", 0),
            "stamp": Timestamp(1, 1),
            "list": [1, [2, {"three": 3}]],
        }
    )


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"$set": 1}, "$set"),
        ({"a": {"$ne": None}}, "a.$ne"),
        ({"a": [{"b": 1}, {"$gt": ""}]}, "a.1.$gt"),
        ({"a.b": 1}, "a.b"),
        ({"a": {"b\0": 1}}, "a.b\\u0000"),
        ({"": 1}, ""),
        ({"a": [[{"": 1}]]}, "a.0.0."),
        ({"__proto__": {}}, "__proto__"),
        ({"a": {"constructor": {}}}, "a.constructor"),
        ({"a": [{"prototype": 1}]}, "a.0.prototype"),
        ({"code": Code("f", {"$where": 1})}, "code.$where"),
    ],
)
def test_a_refused_name_is_named_with_its_path(document, path):
    with pytest.raises(InvalidField) as refusal:
        check(document)
    assert refusal.value.data["path"] == path


def test_a_reference_to_another_document_is_a_value_and_half_of_one_is_not():
    check({"a": {"$ref": "notes", "$id": 1}, "b": [{"$ref": "notes", "$id": 1, "$db": "other", "more": 2}]})
    for wrong in ({"$ref": "notes"}, {"$id": 1}, {"$ref": "notes", "$id": 1, "$set": 2}):
        with pytest.raises(InvalidField):
            check({"a": wrong})
    with pytest.raises(InvalidField):
        check({"$ref": "notes", "$id": 1})


def test_names_that_the_document_may_have_already_are_told_with_their_places():
    doubts = []
    at_once(validating({"a": [{"b.c": 1}], "": 2, "d": 3}, max_bytes=MIB, doubts=doubts))
    assert {doubt.path for doubt in doubts} == {("a", 0, "b.c"), ("",)}
    many = {f"${number}": 1 for number in range(MOST_DOUBTS + 1)}
    with pytest.raises(InvalidField):
        at_once(validating(many, max_bytes=MIB, doubts=[]))


def test_an_operator_hidden_in_extended_json_is_found_after_decoding():
    with pytest.raises(InvalidField):
        check(extjson.loads('{"a": {"$oid": "0123456789abcdef01234567", "$ne": null}}'))
    with pytest.raises(InvalidField):
        check(extjson.loads('{"a": {"$scope": {"b": 1}}}'))


def test_depth_is_taken_up_to_the_limit_and_not_past_it():
    check(nested(32))
    with pytest.raises(TooDeep):
        check(nested(33))


def test_arrays_count_as_levels():
    value = []
    for _ in range(31):
        value = [value]
    with pytest.raises(TooDeep):
        check({"a": value})


def test_a_depth_that_would_exhaust_the_stack_is_refused_like_any_other():
    with pytest.raises(TooDeep):
        check(nested(100_000))


def test_names_are_counted_at_every_level():
    half = {f"n{number}": 0 for number in range(MAX_NAMES // 2)}
    check(dict(list(half.items())[:-1]) | {"inner": dict(list(half.items()))})
    with pytest.raises(DocumentTooLarge):
        check({**half, "inner": half})


def test_bytes_are_counted_as_bson():
    check({"a": "x" * 1000}, max_bytes=1024)
    with pytest.raises(DocumentTooLarge) as refusal:
        check({"a": "x" * 1020}, max_bytes=1024)
    assert refusal.value.data["limit"] == 1024


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, [2**64]])
def test_integers_past_64_bits_are_refused(value):
    with pytest.raises(InvalidDocument):
        check({"a": value})


@pytest.mark.parametrize(
    "document", [{"a": "\ud800"}, {"a": ["\udfff"]}, {"\ud800": 1}, {"\ud800": {"b": "\ud800"}}]
)
def test_half_a_surrogate_pair_is_refused(document):
    with pytest.raises(InvalidDocument):
        check(document)


def test_what_has_no_bson_form_is_refused():
    with pytest.raises(InvalidDocument):
        check({"a": object()})
