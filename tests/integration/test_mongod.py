"""mongod as the demo and the tests start it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from livedocs.demo import mongod as mongod_module
from livedocs.demo.mongod import Mongod, MongodError, find, wait_until
from livedocs.demo.replicaset import ReplicaSet


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that its adopter has not yet taken note of has ended.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def fake_mongod(folder, text):
    folder.mkdir()
    program = folder / "mongod"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return program


def test_a_new_enough_mongod_on_the_path_is_preferred(tmp_path, monkeypatch):
    program = fake_mongod(tmp_path / "bin", "echo 'db version v8.0.4'")
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert find() == program


def test_an_old_mongod_on_the_path_gives_way_to_the_one_of_the_extra(tmp_path, monkeypatch):
    program = fake_mongod(tmp_path / "bin", "echo 'db version v5.0.9'")
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert find().parts[-4:] == ("fiftyone", "db", "bin", "mongod")


def test_where_there_is_no_mongod_the_error_says_what_to_do(tmp_path, monkeypatch):
    program = fake_mongod(tmp_path / "bin", "echo 'libcurl.so.4: cannot open shared object file' >&2; exit 127")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mongod_module, "_bundled", lambda: str(program))
    with pytest.raises(MongodError) as error:
        find()
    for words in ("on PATH: none", "libcurl.so.4", "'CHECKOUT[embedded]'", "apt-get install -y libcurl4 libssl3"):
        assert words in str(error.value)


def test_a_second_start_finds_the_data_of_the_first_even_on_another_port(tmp_path, free_ports):
    first, second = free_ports(2)
    for port in (first, first, second):
        with ReplicaSet(tmp_path, [port]) as replica_set, MongoClient(replica_set.uri) as client:
            assert client.admin.command("hello")["me"] == f"127.0.0.1:{port}"
            client.db.starts.insert_one({})
    with ReplicaSet(tmp_path, [second]) as replica_set, MongoClient(replica_set.uri) as client:
        assert client.db.starts.count_documents({}) == 3
        pid = replica_set.members[0].pid
    assert not alive(pid)


def test_a_port_that_is_taken_is_reported_with_what_mongod_said(tmp_path, mongod):
    with pytest.raises(MongodError, match="Address already in use"):
        Mongod(tmp_path, mongod.members[0].port).start()


def test_it_ends_with_the_process_that_started_it_even_when_that_is_killed(tmp_path, free_ports):
    (port,) = free_ports(1)
    program = (
        "import sys, pathlib; from livedocs.demo.mongod import Mongod;"
        f"mongod = Mongod(pathlib.Path({str(tmp_path)!r}), {port}); mongod.start();"
        "print(mongod.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(pid), 10, "mongod to end")


@pytest.fixture(scope="module")
def three(tmp_path_factory, free_ports):
    folder = tmp_path_factory.mktemp("three")
    key_file = folder / "key"
    key_file.touch(0o600)
    key_file.write_text("a key of a test " * 8)
    members = ReplicaSet(
        folder, free_ports(3), key_file=key_file, admin=("root", "p@ss/word"), election_timeout_ms=2000
    )
    with members:
        yield members


def test_a_set_of_three_with_authentication_lets_only_its_administrator_in(three):
    with MongoClient(three.uri) as client:
        client.db.things.insert_one({}, comment="majority by default")
        assert len(client.admin.command("replSetGetStatus")["members"]) == 3
    with three.members[0].client() as client, pytest.raises(OperationFailure, match="requires authentication"):
        client.db.things.find_one()


def test_a_paused_primary_is_replaced_and_comes_back_as_a_follower(three):
    old = three.primary()
    old.pause()
    wait_until(lambda: three.primary() not in {None, old}, 30, "another primary")
    old.resume()
    with old.client() as client:
        wait_until(lambda: client.admin.command("hello").get("secondary"), 30, "the old one to follow")


def test_a_killed_member_comes_back_with_its_data(three):
    member = next(one for one in three.members if one is not three.primary())
    pid = member.pid
    member.kill()
    assert not alive(pid)
    assert not member.running
    member.start()
    with MongoClient(three.uri) as client:
        assert client.db.things.count_documents({}) == 1
