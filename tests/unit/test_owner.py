"""Whose an event is, as far as its bytes say."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import bson
import pytest
from bson import Timestamp

from livedocs.changes.owner import Owner, Owners
from livedocs.codec.bsondecode import CODEC
from livedocs.model import Tenant

ACME = Tenant("acme", "acme_db", {"notes": "_id"})


class Registry:
    def by_database(self, database):
        return ACME if database == ACME.database else None


def event(database, collection=None, kind="insert", **members):
    namespace = {"db": database, **({"coll": collection} if collection else {})}
    first = {"_id": {"_data": "82"}, "operationType": kind, "clusterTime": Timestamp(1, 1)}
    return bson.encode(
        {**first, "fullDocument": {"ns": {"db": "x"}}, "ns": namespace, **members}, codec_options=CODEC
    )


def grant(identifier):
    return event("control", "acl", documentKey={"_id": identifier})


@pytest.mark.parametrize(
    ("raw", "owner"),
    [
        (event("acme_db", "notes"), "acme"),
        (event("acme_db", "anything"), "acme"),
        (event("acme_db", kind="dropDatabase"), "acme"),
        (event("other_db", "notes"), Owner.NOBODY),
        (event("control", "inquiries"), Owner.PROCESSES),
        (event("control", "tenants"), Owner.EVERYBODY),
        (event("control", "acl", kind="drop"), Owner.EVERYBODY),
        (event("control", kind="dropDatabase"), Owner.EVERYBODY),
        (grant({"tenant": "globex", "uuid": UUID(int=1), "subject": "user:a"}), "globex"),
        (grant({"tenant": 5}), Owner.EVERYBODY),
        (grant({}), Owner.EVERYBODY),
        (grant("acme"), Owner.EVERYBODY),
        (grant(["acme"]), Owner.EVERYBODY),
        (event("control", "acl"), Owner.EVERYBODY),
        (b"", Owner.EVERYBODY),
        (b"\x05\x00\x00\x00\x00", Owner.EVERYBODY),
        (event("acme_db", "notes")[:40], Owner.EVERYBODY),
    ],
)
def test_an_event_is_its_tenants_or_nobodys_or_everybodys(raw, owner):
    owners = Owners(Registry(), "control")
    assert owners.of(raw) == owner
    assert owners.of(raw) == owner


@pytest.mark.parametrize(
    "document", [{"ns": {"db": "globex_db", "coll": "notes"}}, {"a": b"\x03ns\0\x05\0\0\0\0"}]
)
@pytest.mark.parametrize("more", [{}, {"wallTime": datetime.now(UTC)}, {"lsid": {"id": 1}, "txnNumber": 1}])
def test_only_the_events_own_namespace_counts_wherever_it_stands(document, more):
    first = {"_id": {"_data": "82AB"}, "operationType": "insert", "clusterTime": Timestamp(1, 1), **more}
    namespace = {"ns": {"db": "acme_db", "coll": "notes"}}
    for body in (
        {**first, "fullDocument": document, **namespace},
        {**first, **namespace, "fullDocument": document},
        {"fullDocumentBeforeChange": document, **first, **namespace},
        {**first, "to": document, **namespace},
    ):
        assert Owners(Registry(), "control").of(bson.encode(body)) == "acme"
