"""Whatever a body holds, it holds nobody else up and takes no more memory than its sender may have."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx
import pytest

MIB = 2**20
ELEMENTS = 100_000
# It was seconds. Alone on a machine it is 20 to 50 ms; the caches of a busy one make several times of it.
HELD = 250


def repeated(item: bytes, each: int) -> bytes:
    """A document of as many of these as may be sent."""
    return b'{"a":[' + b",".join([item] * ((ELEMENTS - 10) // each)) + b"]}"


WORST = {
    "lists": repeated(b"[]", 2),
    "objects": repeated(b"{}", 2),
    "deep": repeated(b"[" * 28 + b"]" * 28, 29),
    "identifiers": repeated(b'{"$oid":"507f1f77bcf86cd799439011"}', 2),
    "dates": repeated(b'{"$date":"2020-01-01T00:00:00Z"}', 2),
    "decimals": repeated(b'{"$numberDecimal":"1.5"}', 2),
    "expressions": repeated(b'{"$regularExpression":{"pattern":"a","options":""}}', 4),
    "numbers": repeated(b"1e300", 1),
    "names": b"{" + b",".join(b'"n%d":1' % number for number in range(9_999)) + b"}",
    "text": b'{"a":"' + b"\\u00e9" * 500_000 + b'"}',
}


@pytest.fixture(scope="module")
def roomy(start_server):
    """A server that counts no events, and keeps few."""
    return start_server(
        limit_events_per_user=0, limit_events_per_address=0, limit_events_per_tenant=0, history_bytes=MIB
    )


@pytest.fixture
async def ask(roomy):
    async with httpx.AsyncClient(base_url=roomy.url, trust_env=False, timeout=120) as client:
        yield client


def sent(server, user="alice", media_type="application/json"):
    return {"Authorization": f"Bearer {server.token(user)}", "Content-Type": media_type}


@pytest.mark.parametrize("kind", WORST)
async def test_the_worst_document_of_its_kind_holds_nobody_up(roomy, wire, ask, costs, kind):
    probe, headers = await wire("bob", "40", at=roomy), sent(roomy)
    path = f"/v1/docs/notes/{uuid4()}"
    async with costs(roomy, probe) as cost:
        for method in ("PUT", "PATCH"):
            answer = await ask.request(method, path, content=WORST[kind], headers=headers)
            assert answer.status_code in {200, 201, 413}
        await ask.get(path, headers=headers)
    assert cost.held < HELD
    assert cost.memory < 64 * MIB


@pytest.mark.parametrize("part", [b"[],", b"{},", b'"",', b"1,", b'{"a":1},', b'{"$oid":1},'], ids=str)
async def test_a_document_of_too_many_elements_is_refused_before_it_is_decoded(roomy, wire, ask, costs, part):
    probe = await wire("bob", "40", at=roomy)
    body = b'{"a":[' + part * (3 * MIB // len(part)) + b"1]}"
    async with costs(roomy, probe) as cost:
        answers = await asyncio.gather(
            *(ask.post("/v1/docs/notes", content=body, headers=sent(roomy)) for _ in range(3))
        )
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(413, "document_too_large")}
    assert answers[0].json()["limit"] == ELEMENTS
    assert cost.held < HELD
    assert cost.memory < 32 * MIB


@pytest.mark.parametrize("part", [b"[],", b'"",', b'"\\"",', b'{"document":[[],[]]},'], ids=str)
async def test_a_bulk_request_of_16_mib_is_refused_before_it_is_decoded(roomy, wire, ask, costs, part):
    probe = await wire("bob", "40", at=roomy)
    body = b'{"items":[' + part * ((16 * MIB - 20) // len(part)) + b"1]}"
    async with costs(roomy, probe) as cost:
        answer = await ask.post("/v1/docs/notes:bulk", content=body, headers=sent(roomy))
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert cost.held < HELD
    assert cost.memory < 64 * MIB


async def test_of_a_bulk_request_an_item_beyond_the_limits_is_refused_alone(roomy, wire, ask, costs):
    probe, marks = await wire("bob", "40", at=roomy), [str(uuid4()) for _ in range(3)]
    items = [
        b'{"uuid":"%s","document":{"n":1}}' % marks[0].encode(),
        b'{"uuid":"%s","document":{"a":[%s1]}}' % (marks[1].encode(), b"[]," * 60_000),
        b'{"document":{"a":"%s"}}' % (b"x" * 4 * MIB),
        b'{"document":{"a":[nonsense]}}',
        b'{"uuid":"%s","document":{"n":{"$oid":"?"}}}' % marks[2].encode(),
        b"5",
        b'{"document":{"a":[%s1]}}' % (b"{}," * 49_000),
        b'{"document":{"n":2}}',
    ]
    async with costs(roomy, probe) as cost:
        answer = await ask.post(
            "/v1/docs/notes:bulk", content=b'{"items":[' + b" , ".join(items) + b"]}", headers=sent(roomy)
        )
    results = answer.json()["results"]
    assert [result.get("code") for result in results] == [
        *(None, "document_too_large", "document_too_large", "invalid_json"),
        *("invalid_json", "invalid_json", None, None),
    ]
    assert [result.get("uuid") for result in (results[0], results[1], results[4])] == [marks[0], None, marks[2]]
    assert (answer.json()["succeeded"], answer.json()["failed"]) == (3, 5)
    assert cost.held < HELD
    assert cost.memory < 64 * MIB


async def test_an_import_of_the_worst_lines_holds_nobody_up(roomy, wire, ask, costs):
    probe = await wire("bob", "40", at=roomy)
    line = b'{"document":' + WORST["lists"][:150_000].rsplit(b",", 1)[0] + b"]}}\n"
    async with costs(roomy, probe) as cost:
        answer = await ask.post(
            "/v1/docs/notes:import",
            content=line * 4 + b"\n" * 20_000,
            headers=sent(roomy, media_type="application/x-ndjson"),
        )
    assert (answer.json()["lines"], answer.json()["failed"]) == (20_004, 0)
    assert cost.held < HELD
    assert cost.memory < 64 * MIB
