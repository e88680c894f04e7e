from __future__ import annotations

import copy

import pytest
from bson import Int64, ObjectId
from hypothesis import given
from hypothesis import strategies as st

from livedocs.store.merge import merge, merged, same

# RFC 7396, appendix A, those whose patch is an object.
APPENDIX = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), APPENDIX)
def test_the_examples_of_the_rfc(target, patch, result):
    assert merge(target, patch).document == result


def test_only_what_changes_is_written():
    current = {"a": 1, "b": {"c": 2, "d": 3, "e": {"f": 4}}, "g": [1, 2]}
    outcome = merge(current, {"a": 1, "b": {"c": 9, "d": 3, "e": {"f": None}}, "g": [1, 2], "h": None})
    assert outcome.set == {"b.c": 9}
    assert outcome.unset == ("b.e.f",)


def test_a_patch_that_changes_nothing_writes_nothing():
    assert not merge({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 2}]}, "x": None}).changes
    assert not merge({"a": 1}, {}).changes


def test_an_object_in_place_of_another_value_replaces_it_whole():
    assert merge({"a": [1]}, {"a": {"0": 2}}).set == {"a": {"0": 2}}
    assert merge({"a": "x"}, {"a": {"b": None}}).set == {"a": {}}


def test_the_document_before_stays_as_it_was():
    before = {"a": {"b": {"c": 1}}}
    kept = copy.deepcopy(before)
    merge(before, {"a": {"b": {"c": 2, "d": 3}}})
    assert before == kept


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, False),
        (Int64(5), 5, True),
        (float("nan"), float("nan"), True),
        (1, True, False),
        (0, False, False),
        (None, False, False),
        ("1", 1, False),
        (b"a", "a", False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        (ObjectId("0" * 24), ObjectId("0" * 24), True),
        (ObjectId("0" * 24), "0" * 24, False),
    ],
)
def test_what_counts_as_the_same_value(one, other, equal):
    assert same(one, other) is equal


names = st.sampled_from(["a", "b", "c", "0"])
leaves = st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=2) | st.floats(-1, 1)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
documents = st.dictionaries(names, values, max_size=4)


def apply(document, outcome):
    """What MongoDB does with the update."""
    result = copy.deepcopy(document)
    for path, value in outcome.set.items():
        holder, name = walk(result, path)
        holder[name] = value
    for path in outcome.unset:
        holder, name = walk(result, path)
        del holder[name]
    return result


def walk(document, path):
    *parents, name = path.split(".")
    for parent in parents:
        document = document[parent]
        assert isinstance(document, dict), "a path through something that is no object"
    return document, name


@given(documents, documents)
def test_the_update_does_what_the_rfc_says(current, patch):
    outcome = merge(current, patch)
    assert outcome.document == merged(current, patch)
    assert same(apply(current, outcome), outcome.document)


@given(documents, documents)
def test_no_path_is_part_of_another(current, patch):
    outcome = merge(current, patch)
    paths = [*outcome.set, *outcome.unset]
    assert len(set(paths)) == len(paths)
    assert not any(other.startswith(path + ".") for path in paths for other in paths)


@given(documents, documents)
def test_the_same_patch_a_second_time_writes_nothing(current, patch):
    assert not merge(merge(current, patch).document, patch).changes


# What other programs store: names that are no steps of a path, below the top. Those of a patch are plain there, or
# say what is stored already.
odd_names = st.sampled_from(["a", "b", "$ref", "$id", "a.b", ""])
odd = st.dictionaries(
    names,
    st.recursive(leaves, lambda inner: st.dictionaries(odd_names, inner, max_size=3), max_leaves=8),
    max_size=4,
)


@given(odd, documents)
def test_what_is_beside_such_names_is_merged_and_they_stay(current, patch):
    outcome = merge(current, patch)
    assert same(apply(current, outcome), merged(current, patch))


def test_a_change_below_a_name_that_is_no_step_of_a_path_sets_what_that_is_in():
    current = {"x": {"a.b": {"c": 1, "d": 2}, "a": {"b": {"d": 7}}, "e": Int64(3)}, "y": 1}
    outcome = merge(current, {"x": {"a.b": {"d": None}}, "y": 2})
    after = {"a.b": {"c": 1}, "a": {"b": {"d": 7}}, "e": 3}
    assert (outcome.set, outcome.unset) == ({"x": after, "y": 2}, ())
    assert type(outcome.set["x"]["e"]) is Int64
    outcome = merge({"owner": {"$ref": "users", "$id": 5, "note": "a"}}, {"owner": {"note": "b"}})
    assert outcome.set == {"owner.note": "b"}


def test_what_an_array_keeps_keeps_its_type():
    current = {"a": [Int64(1), {"b": Int64(2), "c": 3}, 4.0]}
    new = merge(current, {"a": [1, {"b": 2, "c": 5}, 4, 6]}).set["a"]
    assert new == [1, {"b": 2, "c": 5}, 4, 6]
    assert [type(new[0]), type(new[1]["b"]), type(new[2]), type(new[3])] == [Int64, Int64, float, int]


@pytest.mark.parametrize(
    ("stored", "sent", "is_same"),
    [
        (Int64(5), 5, True),
        (5.0, 5, True),
        (5, 5, True),
        (5, Int64(5), False),
        (5.0, Int64(5), False),
        (5, 5.0, False),
        (Int64(5), 5.0, False),
        (Int64(5), Int64(5), True),
        (5.0, 5.0, True),
    ],
)
def test_a_number_that_says_its_type_is_of_that_type_and_a_plain_one_of_the_one_that_is_stored(
    stored, sent, is_same
):
    assert same(stored, sent) is is_same
