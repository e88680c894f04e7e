"""Many sockets and rooms, and a tenant of many collections; limits are lifted as for a large tenant."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
import pytest_asyncio
from stall.registry import worst

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOCKETS = 1000
COLLECTIONS = 200


@pytest.fixture(scope="module")
def server_settings():
    scopes = ("address", "user", "tenant")
    rates = [f"limit_{kind}_per_{scope}" for kind in ("joins", "handshakes") for scope in scopes]
    return {"max_sockets_per_user": SOCKETS + 50, **dict.fromkeys(rates, 0)}


@pytest.fixture(scope="module")
def uuids(stage):
    """100 rooms that alice may enter."""
    found = [uuid4() for _ in range(100)]
    stage.grant_many(found, "user:alice")
    return [str(uuid) for uuid in found]


async def gathered(stage, uuids):
    crowd = await stage.crowd("alice", SOCKETS)
    for start in range(0, SOCKETS, 50):
        some = type(crowd)(crowd.members[start : start + 50])
        await some.call("JoinRoom", uuids)
    return crowd


@worst("GET /v1/admin/sessions", "GET /v1/grants/{uuid}/explain")
async def test_lists_of_a_thousand_sockets_in_a_hundred_rooms_each(stage, uuids):
    label = "1,000 sockets in 100 rooms: session lists and explain"
    await stage.settled()
    await gathered(stage, uuids)
    async with stage.attack(label) as attack:
        paths = [
            "/v1/admin/sessions?limit=500",
            f"/v1/admin/sessions?limit=500&uuid={uuids[0]}",
            "/v1/admin/sessions?limit=500&subject=user:alice",
            f"/v1/grants/{uuids[0]}/explain?subject=user:alice",
        ]
        replies = [await stage.request("GET", path, "ada") for path in paths]
        replies += await asyncio.gather(*(stage.request("GET", path, "ada") for path in paths for _ in range(3)))
        attack.note = " ".join(sorted({str(reply.status) for reply in replies}))
        attack.note += f" {max(len(reply.body) for reply in replies) >> 10} KiB"
    stage.check(label)


@worst("DELETE /v1/grants/{uuid}/{subject}")
async def test_a_revocation_that_concerns_a_thousand_sockets(stage, uuids):
    label = "1,000 sockets in 100 rooms: 100 grants revoked at once"
    await stage.settled()
    await gathered(stage, uuids)
    key = {"_id.tenant": "acme", "_id.subject": "user:alice"}
    held = list(stage.control.acl.find(key))
    async with stage.attack(label):
        await asyncio.to_thread(stage.control.acl.delete_many, key)
    await asyncio.to_thread(stage.control.acl.insert_many, held)
    stage.check(label)


@worst("DELETE /v1/admin/sessions", "DELETE /v1/admin/sessions/{sid}")
async def test_a_thousand_sockets_disconnected_at_once(stage, uuids):
    label = "1,000 sockets in 100 rooms: all disconnected at once"
    await stage.settled()
    await gathered(stage, uuids)
    async with stage.attack(label) as attack:
        reply = await stage.request("DELETE", "/v1/admin/sessions?subject=user:alice", "ada")
        attack.note = str(reply.status)
    stage.check(label)


async def test_a_thousand_sockets_that_leave_at_once(stage, uuids):
    label = "1,000 sockets in 100 rooms: all gone at once"
    await stage.settled()
    crowd = await gathered(stage, uuids)
    async with stage.attack(label):
        await crowd.close()
    stage.check(label)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def many_collections(stage):
    """As many collections of acme as nobody would have, of either key."""
    names = {f"c{number:03}": ("_id", "uuid")[number % 2] for number in range(COLLECTIONS)}
    found = stage.control.tenants.find_one({"_id": "acme"})
    shape = next(iter(found["collections"].values()))
    made = {name: {**shape, "key": key} if isinstance(shape, dict) else key for name, key in names.items()}
    added = {f"collections.{name}": one for name, one in made.items()}
    stage.control.tenants.update_one({"_id": "acme"}, {"$set": added})
    yield names
    stage.control.tenants.update_one({"_id": "acme"}, {"$unset": dict.fromkeys(added, 1)})


@worst(
    "PUT /v1/admin/tenants/{slug}/collections/{collection}", "PUT /v1/admin/tenants/{slug}/services/{client_id}"
)
async def test_snapshots_in_a_tenant_of_many_collections(stage, uuids, many_collections):
    label = f"{COLLECTIONS} collections: 100 rooms joined with snapshots, 5 sockets"
    await stage.settled()
    async with stage.attack(label) as attack:
        crowd = await stage.crowd("alice", 5)
        answers = await crowd.call("JoinRoom", uuids, {"snapshot": True})
        listed = await stage.request("GET", "/v1/me/documents?limit=500", "alice")
        attack.note = f"{answers[0][:40].decode(errors='replace')} {listed.status}"
    stage.check(label)
