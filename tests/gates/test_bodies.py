"""Large, deep and wide bodies, and uploads that do not end."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from bson import Decimal128, Int64
from stall.http import connection, head
from stall.registry import worst
from stall.worst import MIB, SHAPES, names

pytestmark = pytest.mark.asyncio(loop_scope="module")


def deep(levels, value):
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("shape", ["empty_lists", "nested_objects", "names", "small_towers", "object_ids"])
@pytest.mark.parametrize("path", ["/v1/docs/notes:bulk", "/v1/grants:bulk"])
async def test_sixteen_mebibytes_of_small_containers(stage, path, shape):
    name = f"16 MiB of {shape} to {path}"
    body = SHAPES[shape](16 * MIB - 64).encode()
    await stage.settled()
    async with stage.attack(name) as attack:
        reply = await stage.request("POST", path, "alice", b'{"items":[{"document":' + body + b"}]}")
        attack.note = str(reply.status)
    stage.check(name)


@worst("PUT /v1/docs/{collection}/{uuid}", "POST /v1/docs/{collection}")
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("shape", ["names", "empty_lists", "longs", "dates"])
async def test_a_document_of_many_fields(stage, shape, size):
    name = f"PUT {size} MiB of {shape}"
    body = SHAPES[shape](size * MIB).encode()
    uuid = uuid4()
    await stage.settled()
    async with stage.attack(name) as attack:
        reply = await stage.request("PUT", f"/v1/docs/notes/{uuid}", "alice", b'{"a":' + body + b"}")
        attack.note = str(reply.status)
    stage.check(name)


# Of what a client sends back each value is compared with the stored one.
SENT_BACK = {
    "decimals, 28 deep": deep(28, [Decimal128(f"{n}.{n % 89 + 11}") for n in range(38_000)]),
    "large integers": [Int64(2**60 + n) for n in range(45_000)],
    "dates": [datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)] * 45_000,
    "towers, 30 deep": [deep(28, 1)] * 340,
    "an array of small documents": [{"a": Int64(n), "b": float(n)} for n in range(4_900)],
    "doubles that look like integers": [float(n) for n in range(70_000)],
}


@pytest.mark.parametrize("kind", SENT_BACK)
async def test_a_document_that_is_sent_back_with_a_change(stage, kind):
    name = f"PUT, PATCH and bulk of what was read, and one change: {kind}"
    uuid = stage.document("user:alice", value=SENT_BACK[kind], n=100)
    shown = await stage.request("GET", f"/v1/docs/notes/{uuid}", "alice")
    assert shown.status == 200
    await stage.settled()
    async with stage.attack(name) as attack:
        bodies = [shown.body.replace(b'"n":100', b'"n":%d' % number) for number in (101, 102, 103)]
        path = f"/v1/docs/notes/{uuid}"
        replies = [
            await stage.request("PUT", path, "alice", bodies[0]),
            await stage.request("PATCH", path, "alice", bodies[1]),
            await stage.request(
                "POST", "/v1/docs/notes:bulk", "alice", b'{"items":[{"document":%b}]}' % bodies[2]
            ),
        ]
        attack.note = " ".join(str(reply.status) for reply in replies)
    assert attack.note == "200 200 200"
    stage.check(name)


@worst("PATCH /v1/docs/{collection}/{uuid}")
async def test_a_merge_patch_of_many_names(stage):
    name = "merge patch of 60,000 names on a document of 60,000 others, and again"
    uuid = stage.document("user:alice", **{f"b{number:06}": 1 for number in range(60_000)})
    body = json.dumps({f"a{number:06}": 1 for number in range(60_000)}).encode()
    await stage.settled()
    async with stage.attack(name) as attack:
        statuses = [
            (await stage.request("PATCH", f"/v1/docs/notes/{uuid}", "alice", sent)).status
            for sent in (body, body.replace(b": 1", b": 2"), body.replace(b": 1", b": null"))
        ]
        attack.note = str(statuses)
    stage.check(name)


@worst("POST /v1/docs/{collection}:bulk")
@pytest.mark.parametrize("mode", ["replace", "merge"])
async def test_a_thousand_items_of_one_uuid(stage, mode):
    name = f"bulk: 1,000 items, {mode}, of one UUID"
    uuid = stage.document("user:alice", **{f"f{number:04}": "x" * 80 for number in range(1000)})
    document = {f"f{number:04}": "y" * 80 for number in range(150)}
    items = [{"uuid": str(uuid), "mode": mode, "document": {**document, "n": number}} for number in range(1000)]
    await stage.settled()
    async with stage.attack(name) as attack:
        reply = await stage.request("POST", "/v1/docs/notes:bulk", "alice", {"items": items})
        attack.note = f"{reply.status} {reply.body[:60].decode(errors='replace')}"
    stage.check(name)


async def test_many_items_on_large_documents(stage):
    name = "bulk: 300 small merges into 50 documents of 1 MiB"
    uuids = [stage.document("user:alice", **{f"f{n:05}": "x" * 80 for n in range(10_000)}) for _ in range(50)]
    items = [
        {"uuid": str(uuids[number % 50]), "mode": "merge", "document": {"n": number}} for number in range(300)
    ]
    await stage.settled()
    async with stage.attack(name) as attack:
        reply = await stage.request("POST", "/v1/docs/notes:bulk", "alice", {"items": items})
        attack.note = f"{reply.status} {reply.body[:60].decode(errors='replace')}"
    stage.check(name)


@worst("GET /v1/docs/{collection}/{uuid}", "DELETE /v1/docs/{collection}/{uuid}")
async def test_lists_of_entity_tags(stage):
    name = "If-Match and If-None-Match of 14 KiB, on a document of 1 MiB"
    uuid = stage.document("user:alice", **{f"f{n:05}": "x" * 80 for n in range(10_000)})
    tags = '"x",' * 3400
    await stage.settled()
    async with stage.attack(name) as attack:
        replies = await asyncio.gather(
            *(
                stage.request(method, f"/v1/docs/notes/{uuid}", "alice", body, headers=[(header, tags + '"x"')])
                for method, body in (("GET", None), ("PUT", {}), ("PATCH", {}), ("DELETE", None))
                for header in ("If-Match", "If-None-Match")
                for _ in range(4)
            )
        )
        attack.note = " ".join(sorted({str(reply.status) for reply in replies}))
    stage.check(name)


async def test_large_documents_read_at_once(stage):
    name = "GET: a document of 2 MiB, 30 times at once, read slowly"
    uuid = stage.document("user:alice", **{f"f{n:05}": "x" * 80 for n in range(20_000)})
    await stage.settled()
    async with stage.attack(name):
        streams = [await connection(stage.port) for _ in range(30)]
        request = head(stage.port, "GET", f"/v1/docs/notes/{uuid}", token=stage.token("alice"), size=0)
        for _, writer in streams:
            writer.transport.pause_reading()
            writer.write(request)
        await asyncio.sleep(3)
        for _, writer in streams:
            writer.transport.abort()
    stage.check(name)


def line(number, size=200):
    return json.dumps({"document": {"n": number, "text": "x" * size}}).encode() + b"\n"


@worst("POST /v1/docs/{collection}:import")
@pytest.mark.parametrize("what", ["small items", "one UUID", "small towers", "many grants"])
async def test_an_import(stage, what):
    name = f"import: {what}"
    uuid = str(uuid4())
    lines = {
        "small items": b'{"document":{}}\n' * 8_000,
        "one UUID": b"".join(
            json.dumps({"uuid": uuid, "document": {"n": n}}).encode() + b"\n" for n in range(500)
        ),
        "small towers": (b'{"document":{"a":' + SHAPES["small_towers"](MIB).encode() + b"}}\n") * 4,
        "many grants": json.dumps(
            {"document": {}, "grants": [{"subject": f"user:u{n}", "role": "reader"} for n in range(1000)]}
        ).encode()
        + b"\n" * 4,
    }[what]
    await stage.settled()
    async with stage.attack(name) as attack:
        reply = await stage.request("POST", "/v1/docs/notes:import", "alice", lines, kind="application/x-ndjson")
        attack.note = f"{reply.status} {reply.body[:60].decode(errors='replace')}"
    stage.check(name)


@pytest.mark.parametrize("users", [["alice"], ["alice", "bob", "ada", "acme-service", "acme-operator"]])
async def test_imports_that_trickle(stage, users):
    name = f"imports: 40 of {len(users)} users that hold 3 MiB of an unfinished line"
    await stage.settled()
    async with stage.attack(name, users=len(users)):
        writers = []
        for number in range(40):
            _, writer = await connection(stage.port)
            token = stage.token(users[number % len(users)])
            kind = "application/x-ndjson"
            writer.write(
                head(stage.port, "POST", "/v1/docs/notes:import", token=token, size=100 * MIB, kind=kind)
                + b'{"document":{"a":"'
            )
            writers.append(writer)
        for _ in range(12):
            for writer in writers:
                if not writer.transport.is_closing():
                    writer.write(b"x" * (MIB // 4))
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        for writer in writers:
            writer.transport.abort()
    stage.check(name)


async def test_bodies_that_trickle(stage):
    name = "bulk: 40 bodies of 16 MiB that stop just before their end"
    await stage.settled()
    async with stage.attack(name):
        writers = []
        for _ in range(40):
            _, writer = await connection(stage.port)
            writer.write(
                head(stage.port, "POST", "/v1/docs/notes:bulk", token=stage.token("alice"), size=16 * MIB)
            )
            writers.append(writer)
        for _ in range(15):
            for writer in writers:
                if not writer.transport.is_closing():
                    writer.write(b"x" * MIB)
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        for writer in writers:
            writer.transport.abort()
    stage.check(name)


async def test_a_collection_with_a_huge_schema(stage):
    name = "a body of 3 MiB of names for every route of a grant"
    body = b'{"role":"reader",' + names(2 * MIB).encode()[1:]
    uuid = stage.document("user:alice")
    await stage.settled()
    async with stage.attack(name) as attack:
        replies = [
            await stage.request("PUT", f"/v1/grants/{uuid}/user:bob", "alice", body),
            await stage.request("POST", f"/v1/grants/{uuid}:transfer", "alice", body),
        ]
        attack.note = " ".join(str(reply.status) for reply in replies)
    stage.check(name)
