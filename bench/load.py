"""The driver's end of the load: the generator and the writer as processes, and the data they need in MongoDB."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from bson import ObjectId
from pymongo import MongoClient
from systems import COLLECTION, CONTROL, DATABASE, HERE, Surroundings

from livedocs.demo.leash import leashed
from livedocs.model import Grant, GrantKey, Role, grant_document


class LoadError(Exception):
    """The load was not what the scenario asked for, so a figure would mean nothing."""


class Generator:
    """The load generator's process (generator.py)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            leashed([sys.executable, HERE / "generator.py"], signal.SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """One command and its answer."""
        self.tell(do, **values)
        return self.answer()

    def tell(self, do: str, **values: Any) -> None:
        """One command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **values}).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LoadError("the load generator has ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def open(self, port: int, count: int, rooms: Sequence[str], **options: Any) -> dict[str, Any]:
        """Open sockets that join rooms.

        Raises:
            LoadError: not every one has.
        """
        answer = self.ask("open", port=port, count=count, rooms=list(rooms), **options)
        if answer["joined"] != count:
            raise LoadError(f"{answer['failed']} of {count} sockets were refused or lost")
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def generator() -> Iterator[Generator]:
    """A load generator for the time of a scenario."""
    one = Generator()
    try:
        yield one
    finally:
        one.close()


class Writer:
    """A writer's process (writer.py). It begins as soon as this has returned."""

    def __init__(self, around: Surroundings, mode: str, ids: Sequence[ObjectId], **options: Any) -> None:
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._process = subprocess.Popen(
            leashed(
                [
                    *(sys.executable, HERE / "writer.py", mode, "--uri", around.uri),
                    *("--database", DATABASE, "--collection", COLLECTION, *arguments),
                ],
                signal.SIGKILL,
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n".join(map(str, ids)).encode())
        self._process.stdin.close()
        self._process.stdout.readline()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def result(self) -> dict[str, Any]:
        """Wait for its end.

        Raises:
            LoadError: it failed.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if self._process.wait() or not line:
            raise LoadError("the writer has failed")
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.contextmanager
def database(around: Surroundings) -> Iterator[MongoClient[dict[str, Any]]]:
    """A connection of the driver itself."""
    with MongoClient(around.uri, uuidRepresentation="standard") as client:
        yield client


def make_rooms(client: MongoClient[dict[str, Any]], count: int) -> tuple[list[str], list[ObjectId]]:
    """Documents with a UUID each, readable by a group that every user of the benchmark is in.

    Returns:
        The UUIDs and the documents' `_id`s, in the same order.
    """
    uuids: list[UUID] = [uuid4() for _ in range(count)]
    ids = [ObjectId() for _ in range(count)]
    now = datetime.now(UTC)
    for start in range(0, count, 5000):
        several = range(start, min(start + 5000, count))
        client[DATABASE][COLLECTION].insert_many(
            [
                {"_id": ids[i], "uuid": uuids[i], "title": f"document {i}", "tags": ["a", "b"], "n": 0}
                for i in several
            ],
            ordered=False,
        )
        client[CONTROL]["acl"].insert_many(
            [
                grant_document(Grant(GrantKey("acme", uuids[i], "group:staff"), Role.READER, None, "bench", now))
                for i in several
            ],
            ordered=False,
        )
    return [str(uuid) for uuid in uuids], ids


def tokens(count: int) -> list[str]:
    """Access tokens of so many users, as the stand-in for the OAuth service knows them."""
    return [f"bench-user{number}" for number in range(count)]
