"""Every route of the table with the worst requests that can be made up from its description."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
import pytest_asyncio
from stall.registry import PLAIN, WORST, load
from stall.routes import requests, table

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTES = table()
_AT_ONCE = 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def description(stage):
    return (await stage.request("GET", "/openapi.json", None)).json


@pytest.fixture(scope="module")
def values(stage):
    """Of the parameters in paths. The tenant is one that nobody is in."""
    database = f"{stage.acme.name}_spare"
    stage.control.tenants.insert_one(
        {"_id": "spare", "database": database, "collections": {}, "limits": {}, "status": "active"}
    )
    yield {
        "uuid": str(stage.document(title="mine")),
        "collection": "notes",
        "subject": "user:bob",
        "slug": "spare",
        "client_id": "acme-crm",
        "sid": "0f2d6a0c4b1e4f0f8c39f1f5a53c9f6e",
    }
    stage.control.tenants.delete_one({"_id": "spare"})


def caller(label):
    if "/admin/tenants" in label:
        return "acme-operator"
    return "ada" if "/admin/" in label else "alice"


@pytest.mark.parametrize("label", ROUTES)
async def test_the_worst_of_a_route_stalls_nobody(stage, description, values, label):
    await stage.settled()
    waiting = list(requests(label, description, values))
    statuses = Counter()

    async def work():
        while waiting:
            made = waiting.pop(0)
            options = {"kind": made.kind, "headers": made.headers}
            reply = await stage.request(made.method, made.path, caller(label), made.body, **options)
            statuses[reply.status] += 1

    async with stage.attack(label) as attack:
        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        attack.note = " ".join(f"{status}:{count}" for status, count in sorted(statuses.items()))
    stage.check(label)
    # Something came through, too: otherwise only the door would have been tried.
    assert len(statuses) > 1 or label in PLAIN, statuses


async def test_every_route_has_a_worst_case():
    """A new route needs a worst case of its own, or a place among those that have none."""
    load()
    missing = [label for label in ROUTES if label not in WORST and label not in PLAIN]
    assert missing == [], "write a worst case for them in tests/gates/, or name them in stall/registry.py: PLAIN"
    gone = [label for label in (*WORST, *PLAIN) if "/" in label and label not in ROUTES]
    assert gone == [], f"there is no such route any more: {gone}"


async def test_the_table_is_that_of_the_running_server(description):
    described = {
        f"{method.upper()} {path}" for path, methods in description["paths"].items() for method in methods
    }
    assert described <= set(ROUTES)
