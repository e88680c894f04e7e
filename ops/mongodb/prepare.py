"""Make a replica set ready for livedocs: initiate it, then its root user, roles and users. Safe to repeat.

Runs beside the first member, because MongoDB lets a connection from the machine itself, and no other, initiate the
set and create the first user (the localhost exception). Every later run uses that root user: it sets the roles and
passwords to what `roles.json` and the environment say now, so a new tenant database or a new password is this same
job once more.

Environment:
    MONGO_HOSTS: members as they reach each other, `host:port` with commas between; the first is this machine.
    MONGO_LOCAL: how this job reaches the first member; a loopback address. Default: the first of MONGO_HOSTS.
    MONGO_REPLICA_SET: name of the set, default `rs0`.
    MONGO_ROOT_PASSWORD, MONGO_SERVER_PASSWORD, MONGO_VIEWER_PASSWORD: of the users root, livedocs and viewer.
    LIVEDOCS_CONTROL_DATABASE: default `livedocs`.
    PRE_IMAGE_SECONDS: consent to let pre-images expire, after so many seconds. It is a parameter of the whole
        cluster (`changeStreamOptions`), which other applications that read pre-images share: without this variable
        it is left alone, and a value that is there already is never changed.
    TENANT_DATABASES: databases of the tenants, with commas or spaces between.

Source: MongoDB manual, "Deploy Self-Managed Replica Set With Keyfile Authentication" and "Localhost Exception".
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

ROLES = Path(__file__).with_name("roles.json")
PATIENCE = 90.0
_UNAUTHORIZED, _AUTHENTICATION_FAILED = 13, 18
# MongoDB's own: a tenant there would let the server's role write what only MongoDB may.
_RESERVED = frozenset({"admin", "config", "local"})


class PreparationFailed(Exception):
    """The job cannot go on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the replica set shall look like."""

    hosts: Sequence[str]
    local: str
    replica_set: str
    root_password: str = field(repr=False)
    passwords: Mapping[str, str] = field(repr=False)
    control: str
    tenants: Sequence[str]
    pre_image_seconds: int | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Plan:
        """The plan of these environment variables.

        Raises:
            PreparationFailed: one is missing or names a database of MongoDB itself.
        """
        required = ("MONGO_HOSTS", "MONGO_ROOT_PASSWORD", "MONGO_SERVER_PASSWORD", "MONGO_VIEWER_PASSWORD")
        missing = [name for name in required if not environ.get(name, "").strip()]
        if missing:
            raise PreparationFailed(f"set {', '.join(missing)}")
        hosts = environ["MONGO_HOSTS"].replace(",", " ").split()
        control = environ.get("LIVEDOCS_CONTROL_DATABASE") or "livedocs"
        tenants = environ.get("TENANT_DATABASES", "").replace(",", " ").split()
        # MongoDB takes two names that differ in case for one database.
        taken = [name for name in tenants if name.lower() in {*_RESERVED, control.lower()}]
        if control.lower() in _RESERVED:
            taken.append(control)
        if taken:
            raise PreparationFailed(f"not a database for livedocs or a tenant: {', '.join(taken)}")
        return cls(
            hosts=hosts,
            local=environ.get("MONGO_LOCAL") or hosts[0],
            replica_set=environ.get("MONGO_REPLICA_SET") or "rs0",
            root_password=environ["MONGO_ROOT_PASSWORD"],
            passwords={
                "livedocs": environ["MONGO_SERVER_PASSWORD"],
                "viewer": environ["MONGO_VIEWER_PASSWORD"],
            },
            control=control,
            tenants=tenants,
            pre_image_seconds=_seconds(environ.get("PRE_IMAGE_SECONDS", "").strip()),
        )


def _seconds(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**31:
        raise PreparationFailed("PRE_IMAGE_SECONDS is a whole number of seconds, such as 3600")
    return int(text)


def privileges(entries: Sequence[Mapping[str, Any]], control: str, tenants: Sequence[str]) -> list[dict[str, Any]]:
    """A role of `roles.json` as MongoDB takes it: `$control` and `$tenant` replaced by the databases' names."""
    names = {"$control": [control], "$tenant": tenants}
    return [
        {"resource": resource, "actions": entry["actions"]}
        for entry in entries
        for resource in _resources(entry["resource"], names)
    ]


def _resources(resource: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    if "db" not in resource:
        return [dict(resource)]
    return [{**resource, "db": database} for database in names.get(resource["db"], [resource["db"]])]


def _initiate(local: MongoClient[dict[str, Any]], plan: Plan) -> bool:
    """Form the set unless it is formed; whether it was done now."""
    if "setName" in local.admin.command("hello"):
        return False
    members = [
        # The first member is the only one this job may create the first user on, so it is elected first.
        {"_id": number, "host": host, "priority": 2 if number == 0 else 1}
        for number, host in enumerate(plan.hosts)
    ]
    local.admin.command("replSetInitiate", {"_id": plan.replica_set, "members": members})
    return True


def _await_primary(local: MongoClient[dict[str, Any]]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not local.admin.command("hello").get("isWritablePrimary"):
        if time.monotonic() > deadline:
            raise PreparationFailed(f"the first member did not become primary within {PATIENCE:.0f} seconds")
        time.sleep(0.25)


def _as_root(plan: Plan) -> MongoClient[dict[str, Any]]:
    return MongoClient(
        list(plan.hosts),
        replicaSet=plan.replica_set,
        username="root",
        password=plan.root_password,
        authSource="admin",
        appname="livedocs-prepare",
        w="majority",
        serverSelectionTimeoutMS=int(PATIENCE * 1000),
    )


def _root_exists(plan: Plan) -> bool:
    with _as_root(plan) as client:
        try:
            client.admin.command("ping")
        except OperationFailure as error:
            if error.code == _AUTHENTICATION_FAILED:
                return False
            raise
    return True


def _create_root(local: MongoClient[dict[str, Any]], plan: Plan) -> None:
    """The first user, by the localhost exception, which ends with it."""
    _await_primary(local)
    roles = [{"role": "root", "db": "admin"}]
    try:
        local.admin.command(
            "createUser", "root", pwd=plan.root_password, roles=roles, writeConcern={"w": "majority"}
        )
    except OperationFailure as error:
        if error.code == _UNAUTHORIZED:
            raise PreparationFailed(
                "this data was made with another MONGO_ROOT_PASSWORD: set that one, or start with empty volumes"
            ) from None
        raise


def _set_roles(client: MongoClient[dict[str, Any]], plan: Plan, roles: Mapping[str, Any]) -> None:
    for name, entries in roles.items():
        known = client.admin.command("rolesInfo", name)["roles"]
        client.admin.command(
            "updateRole" if known else "createRole",
            name,
            privileges=privileges(entries, plan.control, plan.tenants),
            roles=[],
        )


def _set_users(client: MongoClient[dict[str, Any]], plan: Plan, users: Mapping[str, Any]) -> None:
    for name, roles in users.items():
        known = client.admin.command("usersInfo", name)["users"]
        client.admin.command("updateUser" if known else "createUser", name, pwd=plan.passwords[name], roles=roles)


def _expire_pre_images(client: MongoClient[dict[str, Any]], wanted: int | None) -> str:
    """Let pre-images expire, with consent and unless somebody has decided already; what to say of it."""
    reply = client.admin.command({"getClusterParameter": "changeStreamOptions"})
    found = reply["clusterParameters"][0]["preAndPostImages"]["expireAfterSeconds"]
    if found != "off":
        kept = f" (PRE_IMAGE_SECONDS={wanted} changes nothing)" if wanted not in (None, found) else ""
        return f"pre-images: expire after {found} s, as set before{kept}"
    if wanted is None:
        return "pre-images: do not expire by age and may fill the disk; set PRE_IMAGE_SECONDS to let them"
    options = {"preAndPostImages": {"expireAfterSeconds": wanted}}
    client.admin.command({"setClusterParameter": {"changeStreamOptions": options}})
    return f"pre-images: expire after {wanted} s"


def prepare(plan: Plan, say: Any = print) -> None:
    """Bring the replica set to the plan.

    Raises:
        PreparationFailed: it cannot be done, and why.
        PyMongoError: MongoDB is out of reach, or refuses.
    """
    wanted = json.loads(ROLES.read_text(encoding="utf-8"))
    with MongoClient(plan.local, directConnection=True, serverSelectionTimeoutMS=int(PATIENCE * 1000)) as local:
        say("replica set: " + ("initiated" if _initiate(local, plan) else "there already"))
        if _root_exists(plan):
            say("user root: there already")
        else:
            _create_root(local, plan)
            say("user root: created")
    with _as_root(plan) as client:
        _set_roles(client, plan, wanted["roles"])
        _set_users(client, plan, wanted["users"])
        say(_expire_pre_images(client, plan.pre_image_seconds))
    say(f"roles and users: set, for {plan.control} and the tenants {', '.join(plan.tenants) or '(none yet)'}")


def main() -> int:
    """Run the job with this process's environment; 0 when the set is ready."""
    try:
        prepare(Plan.read(os.environ))
    except (PreparationFailed, PyMongoError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
