"""Many grants: in one item, on one UUID, of one subject; and everything that reads or decides about them."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from stall.registry import worst

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 12_000


@pytest.fixture(scope="module")
def crowded(stage):
    """A UUID with 12,000 grants, of which alice has one."""
    uuid = stage.document("user:alice", title="crowded")
    stage.grant(uuid, *(f"user:reader{number:05}" for number in range(MANY)), role="reader")
    return uuid


@pytest.fixture(scope="module")
def holdings(stage):
    """12,000 UUIDs on which bob has a grant."""
    for _ in range(12):
        stage.grant_many([uuid4() for _ in range(1000)], "user:bob")


def item(count, first=0):
    return [{"subject": f"user:u{number}", "role": "reader"} for number in range(first, first + count)]


@worst("POST /v1/docs/{collection}:bulk")
async def test_an_item_with_thousands_of_grants(stage):
    name = "bulk: one item with 3,000 grants"
    await stage.settled()
    async with stage.attack(name) as attack:
        reply = await stage.request(
            "POST", "/v1/docs/notes:bulk", "alice", {"items": [{"document": {}, "grants": item(3000)}]}
        )
        attack.note = str(reply.status)
    stage.check(name)


@pytest.mark.parametrize("each", [15, 90])
async def test_many_items_with_many_grants(stage, each):
    name = f"bulk: 1,000 items with {each} grants each"
    await stage.settled()
    async with stage.attack(name) as attack:
        items = [{"document": {}, "grants": item(each)} for _ in range(1000)]
        reply = await stage.request("POST", "/v1/docs/notes:bulk", "alice", {"items": items})
        attack.note = f"{reply.status} {reply.body[:60].decode(errors='replace')}"
    stage.check(name)


async def test_many_items_with_grants_on_one_uuid(stage):
    name = "bulk: 1,000 items of one UUID with 15 other grants each"
    await stage.settled()
    uuid = str(uuid4())
    async with stage.attack(name) as attack:
        items = [{"uuid": uuid, "document": {}, "grants": item(15, 15 * number)} for number in range(1000)]
        reply = await stage.request("POST", "/v1/docs/notes:bulk", "alice", {"items": items})
        attack.note = f"{reply.status} {reply.body[:60].decode(errors='replace')}"
    stage.check(name)


@worst("POST /v1/grants:bulk")
async def test_changes_of_grants_on_a_crowded_uuid(stage, crowded):
    name = "grants:bulk: 1,000 items on a UUID of 12,000 grants"
    await stage.settled()
    async with stage.attack(name) as attack:
        items = [{"uuid": str(crowded), "subject": f"user:n{number}", "role": "reader"} for number in range(1000)]
        reply = await stage.request("POST", "/v1/grants:bulk", "alice", {"items": items})
        attack.note = f"{reply.status} {reply.body[:60].decode(errors='replace')}"
    stage.check(name)


async def test_changes_of_grants_on_many_uuids(stage):
    name = "grants:bulk: 1,000 items on 1,000 UUIDs"
    uuids = [uuid4() for _ in range(1000)]
    stage.grant_many(uuids, "user:alice")
    await stage.settled()
    async with stage.attack(name) as attack:
        items = [{"uuid": str(uuid), "subject": "user:bob", "role": "reader"} for uuid in uuids]
        reply = await stage.request("POST", "/v1/grants:bulk", "alice", {"items": items})
        attack.note = f"{reply.status} {reply.body[:60].decode(errors='replace')}"
    stage.check(name)


@worst(
    "GET /v1/grants/{uuid}",
    "GET /v1/grants/{uuid}/explain",
    "PUT /v1/grants/{uuid}/{subject}",
    "DELETE /v1/grants/{uuid}/{subject}",
    "POST /v1/grants/{uuid}:transfer",
    "GET /v1/docs/{collection}/{uuid}",
    "PUT /v1/docs/{collection}/{uuid}",
    "PATCH /v1/docs/{collection}/{uuid}",
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/grants/UUID", None),
        ("GET", "/v1/grants/UUID/explain?subject=user:reader00001", None),
        ("PUT", "/v1/grants/UUID/user:reader00002", {"role": "writer"}),
        ("DELETE", "/v1/grants/UUID/user:reader00003", None),
        ("GET", "/v1/docs/notes/UUID", None),
        ("PUT", "/v1/docs/notes/UUID", {"n": 1}),
        ("PATCH", "/v1/docs/notes/UUID", {"n": 2}),
        ("POST", "/v1/grants/UUID:transfer", {"to": "user:bob", "keep": "writer"}),
    ],
)
async def test_whoever_asks_about_a_crowded_uuid(stage, crowded, method, path, body):
    name = f"UUID of 12,000 grants: {method} {path}, 10 times"
    await stage.settled()
    async with stage.attack(name) as attack:
        replies = await asyncio.gather(
            *(stage.request(method, path.replace("UUID", str(crowded)), "alice", body) for _ in range(10))
        )
        attack.note = " ".join(sorted({str(reply.status) for reply in replies}))
    stage.check(name)


async def test_a_flood_of_explanations(stage):
    name = "explain: 200 at once"
    uuid = stage.document("user:alice")
    await stage.settled()
    async with stage.attack(name) as attack:
        path = f"/v1/grants/{uuid}/explain?subject=user:bob" + "&group=g" * 100
        replies = await asyncio.gather(*(stage.request("GET", path, "alice") for _ in range(200)))
        attack.note = " ".join(sorted({str(reply.status) for reply in replies}))
    stage.check(name)


@worst("GET /v1/grants", "GET /v1/me/documents")
@pytest.mark.parametrize(
    "path",
    [
        "/v1/grants?subject=user:bob&limit=500",
        "/v1/me/documents?limit=500",
        "/v1/me/documents?collection=notes&limit=500",
    ],
)
async def test_lists_of_somebody_with_many_grants(stage, holdings, path):
    name = f"12,000 grants of one subject: GET {path}, 10 times"
    await stage.settled()
    async with stage.attack(name) as attack:
        replies = await asyncio.gather(*(stage.request("GET", path, "bob") for _ in range(10)))
        attack.note = " ".join(sorted({str(reply.status) for reply in replies}))
    stage.check(name)


@worst("GET /v1/admin/audit")
async def test_the_audit_trail_in_pages(stage):
    name = "audit: 10 pages of 500 at once"
    await stage.settled()
    async with stage.attack(name) as attack:
        replies = await asyncio.gather(
            *(stage.request("GET", "/v1/admin/audit?limit=500", "ada") for _ in range(10))
        )
        attack.note = " ".join(sorted({str(reply.status) for reply in replies}))
    stage.check(name)


async def test_grants_written_directly_while_a_room_listens(stage):
    name = "4,000 grants written directly on a room of 50 sockets"
    uuid = stage.document("user:alice")
    crowd = await stage.crowd("alice", 50)
    await crowd.call("JoinRoom", [str(uuid)])
    await stage.settled(keep=True)
    async with stage.attack(name):
        subjects = [f"user:direct{number:05}" for number in range(4_000)]
        await asyncio.to_thread(stage.grant, uuid, *subjects)
        others = {"_id.uuid": stage.binary(uuid), "_id.subject": {"$ne": "user:alice"}}
        await asyncio.to_thread(stage.control.acl.delete_many, others)
    stage.check(name)


async def test_a_user_of_many_groups(stage):
    name = "300 groups: 100 rooms joined, 10 times"
    # As many as the demo's tokens, which name them, have room for.
    groups = [f"g{number:04}" for number in range(300)]
    uuids = [uuid4() for _ in range(100)]
    stage.grant_many(uuids, "group:g0001", role="reader")
    await stage.groups("bob", groups)
    try:
        await stage.settled()
        async with stage.attack(name) as attack:
            crowd = await stage.crowd("bob", 10)
            answers = await crowd.call("JoinRoom", [str(uuid) for uuid in uuids])
            attack.note = answers[0][:60].decode(errors="replace")
    finally:
        await stage.groups("bob", ["staff"])
    stage.check(name)
