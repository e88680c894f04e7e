"""Audit entries that wait for MongoDB: bounded, and shared by tenants."""

from __future__ import annotations

import pytest

from livedocs.store import audit_writer
from livedocs.store.audit import SYSTEM, Entry
from livedocs.store.audit_writer import AuditWriter


@pytest.fixture
def noting(mongo, deployment, monkeypatch):
    monkeypatch.setattr(audit_writer, "_MOST", 8)
    return AuditWriter(mongo, deployment.control_database)


async def test_the_entries_of_one_tenant_push_none_of_another_out(noting, control):
    await control["audit"].delete_many({})
    for tenant, count in (("acme", 100), ("globex", 2)):
        for _ in range(count):
            noting.note(SYSTEM, Entry("admin.refused", tenant))
    await noting.flush()
    written = [entry["tenant"] async for entry in control["audit"].find({"action": "admin.refused"})]
    assert (written.count("acme"), written.count("globex")) == (2, 2)
    [lost] = await control["audit"].find({"action": "audit.lost"}).to_list()
    assert lost["detail"] == {"count": 98}


async def test_what_was_written_makes_room(noting, control):
    for _ in range(3):
        for _ in range(2):
            noting.note(SYSTEM, Entry("admin.refused", "initech"))
        await noting.flush()
    assert await control["audit"].count_documents({"tenant": "initech"}) == 6
    assert not noting._held
