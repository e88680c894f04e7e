from __future__ import annotations

from uuid import UUID

import pytest
from bson import Int64

from livedocs.errors import BadRequest, PreconditionFailed
from livedocs.http.etags import conditions, etag

DOCUMENT = {"_id": UUID(int=1), "a": 1}
TAG = etag(DOCUMENT)


def test_one_state_has_one_strong_tag():
    assert etag(dict(DOCUMENT)) == TAG
    assert TAG.startswith('"')


@pytest.mark.parametrize("other", [{"a": 2}, {"a": 1.0}, {"a": Int64(1)}, {"b": 1}, {"a": 1, "b": None}])
def test_another_state_has_another_tag(other):
    assert etag({"_id": DOCUMENT["_id"], **other}) != TAG


@pytest.mark.parametrize("header", [TAG, "*", f'"x", {TAG}', f' {TAG} ,"y"', f'W/"z",{TAG}', f',, "x",, {TAG},,'])
def test_if_match_holds_for_the_state_it_names(header):
    conditions(header, None).check_write(DOCUMENT)


@pytest.mark.parametrize("header", ['"x"', f"W/{TAG}", '"x", "y"'])
def test_if_match_fails_for_another_state_and_for_weak_tags(header):
    with pytest.raises(PreconditionFailed):
        conditions(header, None).check_write(DOCUMENT)


@pytest.mark.parametrize("header", ["*", TAG])
def test_if_match_fails_where_there_is_nothing(header):
    with pytest.raises(PreconditionFailed):
        conditions(header, None).check_write(None)


def test_if_none_match_star_only_creates():
    conditions(None, "*").check_write(None)
    with pytest.raises(PreconditionFailed):
        conditions(None, "*").check_write(DOCUMENT)


@pytest.mark.parametrize("header", [TAG, f"W/{TAG}", "*"])
def test_a_reader_with_the_same_state_is_told_so(header):
    assert conditions(None, header).not_modified(DOCUMENT)


def test_a_reader_with_another_state_is_not():
    assert not conditions(None, '"x"').not_modified(DOCUMENT)
    assert not conditions(None, None).not_modified(DOCUMENT)


@pytest.mark.parametrize("header", ["", " ", "x", '"x', '"x" "y"', "W/", "*, *", '"a"b', ",,"])
def test_what_is_no_list_of_tags_is_refused(header):
    with pytest.raises(BadRequest):
        conditions(header, None)
    with pytest.raises(BadRequest):
        conditions(None, header)


def test_a_list_of_tags_is_no_longer_than_a_header_can_be():
    with pytest.raises(BadRequest):
        conditions('"a",' * 10_000, None)
