from __future__ import annotations

import json
import re
from http import HTTPStatus

import pytest
from bson import Int64

from livedocs import errors
from livedocs.errors import (
    ConfigurationError,
    InvalidToken,
    InvalidUuid,
    LivedocsError,
    RateLimited,
    Unauthenticated,
)


def tree(kind=LivedocsError):
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


def test_the_printed_tree_is_the_tree():
    printed = re.findall(r"\+-- (\w+) +(\d{3}) +(\w+)", errors.__doc__)
    ours = {kind for kind in tree()[1:] if kind.__module__ == errors.__name__}
    assert {(kind.__name__, str(kind.status), kind.code) for kind in ours} == set(printed)


def test_every_code_is_used_once_and_says_what_its_status_means():
    ours = [kind for kind in tree() if kind.__module__ == errors.__name__]
    codes = [kind.code for kind in ours]
    assert len(set(codes)) == len(codes)
    for kind in ours:
        assert HTTPStatus(kind.status) >= 400
        assert re.fullmatch(r"[a-z][a-z_]+", kind.code)
        assert kind.title


def test_a_refusal_of_one_kind_is_a_refusal_of_the_kinds_above():
    for kind in tree()[1:]:
        parent = kind.__bases__[0]
        assert parent is LivedocsError or parent.status == kind.status


def test_the_message_is_built_from_the_data_and_repeats_little_of_it():
    error = InvalidUuid(value="x" * 1000, items=list(range(1000)), kind={"a": object()})
    assert error.detail == InvalidUuid.title + "."
    assert str(error) == f"invalid_uuid: {error.detail}"
    assert len(error.data["value"]) == 200
    assert len(error.data["items"]) == 100
    json.dumps(error.data)


@pytest.mark.parametrize("value", [None, True, 5, 1.5])
def test_plain_values_stay_what_they_are(value):
    assert InvalidUuid(value=value).data == {"value": value}


@pytest.mark.parametrize("value", [2**64, -(2**64), Int64(2**64)], ids=str)
def test_an_integer_that_json_cannot_carry_is_told_as_text(value):
    assert InvalidUuid(value=value).data == {"value": str(int(value))}
    assert type(InvalidUuid(value=Int64(5)).data["value"]) is int


def test_a_socket_is_not_told_what_was_wrong_with_a_credential():
    assert InvalidToken.on_socket() == Unauthenticated.on_socket() == "unauthenticated"
    assert RateLimited(retry_after=2).retry_after == 2


def test_settings_are_all_named_at_once():
    assert str(ConfigurationError(["A: is required", "B: is empty"])) == "A: is required; B: is empty"
