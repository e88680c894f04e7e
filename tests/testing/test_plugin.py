"""The pytest plugin for tenants' own contract tests, used as they would use it."""

from __future__ import annotations

import time
import uuid

import httpx
import pytest
from bson import Binary


@pytest.fixture
def service(livedocs_server):
    return livedocs_server.http(livedocs_server.oauth.service("orders"))


@pytest.fixture
def admin(livedocs_server):
    return livedocs_server.http(livedocs_server.oauth.person("ada", scopes=["livedocs:admin"]))


@pytest.fixture
def note(service):
    """A document that alice may read."""
    made = uuid.uuid4()
    grants = [{"subject": "user:alice", "role": "reader"}]
    item = {"uuid": str(made), "document": {"title": "first"}, "grants": grants}
    assert service.post("/v1/docs/notes:bulk", json={"items": [item]}).json()["failed"] == 0
    return made


async def test_alice_sees_it_and_bob_does_not_and_after_the_revoke_alice_does_not_either(
    livedocs_sockets, service, admin, note
):
    alice, bob = await livedocs_sockets.connect("alice"), await livedocs_sockets.connect("bob")
    joined = await alice.join(note)
    assert joined.documents["notes"][0]["title"] == "first"
    await bob.join_refused(note)

    service.patch(f"/v1/docs/notes/{note}", json={"title": "second"})
    await livedocs_sockets.expect("notes", {"title": "second"}, op="update", seen_by=[alice], unseen_by=[bob])

    assert admin.delete(f"/v1/grants/{note}/user:alice").status_code == 204
    await alice.expect("$revoked", {"uuid": note})
    service.patch(f"/v1/docs/notes/{note}", json={"title": "third"})
    await livedocs_sockets.expect("notes", unseen_by=[alice, bob])
    await alice.join_refused(note)


def test_a_test_that_is_no_coroutine_does_the_same(livedocs_blocking_sockets, service, note):
    alice, bob = livedocs_blocking_sockets.connect("alice"), livedocs_blocking_sockets.connect("bob")
    alice.join(note)
    bob.join_refused(note)
    service.patch(f"/v1/docs/notes/{note}", json={"title": "second"})
    livedocs_blocking_sockets.expect("notes", {"title": "second"}, seen_by=[alice], unseen_by=[bob])
    alice.leave(note)
    service.patch(f"/v1/docs/notes/{note}", json={"title": "third"})
    alice.expect_nothing()
    assert alice.call("Check", "x") == "x"
    alice.close()


async def test_what_was_shown_is_not_overlooked_by_nothing(livedocs_sockets, service, note):
    """However little time has passed: the barrier waits until what is on its way has arrived."""
    alice = await livedocs_sockets.connect("alice")
    await alice.join(note)
    for number in range(20):
        service.patch(f"/v1/docs/notes/{note}", json={"n": number})
        with pytest.raises(AssertionError, match=rf"(?s)alice was to be shown nothing.*'n': {number}\}}"):
            await alice.expect_nothing()
        await alice.expect("notes", {"n": number})
        await alice.expect_nothing()


async def test_a_wrong_event_a_wrong_field_and_a_wrong_operation_fail_with_what_came(
    livedocs_sockets, service, note
):
    alice = await livedocs_sockets.connect("alice")
    await alice.join(note)
    for wrong in (("other", None, None), ("notes", {"title": "x"}, None), ("notes", None, "delete")):
        service.patch(f"/v1/docs/notes/{note}", json={"title": str(uuid.uuid4())})
        name, data, op = wrong
        with pytest.raises(AssertionError, match=rf"alice was to be shown {name}.* next\n  but was shown notes"):
            await alice.expect(name, data, op=op)
    with pytest.raises(AssertionError, match=r"alice was not shown notes within 0\.05 s"):
        await alice.expect("notes", within=0.05)


async def test_a_room_that_was_not_to_be_entered_fails_and_so_does_one_that_was(livedocs_sockets, note):
    alice, bob = await livedocs_sockets.connect("alice"), await livedocs_sockets.connect("bob")
    with pytest.raises(AssertionError, match=r"alice was let into .* as reader"):
        await alice.join_refused(note)
    with pytest.raises(AssertionError, match=r"bob was not let into .*: forbidden"):
        await bob.join(note)
    with pytest.raises(AssertionError, match="with 'unavailable', not with 'forbidden'"):
        await bob.join_refused(note, "unavailable")


async def test_a_socket_goes_on_from_a_cursor(livedocs_sockets, service, note):
    alice = await livedocs_sockets.connect("alice")
    joined = await alice.join(note)
    await alice.close()
    service.patch(f"/v1/docs/notes/{note}", json={"title": "second"})
    alice = await livedocs_sockets.connect("alice")
    await alice.join(note, since=joined.cursor)
    await alice.expect("notes", {"title": "second"})


async def test_a_revoked_token_ends_its_socket_and_another_person_stays(livedocs_server, livedocs_sockets, note):
    alice, bob = await livedocs_sockets.connect("alice"), await livedocs_sockets.connect("bob")
    livedocs_server.oauth.revoke(alice.token)
    await alice.expect_closed("token_revoked")
    with pytest.raises(AssertionError, match="bob is still connected"):
        await bob.expect_closed(within=0.05)
    with pytest.raises(AssertionError, match="alice cannot connect: unauthenticated"):
        await livedocs_sockets.connect("alice", token=alice.token)
    with pytest.raises(AssertionError, match="with 'expired', not with 'token_revoked'"):
        await alice.expect_closed("expired")


async def test_a_token_expires_when_a_test_says_so_or_by_itself(livedocs_server, livedocs_sockets):
    oauth = livedocs_server.oauth
    alice = await livedocs_sockets.connect("alice")
    oauth.expire(alice.token)
    await alice.expect_closed("token_revoked")
    bob = await livedocs_sockets.connect("bob", token=oauth.token("bob", ttl=2))
    await bob.expect("$expiring")
    await bob.expect_closed("expired")


async def test_a_group_takes_its_rooms_along(livedocs_server, livedocs_sockets, admin, note):
    assert admin.put(f"/v1/grants/{note}/group:staff", json={"role": "reader"}).status_code == 201
    bob = await livedocs_sockets.connect(livedocs_server.oauth.person("bob", groups=["staff"]))
    await bob.join(note)
    livedocs_server.oauth.set_groups("bob", [])
    await bob.expect("$revoked", {"uuid": note})


async def test_an_unreachable_oauth_service_lets_nobody_in(livedocs_server, livedocs_sockets):
    livedocs_server.oauth.fail()
    with pytest.raises(AssertionError, match="alice cannot connect: auth_unavailable"):
        await livedocs_sockets.connect("alice")
    livedocs_server.oauth.recover()


def test_a_service_asks_for_its_token_itself_and_may_not_have_more_than_it_has(livedocs_server):
    oauth = livedocs_server.oauth
    secret = oauth.client(oauth.service("orders"))
    ask = {"grant_type": "client_credentials"}
    told = httpx.post(f"{oauth.issuer}/token", data=ask, auth=("orders", secret)).json()
    headers = {"Authorization": f"Bearer {told['access_token']}"}
    assert httpx.get(f"{livedocs_server.url}/v1/me", headers=headers).json()["subject"] == "client:orders"
    assert httpx.post(f"{oauth.issuer}/token", data=ask, auth=("orders", "wrong")).status_code == 401
    more = {**ask, "scope": "livedocs:admin"}
    answer = httpx.post(f"{oauth.issuer}/token", data=more, auth=("orders", secret))
    assert answer.json() == {"error": "invalid_scope"}
    assert (
        httpx.post(f"{oauth.issuer}/introspect", data={"token": "x"}, auth=("orders", secret)).status_code == 401
    )
    oauth.revoke_all(oauth.service("orders"))
    assert httpx.get(f"{livedocs_server.url}/v1/me", headers=headers).status_code == 401


def test_other_requests_pass_the_mocked_service_by(livedocs_oauth_mock, livedocs_server):
    assert httpx.get(f"{livedocs_server.url}/healthz").json() == {"status": "ok"}


def test_the_mocked_service_answers_httpx_without_a_network(livedocs_oauth_mock):
    found = httpx.get(f"{livedocs_oauth_mock.issuer}/.well-known/openid-configuration").json()
    assert found["issuer"] == livedocs_oauth_mock.issuer
    secret = livedocs_oauth_mock.client(livedocs_oauth_mock.service("orders"))
    ask = {"grant_type": "client_credentials", "client_id": "orders", "client_secret": secret}
    token = httpx.post(found["token_endpoint"], data=ask).json()["access_token"]

    def active():
        credentials = ("livedocs", livedocs_oauth_mock.server_secret)
        answer = httpx.post(found["introspection_endpoint"], data={"token": token}, auth=credentials)
        return answer.json()["active"]

    assert active()
    httpx.post(found["revocation_endpoint"], data={"token": token})
    assert not active()
    token = livedocs_oauth_mock.token("alice")
    assert active()
    livedocs_oauth_mock.expire(token)
    assert not active()


@pytest.mark.parametrize("turn", [1, 2])
def test_nothing_of_another_test_is_left(livedocs_server, service, admin, turn):
    """The same UUID in both turns: a document or a grant that stayed would show."""
    made = uuid.UUID("00000000-0000-4000-8000-000000000001")
    fields = {"uuid": str(made), "n": 1}
    assert service.post("/v1/docs/notes", json=fields, headers={"Idempotency-Key": "k"}).status_code == 201
    assert [grant["subject"] for grant in admin.get(f"/v1/grants/{made}").json()["grants"]] == ["client:orders"]
    actors = {entry["actor"] for entry in admin.get("/v1/admin/audit").json()["entries"]}
    assert actors == {"client:orders"}
    listed = service.get("/v1/me/documents").json()["documents"]
    assert [one["uuid"] for one in listed] == [str(made)]
    admin.put(f"/v1/grants/{made}/user:bob", json={"role": "reader"}).raise_for_status()


def test_resetting_takes_no_more_than_a_moment(livedocs_server, service):
    """Twenty milliseconds when nobody else is at work on the machine; a start of everything takes seconds."""
    for _ in range(3):
        service.post("/v1/docs/notes", json={"n": 1})
    began = time.perf_counter()
    livedocs_server.reset()
    assert time.perf_counter() - began < 1
    assert livedocs_server.database().notes.count_documents({}) == 0


async def test_what_any_driver_writes_is_seen_as_well(livedocs_server, livedocs_sockets, note):
    alice = await livedocs_sockets.connect("alice")
    await alice.join(note)
    livedocs_server.database().notes.update_one({"_id": Binary.from_uuid(note)}, {"$set": {"by": "driver"}})
    seen = await alice.expect("notes", {"by": "driver", "uuid": note})
    assert seen.meta["op"] == "update"
