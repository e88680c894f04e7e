"""`livedocs demo` as a person starts and stops it: a real process with everything it starts."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from pymongo import MongoClient

from livedocs.demo.mongod import wait_until

HOST = "127.0.0.1"
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Demo:
    """One start of the demo on four ports in a row; every process of it carries a mark in its environment."""

    def __init__(self, folder, port, *options, command=None):
        self.port = port
        self.mark = f"MARK={secrets.token_hex(8)}"
        self.output = folder / f"{self.mark}.out"
        arguments = ["demo", "--port", str(port), "--data-dir", str(folder / "data"), *options]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LIVEDOCS_")}
        name, _, value = self.mark.partition("=")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*(command or []), sys.executable, "-m", "livedocs", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environ, name: value},
                cwd="/",
            )

    @property
    def text(self):
        return self.output.read_text()

    @property
    def mongodb_uri(self):
        return f"mongodb://{HOST}:{self.port + 2}/?replicaSet=rs0"

    def wait_until_ready(self):
        wait_until(lambda: self._ready() or self.process.poll() is not None, 90, "the demo")
        assert self._ready(), self.text
        return self

    def _ready(self):
        return f"livedocs is ready on http://localhost:{self.port}" in self.text.splitlines()

    def processes(self):
        """What belongs to it and runs: process ids and command lines."""
        found = {}
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in environ.read_bytes().split(b"\0"):
                    words = environ.with_name("cmdline").read_bytes().split(b"\0")
                    found[int(environ.parent.name)] = b" ".join(words).decode()
            except OSError:
                continue  # it ended meanwhile, and a zombie has no environment
        return found

    def pid_of(self, words):
        (pid,) = [pid for pid, line in self.processes().items() if words in line]
        return pid

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(30)

    def clear(self):
        """After a test, whatever became of it."""
        self.process.kill()
        self.process.wait()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start(tmp_path, free_block):
    started = []

    def start_demo(*options, port=free_block, **more):
        started.append(Demo(tmp_path, port, *options, **more))
        return started[-1]

    yield start_demo
    for demo in started:
        demo.clear()


@pytest.fixture
def free_block(free_ports):
    """The first of four free ports in a row."""
    while True:
        (first,) = free_ports(1)
        if all(_free(port) for port in range(first, first + 4)):
            return first


def _free(port):
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def test_it_starts_says_so_ends_in_order_and_goes_on_with_its_data_at_the_next_start(start):
    demo = start().wait_until_ready()
    for host in ("localhost", HOST):
        with _direct.open(f"http://{host}:{demo.port}/readyz", timeout=10) as response:
            assert response.status == 200
    with MongoClient(demo.mongodb_uri) as client:
        tenants = {found["_id"]: found["collections"] for found in client.livedocs.tenants.find()}
        client.livedocs_acme.notes.insert_one({"_id": "of the first start"})
    assert tenants == {name: {"notes": {"key": "_id"}, "test": {"key": "uuid"}} for name in ("acme", "globex")}
    assert len(demo.processes()) == 4
    assert demo.end(signal.SIGINT) == 0
    assert demo.processes() == {}

    again = start().wait_until_ready()
    with MongoClient(again.mongodb_uri) as client:
        assert client.livedocs_acme.notes.count_documents({}) == 1
    assert again.end(signal.SIGTERM) == 0
    assert again.processes() == {}

    fresh = start("--fresh").wait_until_ready()
    with MongoClient(fresh.mongodb_uri) as client:
        assert client.livedocs_acme.notes.count_documents({}) == 0
    assert fresh.end(signal.SIGTERM) == 0


def test_when_one_part_dies_it_says_which_and_stops_the_rest(start):
    demo = start().wait_until_ready()
    os.kill(demo.pid_of("livedocs serve"), signal.SIGKILL)
    assert demo.process.wait(30) == 1
    assert "error: the server ended by itself (status 9); the end of" in demo.text
    assert "server.log" in demo.text
    assert demo.processes() == {}


def test_nothing_of_it_outlives_it_even_when_it_is_killed(start):
    demo = start().wait_until_ready()
    demo.end(signal.SIGKILL)
    wait_until(lambda: demo.processes() == {}, 30, "what it started to end")


def test_it_ends_with_the_process_that_started_it_when_asked_to(start):
    shell = ["/bin/sh", "-c", '"$@"; exit', "sh"]
    demo = start("--stop-with-parent", command=shell).wait_until_ready()
    assert len(demo.processes()) == 5
    demo.end(signal.SIGKILL)
    wait_until(lambda: demo.processes() == {}, 30, "the demo to end")


@pytest.mark.parametrize(
    ("offset", "who"), [*enumerate(["the server", "the OAuth provider", "mongod", "metrics"])]
)
def test_a_taken_port_is_named_with_what_to_do_before_anything_is_started(
    start, free_block, tmp_path, offset, who
):
    with socket.create_server((HOST, free_block + offset)):
        demo = start()
        assert demo.process.wait(30) == 1
    (line,) = demo.text.splitlines()
    assert line.startswith(f"error: port {free_block + offset}, for ")
    assert who in line
    assert f"make demo PORT={free_block + 1000}" in line
    assert not (tmp_path / "data").exists()


def test_one_port_for_two_parts_is_refused(start, free_block):
    demo = start("--oauth-port", str(free_block))
    assert demo.process.wait(30) == 1
    assert f"port {free_block} is asked for twice" in demo.text


def test_a_second_demo_with_the_same_data_is_refused(start, free_block, free_ports):
    start().wait_until_ready()
    (oauth, mongo, port) = free_ports(3)
    second = start("--oauth-port", str(oauth), "--mongo-port", str(mongo), port=port)
    assert second.process.wait(30) == 1
    assert "another demo uses" in second.text
