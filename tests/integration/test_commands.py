"""The commands that look after a deployment, as an operator calls them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from bson.binary import Binary, UuidRepresentation
from pymongo import MongoClient

from livedocs.cli import repositories
from livedocs.cli.doctor import Finding, introspection_finding, oplog_finding, topology_finding, version_finding
from livedocs.demo.mongod import Mongod
from livedocs.errors import Unavailable


def call(*arguments, environ=None):
    outside = {name: value for name, value in os.environ.items() if not name.startswith("LIVEDOCS_")}
    return subprocess.run(
        [sys.executable, "-m", "livedocs", *arguments],
        env={**outside, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def livedocs(deployment):
    def on_deployment(*arguments, **changes):
        return call(*arguments, environ=deployment.environ(**changes))

    return on_deployment


@pytest.mark.parametrize("command", [["serve"], ["doctor"], ["migrate"], ["tenant", "list"]])
def test_settings_that_are_missing_or_unknown_are_named_a_line_each(command):
    done = call(*command, environ={"LIVEDOCS_COLOUR": "blue", "LIVEDOCS_PUBLIC_URL": "http://localhost:8000"})
    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        "LIVEDOCS_COLOUR: there is no such setting",
        "LIVEDOCS_MONGODB_URI: is required",
        "LIVEDOCS_OAUTH_ISSUER: is required",
        "LIVEDOCS_OAUTH_CLIENT_ID: is required",
        "LIVEDOCS_OAUTH_CLIENT_SECRET: is required",
        "LIVEDOCS_OAUTH_AUDIENCE: is required",
    ]


def test_help_is_there_for_every_command():
    commands = [line.split()[0] for line in call("--help").stdout.partition("Commands:\n")[2].splitlines()]
    assert commands == [
        "audit",
        "completion",
        "demo",
        "doctor",
        "grant",
        "import",
        "keys",
        "migrate",
        "serve",
        "sessions",
        "tenant",
        "token",
        "watch",
    ]
    for command in commands:
        assert call(command, "--help").returncode == 0


def test_a_tenant_is_created_listed_extended_suspended_and_resumed(livedocs, deployment):
    database = f"{deployment.control_database}_initech"
    try:
        made = livedocs("tenant", "create", "initech", "--database", database, "--collection", "memos")
        assert made.stdout == f"created initech in database {database}\n"
        assert livedocs("tenant", "register", "initech", "reports").returncode == 0
        assert livedocs("tenant", "suspend", "initech").stdout == "initech is suspended\n"
        (line,) = [line for line in livedocs("tenant", "list").stdout.splitlines() if line.startswith("initech")]
        assert line.split() == ["initech", "suspended", database, "memos:_id", "reports:uuid"]
        assert livedocs("tenant", "resume", "initech").stdout == "initech is active\n"
        assert livedocs("tenant", "limits", "initech", "max_document_bytes=5000").returncode == 0
        assert livedocs("tenant", "limits", "initech", "colour=5000").returncode == 1
        assert livedocs("tenant", "limits", "initech", "5000").returncode == 2
        confined = livedocs("tenant", "confine", "initech", "initech.crm", "reports", "memos")
        assert confined.stdout == "initech.crm of initech is confined to memos reports\n"
        assert livedocs("tenant", "confine", "initech", "initech.old").stdout.endswith("is confined to nothing\n")
        assert livedocs("tenant", "release", "initech", "initech.old").returncode == 0
        assert livedocs("tenant", "confine", "initech", "initech.crm", "unknown").returncode == 1
        listed = [json.loads(line) for line in livedocs("tenant", "list", "--json").stdout.splitlines()]
        (shown,) = [found for found in listed if found["slug"] == "initech"]
        assert shown["services"] == {"initech.crm": ["memos", "reports"]}
        assert shown["limits"] == {"max_document_bytes": 5000}
        assert shown["collections"] == {"memos": "_id", "reports": "uuid"}
        again = livedocs("tenant", "create", "initech", "--database", f"{database}_2")
        assert again.returncode == 1
        assert again.stderr == "Error: A tenant with this slug already exists. (slug initech)\n"
    finally:
        with MongoClient(deployment.uri) as client:
            client[deployment.control_database].tenants.delete_one({"_id": "initech"})
            client.drop_database(database)


def test_a_grant_is_put_listed_and_removed(livedocs):
    room = str(uuid.uuid4())
    assert livedocs("grant", "set", "acme", room, "user:bob", "reader", "--for", "60").returncode == 0
    assert livedocs("grant", "set", "acme", room.upper(), "group:staff", "owner").returncode == 0
    listed = [line.split()[:2] for line in livedocs("grant", "list", "acme", room).stdout.splitlines()]
    assert listed == [["group:staff", "owner"], ["user:bob", "reader"]]
    assert livedocs("grant", "list", "globex", room).stdout == ""
    assert livedocs("grant", "revoke", "acme", room, "user:bob").returncode == 0
    assert livedocs("grant", "revoke", "acme", room, "user:bob").returncode == 1


def test_a_deletion_says_what_would_be_gone_and_asks(livedocs, deployment):
    database = f"{deployment.control_database}_hooli"
    with MongoClient(deployment.uri) as client:
        try:
            made = livedocs("tenant", "create", "hooli", "--database", database, "--collection", "memos")
            assert made.returncode == 0
            client[database].memos.insert_one({"_id": 1})
            told = "memos of hooli: 1 documents would be dropped\n0 grants would be gone\n"
            assert livedocs("tenant", "delete", "hooli", "--drop", "--dry-run").stdout == told
            suspended = livedocs("tenant", "suspend", "hooli", "--dry-run")
            assert suspended.stdout == "hooli is active and would be suspended\n"
            # Nobody is there to say yes.
            assert livedocs("tenant", "delete", "hooli", "--drop").returncode == 1
            assert client[database].memos.count_documents({}) == 1
            done = livedocs("tenant", "delete", "hooli", "--drop", "--yes")
            assert (done.returncode, done.stdout) == (0, told + "deleted hooli\n")
            assert client[database].list_collection_names() == []
            assert livedocs("tenant", "delete", "hooli", "--dry-run").returncode == 1
            entries = [json.loads(line) for line in livedocs("audit", "hooli", "--json").stdout.splitlines()]
            assert {entry["actor"] for entry in entries} == {"client:livedocs-cli"}
            assert [entry["action"] for entry in entries] == [
                "tenant.delete",
                "tenant.deletion_asked",
                "tenant.deletion_asked",
                "tenant.create",
            ]
        finally:
            client[deployment.control_database].tenants.delete_one({"_id": "hooli"})
            client.drop_database(database)


def test_the_audit_is_searched_and_listed_for_people_and_for_programs(livedocs):
    room = str(uuid.uuid4())
    livedocs("grant", "set", "acme", room, "user:bob", "reader")
    assert livedocs("grant", "revoke", "acme", room, "user:bob", "--dry-run").returncode == 0
    (grant,) = [json.loads(line) for line in livedocs("grant", "list", "acme", room, "--json").stdout.splitlines()]
    assert (grant["subject"], grant["role"], grant["in_force"]) == ("user:bob", "reader", True)
    livedocs("grant", "revoke", "acme", room, "user:bob")
    assert livedocs("grant", "revoke", "acme", room, "user:bob", "--dry-run").returncode == 1
    lines = livedocs("audit", "acme", "--uuid", room).stdout.splitlines()
    assert [line.split()[1:5] for line in lines] == [
        ["client:livedocs-cli", "grant.remove", room, "user:bob"],
        ["client:livedocs-cli", "grant.set", room, "user:bob"],
    ]
    (newest,) = livedocs("audit", "acme", "--uuid", room, "--limit", "1").stdout.splitlines()
    assert newest == lines[0]
    assert livedocs("audit", "acme", "--uuid", room, "--until", "2020-01-01").stdout == ""
    assert livedocs("audit", "acme", "--since", "yesterday").returncode == 2
    assert livedocs("audit", "acme", "--action", "explode").returncode == 2


def test_a_deployment_that_does_not_answer_is_another_status_than_a_refusal(deployment, free_ports, monkeypatch):
    (port,) = free_ports(1)
    done = call("sessions", "list", "--url", f"http://127.0.0.1:{port}", "--token", "x", environ={"NO_PROXY": "*"})
    assert done.returncode == os.EX_UNAVAILABLE

    async def gone(client, control):
        raise Unavailable

    monkeypatch.setattr(repositories, "load", deployment.settings)
    monkeypatch.setattr(repositories, "log_errors", lambda settings: None)
    # In a thread: the loop that asyncio.run makes and closes must not be the one that pytest-asyncio has set.
    with ThreadPoolExecutor(1) as thread, pytest.raises(repositories.Unreachable):
        thread.submit(repositories.use, gone).result()
    assert repositories.Unreachable.exit_code == os.EX_UNAVAILABLE


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["acme", "{6f1b0c1e-0000-4000-8000-000000000000}", "user:bob", "reader"], "Not a UUID"),
        (["acme", "6f1b0c1e-0000-4000-8000-000000000000", "bob", "reader"], "Not a subject"),
        (["acme", "6f1b0c1e-0000-4000-8000-000000000000", "user:bob", "king"], "'reader', 'writer', 'owner'"),
    ],
)
def test_a_malformed_grant_is_refused_before_anything_is_asked(arguments, complaint):
    done = call("grant", "set", *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_migrations_are_listed_and_a_second_run_has_nothing_to_do(livedocs):
    states = [line.split() for line in livedocs("migrate", "--list").stdout.splitlines()]
    assert states
    assert {state for state, _ in states} == {"applied"}
    assert livedocs("migrate").stdout == "nothing to do\n"
    refused = livedocs("migrate", "--to", "9999_nowhere")
    assert refused.returncode == 1
    assert "there is no migration 9999_nowhere" in refused.stderr


def test_a_doctor_finds_nothing_wrong_with_a_deployment_that_is_fit(livedocs):
    done = livedocs("doctor")
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"ok"}, done.stdout
    assert done.returncode == 0


def test_a_doctor_says_what_to_do_about_each_problem(livedocs, deployment):
    done = livedocs("doctor", control_database="livedocs_of_nobody", oauth_client_secret="wrong")
    assert done.returncode == 1
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert len(problems) == 3, done.stdout
    for advice in ("run: livedocs migrate", "run: livedocs tenant create", "check LIVEDOCS_OAUTH_CLIENT_ID"):
        assert advice in done.stdout
    assert "wrong" not in done.stdout + done.stderr


def test_a_doctor_goes_on_to_oauth_when_mongodb_does_not_answer(livedocs, free_ports):
    (port,) = free_ports(1)
    done = livedocs(
        "doctor", mongodb_uri=f"mongodb://root:secret@127.0.0.1:{port}/", oauth_issuer="http://localhost:1"
    )
    assert done.returncode == 1
    assert "check LIVEDOCS_MONGODB_URI" in done.stdout
    assert "check LIVEDOCS_OAUTH_ISSUER" in done.stdout
    assert "secret" not in done.stdout + done.stderr


async def test_a_server_that_starts_without_mongodb_says_so_within_seconds(deployment, free_ports):
    mongodb, public = free_ports(2)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("LIVEDOCS_")}
    settings = deployment.environ(mongodb_uri=f"mongodb://127.0.0.1:{mongodb}", bind=f"127.0.0.1:{public}")
    waiting = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "livedocs", "serve"), env=outside | settings, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            # The end of what it says would be its own end.
            while line := await waiting.stderr.readline():
                if b"tenants_unreadable" in line:
                    break
        assert line
        waiting.terminate()
        await waiting.communicate()
        assert waiting.returncode == 0
    finally:
        if waiting.returncode is None:
            waiting.kill()
            await waiting.wait()


def test_a_doctor_sees_a_missing_index(livedocs, deployment):
    with MongoClient(deployment.uri) as client:
        tests = client[deployment.databases["acme"]].test
        tests.drop_index("uuid_1")
        done = livedocs("doctor")
        tests.create_index("uuid")
    assert "problem  tenant acme: test has no index on uuid" in done.stdout
    assert "-> run: livedocs tenant register acme test --key uuid" in done.stdout
    assert done.returncode == 1


def test_a_doctor_sees_a_collection_that_another_one_took_the_place_of(livedocs, deployment):
    advice = "-> run: livedocs tenant register acme test --key uuid"
    with MongoClient(deployment.uri) as client:
        database = client[deployment.databases["acme"]]
        database.drop_collection("test")
        gone = livedocs("doctor").stdout
        database.test.create_index("uuid")
        bare = livedocs("doctor").stdout
        database.drop_collection("test")
        database.create_collection("test", capped=True, size=4096)
        capped = livedocs("doctor").stdout
        database.drop_collection("test")
    assert livedocs("tenant", "register", "acme", "test", "--key", "uuid").returncode == 0
    assert "problem  tenant acme: test does not exist" in gone
    assert advice in gone
    assert "problem  tenant acme: test keeps no pre-images" in bare
    assert advice in bare
    assert "problem  tenant acme: test cannot be streamed (capped)" in capped
    assert "ok       tenant acme: its" in livedocs("doctor").stdout


def test_a_doctor_sees_by_a_token_that_counts_that_the_settings_fit(livedocs, deployment):
    done = livedocs("doctor", "--token", deployment.token("ada", scope="livedocs:admin"))
    assert "ok       the token counts: user:ada, scopes livedocs:admin, until " in done.stdout
    assert "ok       the token's tenant acme is acme" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("mode", ["introspect", "jwt", "jwt+introspect"])
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"oauth_audience": "docs"}, "(reason audience, claim aud)\n         -> set LIVEDOCS_OAUTH_AUDIENCE"),
        (
            {"oauth_tenant_claim": "org.id"},
            "(reason tenant, claim org.id)\n         -> check LIVEDOCS_OAUTH_TENANT_CLAIM",
        ),
    ],
    ids=["audience", "tenant claim"],
)
def test_a_doctor_sees_by_a_token_which_setting_does_not_fit(livedocs, deployment, mode, setting, said):
    done = livedocs("doctor", "--token", deployment.token("alice"), oauth_mode=mode, **setting)
    assert f"problem  the token is refused {said}" in done.stdout
    assert done.returncode == 1


def test_a_doctor_names_a_tenant_that_nobody_has_registered_and_one_that_is_suspended(livedocs, deployment):
    token = deployment.token("alice")
    unknown = livedocs("doctor", "--token", token, oauth_tenant_claim="sub").stdout
    assert "problem  the token's tenant alice is no tenant's slug or alias (reason tenant_unknown)" in unknown
    assert livedocs("tenant", "alias", "acme", "alice").returncode == 0
    aliased = livedocs("doctor", "--token", token, oauth_tenant_claim="sub").stdout
    assert livedocs("tenant", "alias", "acme").returncode == 0
    assert "ok       the token's tenant alice is acme" in aliased
    assert livedocs("tenant", "suspend", "acme").returncode == 0
    suspended = livedocs("doctor", "--token", token).stdout
    assert livedocs("tenant", "resume", "acme").returncode == 0
    assert "problem  the token's tenant acme is suspended" in suspended


def test_a_doctor_without_a_token_says_what_it_has_not_checked(livedocs):
    done = livedocs("doctor")
    assert done.stderr.startswith("not checked: LIVEDOCS_OAUTH_AUDIENCE")
    assert done.returncode == 0


def test_a_doctor_takes_a_token_that_is_none_for_what_it_is(livedocs):
    done = livedocs("doctor", "--token", "no token")
    assert "problem  the token is refused (reason malformed)" in done.stdout
    assert "no token" not in done.stdout + done.stderr


def test_a_doctor_sees_a_name_that_means_two_tenants(livedocs, deployment):
    with MongoClient(deployment.uri) as client:
        tenants = client[deployment.control_database].tenants
        tenants.update_one({"_id": "acme"}, {"$set": {"aliases": ["globex", "org_1", "own"]}})
        tenants.update_one({"_id": "globex"}, {"$set": {"aliases": ["org_1"]}})
        done = livedocs("doctor")
        tenants.update_many({}, {"$unset": {"aliases": ""}})
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert problems == [
        "problem  the name globex in a token means several tenants: acme, globex",
        "problem  the name org_1 in a token means several tenants: acme, globex",
    ]
    assert done.returncode == 1


def test_a_doctor_sees_grants_of_a_tenant_that_does_not_exist(livedocs, deployment):
    with MongoClient(deployment.uri, uuidRepresentation="standard") as client:
        acl = client[deployment.control_database].acl
        rows = [{"tenant": slug, "uuid": uuid.uuid4(), "subject": "user:x"} for slug in ("acmee", "acmee", "acme")]
        acl.insert_many([{"_id": row, "role": "owner"} for row in rows])
        done = livedocs("doctor")
        acl.delete_many({"_id": {"$in": rows}})
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert problems == ["problem  there are grants of tenants that do not exist: acmee"]
    assert "problem" not in livedocs("doctor").stdout


@pytest.mark.parametrize(
    "option",
    ["readPreference=secondaryPreferred", "w=1", "readConcernLevel=local", "retryWrites=false", "journal=false"],
)
def test_a_doctor_names_an_option_that_would_weaken_a_guarantee(livedocs, deployment, option):
    done = livedocs("doctor", mongodb_uri=f"{deployment.uri}&{option}")
    assert f"problem  the connection string has options that are ignored: {option}\n" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"viewOn": "notes", "pipeline": []}, "view"),
        ({"timeseries": {"timeField": "at"}}, "timeseries"),
        ({"capped": True, "size": 4096}, "capped"),
    ],
)
def test_a_doctor_names_what_has_taken_a_collections_place(livedocs, deployment, options, reason):
    with MongoClient(deployment.uri) as client:
        database = client[deployment.databases["acme"]]
        database.drop_collection("test")
        database.command({"create": "test", **options})
        done = livedocs("doctor")
        database.drop_collection("test")
    assert livedocs("tenant", "register", "acme", "test", "--key", "uuid").returncode == 0
    assert f"problem  tenant acme: test cannot be streamed ({reason})" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(("collection", "key"), [("test", "uuid"), ("notes", "_id")])
def test_a_doctor_sees_legacy_uuids(livedocs, deployment, collection, key):
    legacy = Binary.from_uuid(uuid.uuid4(), UuidRepresentation.CSHARP_LEGACY)
    with MongoClient(deployment.uri) as client:
        database = client[deployment.databases["acme"]]
        database[collection].insert_many([{key: Binary.from_uuid(uuid.uuid4())}, {key: legacy}])
        done = livedocs("doctor")
        database[collection].delete_one({key: legacy})
    found = f"problem  tenant acme: {collection} holds 1 legacy UUIDs (Binary subtype 3) in {key}: "
    assert found in done.stdout
    assert done.returncode == 1
    assert "legacy" not in livedocs("doctor").stdout


def test_a_standalone_mongod_is_a_problem_with_advice(tmp_path, free_ports):
    mongod = Mongod(tmp_path, *free_ports(1))
    mongod.start()
    try:
        with mongod.client() as client:
            finding = topology_finding(client.admin.command("hello"))
    finally:
        mongod.kill()
    assert "rs.initiate()" in finding.advice


@pytest.mark.parametrize(
    ("finding", "fine"),
    [
        (version_finding([6, 0, 5, 0]), True),
        (version_finding([8, 2, 0, 0]), True),
        (version_finding([5, 0, 31, 0]), False),
        (topology_finding({"msg": "isdbgrid"}), True),
        (topology_finding({"setName": "rs0"}), True),
        (oplog_finding(4000, 300, full=True), True),
        (oplog_finding(10, 300, full=False), True),
        (oplog_finding(10, 300, full=True), False),
        (introspection_finding(None), False),
    ],
)
def test_what_a_finding_says(finding, fine):
    assert isinstance(finding, Finding)
    assert str(finding).startswith("ok " if fine else "problem ")


def test_a_token_of_the_development_provider_stands_alone_on_its_line(oauth):
    done = call("token", "--user", "alice", "--tenant", "acme", "--oauth-port", str(oauth.port))
    (line,) = done.stdout.splitlines()
    assert len(line.split(".")) == 3
    refused = call("token", "--user", "alice", "--tenant", "globex", "--oauth-port", str(oauth.port))
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith("Error: alice belongs to tenant acme")


NOWHERE = "Error: There is no tenant with this slug. (slug acmee)\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("grant", "set", "acmee", "{uuid}", "user:x", "owner"),
        ("grant", "revoke", "acmee", "{uuid}", "user:x"),
        ("grant", "revoke", "acmee", "{uuid}", "user:x", "--dry-run"),
        ("grant", "transfer", "acmee", "{uuid}", "user:x", "user:y"),
        ("grant", "transfer", "acmee", "{uuid}", "user:x", "user:y", "--dry-run"),
        ("grant", "list", "acmee", "{uuid}"),
        ("grant", "list", "acmee", "--subject", "user:x"),
        ("tenant", "show", "acmee"),
        ("tenant", "register", "acmee", "notes"),
        ("tenant", "limits", "acmee"),
        ("tenant", "confine", "acmee", "crm"),
        ("tenant", "release", "acmee", "crm"),
        ("tenant", "suspend", "acmee"),
        ("tenant", "suspend", "acmee", "--dry-run"),
        ("tenant", "resume", "acmee"),
        ("tenant", "delete", "acmee", "--yes"),
        ("tenant", "delete", "acmee", "--dry-run"),
    ],
    ids=" ".join,
)
def test_a_name_that_is_no_tenants_is_taken_for_none(livedocs, deployment, arguments):
    room = uuid.uuid4()
    done = livedocs(*(argument.format(uuid=room) for argument in arguments))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", NOWHERE)
    with MongoClient(deployment.uri) as client:
        assert client[deployment.control_database].acl.count_documents({"_id.tenant": "acmee"}) == 0


def test_the_audit_of_a_tenant_that_never_was_is_no_empty_one(livedocs):
    done = livedocs("audit", "acmee")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: There is no tenant with this slug, and never was. (slug acmee)\n"


def test_a_new_tenant_inherits_nobody(livedocs, deployment):
    with MongoClient(deployment.uri, uuidRepresentation="standard") as client:
        acl = client[deployment.control_database].acl
        acl.insert_one({"_id": {"tenant": "umbrella", "uuid": uuid.uuid4(), "subject": "user:x"}, "role": "owner"})
        try:
            done = livedocs("tenant", "create", "umbrella")
            assert done.returncode == 1
            assert "There are grants of this slug already" in done.stderr
            assert livedocs("tenant", "show", "umbrella").returncode == 1
        finally:
            acl.delete_one({"_id.tenant": "umbrella"})


def test_a_slug_that_is_taken_is_blamed_and_not_its_database(livedocs):
    done = livedocs("tenant", "create", "acme")
    assert (done.returncode, done.stderr) == (1, "Error: A tenant with this slug already exists. (slug acme)\n")


def test_a_list_of_nothing_says_so_to_people_and_nothing_to_programs(livedocs):
    room = str(uuid.uuid4())
    assert livedocs("grant", "list", "acme", room).stderr == "no grants\n"
    done = livedocs("grant", "list", "acme", room, "--json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert livedocs("audit", "acme", "--uuid", room).stderr == "no entries\n"


def test_what_is_only_asked_about_is_refused_as_it_would_be(livedocs):
    room = str(uuid.uuid4())
    assert livedocs("grant", "set", "acme", room, "user:alice", "owner").returncode == 0
    asked = livedocs("grant", "revoke", "acme", room, "user:alice", "--dry-run")
    done = livedocs("grant", "revoke", "acme", room, "user:alice")
    assert (asked.returncode, asked.stderr) == (done.returncode, done.stderr)
    assert "without an owner" in asked.stderr
    told = livedocs("grant", "revoke", "acme", room, "user:alice", "--dry-run", "--force")
    assert told.stdout == f"user:alice would have no grant on {room}; 0 others would stay\n"
    assert livedocs("grant", "list", "acme", room).stdout.split()[:2] == ["user:alice", "owner"]
