"""Whose a UUID is, and what a subject has."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from bson import Binary

from livedocs.access.ownership import transfer
from livedocs.errors import Conflict
from livedocs.model import Grant, GrantKey, Role


@pytest.fixture
def alice(api):
    return api.someone("user:alice")


@pytest.fixture
def bob(api):
    return api.someone("user:bob")


@pytest.fixture
def ada(api):
    return api.someone("user:ada", scope="livedocs:admin")


async def owned(who):
    """A UUID that the caller owns."""
    return (await who.post("/v1/docs/notes", {"title": "Mine"})).json["uuid"]


def roles(answer):
    return {grant["subject"]: grant["role"] for grant in answer.json["grants"]}


async def test_ownership_goes_to_somebody_else_in_one_step(alice, bob, control):
    uuid = await owned(alice)
    answer = await alice.post(f"/v1/grants/{uuid}:transfer", {"to": "user:bob"})
    assert (answer.status, roles(answer)) == (200, {"user:bob": "owner"})
    assert (await alice.get(f"/v1/docs/notes/{uuid}")).code == "forbidden"
    assert roles(await bob.get(f"/v1/grants/{uuid}")) == {"user:bob": "owner"}
    entries = control["audit"].find({"uuid": Binary.from_uuid(UUID(uuid)), "action": {"$ne": "document.create"}})
    told = [(entry["action"], entry["subject"], entry["actor"]) async for entry in entries.sort("_id")]
    assert told == [("grant.set", "user:bob", "user:alice"), ("grant.remove", "user:alice", "user:alice")]


@pytest.mark.parametrize("keep", ["reader", "writer"])
async def test_the_former_owner_may_keep_a_lower_role(alice, keep):
    uuid = await owned(alice)
    answer = await alice.post(f"/v1/grants/{uuid}:transfer", {"to": "group:staff", "keep": keep})
    assert roles(answer) == {"group:staff": "owner", "user:alice": keep}


async def test_an_administrator_transfers_what_is_somebody_elses_and_nobody_else_does(alice, bob, ada):
    uuid = await owned(alice)
    wanted = {"from": "user:alice", "to": "user:bob"}
    assert (await bob.post(f"/v1/grants/{uuid}:transfer", wanted)).code == "forbidden"
    assert (await bob.post(f"/v1/grants/{uuid4()}:transfer", wanted)).code == "forbidden"
    assert roles(await ada.post(f"/v1/grants/{uuid}:transfer", wanted)) == {"user:bob": "owner"}
    assert (await ada.post(f"/v1/grants/{uuid}:transfer", wanted)).code == "conflict"


async def test_ownership_is_given_away_once_even_when_asked_twice_at_once(alice):
    uuid = await owned(alice)
    answers = await asyncio.gather(
        *(alice.post(f"/v1/grants/{uuid}:transfer", {"to": f"user:{name}"}) for name in ("bob", "carol", "dan"))
    )
    assert sorted(answer.status for answer in answers) in ([200, 403, 403], [200, 403, 409])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_subject"),
        ({"to": "bob"}, "invalid_subject"),
        ({"to": "user:bob", "from": 1}, "invalid_subject"),
        ({"to": "user:bob", "keep": "owner"}, "invalid_role"),
        ({"to": "user:bob", "keep": "king"}, "invalid_role"),
        ({"to": "user:bob", "until": 1}, "bad_request"),
        ({"to": "user:alice"}, "conflict"),
        ([], "invalid_json"),
    ],
)
async def test_what_is_no_transfer_is_refused(alice, body, code):
    uuid = await owned(alice)
    assert (await alice.post(f"/v1/grants/{uuid}:transfer", body)).code == code
    assert (await alice.get(f"/v1/docs/notes/{uuid}")).status == 200


async def test_a_transfer_can_wait_until_it_is_applied_everywhere(alice):
    uuid = await owned(alice)
    answer = await alice.post(f"/v1/grants/{uuid}:transfer", {"to": "user:bob"}, Prefer="wait=1")
    assert (answer.json["applied"], answer.json["pending"]) == (True, [])
    assert answer.headers["Preference-Applied"] == "wait=1"


async def test_the_grants_of_a_subject_are_listed_page_by_page(api, ada):
    subject = f"user:{uuid4()}"
    end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    uuids = sorted([await owned(ada) for _ in range(5)], key=lambda uuid: UUID(uuid).bytes)
    for uuid in uuids:
        await ada.put(f"/v1/grants/{uuid}/{subject}", {"role": "writer", "expires_at": end})
    for who in (ada, api.someone(subject)):
        seen, cursor = [], ""
        while cursor is not None:
            more = f"&cursor={cursor}" if cursor else ""
            page = (await who.get(f"/v1/grants?subject={subject}&limit=2{more}")).json
            seen += page["grants"]
            cursor = page["next"]
        assert [held["uuid"] for held in seen] == uuids
        assert {(held["role"], held["granted_by"], held["in_force"]) for held in seen} == {
            ("writer", "user:ada", True)
        }


async def test_what_others_have_is_for_administrators(api, alice, ada):
    assert (await alice.get("/v1/grants?subject=user:bob")).code == "insufficient_scope"
    assert (await alice.get("/v1/grants?subject=group:staff")).code == "insufficient_scope"
    assert (await api.someone("user:alice", groups=("staff",)).get("/v1/grants?subject=group:staff")).status == 200
    assert (await ada.get("/v1/grants?subject=tenant:*")).status == 200
    assert (await ada.get("/v1/grants")).code == "invalid_subject"
    assert (await ada.get("/v1/grants?subject=user:bob&cursor=x")).code == "invalid_cursor"


NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
ALICE, BOB = (GrantKey("acme", UUID(int=1), subject) for subject in ("user:alice", "user:bob"))


@pytest.mark.parametrize(
    "held",
    [
        None,
        Grant(ALICE, Role.WRITER, None, "x"),
        Grant(ALICE, Role.OWNER, NOW, "x"),
    ],
    ids=["nobody", "a writer", "an owner no more"],
)
def test_nobody_gives_away_what_is_not_theirs(held):
    with pytest.raises(Conflict):
        transfer(held, ALICE, BOB, None, by="x", now=NOW)


def test_the_taker_comes_first_and_owns_without_an_end():
    held = Grant(ALICE, Role.OWNER, None, "x")
    first, second = transfer(held, ALICE, BOB, Role.READER, by="user:ada", now=NOW)
    at = NOW.replace(microsecond=678_000)
    assert first == Grant(BOB, Role.OWNER, None, "user:ada", at)
    assert second == Grant(ALICE, Role.READER, None, "user:ada", at)
    assert transfer(held, ALICE, BOB, None, by="x", now=NOW)[1] == ALICE
    with pytest.raises(Conflict):
        transfer(held, ALICE, BOB, Role.OWNER, by="x", now=NOW)
