"""Replica sets of one or more mongod processes on this machine.

with ReplicaSet(folder, [port]) as mongodb:
    MongoClient(mongodb.uri)
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from pymongo.errors import OperationFailure, PyMongoError

from livedocs.demo.mongod import Mongod, MongodError, wait_until

_ALREADY_INITIALIZED = 23
# Seconds that pre-images are kept; without a value they would be for as long as the oplog is.
_PRE_IMAGE_SECONDS = 3600
_UNAUTHORIZED = 13


class ReplicaSet:
    """A replica set on this machine, a member for each port.

    Starting is safe to repeat: the data of an earlier run is used again, on other ports too.

    Args:
        data_dir: one folder a member is made inside; an earlier run's order counts, its ports do not.
        ports: one a member.
        name: of the set.
        key_file: turns on authentication; needs `admin`.
        admin: name and password of the user that is created with the role `root` when the set is new.
        election_timeout_ms: how long members wait for a silent primary before they elect another.
        parameters: further `--setParameter` values of every member.
        when_parent_ends: the signal members get when this process ends without stopping them.
    """

    def __init__(
        self,
        data_dir: Path,
        ports: Sequence[int],
        *,
        name: str = "rs0",
        key_file: Path | None = None,
        admin: tuple[str, str] | None = None,
        election_timeout_ms: int = 10_000,
        parameters: Mapping[str, str] | None = None,
        when_parent_ends: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.members = tuple(
            Mongod(
                data_dir / f"member{number}",
                port,
                replica_set=name,
                key_file=key_file,
                parameters=parameters,
                when_parent_ends=when_parent_ends,
            )
            for number, port in enumerate(ports)
        )
        self._admin = admin
        self._election_timeout_ms = election_timeout_ms

    @property
    def uri(self) -> str:
        """The connection string, with the administrator's name and password where there is one."""
        login = f"{quote(self._admin[0], safe='')}:{quote(self._admin[1], safe='')}@" if self._admin else ""
        source = "&authSource=admin" if self._admin else ""
        return f"mongodb://{login}{','.join(m.address for m in self.members)}/?replicaSet={self.name}{source}"

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def start(self, timeout: float = 60) -> None:
        """Start the members, form the set and wait until it has a primary and every other member follows it.

        Raises:
            MongodError: when a member does not come up or no primary is elected; the members are stopped again.
        """
        try:
            for member in self.members:
                member.start(timeout)
            self._form()
            wait_until(lambda: self.primary() is not None, timeout, "a primary to be elected")
            self._create_admin()
            self._expire_pre_images()
            wait_until(lambda: all(map(_in_service, self.members)), timeout, "every member to follow the primary")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the members, secondaries first so that none is elected on the way."""
        for member in self.members:
            if member.running:
                member.resume()
        primary = self.primary()
        for member in (*(m for m in self.members if m is not primary), *([primary] if primary else ())):
            member.stop()

    def primary(self) -> Mongod | None:
        """The member that takes writes now; None while there is none."""
        return next((m for m in self.members if m.running and _hello(m).get("isWritablePrimary")), None)

    def _form(self) -> None:
        """Initiate the set, or put this run's ports into the configuration that its data holds."""
        wanted = {number: member.address for number, member in enumerate(self.members)}
        first = self.members[0]
        try:
            with first.client() as client:
                client.admin.command("replSetInitiate", self._new_configuration(wanted))
        except OperationFailure as error:
            # With authentication, an initiated set has a user and answers nobody else.
            if error.code not in {_ALREADY_INITIALIZED, _UNAUTHORIZED}:
                raise
            self._move(first, wanted)

    def _new_configuration(self, wanted: Mapping[int, str]) -> dict[str, Any]:
        return {
            "_id": self.name,
            "members": [{"_id": number, "host": address} for number, address in wanted.items()],
            "settings": {"electionTimeoutMillis": self._election_timeout_ms},
        }

    def _move(self, member: Mongod, wanted: Mapping[int, str]) -> None:
        with member.client(self._admin) as client:
            (configuration,) = client.local["system.replset"].find()
            found = {entry["_id"]: entry["host"] for entry in configuration["members"]}
            if found == wanted:
                return
            if found.keys() != wanted.keys():
                raise MongodError(
                    f"{member.data_dir.parent} holds a set of {len(found)} members, not {len(wanted)}"
                )
            for entry in configuration["members"]:
                entry["host"] = wanted[entry["_id"]]
            configuration["version"] += 1
            # Forced: under its old address the member is not part of any set, so nobody could vote.
            client.admin.command("replSetReconfig", configuration, force=True)

    def _create_admin(self) -> None:
        """Make the first user, as the localhost exception allows until there is one."""
        primary = self.primary()
        if self._admin is None or primary is None:
            return
        name, password = self._admin
        try:
            with primary.client() as client:
                client.admin.command("createUser", name, pwd=password, roles=["root"])
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise

    def _expire_pre_images(self) -> None:
        """Have pre-images expire, unless the data says when; it is a parameter of the whole set, which is ours."""
        primary = self.primary()
        if primary is None:
            return
        with primary.client(self._admin) as client:
            reply = client.admin.command({"getClusterParameter": "changeStreamOptions"})
            if reply["clusterParameters"][0]["preAndPostImages"]["expireAfterSeconds"] == "off":
                wanted = {"preAndPostImages": {"expireAfterSeconds": _PRE_IMAGE_SECONDS}}
                client.admin.command({"setClusterParameter": {"changeStreamOptions": wanted}})


def _hello(member: Mongod) -> Mapping[str, Any]:
    try:
        with member.client(timeout=2) as client:
            return client.admin.command("hello")
    except PyMongoError:
        return {}


def _in_service(member: Mongod) -> bool:
    reply = _hello(member)
    return bool(reply.get("isWritablePrimary") or reply.get("secondary"))
