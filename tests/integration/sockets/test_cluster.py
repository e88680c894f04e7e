"""Administration of sockets that several server processes have: two real ones, one of them deaf at times."""

from __future__ import annotations

import asyncio
import os
import signal
from uuid import uuid4

import httpx
import pytest

from .test_administration import command, sessions, shared


@pytest.fixture(scope="module")
def other(start_server):
    return start_server()


@pytest.fixture(scope="module")
def control(mongo, deployment):
    return mongo[deployment.control_database]


@pytest.fixture
def deaf(other):
    """The other process stands still while the test runs, with its sockets open."""
    os.kill(other.pid, signal.SIGSTOP)
    yield other
    os.kill(other.pid, signal.SIGCONT)


@pytest.fixture
async def at(open_peer, other):
    """`at(other, "bob")` opens a socket at that process."""

    async def open_(server, user):
        return await open_peer(user, url=server.ws_url)

    return open_


async def joined(peer, uuid):
    assert uuid in (await peer.call("JoinRoom", [uuid]))["joined"]
    return peer


async def test_sessions_of_all_processes_are_listed_in_the_order_of_their_coming(at, api, server, other):
    peers = [await at(process, "alice") for process in (server, other, other, server, other)]
    seen, cursor = [], None
    while True:
        page = await sessions(api, subject="user:alice", limit=2, **({"cursor": cursor} if cursor else {}))
        assert (page["complete"], page["total"]) == (True, len(peers))
        assert {process["pid"] for process in page["processes"]} == {server.pid, other.pid}
        seen += page["sessions"]
        cursor = page["next"]
        if cursor is None:
            break
    pids = {process["process"]: process["pid"] for process in page["processes"]}
    assert [pids[found["process"]] for found in seen] == [
        server.pid,
        other.pid,
        other.pid,
        server.pid,
        other.pid,
    ]
    assert len({found["sid"] for found in seen}) == len(peers)


async def test_a_session_of_another_process_is_found_by_its_room_and_disconnected_for_good(
    at, api, server, other, control
):
    uuid = await shared(api)
    bob, kept = await joined(await at(other, "bob"), uuid), await joined(await at(server, "bob"), uuid)
    found = (await sessions(api, uuid=uuid))["sessions"]
    assert [(one["subject"], one["rooms"]) for one in found] == [
        ("user:bob", [{"uuid": uuid, "role": "reader"}])
    ] * 2
    assert (await api("ada").delete(f"/v1/admin/sessions/{found[0]['sid']}")).status_code == 204
    assert (await bob.expect("$goaway"))[0]["reason"] == "disconnected"
    await bob.until(bob.closed.is_set)
    assert (await kept.call("Check", 1)) == 1
    again = await api("ada").delete(f"/v1/admin/sessions/{found[0]['sid']}")
    assert (again.status_code, again.json()["code"]) == (404, "not_found")
    [entry] = control["audit"].find({"detail.sid": found[0]["sid"]})
    assert (entry["action"], entry["actor"], entry["subject"]) == ("session.disconnect", "user:ada", "user:bob")


async def test_everything_of_a_subject_is_disconnected_at_every_process_and_nothing_else(
    at, api, server, other, control
):
    ended = [await at(process, "bob") for process in (server, other, other)]
    kept = [await at(process, user) for process in (server, other) for user in ("alice", "carol")]
    answer = await api("ada").delete("/v1/admin/sessions", params={"subject": "user:bob"})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["disconnected"], len(told["sessions"]), told["applied"], told["pending"]) == (3, 3, True, [])
    for peer in ended:
        assert (await peer.expect("$goaway"))[0]["reason"] == "disconnected"
        await peer.until(peer.closed.is_set)
    for peer in kept:
        assert (await peer.call("Check", 1)) == 1
    [entry] = control["audit"].find({"action": "session.disconnect", "detail.sids": {"$size": 3}})
    assert (entry["subject"], sorted(entry["detail"]["sids"])) == (
        "user:bob",
        sorted(one["sid"] for one in told["sessions"]),
    )


@pytest.mark.parametrize("subject", ["group:staff", "tenant:*", "", "bob"])
async def test_only_users_and_services_are_disconnected_as_a_whole(api, subject):
    answer = await api("ada").delete("/v1/admin/sessions", params={"subject": subject})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_subject")


async def test_without_a_subject_nobody_is_disconnected(at, api, other):
    bob = await at(other, "bob")
    assert (await api("ada").delete("/v1/admin/sessions")).status_code == 400
    assert (await bob.call("Check", 1)) == 1


async def test_sessions_of_another_tenant_are_neither_seen_nor_ended_at_another_process(at, api, other):
    carol = await at(other, "carol")
    assert (await sessions(api, subject="user:carol"))["sessions"] == []
    told = (await api("ada").delete("/v1/admin/sessions", params={"subject": "user:carol"})).json()
    assert told["disconnected"] == 0
    assert (await carol.call("Check", 1)) == 1


async def test_an_explanation_counts_the_sockets_of_every_process_and_takes_their_groups(at, api, server, other):
    uuid = await shared(api, subject="group:staff", role="writer")
    await joined(await at(other, "bob"), uuid)
    await joined(await at(server, "alice"), uuid)
    found = (await api("ada").get(f"/v1/grants/{uuid}/explain", params={"subject": "user:bob"})).json()
    assert found["groups"] == {"source": "sockets", "names": ["staff"]}
    sockets = found["sockets"]
    assert (sockets["in_room"], sockets["of_subject"], sockets["complete"]) == (2, 1, True)
    assert [(held["subject"], held["role"]) for held in sockets["held"]] == [("user:bob", "writer")]


async def test_a_flood_of_lists_leaves_a_disconnection_its_turn(at, api, server, other):
    bob = await at(other, "bob")
    flood = [asyncio.create_task(api("ada").get("/v1/admin/sessions")) for _ in range(60)]
    await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    told = (await api("ada").delete("/v1/admin/sessions", params={"subject": "user:bob"})).json()
    assert (told["disconnected"], told["applied"]) == (1, True)
    await bob.until(bob.closed.is_set)
    assert {answer.status_code for answer in await asyncio.gather(*flood)} <= {200, 429, 503}


async def test_what_was_asked_is_not_kept(api, control, other):
    assert (await sessions(api))["complete"] is True
    assert (control["inquiries"].count_documents({}), control["answers"].count_documents({})) == (0, 0)


async def test_a_process_that_does_not_answer_is_named_and_does_what_it_was_told_when_it_reads_on(
    at, api, server, other, control
):
    mine, theirs = await at(server, "bob"), await at(other, "bob")
    alices = await at(other, "alice")
    [sid] = [one["sid"] for one in (await sessions(api, subject="user:alice"))["sessions"]]
    os.kill(other.pid, signal.SIGSTOP)
    try:
        listed, by_subject, by_sid = await asyncio.gather(
            sessions(api),
            api("ada").delete("/v1/admin/sessions", params={"subject": "user:bob"}),
            api("ada").delete(f"/v1/admin/sessions/{sid}"),
        )
        assert listed["complete"] is False
        answered = {process["pid"]: process["answered"] for process in listed["processes"]}
        assert answered == {server.pid: True, other.pid: False}
        told = by_subject.json()
        assert (by_subject.status_code, told["disconnected"], told["applied"]) == (200, 1, False)
        assert [process["pid"] for process in told["pending"]] == [other.pid]
        refused = by_sid.json()
        assert (by_sid.status_code, refused["code"]) == (503, "unavailable")
        assert refused["pending"] == [told["pending"][0]["process"]]
        assert (await mine.expect("$goaway"))[0]["reason"] == "disconnected"
    finally:
        os.kill(other.pid, signal.SIGCONT)
    for peer in (theirs, alices):
        assert (await peer.expect("$goaway"))[0]["reason"] == "disconnected"
        await peer.until(peer.closed.is_set)
    entries = control["audit"].find({"detail.pending": refused["pending"][0]})
    assert sorted((entry.get("subject") or "", entry["action"]) for entry in entries) == [
        ("", "session.disconnect"),
        ("user:bob", "session.disconnect"),
    ]


async def test_the_command_says_which_process_did_not_answer(at, server, deaf):
    await at(server, "bob")
    # One after the other: whoever is disconnected is not listed.
    listed = await command(server, "list", "--subject", "user:bob")
    done = await command(server, "disconnect", "--subject", "user:bob")
    assert (listed.returncode, done.returncode) == (os.EX_TEMPFAIL, os.EX_TEMPFAIL)
    assert listed.stdout.count("user:bob") == 1
    assert f"process {deaf.pid} on " in listed.stderr
    assert "did not answer: its sessions are missing" in listed.stderr
    assert "did not answer: it has not confirmed yet" in done.stderr


async def test_a_logout_ends_the_sockets_of_that_login_at_every_process(open_peer, server, other, control):
    def browser(process, token, login):
        return {"Cookie": f"livedocs_token={token}; livedocs_session={login}", "Origin": process.url}

    older, newer = server.token("alice"), server.token("alice")
    ended = [
        await open_peer(None, url=process.ws_url, headers=browser(process, token, "a"))
        for process, token in ((other, older), (other, newer), (server, older))
    ]
    kept = await open_peer(None, url=other.ws_url, headers=browser(other, server.token("alice"), "b"))
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        headers = browser(server, newer, "a") | {"X-Requested-With": "test"}
        assert (await client.post("/auth/logout", headers=headers)).status_code == 200
    # At once: the next introspection is half a minute away.
    async with asyncio.timeout(5):
        for peer in ended:
            assert (await peer.expect("$goaway"))[0]["reason"] == "logout"
    assert (await kept.call("Check", 1)) == 1
    async with asyncio.timeout(5):
        while control["inquiries"].count_documents({}):
            await asyncio.sleep(0.02)


async def test_a_process_that_is_dead_is_named_until_its_lease_has_run_out(start_server, api):
    third = start_server()
    assert (await sessions(api))["complete"] is True
    third.kill()
    listed = await sessions(api)
    assert [process["pid"] for process in listed["processes"] if not process["answered"]] == [third.pid]
    async with asyncio.timeout(20):
        while not listed["complete"]:
            listed = await sessions(api)
    assert third.pid not in {process["pid"] for process in listed["processes"]}


@pytest.fixture
async def follows(at, other, acme, grant):
    """`follows()` says whether a socket of the other process gets what is written now, and nothing before it."""
    uuid = uuid4()
    grant(uuid, "user:bob")
    bob = await joined(await at(other, "bob"), str(uuid))

    async def follow():
        acme["notes"].insert_one({"_id": uuid, "title": "now"})
        return (await bob.expect("notes"))[0]["title"] == "now"

    return follow


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"by": "x", "question": {"kind": "listing", "tenant": "acme", "unheard": 1}},
        {"by": 1, "question": {"kind": "disconnection", "tenant": 5}},
        {"by": "x", "question": {"kind": "disconnection", "tenant": "acme", "sid": None, "subject": None}},
        {"by": "x", "question": "disconnection"},
    ],
    ids=["empty", "of a later version", "no types", "of nobody", "no question"],
)
async def test_a_question_that_makes_no_sense_ends_nothing_and_loses_nothing(follows, api, control, question):
    control["inquiries"].insert_one(dict(question))
    assert await follows()
    assert (await sessions(api))["complete"] is True
