"""MongoDB as docker-compose.yml has it: three members, a key file, and users with the rights of roles.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pymongo.errors import OperationFailure

ROLES = Path(__file__).parents[3] / "ops" / "mongodb" / "roles.json"
UNAUTHORIZED = 13


@pytest.fixture
def server_user(topology):
    with topology.client("livedocs") as client:
        yield client


def refused(action):
    with pytest.raises(OperationFailure) as error:
        action()
    return error.value.code == UNAUTHORIZED


def test_three_members_form_one_set_led_by_the_first(topology):
    with topology.client("root") as client:
        status = client.admin.command("replSetGetStatus")
    assert [member["name"] for member in status["members"]] == topology.hosts.split(",")
    assert status["members"][0]["stateStr"] == "PRIMARY"


def test_no_member_answers_who_does_not_log_in(topology):
    for member in topology.members:
        with member.client() as client:
            assert refused(lambda client=client: client.livedocs.tenants.find_one())


def test_the_job_can_be_repeated(topology):
    done = topology.prepare()
    assert done.returncode == 0, done.stderr
    assert "replica set: there already" in done.stdout
    assert "user root: there already" in done.stdout


def test_the_job_says_when_the_data_has_another_root_password(topology):
    done = topology.prepare(MONGO_ROOT_PASSWORD="another")
    assert done.returncode == 1
    assert "another MONGO_ROOT_PASSWORD" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_job_says_which_variable_is_missing(topology):
    done = topology.prepare(MONGO_SERVER_PASSWORD="", MONGO_VIEWER_PASSWORD=" ")
    assert done.returncode == 1
    assert done.stderr == "prepare: set MONGO_SERVER_PASSWORD, MONGO_VIEWER_PASSWORD\n"


@pytest.mark.parametrize("database", ["admin", "Config", "livedocs"])
def test_the_job_makes_no_tenant_of_a_database_that_is_not_one(topology, database):
    done = topology.prepare(TENANT_DATABASES=f"livedocs_acme {database}")
    assert done.returncode == 1
    assert f"not a database for livedocs or a tenant: {database}" in done.stderr


def test_the_server_holds_its_one_role_and_nothing_else(topology):
    with topology.client("livedocs") as client:
        held = client.admin.command("connectionStatus")["authInfo"]
    assert held["authenticatedUserRoles"] == [{"role": "livedocs", "db": "admin"}]
    wanted = json.loads(ROLES.read_text())["roles"]["livedocs"]
    with topology.client("root") as client:
        role = client.admin.command("rolesInfo", "livedocs", showPrivileges=True)["roles"][0]
    assert role["inheritedRoles"] == []
    assert len(role["privileges"]) == len(wanted) + 1  # one entry more for the second tenant


def test_the_jobs_migrate_and_tenants_can_be_repeated(migrated):
    with migrated.client("livedocs") as client:
        assert {"acl", "tenants", "audit", "migrations"} <= set(client.livedocs.list_collection_names())
        assert {tenant["_id"] for tenant in client.livedocs.tenants.find()} == {"acme", "globex"}
    again = migrated.livedocs("migrate")
    assert (again.returncode, again.stdout) == (0, "nothing to do\n"), again.stderr
    again = migrated.register_tenants()
    assert (again.returncode, again.stdout) == (0, "acme: there already\nglobex: there already\n"), again.stderr


def test_the_server_migrates_back_and_forth_with_its_own_rights(migrated):
    control = {"LIVEDOCS_CONTROL_DATABASE": "other_control"}
    assert migrated.prepare(**control).returncode == 0
    try:
        for arguments in ([], ["--to", "zero"], []):
            done = migrated.livedocs("migrate", *arguments, **control)
            assert done.returncode == 0, done.stderr
    finally:
        assert migrated.prepare().returncode == 0


def test_the_server_watches_the_deployment_and_writes_in_transactions(migrated, server_user):
    with server_user.watch(max_await_time_ms=1000) as stream, server_user.start_session() as session:
        with session.start_transaction():
            server_user.livedocs_acme.notes.insert_one({"n": 1}, session=session)
            server_user.livedocs.audit.insert_one({"what": "a test"}, session=session)
        seen = [(event["ns"]["db"], event["ns"]["coll"]) for event in (next(stream), next(stream))]
    assert seen == [("livedocs_acme", "notes"), ("livedocs", "audit")]


def test_the_server_prepares_a_tenant_s_collection(migrated):
    done = migrated.livedocs("tenant", "register", "acme", "orders", "--key", "uuid")
    assert done.returncode == 0, done.stderr
    with migrated.client("livedocs") as client:
        assert "uuid_1" in client.livedocs_acme.orders.index_information()


def test_a_tenant_whose_database_the_role_does_not_name_is_refused_in_words(migrated):
    done = migrated.livedocs("tenant", "create", "hooli", "--collection", "notes")
    assert done.returncode != 0
    assert "Unauthorized" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_reads_how_far_back_the_oplog_goes(server_user):
    assert server_user.local["oplog.rs"].find_one({}, {"ts": 1}, sort=[("$natural", 1)])["ts"]


@pytest.mark.parametrize(
    "action",
    [
        lambda client: client.drop_database("livedocs_acme"),
        lambda client: client.drop_database("other"),
        lambda client: client.livedocs_acme.drop_collection("notes"),
        lambda client: client.other.things.insert_one({}),
        lambda client: client.admin.things.insert_one({}),
        lambda client: client.local["oplog.rs"].delete_many({}),
        lambda client: client.admin["system.users"].find_one(),
        lambda client: client.admin.command("usersInfo", 1),
        lambda client: client.admin.command("createUser", "mallory", pwd="x", roles=["root"]),
        lambda client: client.admin.command("updateUser", "livedocs", roles=["root"]),
        lambda client: client.admin.command("grantRolesToUser", "livedocs", roles=["root"]),
        lambda client: client.admin.command("shutdown"),
        lambda client: client.admin.command("replSetStepDown", 1),
        lambda client: client.admin.command({"setParameter": 1, "quiet": 1}),
        lambda client: client.livedocs_acme.command("profile", 2),
        lambda client: client.other.command({"collMod": "things", "validator": {}}),
        lambda client: client.other.things.create_index("x"),
    ],
)
def test_the_server_can_do_no_more(migrated, server_user, action):
    assert refused(lambda: action(server_user))


def test_a_new_tenant_s_database_is_the_job_once_more(topology, server_user):
    assert refused(lambda: server_user.initech.notes.insert_one({}))
    done = topology.prepare(TENANT_DATABASES="livedocs_acme livedocs_globex initech")
    assert done.returncode == 0, done.stderr
    server_user.initech.notes.insert_one({})
    assert topology.prepare().returncode == 0
    assert refused(lambda: server_user.initech.notes.insert_one({}))


def test_the_viewer_reads_and_never_writes(topology):
    with topology.client("viewer") as client:
        assert "admin" in client.list_database_names()
        assert refused(lambda: client.livedocs_acme.notes.insert_one({}))
        assert refused(client.admin["system.users"].find_one)
