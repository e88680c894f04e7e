"""Every code of the reference is provoked here, and compared as the answer brings it.

The tests are made from the tree of errors: a code that nobody provokes has a failing test. Nothing is listed as
having been seen; what is compared is what came over the wire.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pymongo import AsyncMongoClient, MongoClient
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from livedocs import errors
from livedocs.errors import LivedocsError
from livedocs.store.documents import Documents

WITHIN = 15


def every_error(kind: type[LivedocsError] = LivedocsError):
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from every_error(child)


@dataclass(frozen=True)
class Seen:
    """A refusal as it came: with HTTP its status and problem body, on a socket its code alone."""

    code: str
    status: int | None = None
    problem: dict[str, Any] | None = None
    retry_after: str | None = None


def over_http(answer: Any) -> Seen:
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = json.loads(answer.body if hasattr(answer, "body") else answer.content)
    status = getattr(answer, "status_code", None) or answer.status
    return Seen(body["code"], status, body, answer.headers.get("Retry-After"))


class Door:
    """Everybody's way to the servers."""

    def __init__(self, server, start_server, start_api, deployment):
        self.server = server
        self.start_server = start_server
        self.start_api = start_api
        self.deployment = deployment
        self.client = httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=WITHIN)

    async def ask(self, method: str, path: str, user: str | None = "alice", **options: Any) -> httpx.Response:
        """A request of somebody's; `headers` come on top of their token."""
        token = {"Authorization": f"Bearer {self.server.token(user)}"} if user else {}
        headers = token | options.pop("headers", {})
        return await self.client.request(method, path, headers=headers, **options)

    async def refused(self, method: str, path: str, user: str | None = "alice", **options: Any) -> Seen:
        return over_http(await self.ask(method, path, user, **options))

    async def document(self, **fields: Any) -> str:
        """The path of a new document of alice's."""
        made = await self.ask("POST", "/v1/docs/notes", json=fields)
        assert made.status_code == 201, made.text
        return made.headers["Location"]

    async def handshake(self, **headers: str) -> Seen:
        """The HTTP answer to a handshake that is not accepted."""
        with pytest.raises(InvalidStatus) as refused:
            await connect(self.server.ws_url, additional_headers=headers, proxy=None)
        return over_http(refused.value.response)

    async def socket(self, server: Any, *packets: str) -> str:
        """The last answer on a socket of alice's, one for each packet."""
        headers = {"Authorization": f"Bearer {server.token('alice')}"}
        async with (
            asyncio.timeout(WITHIN),
            connect(server.ws_url, additional_headers=headers, proxy=None) as socket,
        ):
            text = str(await socket.recv())
            for packet in packets:
                await socket.send(packet)
                text = str(await socket.recv())
        return text


Provocation = Callable[[Door], Awaitable[Seen]]
PROVOKED: dict[type[LivedocsError], Provocation] = {}


def provokes(kind: type[LivedocsError]) -> Callable[[Provocation], Provocation]:
    def keep(provocation: Provocation) -> Provocation:
        PROVOKED[kind] = provocation
        return provocation

    return keep


@pytest.fixture
async def door(server, start_server, start_api, deployment):
    opened = Door(server, start_server, start_api, deployment)
    yield opened
    await opened.client.aclose()


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.code)
async def test_the_code_is_what_comes_when_it_is_provoked(door, kind):
    seen = await PROVOKED[kind](door)
    if seen.status is None:
        assert seen.code == kind.on_socket()
        return
    assert (seen.code, seen.status) == (kind.code, kind.status)
    assert seen.problem.keys() >= {"type", "title", "status", "detail", "code"}
    assert (seen.problem["title"], seen.problem["status"]) == (kind.title, kind.status)
    if kind is errors.RateLimited:
        assert int(seen.retry_after) >= 1


# -- requests that are not what the interface describes --


@provokes(errors.BadRequest)
async def bad_request(door):
    return await door.refused("GET", "/v1/me/documents?limit=0")


@provokes(errors.InvalidJson)
async def invalid_json(door):
    headers = {"Content-Type": "application/json"}
    return await door.refused("POST", "/v1/docs/notes", content=b'{"a": ', headers=headers)


@provokes(errors.InvalidUuid)
async def invalid_uuid(door):
    return await door.refused("GET", "/v1/docs/notes/1")


@provokes(errors.InvalidSubject)
async def invalid_subject(door):
    return await door.refused("PUT", f"/v1/grants/{uuid4()}/bob", json={"role": "reader"})


@provokes(errors.InvalidCursor)
async def invalid_cursor(door):
    return await door.refused("GET", "/v1/me/documents?cursor=x")


@provokes(errors.MethodNotAllowed)
async def method_not_allowed(door):
    return await door.refused("DELETE", "/v1/me")


@provokes(errors.UnsupportedMediaType)
async def unsupported_media_type(door):
    headers = {"Content-Type": "text/plain"}
    return await door.refused("POST", "/v1/docs/notes", content=b"{}", headers=headers)


@provokes(errors.PayloadTooLarge)
async def payload_too_large(door):
    headers = {"Content-Type": "application/json"}
    return await door.refused("POST", "/v1/docs/notes", content=b" " * 2**22, headers=headers)


# -- credentials --


@provokes(errors.MultipleCredentials)
async def multiple_credentials(door):
    return await door.refused("GET", "/v1/me", headers={"Cookie": "livedocs_token=a"})


@provokes(errors.DuplicateCookie)
async def duplicate_cookie(door):
    return await door.refused("GET", "/v1/me", None, headers={"Cookie": "livedocs_token=a; livedocs_token=b"})


@provokes(errors.TokenTooLarge)
async def token_too_large(door):
    return await door.refused("GET", "/v1/me", None, headers={"Authorization": "Bearer " + "x" * 4097})


@provokes(errors.LoginFailed)
async def login_failed(door):
    return await door.refused("GET", "/auth/callback?code=x&state=y", None)


@provokes(errors.Unauthenticated)
async def unauthenticated(door):
    return await door.refused("GET", "/v1/me", None)


@provokes(errors.InvalidToken)
async def invalid_token(door):
    return await door.refused("GET", "/v1/me", None, headers={"Authorization": "Bearer nonsense"})


@provokes(errors.InsufficientScope)
async def insufficient_scope(door):
    return await door.refused("GET", "/v1/admin/audit")


@provokes(errors.ForbiddenOrigin)
async def forbidden_origin(door):
    cookie = f"livedocs_token={door.server.token('alice')}"
    return await door.handshake(Cookie=cookie, Origin="https://evil.example")


@provokes(errors.CsrfRejected)
async def csrf(door):
    cookie = {"Cookie": f"livedocs_token={door.server.token('alice')}"}
    return await door.refused("POST", "/v1/docs/notes", None, json={}, headers=cookie)


@provokes(errors.AuthUnavailable)
async def auth_unavailable(door):
    # Made before the service fails, and not seen by the server until then.
    token = {"Authorization": f"Bearer {door.server.token('alice')}"}
    async with httpx.AsyncClient(base_url=door.deployment.oauth.issuer, trust_env=False) as provider:
        await provider.post("/dev/faults", json={"introspection": "error"})
        try:
            return await door.refused("GET", "/v1/me", None, headers=token)
        finally:
            await provider.delete("/dev/faults")


# -- tenants --


async def carol_once(door, *, is_in):
    """What carol is told as soon as a change of her tenant has reached the server."""
    async with asyncio.timeout(WITHIN):
        while ((answer := await door.ask("GET", "/v1/me", "carol")).status_code == 200) is not is_in:
            await asyncio.sleep(0.05)
    return answer


@provokes(errors.TenantSuspended)
async def tenant_suspended(door):
    await door.ask("POST", "/v1/admin/tenants/globex:suspend", "acme-operator")
    try:
        return over_http(await carol_once(door, is_in=False))
    finally:
        await door.ask("POST", "/v1/admin/tenants/globex:resume", "acme-operator")
        await carol_once(door, is_in=True)


@provokes(errors.TenantUnknown)
async def unknown_tenant(door):
    with MongoClient(door.deployment.uri) as client:
        tenants = client[door.deployment.control_database].tenants
        globex = tenants.find_one_and_delete({"_id": "globex"})
        try:
            return over_http(await carol_once(door, is_in=False))
        finally:
            tenants.insert_one(globex)
            await carol_once(door, is_in=True)


# -- documents and grants --


@provokes(errors.Forbidden)
async def forbidden(door):
    return await door.refused("GET", await door.document(), "bob")


@provokes(errors.NotFound)
async def not_found(door):
    path = await door.document()
    return await door.refused("GET", path.replace("/notes/", "/test/"))


@provokes(errors.UnknownCollection)
async def unknown_collection(door):
    return await door.refused("GET", f"/v1/docs/nowhere/{uuid4()}")


@provokes(errors.Conflict)
async def conflict(door):
    uuid = str(uuid4())
    await door.document(uuid=uuid)
    return await door.refused("POST", "/v1/docs/notes", json={"uuid": uuid})


@provokes(errors.Ambiguous)
async def ambiguous(door):
    uuid = str(uuid4())
    assert (await door.ask("POST", "/v1/docs/test", json={"uuid": uuid})).status_code == 201
    with MongoClient(door.deployment.uri, uuidRepresentation="standard") as client:
        client[door.deployment.databases["acme"]].test.insert_one({"uuid": UUID(uuid)})
    return await door.refused("GET", f"/v1/docs/test/{uuid}")


@provokes(errors.PreconditionFailed)
async def precondition_failed(door):
    path = await door.document()
    return await door.refused("PUT", path, json={}, headers={"If-Match": '"another"'})


@provokes(errors.DocumentTooLarge)
async def document_too_large(door):
    return await door.refused("POST", "/v1/docs/notes", json={"text": "x" * 2**20})


@provokes(errors.InvalidDocument)
async def invalid_document(door):
    with MongoClient(door.deployment.uri) as client:
        database = client[door.deployment.databases["globex"]]
        database.command("collMod", "notes", validator={"n": {"$type": "int"}})
        try:
            return await door.refused("POST", "/v1/docs/notes", "carol", json={"n": "text"})
        finally:
            database.command("collMod", "notes", validator={})


@provokes(errors.UnsuitableCollection)
async def unsuitable_collection(door):
    with MongoClient(door.deployment.uri) as client:
        database = client[door.deployment.databases["globex"]]
        database.create_collection("seen", viewOn="notes", pipeline=[])
        try:
            path = "/v1/admin/tenants/globex/collections/seen"
            return await door.refused("PUT", path, "acme-operator", json={"key": "_id"})
        finally:
            database.drop_collection("seen")


@provokes(errors.InvalidField)
async def invalid_field(door):
    return await door.refused("POST", "/v1/docs/notes", json={"a": {"$where": 1}})


@provokes(errors.TooDeep)
async def too_deep(door):
    body: dict[str, Any] = {}
    for _ in range(40):
        body = {"a": body}
    return await door.refused("POST", "/v1/docs/notes", json=body)


@provokes(errors.InvalidGrant)
async def invalid_grant(door):
    body = {"role": "reader", "expires_at": "2001-01-01T00:00:00Z"}
    return await door.refused("PUT", f"/v1/grants/{uuid4()}/user:bob", json=body)


@provokes(errors.InvalidRole)
async def invalid_role(door):
    return await door.refused("PUT", f"/v1/grants/{uuid4()}/user:bob", json={"role": "king"})


@provokes(errors.TooManyGrants)
async def too_many_grants(door):
    grants = [{"subject": f"user:{number}", "role": "reader"} for number in range(101)]
    answer = await door.ask("POST", "/v1/docs/notes:bulk", json={"items": [{"document": {}, "grants": grants}]})
    # An item's refusal is a result, with the members that a problem body has but for those of every refusal.
    [result] = answer.json()["results"]
    return Seen(result["code"], result["status"], {"type": "", "title": errors.TooManyGrants.title, **result})


@provokes(errors.IdempotencyKeyReused)
async def idempotency_key_reused(door):
    key = {"Idempotency-Key": str(uuid4())}
    for number in (1, 2):
        answer = await door.ask("POST", "/v1/docs/notes", json={"n": number}, headers=key)
    return over_http(answer)


# -- limits --


@provokes(errors.RateLimited)
async def rate_limited(door):
    strict = door.start_server(limit_requests_per_user=0.05, limit_burst=60)
    headers = {"Authorization": f"Bearer {strict.token('alice')}"}
    async with httpx.AsyncClient(base_url=strict.url, trust_env=False) as client:
        while (answer := await client.get("/v1/me", headers=headers)).status_code == 200:
            pass
    return over_http(answer)


@provokes(errors.AnswerTooLarge)
async def answer_too_large(door):
    small = door.start_server(max_answer_bytes=2**20)
    uuids = [(await door.document(filler="x" * 700_000)).rpartition("/")[2] for _ in range(2)]
    text = await door.socket(small, "40", "421" + json.dumps(["JoinRoom", uuids, {"snapshot": True}]))
    [answer] = json.loads(text.removeprefix("431"))
    # The first one is in it.
    [code] = {refused["code"] for refused in answer["refused"].values()}
    return Seen(code)


@provokes(errors.TooManyBytes)
async def too_many_bytes(door):
    small = door.start_server(max_bytes_in_flight_per_user=2**20)
    headers = {"Authorization": f"Bearer {small.token('alice')}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=small.url, trust_env=False) as client:
        body = b'{"a":"' + b"x" * 2**20 + b'"}'
        return over_http(await client.post("/v1/docs/notes", content=body, headers=headers))


@provokes(errors.TooManyRooms)
async def too_many_rooms(door):
    uuids = [str(uuid4()) for _ in range(101)]
    text = await door.socket(door.server, "40", "421" + json.dumps(["JoinRoom", uuids]))
    [answer] = json.loads(text.removeprefix("431"))
    [code] = {refused["code"] for refused in answer["refused"].values()}
    return Seen(code)


@provokes(errors.TooManyConnections)
async def too_many_connections(door):
    small = door.start_server(max_sockets_per_user=1)
    headers = {"Authorization": f"Bearer {small.token('alice')}"}
    async with connect(small.ws_url, additional_headers=headers, proxy=None) as first:
        await first.recv()
        await first.send("40")
        await first.recv()
        text = await door.socket(small, "40")
    return Seen(json.loads(text.removeprefix("44"))["data"]["code"])


# -- what is nobody's fault outside: the application in this process, with a part of it out of order --


@provokes(errors.Unavailable)
async def unavailable(door):
    # Which does not let the server in: a fault that can be had at once.
    gone = AsyncMongoClient(door.deployment.uri, username="nobody", password="wrong")
    try:
        api = await door.start_api(services={"documents": Documents(gone, "nowhere")})
        return over_http(await api.someone().get(f"/v1/docs/notes/{uuid4()}"))
    finally:
        await gone.close()


@provokes(LivedocsError)
async def internal(door):
    class Broken:
        async def read(self, *_: Any) -> None:
            raise ZeroDivisionError

    api = await door.start_api(services={"documents": Broken()})
    return over_http(await api.someone().get(f"/v1/docs/notes/{uuid4()}"))
