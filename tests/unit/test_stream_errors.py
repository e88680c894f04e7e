"""The table of `security.md`, part 3: what is done about each error of the stream."""

from __future__ import annotations

import pytest
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError, ServerSelectionTimeoutError

from livedocs.changes.stream import Remedy, classify, pipeline
from livedocs.model import Tenant


def failure(code: int, *labels: str) -> OperationFailure:
    return OperationFailure("x", code, {"errorLabels": list(labels)})


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (failure(286, "NonResumableChangeStreamError"), Remedy.START_OVER),
        (failure(286), Remedy.START_OVER),
        (failure(280), Remedy.START_OVER),
        (failure(9), Remedy.START_OVER),
        (failure(260), Remedy.START_OVER),
        (failure(1, "NonResumableChangeStreamError"), Remedy.START_OVER),
        (failure(10334), Remedy.TRIMMED),
        (failure(47), Remedy.WITHOUT_IMAGES),
        (failure(43), Remedy.RESUME),
        (failure(6, "ResumableChangeStreamError"), Remedy.RESUME),
        (failure(13), Remedy.RESUME),
        (ServerSelectionTimeoutError("none"), Remedy.RESUME),
        (AutoReconnect("gone"), Remedy.RESUME),
        (PyMongoError("silence"), Remedy.RESUME),
    ],
)
def test_every_error_has_its_remedy(error, remedy):
    assert classify(error, images=True, trimmed=False) is remedy


def test_an_event_that_is_too_large_whatever_is_left_away_is_passed_by_time():
    assert classify(failure(10334), images=True, trimmed=True) is Remedy.WITHOUT_IMAGES
    assert classify(failure(10334), images=False, trimmed=True) is Remedy.SKIP


def test_the_selection_names_collections_and_keeps_what_makes_them_vanish():
    (stage,) = pipeline([Tenant("b", "b_db", {"y": "uuid", "x": "_id"}), Tenant("a", "a_db", {})], "control")
    assert stage["$match"]["$or"] == [
        {"ns.db": "control", "ns.coll": {"$in": ["acl", "tenants"]}},
        {"ns.db": "control", "ns.coll": "inquiries", "operationType": "insert"},
        {"ns.db": "b_db", "ns.coll": {"$in": ["x", "y"]}},
        {
            "operationType": {"$in": ["drop", "rename", "dropDatabase"]},
            "ns.db": {"$in": ["a_db", "b_db", "control"]},
        },
    ]
