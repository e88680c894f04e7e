from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from bson import Binary

from livedocs.model import Grant, GrantKey, Role
from livedocs.store.audit import Actor
from livedocs.store.grants import Grants


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
    answer = await who.post("/v1/docs/notes", {"title": "Mine"})
    return answer.json["uuid"]


def later(**delta):
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


async def test_a_grant_lets_in_and_its_removal_shuts_out(alice, bob):
    uuid = await owned(alice)
    answer = await alice.put(f"/v1/grants/{uuid}/user:bob", {"role": "reader"})
    assert answer.status == 201
    assert answer.json["subject"] == "user:bob"
    assert answer.json["role"] == "reader"
    assert answer.json["granted_by"] == "user:alice"
    assert (await bob.get(f"/v1/docs/notes/{uuid}")).status == 200
    assert (await alice.delete(f"/v1/grants/{uuid}/user:bob")).status == 204
    assert (await bob.get(f"/v1/docs/notes/{uuid}")).code == "forbidden"


async def test_every_grant_is_listed_by_subject(alice):
    uuid = await owned(alice)
    end = later(hours=1)
    await alice.put(f"/v1/grants/{uuid}/user:bob", {"role": "writer", "expires_at": end})
    answer = await alice.get(f"/v1/grants/{uuid.upper()}")
    assert answer.json["uuid"] == uuid
    mine, bobs = answer.json["grants"]
    assert mine.keys() == {"subject", "role", "granted_by", "granted_at"}
    assert (mine["subject"], mine["role"]) == ("user:alice", "owner")
    assert (bobs["subject"], bobs["role"]) == ("user:bob", "writer")
    assert datetime.fromisoformat(bobs["expires_at"]) == datetime.fromisoformat(end).replace(
        microsecond=datetime.fromisoformat(end).microsecond // 1000 * 1000
    )


async def test_a_second_grant_replaces_the_first_as_a_whole(alice, control):
    uuid = await owned(alice)
    path = f"/v1/grants/{uuid}/user:bob"
    await alice.put(path, {"role": "writer", "expires_at": later(hours=1)})
    async with await control["acl"].watch() as stream:
        answer = await alice.put(path, {"role": "reader"})
        async with asyncio.timeout(10):
            event = await stream.next()
    assert (answer.status, answer.json["role"], "expires_at" in answer.json) == (200, "reader", False)
    # A replacement says everything about the grant; an update would say only what differs.
    assert event["operationType"] == "replace"
    assert event["fullDocument"]["role"] == "reader"
    assert "expires_at" not in event["fullDocument"]


async def test_who_granted_what_is_on_record(alice, control):
    uuid = await owned(alice)
    await alice.put(f"/v1/grants/{uuid}/user:bob", {"role": "writer"})
    await alice.delete(f"/v1/grants/{uuid}/user:bob")
    cursor = control["audit"].find({"uuid": Binary.from_uuid(UUID(uuid)), "subject": "user:bob"}).sort("at")
    entries = await cursor.to_list()
    assert [(entry["action"], entry["actor"], entry.get("detail")) for entry in entries] == [
        ("grant.set", "user:alice", {"role": "writer"}),
        ("grant.remove", "user:alice", None),
    ]


async def test_only_owners_and_administrators_manage_grants(alice, bob, ada, api):
    uuid = await owned(alice)
    await alice.put(f"/v1/grants/{uuid}/user:bob", {"role": "writer"})
    for who in (
        bob,
        api.someone("user:carol"),
        api.service(),
        api.someone("user:ada", tenant="globex", scope="livedocs:admin"),
    ):
        if who.principal.tenant == "acme":
            assert (await who.get(f"/v1/grants/{uuid}")).code == "forbidden"
            assert (await who.delete(f"/v1/grants/{uuid}/user:alice")).code == "forbidden"
            assert (await who.put(f"/v1/grants/{uuid}/user:eve", {"role": "owner"})).code == "forbidden"
        else:
            # An administrator elsewhere sees another UUID of the same name, which has no grants.
            assert (await who.get(f"/v1/grants/{uuid}")).json["grants"] == []
    assert (await ada.put(f"/v1/grants/{uuid}/user:eve", {"role": "reader"})).status == 201
    assert len((await ada.get(f"/v1/grants/{uuid}")).json["grants"]) == 3


async def test_a_uuid_that_does_not_exist_is_refused_like_one_that_is_not_ours(alice, bob):
    uuid = await owned(alice)
    answers = [await bob.get(f"/v1/grants/{which}") for which in (uuid, uuid4())]
    assert [answer.status for answer in answers] == [403, 403]
    assert answers[0].body == answers[1].body


async def test_a_service_sets_the_first_grant_of_a_document_it_wrote_elsewhere(api, mongo, deployment, bob):
    uuid = uuid4()
    await mongo[deployment.databases["acme"]]["test"].insert_one({"uuid": uuid, "a": 1})
    service = api.service()
    assert (await service.put(f"/v1/grants/{uuid}/user:alice", {"role": "owner"})).status == 201
    # From now on it is its owner's to give.
    assert (await service.put(f"/v1/grants/{uuid}/user:bob", {"role": "reader"})).code == "forbidden"
    assert (await api.someone("user:alice").put(f"/v1/grants/{uuid}/user:bob", {"role": "reader"})).status == 201
    assert (await bob.get(f"/v1/docs/test/{uuid}")).json["a"] == 1


async def test_the_last_owner_is_not_lost_by_accident(alice, ada):
    uuid = await owned(alice)
    path = f"/v1/grants/{uuid}/user:alice"
    for answer in (
        await alice.delete(path),
        await alice.put(path, {"role": "writer"}),
        await alice.put(path, {"role": "owner", "expires_at": later(hours=1)}),
    ):
        assert (answer.status, answer.code) == (409, "conflict")
    assert (await alice.put(path, {"role": "owner"})).status == 200
    assert (await alice.put(f"/v1/grants/{uuid}/user:bob", {"role": "owner"})).status == 201
    assert (await alice.delete(path)).status == 204
    assert (await ada.delete(f"/v1/grants/{uuid}/user:bob")).status == 204


async def test_two_owners_who_remove_each_other_do_not_both_succeed(api):
    for _ in range(3):
        one, other = api.someone("user:one"), api.someone("user:other")
        uuid = await owned(one)
        await one.put(f"/v1/grants/{uuid}/user:other", {"role": "owner"})
        answers = await asyncio.gather(
            one.delete(f"/v1/grants/{uuid}/user:other"), other.delete(f"/v1/grants/{uuid}/user:one")
        )
        assert sorted(answer.status for answer in answers) == [204, 403]


async def test_a_grant_that_is_not_there_cannot_be_removed(alice):
    uuid = await owned(alice)
    answer = await alice.delete(f"/v1/grants/{uuid}/user:nobody")
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize(
    "subject", ["user:a/b", "user:a//b", "group:50% off", "user:ünï code", "client:x y", "tenant:*", "user:a?b#c"]
)
async def test_a_subject_comes_percent_encoded(alice, subject):
    uuid = await owned(alice)
    path = f"/v1/grants/{uuid}/{quote(subject, safe='')}"
    assert (await alice.put(path, {"role": "reader"})).json["subject"] == subject
    assert subject in [item["subject"] for item in (await alice.get(f"/v1/grants/{uuid}")).json["grants"]]
    assert (await alice.delete(path)).status == 204


@pytest.mark.parametrize("subject", ["bob", "user:", "tenant:all", "role:x", "user:a%00b", "$ne"])
async def test_what_is_no_subject_is_said_so(alice, subject):
    uuid = await owned(alice)
    answer = await alice.put(f"/v1/grants/{uuid}/{subject}", {"role": "reader"})
    assert (answer.status, answer.code) == (400, "invalid_subject")


@pytest.mark.parametrize("role", ["admin", "Reader", "", None, 1, ["reader"], {"$gt": ""}])
async def test_an_unknown_role_is_refused(alice, role):
    uuid = await owned(alice)
    answer = await alice.put(f"/v1/grants/{uuid}/user:bob", {"role": role})
    assert (answer.status, answer.code) == (422, "invalid_role")


@pytest.mark.parametrize(
    "body",
    [
        {"role": "reader", "expires_at": "2001-01-01T00:00:00Z"},
        {"role": "reader", "expires_at": "2999-01-01"},
        {"role": "reader", "expires_at": "2999-01-01T00:00:00"},
        {"role": "reader", "expires_at": "2999-02-30T00:00:00Z"},
        {"role": "reader", "expires_at": "0001-01-01T00:00:00+23:59"},
        {"role": "reader", "expires_at": 32503680000},
        {"role": "reader", "expires_at": {"$date": "2001-01-01T00:00:00Z"}},
        {"role": "reader", "until": "2999-01-01T00:00:00Z"},
        {"role": "reader", "$set": {"role": "owner"}},
        ["reader"],
        "reader",
    ],
)
async def test_a_grant_that_says_nothing_enforceable_is_refused(alice, body):
    uuid = await owned(alice)
    answer = await alice.put(f"/v1/grants/{uuid}/user:bob", body)
    assert (answer.status, answer.code) == (422, "invalid_grant")
    assert len((await alice.get(f"/v1/grants/{uuid}")).json["grants"]) == 1


async def test_an_end_may_be_extended_json_or_in_another_zone(alice):
    uuid = await owned(alice)
    path = f"/v1/grants/{uuid}/user:bob"
    answer = await alice.put(path, {"role": "reader", "expires_at": {"$date": "2999-01-01T00:00:00Z"}})
    assert answer.json["expires_at"] == "2999-01-01T00:00:00.000Z"
    answer = await alice.put(path, {"role": "reader", "expires_at": "2999-01-01T02:00:00+02:00"})
    assert answer.json["expires_at"] == "2999-01-01T00:00:00.000Z"


async def test_everything_granted_to_the_caller_is_paged(api, mongo, deployment):
    grants = Grants(mongo, deployment.control_database)
    who = api.someone("user:pager", groups=("pagers",))
    ended = datetime.now(UTC) - timedelta(hours=1)
    uuids = sorted(uuid4() for _ in range(7))
    for number, uuid in enumerate(uuids):
        await grants.put(_grant(uuid, "group:pagers", Role.READER), Actor("system"))
        if number % 2:
            await grants.put(_grant(uuid, "user:pager", Role.WRITER), Actor("system"))
    over = uuid4()
    await grants.put(_grant(over, "user:pager", Role.OWNER, ended), Actor("system"))
    seen, cursor, pages = {}, "", 0
    while cursor is not None:
        answer = await who.get(f"/v1/me/documents?limit=3{cursor and '&cursor=' + cursor}")
        assert len(answer.json["documents"]) <= 3
        seen |= {item["uuid"]: item["role"] for item in answer.json["documents"]}
        cursor, pages = answer.json["next"], pages + 1
    assert seen == {str(uuid): "writer" if number % 2 else "reader" for number, uuid in enumerate(uuids)}
    assert pages <= 4


@pytest.mark.parametrize("query", ["cursor=x", "cursor=", "cursor=AAAA", "cursor=%24ne"])
async def test_a_cursor_that_was_never_given_out_is_refused(alice, query):
    assert (await alice.get(f"/v1/me/documents?{query}")).code == "invalid_cursor"


@pytest.mark.parametrize("limit", ["0", "501", "x", "-1", "1.5", "", "9" * 5000, "%C2%B2"])
async def test_a_limit_is_a_number_in_its_bounds(alice, limit):
    assert (await alice.get(f"/v1/me/documents?limit={limit}")).code == "bad_request"


async def test_who_am_i(api):
    who = api.someone("user:zoe", groups=("b", "a"), scope="livedocs:admin")
    body = (await who.get("/v1/me")).json
    assert body.pop("expires_at").endswith("Z")
    assert body == {
        "tenant": "acme",
        "subject": "user:zoe",
        "name": "Zoe",
        "groups": ["a", "b"],
        "scopes": ["livedocs:admin"],
        "client_id": "livedocs",
    }


def _grant(uuid, subject, role, expires_at=None):
    return Grant(GrantKey("acme", uuid, subject), role, expires_at, "system", datetime.now(UTC))


async def test_access_is_explained_to_an_owner_and_to_nobody_else(alice, bob):
    uuid = await owned(alice)
    await alice.put(f"/v1/grants/{uuid}/group:staff", {"role": "reader", "expires_at": later(hours=1)})
    path = f"/v1/grants/{uuid}/explain"
    found = (await alice.get(f"{path}?subject=user:bob")).json
    assert (found["allowed"], found["reason"]) == (False, "no_grant")
    assert found["groups"] == {"source": "unknown", "names": []}
    assert [(rule["rule"], rule["applies"], rule["grant"]["role"]) for rule in found["rules"]] == [
        ("group", None, "reader")
    ]
    assert found["rules_complete"]
    found = (await alice.get(f"{path}?subject=user:bob&group=staff&group=other")).json
    assert (found["allowed"], found["role"], found["groups"]["source"]) == (True, "reader", "request")
    assert found["until"]
    assert (await alice.get(f"{path}?subject=user:alice")).json["role"] == "owner"
    assert (await bob.get(f"{path}?subject=user:bob")).code == "forbidden"
    assert (await alice.get(path)).code == "invalid_subject"
    assert (await alice.get("/v1/grants/nonsense/explain?subject=user:bob")).code == "invalid_uuid"


async def test_a_list_of_grants_that_has_not_changed_is_not_sent_again(alice):
    uuid = await owned(alice)
    path = f"/v1/grants/{uuid}"
    tag = (await alice.get(path)).headers["ETag"]
    again = await alice.get(path, If_None_Match=f'"x", {tag}')
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    await alice.put(f"{path}/user:bob", {"role": "reader"})
    assert (await alice.get(path, If_None_Match=tag)).status == 200
    assert (await alice.get(path, If_None_Match="nonsense")).code == "bad_request"


async def test_a_grant_is_set_without_an_answers_body_on_request(alice):
    path = f"/v1/grants/{await owned(alice)}/user:bob"
    for status in (201, 204):
        answer = await alice.put(path, {"role": "reader"}, Prefer="return=minimal")
        assert (answer.status, answer.body) == (status, b"")
        assert answer.headers["Preference-Applied"] == "return=minimal"


async def test_my_documents_of_one_collection(api):
    dora = api.someone("user:dora")
    both, only = (await owned(dora)), (await owned(dora))
    await dora.put(f"/v1/docs/test/{both}", {})
    elsewhere = (await dora.post("/v1/docs/test", {})).json["uuid"]

    async def listed(query):
        return {one["uuid"] for one in (await dora.get(f"/v1/me/documents{query}")).json["documents"]}

    assert await listed("") == {both, only, elsewhere}
    assert await listed("?collection=notes") == {both, only}
    assert await listed("?collection=test") == {both, elsewhere}
    assert (await dora.get("/v1/me/documents?collection=nothing")).code == "unknown_collection"
