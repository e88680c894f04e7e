"""Nobody learns which UUIDs exist: what is unknown and what is somebody else's differ in nothing that can be seen.

For every route of the application, so that a new one has to be thought about: in the whole answer, and in the
commands that MongoDB is sent, by name and collection and in their order.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandListener

from livedocs.model import Grant, GrantKey, Role
from livedocs.store.audit import Actor
from livedocs.store.batches import Batches
from livedocs.store.connection import _options
from livedocs.store.documents import Documents
from livedocs.store.grants import Grants
from livedocs.store.idempotency import IdempotencyKeys

NDJSON = "application/x-ndjson"
MERGE_PATCH = "application/merge-patch+json"
GRANT = {"subject": "user:eve", "role": "reader"}


@dataclass(frozen=True)
class Try:
    """A request about a UUID. `creates` says that it makes a document where the UUID is nobody's."""

    path: str
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    creates: bool = False


def bulk(*, creates=False, **item):
    return Try("/v1/docs/notes:bulk", {"items": [{"uuid": "UUID", "document": {"a": 1}, **item}]}, creates=creates)


def imported(*, creates=False, **item):
    line = {"uuid": "UUID", "document": {"a": 1}, **item}
    return Try("/v1/docs/notes:import", line, (("Content-Type", NDJSON),), creates)


IF_MATCH, IF_NONE_MATCH = ("If-Match", '"x"'), ("If-None-Match", "*")
DOCUMENT, GRANTS, SUBJECT = "/v1/docs/notes/UUID", "/v1/grants/UUID", "/v1/grants/UUID/user:alice"
READS = [Try(DOCUMENT), Try(DOCUMENT, headers=(IF_MATCH,)), Try(DOCUMENT, headers=(("If-None-Match", '"x"'),))]
WRITES = [
    Try(DOCUMENT, {"a": 1}, (IF_MATCH,)),
    Try(DOCUMENT, {"a": 1}, (("If-Match", "*"),)),
    Try(DOCUMENT, {"a": 1}, (IF_MATCH, IF_NONE_MATCH)),
    Try(DOCUMENT, {"$a": 1}),
    Try(DOCUMENT, {"$a": 1}, (IF_MATCH,)),
    Try(DOCUMENT, {"a": 1}, (("If-Match", "nonsense"),)),
    Try(DOCUMENT, {"a": 1}, creates=True),
    Try(DOCUMENT, {"a": 1}, (IF_NONE_MATCH,), creates=True),
]

TRIED: dict[tuple[str, str], list[Try]] = {
    ("GET", "/v1/docs/<collection>/<uuid>"): READS,
    ("HEAD", "/v1/docs/<collection>/<uuid>"): READS,
    ("PUT", "/v1/docs/<collection>/<uuid>"): WRITES,
    ("PATCH", "/v1/docs/<collection>/<uuid>"): [
        *WRITES,
        Try(DOCUMENT, {"a": None}, (IF_MATCH, ("Content-Type", MERGE_PATCH))),
    ],
    ("DELETE", "/v1/docs/<collection>/<uuid>"): [Try(DOCUMENT), Try(DOCUMENT, headers=(IF_MATCH,))],
    ("POST", "/v1/docs/<collection>"): [
        Try("/v1/docs/notes", {"uuid": "UUID", "$a": 1}),
        Try("/v1/docs/notes", {"uuid": "UUID", "a": 1}, creates=True),
        Try("/v1/docs/notes", {"uuid": "UUID", "a": 1}, (("Idempotency-Key", "KEY"),), creates=True),
    ],
    ("POST", "/v1/docs/<collection>:bulk"): [
        bulk(if_match='"x"'),
        bulk(if_match="*", grants=[GRANT]),
        bulk(if_match="*", mode="merge"),
        bulk(document={"$a": 1}),
        bulk(document={"a.b": 1}, mode="merge"),
        bulk(document={"_id": 1}),
        bulk(document={"o": {"$ref": "x", "$id": None}}, mode="merge"),
        bulk(grants=[{**GRANT, "subject": "SELF"}]),
        bulk(creates=True),
        bulk(creates=True, mode="merge", grants=[GRANT]),
        bulk(creates=True, if_none_match="*"),
    ],
    ("POST", "/v1/docs/<collection>:import"): [
        imported(if_match='"x"'),
        imported(if_match="*", grants=[GRANT]),
        imported(document={"$a": 1}),
        imported(document={"_id": 1}),
        imported(creates=True, grants=[GRANT]),
    ],
    ("GET", "/v1/grants/<uuid>"): [
        Try(GRANTS),
        Try(f"{GRANTS}?limit=1"),
        Try(GRANTS, headers=(("If-None-Match", '"x"'),)),
    ],
    ("HEAD", "/v1/grants/<uuid>"): [Try(GRANTS)],
    ("GET", "/v1/grants/<uuid>/explain"): [
        Try(f"{GRANTS}/explain?subject=user:alice"),
        Try(f"{GRANTS}/explain?subject=user:eve&group=staff"),
    ],
    ("HEAD", "/v1/grants/<uuid>/explain"): [Try(f"{GRANTS}/explain?subject=user:alice")],
    ("PUT", "/v1/grants/<uuid>/<path:subject>"): [
        Try(SUBJECT, {"role": "owner"}),
        Try(f"{GRANTS}/user:eve", {"role": "owner"}),
        Try(SUBJECT, {"role": "owner"}, (("Prefer", "wait=1"),)),
        Try(SUBJECT, {"role": "king"}),
    ],
    ("DELETE", "/v1/grants/<uuid>/<path:subject>"): [Try(SUBJECT), Try(f"{GRANTS}/user:eve")],
    ("POST", "/v1/grants/<uuid>:transfer"): [
        Try(f"{GRANTS}:transfer", {"from": "user:alice", "to": "user:eve"}),
        Try(f"{GRANTS}:transfer", {"to": "user:alice"}),
    ],
    ("POST", "/v1/grants:bulk"): [
        Try("/v1/grants:bulk", {"items": [{"uuid": "UUID", **GRANT}]}),
        Try("/v1/grants:bulk", {"items": [{"uuid": "UUID", "subject": "user:alice", "role": None}]}),
    ],
    ("GET", "/v1/me/documents"): [Try("/v1/me/documents"), Try("/v1/me/documents?collection=notes")],
    ("HEAD", "/v1/me/documents"): [Try("/v1/me/documents")],
    ("GET", "/v1/grants"): [Try("/v1/grants?subject=user:eve"), Try("/v1/grants?subject=user:alice")],
    ("HEAD", "/v1/grants"): [Try("/v1/grants?subject=user:eve")],
    ("GET", "/v1/admin/sessions"): [Try("/v1/admin/sessions?uuid=UUID")],
    ("HEAD", "/v1/admin/sessions"): [Try("/v1/admin/sessions?uuid=UUID")],
    ("GET", "/v1/admin/audit"): [Try("/v1/admin/audit?uuid=UUID")],
    ("HEAD", "/v1/admin/audit"): [Try("/v1/admin/audit?uuid=UUID")],
}
"""By method and rule, as the application knows them."""

ABOUT_NO_UUID = {
    ("GET", "/v1/me"),
    ("GET", "/v1/docs/<collection>:import"),
    ("DELETE", "/v1/admin/sessions"),
    ("DELETE", "/v1/admin/sessions/<sid>"),
}
"""What says nothing about a UUID, beside the administration of tenants."""


class Commands(CommandListener):
    """What MongoDB is sent."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def started(self, event):
        name = event.command_name
        self.seen.append((name, event.command.get("collection" if name == "getMore" else name)))

    def succeeded(self, event):
        """Of no interest."""

    failed = succeeded


@pytest.fixture
def commands():
    return Commands()


@pytest.fixture
async def watched(start_api, deployment, commands):
    """The application, whose commands are seen."""
    client = AsyncMongoClient(deployment.uri, event_listeners=[commands], **_options("test"))
    control = deployment.control_database
    parts = {"documents": Documents, "grants": Grants, "batches": Batches, "idempotency": IdempotencyKeys}
    yield await start_api(services={name: part(client, control) for name, part in parts.items()})
    await client.close()


Kind = Callable[[], Awaitable[UUID]]


@pytest.fixture
async def kinds(mongo, deployment) -> dict[str, Kind]:
    """How a UUID may be that eve has nothing to do with; the first is nobody's at all."""
    database = mongo[deployment.databases["acme"]]
    grants = Grants(mongo, deployment.control_database)

    async def owned(uuid: UUID, *others: str) -> UUID:
        for subject in ("user:alice", *others):
            role = Role.OWNER if subject == "user:alice" else Role.READER
            key = GrantKey("acme", uuid, subject)
            await grants.put(Grant(key, role, None, "system", datetime.now(UTC)), Actor("system"))
        return uuid

    async def unknown() -> UUID:
        return uuid4()

    async def document() -> UUID:
        uuid = uuid4()
        await database.notes.insert_one({"_id": uuid, "a": 1})
        return await owned(uuid)

    async def large() -> UUID:
        uuid = uuid4()
        await database.notes.insert_one({"_id": uuid, "a": "x" * 2**20})
        return await owned(uuid, *(f"group:{number}" for number in range(5)))

    async def elsewhere() -> UUID:
        uuid = uuid4()
        await database.test.insert_many([{"uuid": uuid}, {"uuid": uuid}])
        return await owned(uuid)

    async def ungranted() -> UUID:
        uuid = uuid4()
        await database.notes.insert_one({"_id": uuid, "a": 1})
        return uuid

    async def only_granted() -> UUID:
        return await owned(uuid4())

    return {kind.__name__: kind for kind in (unknown, document, large, elsewhere, ungranted, only_granted)}


def test_every_route_is_tried(api):
    routes = {
        (method, rule.rule)
        for rule in api.app.url_map.iter_rules()
        if rule.rule.startswith("/v1/") and not rule.rule.startswith("/v1/admin/tenants")
        for method in rule.methods - {"OPTIONS"}
    }
    twice = {("HEAD", rule) for method, rule in ABOUT_NO_UUID if method == "GET"}
    assert routes == TRIED.keys() | ABOUT_NO_UUID | twice


CALLERS = {
    "a person": {"groups": ("staff", "others")},
    "a service without scopes": {"subject": "client:other"},
}


async def seen(who, method, trial, uuid, commands):
    """All that can be seen of an answer, the UUID itself put aside, and what MongoDB was sent for it."""

    def filled(text):
        return text.replace("UUID", str(uuid)).replace("KEY", str(uuid)).replace("SELF", who.principal.subject)

    body = None if trial.body is None else filled(json.dumps(trial.body)).encode()
    headers = {name.replace("-", "_"): filled(value) for name, value in trial.headers}
    commands.seen.clear()
    answer = await who.request(method, filled(trial.path), body, **headers)
    told = sorted(
        (name, value) for name, value in answer.headers.items() if name.lower() not in {"date", "x-request-id"}
    )
    return answer.status, told, answer.body.replace(str(uuid).encode(), b"UUID"), list(commands.seen)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", TRIED, ids=lambda route: "".join(route).replace("/", "."))
async def test_what_is_unknown_and_what_is_anothers_are_answered_alike(watched, kinds, commands, caller, route):
    who = watched.someone(**{"subject": "user:eve", **CALLERS[caller]})
    for trial in TRIED[route]:
        others = [name for name in kinds if not (trial.creates and name == "unknown")]
        answers = {name: await seen(who, route[0], trial, await kinds[name](), commands) for name in others}
        first = answers[others[0]]
        assert first[0] < 500, first
        for name, answer in answers.items():
            assert answer == first, (trial, name)


async def test_what_does_create_a_document_is_the_only_difference(watched, kinds, commands):
    """That the comparison sees something: a request that creates does tell the two apart."""
    who = watched.someone("user:eve")
    trial = Try(DOCUMENT, {"a": 1}, creates=True)
    unknown = await seen(who, "PUT", trial, await kinds["unknown"](), commands)
    anothers = await seen(who, "PUT", trial, await kinds["document"](), commands)
    assert (unknown[0], anothers[0]) == (201, 403)
    assert unknown[3] != anothers[3]


async def test_a_thousand_uuids_cannot_be_checked_at_once(watched, kinds, commands):
    who = watched.someone("user:eve")
    uuids = [await kind() for kind in kinds.values()] + [uuid4() for _ in range(50)]
    items = [{"uuid": str(uuid), "document": {"a": 1}, "if_match": '"x"'} for uuid in uuids]
    answer = await who.post("/v1/docs/notes:bulk", {"items": items})
    assert {(result["status"], result["code"], result["detail"]) for result in answer.json["results"]} == {
        (403, "forbidden", "Not allowed.")
    }


async def test_whoever_holds_some_right_is_told_the_truth(watched, kinds, mongo, deployment):
    """Not everybody is answered alike: with a grant of one's own a 404 and a 412 are what they say."""
    grants = Grants(mongo, deployment.control_database)
    uuid = await kinds["elsewhere"]()
    key = GrantKey("acme", uuid, "user:eve")
    await grants.put(Grant(key, Role.WRITER, None, "system", datetime.now(UTC)), Actor("system"))
    eve = watched.someone("user:eve")
    path = f"/v1/docs/notes/{uuid}"
    assert (await eve.get(path)).code == "not_found"
    assert (await eve.delete(path)).code == "not_found"
    assert (await eve.put(path, {"a": 1}, If_Match="*")).code == "precondition_failed"
    assert (await eve.get(f"/v1/docs/test/{uuid}")).code == "ambiguous"
