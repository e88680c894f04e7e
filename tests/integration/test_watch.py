"""`livedocs watch` against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid

import pytest
from bson.binary import Binary
from pymongo import MongoClient

from livedocs.demo.mongod import wait_until
from livedocs.model import GrantKey, grant_id


@pytest.fixture
def room(server):
    """A document that alice may read: its UUID, its collection, and how to take her grant away."""
    key = GrantKey("acme", uuid.uuid4(), "user:alice")
    with MongoClient(server.deployment.uri, uuidRepresentation="standard") as client:
        acl = client[server.control_database].acl
        notes = client[server.databases["acme"]].notes
        notes.insert_one({"_id": Binary.from_uuid(key.uuid), "title": "one"})
        acl.insert_one({"_id": grant_id(key), "role": "reader"})
        yield key.uuid, notes, lambda: acl.delete_one({"_id": grant_id(key)})


@pytest.fixture
def watch(server, tmp_path):
    started = []

    def start(room, *options, token=None):
        output = tmp_path / f"{len(started)}.out"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "livedocs", "watch", "--url", server.url, *options, str(room)],
                env={**os.environ, "LIVEDOCS_TOKEN": token or server.token(), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process, output

    yield start
    for process in started:
        process.kill()
        process.wait()


def lines(output):
    found = []
    for line in output.read_text().splitlines():
        name, _, rest = line.partition(" ")
        found.append((name, json.loads(rest.split("} {")[0] + ("}" if "} {" in rest else ""))))
    return found


def test_it_prints_the_snapshot_and_then_each_change_and_ends_after_as_many_as_asked_for(room, watch):
    uuid_, notes, _ = room
    process, output = watch(uuid_, "--count", "2")
    wait_until(lambda: b"$joined" in output.read_bytes(), 20, "the room to be joined")
    notes.update_one({"_id": Binary.from_uuid(uuid_)}, {"$set": {"title": "two"}})
    notes.delete_one({"_id": Binary.from_uuid(uuid_)})
    assert process.wait(20) == 0
    joined, update, delete = lines(output)
    assert joined[0] == "$joined"
    assert '"title": "one"' in output.read_text().splitlines()[0]
    assert update == ("notes", {"uuid": str(uuid_), "title": "two"})
    assert delete == ("notes", {"uuid": str(uuid_)})


def test_it_ends_with_the_reason_when_the_grant_is_taken_away(room, watch):
    uuid_, _, revoke = room
    process, output = watch(uuid_)
    wait_until(lambda: b"$joined" in output.read_bytes(), 20, "the room to be joined")
    revoke()
    assert process.wait(20) == 1
    assert "$revoked" in output.read_text()
    assert output.read_text().endswith(": revoked\n")


def test_it_ends_with_the_reason_when_it_is_refused(room, watch, server):
    uuid_, _, _ = room
    process, output = watch(uuid_, token=server.token("carol"))
    assert process.wait(20) == 1
    assert output.read_text().endswith(": forbidden\n")
    process, output = watch(uuid_, token="no-token-of-anybody")
    assert process.wait(20) == 1
    assert output.read_text().endswith(": unauthenticated\n")
