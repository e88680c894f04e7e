"""Every metric of the reference moves when its thing happens, at a real server."""

from __future__ import annotations

import asyncio
import contextlib
import socket as sockets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from bson.binary import Binary
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from livedocs.telemetry import Metrics

WITHIN = 15.0


@pytest.fixture(scope="module")
def server(start_server, oauth):
    """A server on which everything that is counted can be brought about."""
    return start_server(
        oauth.server_port,
        oauth_mode="jwt+introspect",
        introspection_cache=0,
        introspection_interval=1,
        socket_queue_bytes=65536,
        socket_queue_messages=50,
        socket_stall_timeout=1,
        connect_timeout=1,
        ping_interval=2,
        ping_timeout=1,
        max_sockets_per_user=6,
        limit_burst=1,
        limit_requests_per_user=20,
        metrics_tenants=1,
    )


@dataclass
class Stage:
    """What a scenario works with."""

    server: Any
    open_peer: Any
    api: Any
    grant: Any
    acme: Any
    control: Any

    def document(self, **fields: Any) -> UUID:
        """A new document that alice may see."""
        uuid = uuid4()
        self.grant(uuid, "user:alice")
        self.acme.notes.insert_one({"_id": uuid, "n": 0, **fields})
        return uuid

    async def in_room(self, uuid: UUID, **options: Any) -> Any:
        peer = await self.open_peer("alice")
        answer = await peer.call("JoinRoom", [str(uuid)], options)
        assert str(uuid) in answer["joined"], answer
        return peer

    async def figures(self) -> dict[str, float]:
        async with httpx.AsyncClient(trust_env=False) as client:
            lines = (await client.get(self.server.metrics_url)).text.splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}


@pytest.fixture
def stage(server, open_peer, api, grant, acme, mongo, deployment):  # noqa: PLR0917
    return Stage(server, open_peer, api, grant, acme, mongo[deployment.control_database])


async def nothing(stage):
    """Time goes by."""


async def connects(stage):
    await stage.open_peer("alice")


async def joins(stage):
    await stage.in_room(stage.document())


async def joins_what_is_not_hers(stage):
    peer = await stage.open_peer("alice")
    assert (await peer.call("JoinRoom", [str(uuid4())]))["joined"] == {}


async def joins_nonsense(stage):
    await (await stage.open_peer("alice")).call("JoinRoom", ["nonsense"])


async def joins_from_nonsense(stage):
    await (await stage.open_peer("alice")).call("JoinRoom", [str(uuid4())], {"since": "nonsense"})


async def joins_too_many_at_once(stage):
    await (await stage.open_peer("alice")).call("JoinRoom", [str(uuid4()) for _ in range(101)])


async def joins_from_long_ago(stage):
    await stage.in_room(stage.document(), since=stage.server.deployment.cursors().seal("820000000100000001"))


async def comes_without_a_good_token(stage):
    with pytest.raises(InvalidStatus):
        await connect(stage.server.ws_url, additional_headers={"Authorization": "Bearer nonsense"}, proxy=None)


async def comes_too_often(stage):
    with pytest.raises(AssertionError):
        for _ in range(7):
            peer = await stage.open_peer("bob")
            assert peer.refusal is None


async def changes(stage):
    uuid = stage.document()
    peer = await stage.in_room(uuid)
    stage.acme.notes.update_one({"_id": uuid}, {"$set": {"n": 1}})
    await peer.expect("notes")


async def replaces(stage):
    stage.acme.notes.replace_one({"_id": stage.document()}, {"n": 1})


async def deletes(stage):
    stage.acme.notes.delete_one({"_id": stage.document()})


async def drops(stage):
    uuid = uuid4()
    stage.grant(uuid, "user:alice")
    stage.acme.test.insert_one({"uuid": Binary.from_uuid(uuid), "n": 0})
    peer = await stage.in_room(uuid)
    stage.acme.test.drop()
    await peer.until(lambda: any(event[0] == "$resync" for event in peer.seen))


async def writes_without_a_uuid(stage):
    inserted = stage.acme.test.insert_one({"n": 0}).inserted_id
    stage.acme.test.update_one({"_id": inserted}, {"$set": {"n": 1}})


async def revokes(stage):
    uuid = stage.document()
    peer = await stage.in_room(uuid)
    stage.grant(uuid, "user:alice", None)
    assert (await peer.expect("$revoked"))[0]["reason"] == "revoked"


async def lets_a_grant_run_out(stage):
    uuid = uuid4()
    stage.grant(uuid, "user:alice", expires_at=datetime.now(UTC) + timedelta(seconds=1.5))
    peer = await stage.in_room(uuid)
    assert (await peer.expect("$revoked"))[0]["reason"] == "expired"


async def registers_a_tenant(stage):
    slug = f"t{uuid4().hex[:8]}"
    stage.control.tenants.insert_one(
        {"_id": slug, "database": f"{slug}_data", "collections": {}, "limits": {}, "status": "active"}
    )


async def falls_behind(stage):
    """And is cut off in the end."""
    client = sockets.socket()
    client.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", stage.server.port))
    client.setblocking(False)
    uuid = stage.document()
    stuck = await stage.open_peer("alice", sock=client, max_queue=1)
    await stuck.call("JoinRoom", [str(uuid)])
    stuck.reading.clear()
    stuck.socket.transport.pause_reading()
    with contextlib.suppress(ConnectionClosed):
        # Few and large, so that it takes no longer on a busy machine.
        for n in range(50):
            await asyncio.to_thread(
                stage.acme.notes.update_one, {"_id": uuid}, {"$set": {"n": n, "filler": f"{n}" + "x" * 600_000}}
            )
        async with asyncio.timeout(WITHIN):
            while True:
                # It pretends to live, or it would be missed for that first.
                await stuck.socket.send("3")
                await asyncio.sleep(0.1)
    stuck.socket.transport.abort()


async def breaks_the_protocol(stage):
    peer = await stage.open_peer("alice")
    await peer.socket.send("4[[[")


async def never_says_who_it_is(stage):
    await stage.open_peer(None, connect_packet=None)


async def answers_no_ping(stage):
    peer = await stage.open_peer("alice")
    peer.reading.clear()


async def logs_in_elsewhere(stage):
    assert (await stage.api("alice").get("/v1/me")).status_code == 200


async def asks_too_often(stage):
    answers = await asyncio.gather(*(stage.api("bob").get("/v1/me") for _ in range(60)))
    assert 429 in {answer.status_code for answer in answers}


async def is_asked_by_another_process(stage):
    question = {"kind": "listing", "tenant": "acme", "subject": None, "uuid": None, "after": None, "limit": 1}
    stage.control.inquiries.insert_one({"at": datetime.now(UTC), "by": "another", "question": question})


async def asks_for_what_there_is_not(stage):
    assert (await stage.api("alice").get("/v1/nothing")).status_code == 404


@dataclass(frozen=True)
class Case:
    """A sample of the metrics, what brings it about, and when it has moved."""

    sample: str
    scenario: Callable[[Stage], Awaitable[None]]
    moved: Callable[[float, float], bool] = lambda before, now: now > before


CASES = [
    Case('livedocs_sockets{tenant="acme"}', connects),
    Case('livedocs_transports{path="direct"}', connects),
    Case('livedocs_rooms{tenant="acme"}', joins),
    Case('livedocs_joins_total{code="ok"}', joins),
    Case('livedocs_joins_total{code="forbidden"}', joins_what_is_not_hers),
    Case('livedocs_joins_total{code="invalid_uuid"}', joins_nonsense),
    Case('livedocs_joins_total{code="invalid_cursor"}', joins_from_nonsense),
    Case('livedocs_joins_total{code="too_many_rooms"}', joins_too_many_at_once),
    Case("livedocs_join_seconds_count", joins),
    Case('livedocs_handshakes_total{code="ok"}', connects),
    Case('livedocs_handshakes_total{code="unauthenticated"}', comes_without_a_good_token),
    Case('livedocs_handshakes_total{code="too_many_connections"}', comes_too_often),
    Case('livedocs_events_total{op="insert"}', joins),
    Case('livedocs_events_total{op="update"}', changes),
    Case('livedocs_events_total{op="replace"}', replaces),
    Case('livedocs_events_total{op="delete"}', deletes),
    Case('livedocs_events_total{op="grant"}', joins),
    Case('livedocs_events_total{op="gone"}', drops),
    Case("livedocs_events_unresolved_total", writes_without_a_uuid),
    Case("livedocs_deliveries_total", changes),
    Case("livedocs_commit_to_write_seconds_count", changes),
    Case("livedocs_commit_to_write_seconds_sum", changes),
    Case("livedocs_stream_lag_seconds", nothing, lambda before, now: now != before and now < WITHIN),
    Case("livedocs_stream_live", nothing, lambda _, now: now == 1),
    Case('livedocs_stream_restarts_total{cause="reopen"}', registers_a_tenant),
    Case("livedocs_history_events", changes),
    Case("livedocs_history_bytes", changes),
    Case("livedocs_history_window_seconds", nothing, lambda _, now: now > 0),
    Case("livedocs_history_shortest_window_seconds", nothing, lambda _, now: now > 0),
    # A break shortens the tenant's window as a flood does, until it is older than the others' windows.
    Case("livedocs_history_shortened_tenants", drops, lambda _, now: now > 0),
    Case('livedocs_evictions_total{reason="revoked"}', revokes),
    Case('livedocs_evictions_total{reason="expired"}', lets_a_grant_run_out),
    Case("livedocs_revocation_seconds_count", revokes),
    Case('livedocs_resyncs_total{reason="window"}', joins_from_long_ago),
    Case('livedocs_resyncs_total{reason="collection_dropped"}', drops),
    Case("livedocs_slow_sockets_total", falls_behind),
    Case("livedocs_sockets_behind", falls_behind),
    Case('livedocs_disconnects_total{reason="slow"}', falls_behind),
    Case('livedocs_disconnects_total{reason="protocol_error"}', breaks_the_protocol),
    Case('livedocs_disconnects_total{reason="connect_timeout"}', never_says_who_it_is),
    Case('livedocs_disconnects_total{reason="ping_timeout"}', answers_no_ping),
    Case('livedocs_introspections_total{result="active"}', logs_in_elsewhere),
    Case("livedocs_introspection_seconds_count", logs_in_elsewhere),
    Case('livedocs_token_checks_total{result="active"}', logs_in_elsewhere),
    Case('livedocs_token_checks_total{result="malformed"}', comes_without_a_good_token),
    Case('livedocs_rate_limited_total{kind="requests",scope="user"}', asks_too_often),
    Case('livedocs_limits_hit_total{kind="rooms",scope="call"}', joins_too_many_at_once),
    Case('livedocs_limits_hit_total{kind="sockets",scope="user"}', comes_too_often),
    Case('livedocs_inquiries_total{result="answered"}', is_asked_by_another_process),
    Case('livedocs_http_requests_total{method="GET",status="404"}', asks_for_what_there_is_not),
    Case('livedocs_http_request_seconds_count{method="GET",route="/v1/me"}', logs_in_elsewhere),
    Case('livedocs_http_request_seconds_count{method="GET",route="none"}', asks_for_what_there_is_not),
    Case("livedocs_loop_lag_seconds_count", nothing),
    Case("livedocs_loop_lag_worst_seconds", nothing, lambda _, now: now > 0),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sample)
async def test_a_metric_moves_when_its_thing_happens(stage, case):
    before = (await stage.figures()).get(case.sample, 0.0)
    happening = asyncio.create_task(case.scenario(stage))
    try:
        async with asyncio.timeout(WITHIN):
            while not case.moved(before, (await stage.figures()).get(case.sample, 0.0)):
                await asyncio.sleep(0.02)
    finally:
        await happening


# They count what nobody foresaw: nothing done from outside moves them. See tests/unit/test_containment.py and
# tests/integration/test_parts.py.
UNFORESEEN = {"livedocs_contained_errors_total", "livedocs_part_restarts_total"}


def test_every_metric_of_the_reference_has_such_a_test():
    seen = {case.sample.partition("{")[0] for case in CASES} | UNFORESEEN
    for family in Metrics().registry.collect():
        names = {family.name + ending for ending in ("", "_total", "_count")}
        assert names & seen, f"nothing moves {family.name}"


async def test_only_so_many_tenants_have_a_series_of_their_own(stage, mongo, deployment):
    for _ in range(2):
        await stage.open_peer("alice")
    await stage.open_peer("carol")
    figures = await stage.figures()
    assert {name for name in figures if name.startswith("livedocs_sockets{")} == {
        'livedocs_sockets{tenant="acme"}',
        'livedocs_sockets{tenant="other"}',
    }
    assert figures['livedocs_sockets{tenant="other"}'] == 1
