"""What an explanation tells, and whom."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from livedocs.http.session_queries import NoSessions
from livedocs.model import Grant, GrantKey, Role
from livedocs.store.audit import Actor
from livedocs.store.grants import Grants
from livedocs.store.inquiries import Answer as Holding
from livedocs.store.inquiries import Session
from livedocs.store.processes import Process

ROOM = uuid4()


class Connected(NoSessions):
    """Bob is connected, and in two groups."""

    def __init__(self):
        self.asked = 0

    async def ask(self, question, *, by=""):
        self.asked += 1
        now = datetime.now(UTC)
        session = Session(
            *("sid", "user:bob", "Bob", "web", "192.0.2.1", now.timestamp(), now),
            room_count=1,
            rooms={ROOM: Role.READER},
        )
        scopes = frozenset({"livedocs:admin", "livedocs:platform"})
        holding = Holding((session,), 1, in_room=1, groups=frozenset({"staff", "union"}), scopes=scopes)
        return [(Process("p", "host", 1, ""), holding)], ()


@pytest.fixture
def sessions():
    return Connected()


@pytest.fixture
async def explained(start_api, sessions, mongo, deployment):
    grants = Grants(mongo, deployment.control_database)
    for subject, role in (("user:alice", Role.OWNER), ("group:staff", Role.READER), ("group:other", Role.WRITER)):
        grant = Grant(GrantKey("acme", ROOM, subject), role, None, "x", datetime.now(UTC))
        await grants.put(grant, Actor("system"))
    return await start_api(services={"sessions": sessions})


async def test_an_owner_learns_neither_the_groups_of_others_nor_whether_they_are_there(explained, sessions):
    alice = explained.someone("user:alice")
    path = f"/v1/grants/{ROOM}/explain?subject=user:bob"
    found = (await alice.get(path)).json
    assert found["groups"] == {"source": "unknown", "names": []}
    assert "sockets" not in found
    assert found["scopes"] == []
    assert [(rule["grant"]["subject"], rule["applies"]) for rule in found["rules"]] == [
        ("group:other", None),
        ("group:staff", None),
    ]
    assert (found["allowed"], found["reason"]) == (False, "no_grant")
    named = (await alice.get(f"{path}&group=staff")).json
    assert (named["allowed"], named["groups"]) == (True, {"source": "request", "names": ["staff"]})
    assert "sockets" not in named
    # Nor is another process asked on their behalf: by a flood of it nobody's administrator is held up.
    assert sessions.asked == 0


async def test_an_administrator_learns_both(explained, sessions):
    ada = explained.someone("user:ada", scope="livedocs:admin")
    found = (await ada.get(f"/v1/grants/{ROOM}/explain?subject=user:bob")).json
    assert (found["allowed"], found["role"]) == (True, "reader")
    assert found["groups"] == {"source": "sockets", "names": ["staff", "union"]}
    assert (found["sockets"]["in_room"], found["sockets"]["of_subject"]) == (1, 1)
    assert found["sockets"]["held"][0].keys() == {"subject", "since", "role", "sid", "address"}
    # Bob's, by his sockets; ada's own are not his.
    assert [scope["scope"] for scope in found["scopes"]] == ["livedocs:admin"]
    assert sessions.asked == 1


async def test_scopes_are_named_for_those_who_have_them_and_for_nobody_else(start_api):
    api = await start_api()
    path = f"/v1/grants/{ROOM}/explain?subject="
    for subject in ("user:ada", "client:crm"):
        found = (await api.someone(subject, scope="livedocs:admin").get(path + subject)).json
        assert [scope["scope"] for scope in found["scopes"]] == ["livedocs:admin"]
    ada = api.someone("user:ada", scope="livedocs:admin")
    for subject in ("user:bob", "client:crm", "group:staff"):
        assert (await ada.get(path + subject)).json["scopes"] == []


async def test_nobody_is_asked_for_whoever_may_not_be_told(explained, sessions):
    for who in (explained.someone("user:eve"), explained.service()):
        assert (await who.get(f"/v1/grants/{ROOM}/explain?subject=user:bob")).code == "forbidden"
    assert sessions.asked == 0


async def test_very_many_groups_are_explained_by_the_first_and_by_those_that_are_named(explained, control):
    uuid = uuid4()
    subjects = ["user:alice", *(f"group:{number:04}" for number in range(300))]
    await control["acl"].insert_many(
        {"_id": {"tenant": "acme", "uuid": uuid, "subject": subject}, "role": "owner"} for subject in subjects
    )
    alice = explained.someone("user:alice")
    found = (await alice.get(f"/v1/grants/{uuid}/explain?subject=user:bob&group=0299&group=none")).json
    assert (found["allowed"], found["role"], found["rules_complete"]) == (True, "owner", False)
    assert [rule["grant"]["subject"] for rule in found["rules"] if rule["applies"]] == ["group:0299"]
    assert len(found["rules"]) == 101
    short = (await alice.get(f"/v1/grants/{uuid}/explain?subject=group:0299")).json
    assert (short["rules_complete"], len(short["rules"])) == (True, 1)
    assert UUID(short["uuid"]) == uuid


async def test_more_groups_than_anybody_has_are_refused(explained):
    alice = explained.someone("user:alice")
    path = f"/v1/grants/{ROOM}/explain?subject=user:bob"
    assert (await alice.get(path + "&group=a" * 1000)).status == 200
    assert (await alice.get(path + "&group=a" * 1001)).code == "bad_request"
    assert (await alice.get(f"{path}&group=a%E2%80%AEb")).code == "invalid_subject"
