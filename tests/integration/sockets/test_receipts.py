"""Revocation receipts: `applied: true` only when every live server process has come past the revoke."""

from __future__ import annotations

import asyncio
import os
import signal
from uuid import uuid4

import pytest


@pytest.fixture(scope="module")
def second(start_server, server):
    """A second process on the same deployment."""
    return start_server()


async def test_a_receipt_says_applied_when_both_processes_have_evicted(open_peer, api, server, second):
    uuid = str(uuid4())
    await api("alice").post("/v1/docs/notes", json={"uuid": uuid})
    await api("alice").put(f"/v1/grants/{uuid}/user:bob", json={"role": "reader"})
    peers = [await open_peer("bob"), await open_peer("bob", url=second.ws_url)]
    for peer in peers:
        await peer.call("JoinRoom", [uuid])
    answer = await api("alice").delete(f"/v1/grants/{uuid}/user:bob", headers={"Prefer": "wait=10"})
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=10"
    assert (answer.json()["applied"], answer.json()["pending"]) == (True, [])
    for peer in peers:
        await peer.settled()
        assert [event[0] for event in peer.events] == ["$revoked"]


async def test_a_process_that_stands_still_is_named_until_its_lease_has_run_out(api, server, second):
    uuid = str(uuid4())
    await api("alice").post("/v1/docs/notes", json={"uuid": uuid})
    await api("alice").put(f"/v1/grants/{uuid}/user:bob", json={"role": "writer"})
    os.kill(second.pid, signal.SIGSTOP)
    try:
        answer = await api("alice").put(
            f"/v1/grants/{uuid}/user:bob", json={"role": "reader"}, headers={"Prefer": "wait=1"}
        )
        assert (answer.status_code, answer.json()["role"], answer.json()["applied"]) == (200, "reader", False)
        assert [one["pid"] for one in answer.json()["pending"]] == [second.pid]
        headers = {"Prefer": "respond-async, wait=20"}
        answer = await api("alice").delete(f"/v1/grants/{uuid}/user:bob", headers=headers, timeout=30)
        assert answer.json()["applied"] is True
    finally:
        os.kill(second.pid, signal.SIGCONT)


async def test_without_the_preference_nobody_waits(api, server):
    uuid = str(uuid4())
    await api("alice").post("/v1/docs/notes", json={"uuid": uuid})
    answer = await api("alice").put(f"/v1/grants/{uuid}/user:bob", json={"role": "reader"})
    assert "applied" not in answer.json()
    assert (await api("alice").delete(f"/v1/grants/{uuid}/user:bob")).status_code == 204


async def test_a_stopped_process_gives_its_lease_up(start_server, mongo, deployment):
    leases = mongo[deployment.control_database]["processes"]
    third = start_server()
    assert leases.count_documents({"pid": third.pid}) == 1
    await asyncio.to_thread(third.stop)
    assert leases.count_documents({"pid": third.pid}) == 0
