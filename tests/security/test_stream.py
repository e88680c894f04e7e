"""Lines of docs/security.md about what the change stream says, seen from a socket."""

from __future__ import annotations

import json
import re
from pathlib import Path
from uuid import uuid4

import pymongo
import pytest
from bson.binary import Binary

import livedocs

SOURCE = Path(livedocs.__file__).parent


@pytest.fixture(scope="module")
def mongo(deployment):
    with pymongo.MongoClient(deployment.uri, uuidRepresentation="standard") as client:
        yield client


@pytest.fixture
def joined(server, wire, mongo, deployment):
    """`await joined(uuid, **options)`: alice's socket in that room, and the answer to her JoinRoom."""

    async def join(uuid, **options):
        key = {"tenant": "acme", "uuid": Binary.from_uuid(uuid), "subject": "user:alice"}
        acl = mongo[deployment.control_database]["acl"]
        acl.replace_one({"_id": key}, {"role": "reader", "granted_by": "test"}, upsert=True)
        made = await wire("alice", "40")
        await made.send("420" + json.dumps(["JoinRoom", [str(uuid)], options]))
        return made, json.loads((await made.text())[3:])[0]

    return join


async def event(made):
    name, data, meta = json.loads((await made.text())[2:])
    return name, data, meta


async def test_an_update_says_what_it_changed_and_nothing_of_the_document_that_came_later(server, joined, mongo):
    """With `updateLookup` the update's event had the document that was inserted after the deletion."""
    uuid, notes = uuid4(), mongo[server.databases["acme"]]["notes"]
    notes.insert_one({"_id": uuid, "mine": 1})
    made, _ = await joined(uuid)
    with mongo.start_session() as session, session.start_transaction():
        notes.update_one({"_id": uuid}, {"$set": {"mine": 2}}, session=session)
        notes.delete_one({"_id": uuid}, session=session)
        notes.insert_one({"_id": uuid, "of another": "life"}, session=session)
    told = [await event(made) for _ in range(3)]
    assert [(meta["op"], data) for _, data, meta in told] == [
        ("update", {"uuid": str(uuid), "mine": 2}),
        ("delete", {"uuid": str(uuid)}),
        ("insert", {"uuid": str(uuid), "of another": "life"}),
    ]


def test_no_stream_asks_for_documents_as_they_are_by_then():
    for path in SOURCE.rglob("*.py"):
        assert not re.search(r"updateLookup|fullDocument\"?\s*:\s*\"|full_document=", path.read_text()), path


async def test_events_of_one_transaction_are_told_apart_by_their_token(server, joined, mongo):
    """They share cluster time, session and number: a client that has seen one must get the others."""
    uuid, notes = uuid4(), mongo[server.databases["acme"]]["notes"]
    notes.insert_one({"_id": uuid, "n": 0})
    made, _ = await joined(uuid)
    with mongo.start_session() as session, session.start_transaction():
        for number in range(1, 5):
            notes.update_one({"_id": uuid}, {"$set": {"n": number}}, session=session)
    told = [await event(made) for _ in range(4)]
    cursors = [meta["id"] for _, _, meta in told]
    assert len(set(cursors)) == 4
    assert len({(meta["at"]["$date"], meta["txn"]) for _, _, meta in told}) == 1
    # Resumed in the midst of it: what lies behind that one event, no more and no less.
    again, answer = await joined(uuid, since=cursors[1])
    assert answer["joined"][str(uuid)]["resumed"] == 2
    assert [(await event(again))[1]["n"] for _ in range(2)] == [3, 4]


async def test_a_cursor_of_another_stream_is_compared_and_never_handed_on(server, joined, mongo):
    """MongoDB takes a token of any stream in silence, so that what is missed would be missed in silence too."""
    uuid, database = uuid4(), mongo[server.databases["acme"]]
    database["notes"].insert_one({"_id": uuid, "n": 0})
    await joined(uuid)
    with database["elsewhere"].watch() as stream:
        database["elsewhere"].insert_one({"n": 1})
        foreign = stream.next()["_id"]["_data"]
    database["notes"].update_one({"_id": uuid}, {"$set": {"n": 1}})
    # Nor any other text that this deployment has not sealed.
    for invented in (foreign, foreign[:2] + "F" * (len(foreign) - 2)):
        _, answer = await joined(uuid, since=invented)
        assert answer["refused"][str(uuid)]["code"] == "invalid_cursor"
