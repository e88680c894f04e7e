"""What a change stream may run into (security, part 3), each condition made on a real mongod."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient
from rig.deployment import Deployment, Process
from rig.listener import Listener, control, field
from rig.recording import Delivered, Told

from livedocs.model import GrantKey, grant_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEGABYTE = 2**20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    folder = tmp_path_factory.mktemp("stream")
    # A member that only seems to have stepped down does not announce that it is back: ask more often.
    async with Deployment(folder, servers=1, members=1, heartbeat_ms=500) as made:
        yield made
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def process(deployment: Deployment) -> Process:
    return deployment.processes[0]


@pytest.fixture(scope="module")
def acme(deployment: Deployment) -> Any:
    return deployment.client[deployment.databases["acme"]]


async def grant(deployment: Deployment, uuid: UUID, user: str = "alice") -> None:
    acl = deployment.client[deployment.control]["acl"]
    await acl.insert_one({"_id": grant_id(GrantKey("acme", uuid, f"user:{user}")), "role": "reader"})


@pytest_asyncio.fixture(loop_scope="module")
async def alice(deployment: Deployment, process: Process) -> AsyncIterator[Listener]:
    listener = await Listener.connect(deployment, process, "alice")
    yield listener
    await listener.close()


async def count_up(collection: Any, key: dict[str, Any], first: int, last: int) -> None:
    for n in range(first, last + 1):
        await collection.update_one(key, {"$set": {"n": n}}, upsert=True)


async def off(deployment: Deployment, name: str) -> None:
    await deployment.fail_point(name, "off")


@pytest.mark.parametrize("code", [6, 43, 91, 189, 11602, 13435])
async def test_an_error_of_a_changing_primary_loses_and_doubles_nothing(deployment, acme, alice, code):
    uuid = uuid4()
    await grant(deployment, uuid)
    await alice.joined(str(uuid))
    await deployment.fail_point("failGetMoreAfterCursorCheckout", {"times": 3}, {"errorCode": code})
    await count_up(acme["notes"], {"_id": uuid}, 1, 20)
    events = await alice.until(field("n", 20))
    await off(deployment, "failGetMoreAfterCursorCheckout")
    assert [event.data["n"] for event in events if isinstance(event, Delivered)] == list(range(1, 21))
    assert not any(isinstance(event, Told) for event in events)


@pytest.mark.parametrize("code", [8, 50, 96, 133])
async def test_an_error_without_a_label_loses_and_doubles_nothing(deployment, acme, alice, code):
    uuid = uuid4()
    await grant(deployment, uuid)
    await alice.joined(str(uuid))
    data = {"failCommands": ["getMore"], "errorCode": code, "errorLabels": [], "appName": "livedocs-stream"}
    await deployment.fail_point("failCommand", {"times": 2}, data)
    await count_up(acme["notes"], {"_id": uuid}, 1, 20)
    events = await alice.until(field("n", 20))
    await off(deployment, "failCommand")
    assert [event.data["n"] for event in events if isinstance(event, Delivered)] == list(range(1, 21))
    assert not any(isinstance(event, Told) for event in events)


async def failing(deployment: Deployment, code: int, labels: list[str]) -> None:
    """Let every process's stream fail with that code, until switched off."""
    data = {
        "failCommands": ["getMore", "aggregate"],
        "errorCode": code,
        "errorLabels": labels,
        "appName": "livedocs-stream",
    }
    await deployment.fail_point("failCommand", "alwaysOn", data)


@pytest.mark.parametrize("code", [286, 280, 260])
async def test_a_lost_position_gives_everyone_the_newest_state_and_says_why(deployment, acme, alice, code):
    uuid = uuid4()
    await grant(deployment, uuid)
    await count_up(acme["notes"], {"_id": uuid}, 1, 1)
    await alice.joined(str(uuid))
    await failing(deployment, code, ["NonResumableChangeStreamError"])
    # Committed while nobody can see it in a stream.
    await asyncio.sleep(0.3)
    await count_up(acme["notes"], {"_id": uuid}, 2, 9)
    await off(deployment, "failCommand")
    [*_, told] = await alice.until(lambda entry: shows(entry, 9))
    assert told.body["reason"] == "history_lost"
    await count_up(acme["notes"], {"_id": uuid}, 10, 30)
    events = await alice.until(field("n", 30))
    assert [event.data["n"] for event in events if isinstance(event, Delivered)] == list(range(10, 31))
    assert all(event.meta["id"] > told.body["cursor"] for event in events if isinstance(event, Delivered))
    assert not any(isinstance(event, Told) for event in events)


def shows(entry: Any, n: int, collection: str = "notes") -> bool:
    """Whether an entry is a `$resync` to that state."""
    return control("$resync")(entry) and entry.body["snapshot"].get(collection, [{}])[0].get("n") == n


async def test_a_cursor_from_before_a_lost_position_gives_a_snapshot(deployment, process, acme, alice):
    uuid = uuid4()
    await grant(deployment, uuid)
    await count_up(acme["notes"], {"_id": uuid}, 1, 1)
    cursor = (await alice.joined(str(uuid)))["cursor"]
    await failing(deployment, 286, ["NonResumableChangeStreamError"])
    await asyncio.sleep(0.3)
    await count_up(acme["notes"], {"_id": uuid}, 2, 3)
    await off(deployment, "failCommand")
    await alice.until(control("$resync"))
    again = await Listener.connect(deployment, process, "alice")
    answer = await again.joined(str(uuid), since=cursor)
    await again.close()
    assert answer["resync"] == "window"
    assert answer["snapshot"]["notes"] == [{"uuid": str(uuid), "n": 3}]


async def test_an_event_too_large_with_its_image_comes_without(deployment, acme, alice):
    uuid = uuid4()
    await grant(deployment, uuid)
    await acme["test"].insert_one({"_id": str(uuid), "uuid": uuid, "n": 1, "fill": "a" * 9 * MEGABYTE})
    await alice.joined(str(uuid))
    # The whole new document and the whole old one: 18 MB in one event.
    await acme["test"].replace_one({"_id": str(uuid)}, {"uuid": uuid, "n": 2, "fill": "b" * 9 * MEGABYTE})
    await acme["test"].update_one({"_id": str(uuid)}, {"$unset": {"fill": 1}, "$set": {"n": 3}})
    await acme["test"].update_one({"_id": str(uuid)}, {"$set": {"n": 4}})
    events = await alice.until(
        lambda entry: (
            field("n", 4)(entry)
            or (control("$resync")(entry) and entry.body["snapshot"].get("test", [{}])[0].get("n") == 4)
        )
    )
    told = [event for event in events if isinstance(event, Told)]
    assert told
    # Too large to be shown; and without its documents the event does not say which room it is about.
    assert {event.body["reason"] for event in told} <= {"slow", "document_too_large", "event_unreadable"}


async def test_an_event_too_large_in_any_form_is_passed_with_a_resync(deployment, acme, alice):
    uuid = uuid4()
    await grant(deployment, uuid)
    await count_up(acme["notes"], {"_id": uuid}, 1, 1)
    await alice.joined(str(uuid))
    await failing(deployment, 10334, [])
    await count_up(acme["notes"], {"_id": uuid}, 2, 5)
    # Whole, trimmed, without images, and the position is given up: openings with back-off between.
    await asyncio.sleep(1)
    await off(deployment, "failCommand")
    [*_, told] = await alice.until(control("$resync"))
    assert told.body["reason"] == "event_too_large"
    assert told.body["snapshot"]["notes"] == [{"uuid": str(uuid), "n": 5}]
    await count_up(acme["notes"], {"_id": uuid}, 6, 6)
    assert (await alice.next()).data["n"] == 6


@pytest_asyncio.fixture(loop_scope="module")
async def patient(deployment: Deployment) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
    """A client that waits for as long as a busy disk takes with 15 MB."""
    async with AsyncMongoClient(deployment.mongodb.uri, uuidRepresentation="standard") as client:
        yield client


@pytest.mark.parametrize("collection", ["notes", "test"])
async def test_a_document_of_15_megabytes_is_named_and_shown_once_it_is_smaller(
    deployment, alice, patient, collection
):
    acme, uuid = patient[deployment.databases["acme"]], uuid4()
    await grant(deployment, uuid)
    key = {"_id": uuid} if collection == "notes" else {"uuid": uuid}
    await acme[collection].insert_one({**key, "n": 1, "fill": "a" * 15 * MEGABYTE})
    answer = await alice.joined(str(uuid), snapshot=True)
    [shown] = answer["snapshot"][collection]
    assert shown.keys() == {"uuid", "$too_large"}
    assert shown["$too_large"] > 15 * MEGABYTE
    await acme[collection].update_one(key, {"$set": {"n": 2, "fill": "b" * 15 * MEGABYTE}})
    [*_, told] = await alice.until(control("$resync"))
    assert told.body["snapshot"][collection] == [shown]
    await acme[collection].update_one(key, {"$set": {"n": 3}, "$unset": {"fill": 1}})
    await alice.until(
        lambda entry: (
            field("n", 3)(entry)
            or (control("$resync")(entry) and entry.body["snapshot"][collection][0].get("n") == 3)
        )
    )


@pytest.mark.parametrize("collection", ["notes", "test"])
async def test_a_dropped_collection_resyncs_its_rooms_and_streams_again(deployment, acme, alice, collection):
    uuid = uuid4()
    await grant(deployment, uuid)
    key = {"_id": uuid} if collection == "notes" else {"_id": str(uuid), "uuid": uuid}
    await acme[collection].insert_one({**key, "n": 1})
    await alice.joined(str(uuid))
    await acme[collection].drop()
    told = (await alice.until(control("$resync")))[-1]
    assert told.body["reason"] == "collection_dropped"
    assert told.body["snapshot"] == {}
    await acme[collection].insert_one({**key, "n": 2})
    assert (await alice.until(field("n", 2)))[-1].meta["op"] == "insert"


async def test_a_renamed_collection_resyncs_its_rooms_both_ways(deployment, acme, alice):
    uuid = uuid4()
    await grant(deployment, uuid)
    await acme["notes"].insert_one({"_id": uuid, "n": 1})
    await alice.joined(str(uuid))
    await acme["notes"].rename("elsewhere")
    told = (await alice.until(control("$resync")))[-1]
    assert told.body["snapshot"] == {}
    await acme["elsewhere"].update_one({"_id": uuid}, {"$set": {"n": 2}})
    await acme["elsewhere"].rename("notes")
    told = (await alice.until(control("$resync")))[-1]
    assert told.body["snapshot"] == {"notes": [{"uuid": str(uuid), "n": 2}]}
    await acme["notes"].update_one({"_id": uuid}, {"$set": {"n": 3}})
    assert (await alice.next()).data["n"] == 3


async def test_a_dropped_database_resyncs_its_rooms_and_streams_again(deployment, acme, alice):
    uuid = uuid4()
    await grant(deployment, uuid)
    await acme["notes"].insert_one({"_id": uuid, "n": 1})
    await alice.joined(str(uuid))
    await deployment.client.drop_database(acme.name)
    told = (await alice.until(lambda entry: control("$resync")(entry) and not entry.body["snapshot"]))[-1]
    assert told.body["reason"] == "collection_dropped"
    await acme["notes"].insert_one({"_id": uuid, "n": 2})
    # Each collection's own drop and the database's are told; what comes last is the newest state or the insert.
    await alice.until(
        lambda entry: field("n", 2)(entry) or (control("$resync")(entry) and bool(entry.body["snapshot"]))
    )
    await acme["notes"].update_one({"_id": uuid}, {"$set": {"n": 3}})
    await alice.until(field("n", 3))
    # As the migration had made it.
    await acme.create_collection("test", changeStreamPreAndPostImages={"enabled": True})


async def test_what_was_deleted_while_the_server_was_down_is_told_afterwards(deployment, process, acme):
    uuid = uuid4()
    await grant(deployment, uuid)
    await acme["notes"].insert_one({"_id": uuid, "n": 1})
    await acme["test"].insert_one({"_id": str(uuid), "uuid": uuid, "n": 1})
    before = await Listener.connect(deployment, process, "alice")
    cursor = (await before.joined(str(uuid)))["cursor"]
    await before.close()
    process.kill()
    await acme["test"].update_one({"_id": str(uuid)}, {"$set": {"n": 2}})
    await acme["notes"].delete_one({"_id": uuid})
    await acme["test"].delete_one({"_id": str(uuid)})
    process.spawn()
    await process.ready()
    after = await Listener.connect(deployment, process, "alice")
    answer = await after.joined(str(uuid), since=cursor)
    assert answer["resumed"] == 3
    events = [await after.next() for _ in range(3)]
    await after.close()
    assert [(event.collection, event.meta["op"]) for event in events] == [
        ("test", "update"),
        ("notes", "delete"),
        ("test", "delete"),
    ]
    assert events[2].data == {"uuid": str(uuid)}
