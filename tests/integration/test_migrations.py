from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import uuid4

import pytest
from bson import SON, Binary
from pymongo.errors import DuplicateKeyError, WriteError

from livedocs import config
from livedocs.model import Grant, GrantKey, Role, grant_document
from livedocs.store.lock import Lock, LockLostError
from livedocs.store.migrate import MigrationError, migrations_dir, run

FIRST, SECOND = "0001_tenants_and_grants", "0002_guards_and_processes"


@pytest.fixture
def settings(mongod):
    return config.load(
        {},
        mongodb_uri=mongod.uri,
        control_database=f"migrations_{secrets.token_hex(4)}",
        public_url="http://localhost:8000",
        oauth_issuer="http://localhost:8001",
        oauth_client_id="livedocs",
        oauth_client_secret="secret",
        oauth_audience="livedocs",
    )


@pytest.fixture
def database(mongod, settings):
    with mongod.members[0].client() as client:
        yield client[settings.control_database]
        client.drop_database(settings.control_database)


def grant(**changes):
    key = GrantKey("acme", uuid4(), "user:alice")
    return grant_document(Grant(key, Role.OWNER, None, "system", datetime.now(UTC))) | changes


def write(folder, name, depends, upgrade="db['ran'].insert_one({})", downgrade="db['unran'].insert_one({})"):
    (folder / f"{name}.py").write_text(
        f"name = {name!r}\ndependencies = {depends!r}\n\n\n"
        f"def upgrade(db):\n    {upgrade}\n\n\ndef downgrade(db):\n    {downgrade}\n"
    )


def test_the_scripts_are_found_in_a_checkout():
    assert {path.stem for path in migrations_dir().glob("0*.py")} >= {FIRST, SECOND}


def test_all_of_them_are_applied_once(settings, database):
    assert run(settings)[:2] == [FIRST, SECOND]
    assert run(settings) == []
    state = database["migrations"].find_one({"_id": FIRST})
    assert state.keys() == {"_id", "applied_at", "checksum"}
    assert state["checksum"] == sha256((migrations_dir() / f"{FIRST}.py").read_bytes()).hexdigest()


def test_the_collections_have_their_indexes_and_images(settings, database):
    run(settings)
    acl = database["acl"].index_information()
    assert acl["by_uuid"]["key"][:2] == [("_id.tenant", 1), ("_id.uuid", 1)]
    assert acl["by_subject"]["key"][:2] == [("_id.tenant", 1), ("_id.subject", 1)]
    assert acl["owners"]["partialFilterExpression"] == {"role": "owner"}
    assert (acl["expiry"]["key"], acl["expiry"]["expireAfterSeconds"]) == ([("expires_at", 1)], 0)
    assert database["audit"].index_information()["expiry"]["expireAfterSeconds"] > 0
    assert database["processes"].index_information()["expiry"]["expireAfterSeconds"] == 0
    assert "expiry" in database["guards"].index_information()
    assert database["acl"].options()["changeStreamPreAndPostImages"] == {"enabled": True}


def test_a_grant_is_taken_as_the_code_writes_it(settings, database):
    run(settings)
    database["acl"].insert_one(grant())
    database["acl"].insert_one(grant(expires_at=datetime.now(UTC) + timedelta(hours=1)))


@pytest.mark.parametrize(
    "change",
    [
        {"role": "admin"},
        {"role": None},
        {"expires_at": "tomorrow"},
        {"_id": "x"},
        {"_id": {"tenant": "acme", "uuid": str(uuid4()), "subject": "user:a"}},
        {"_id": {"tenant": "acme", "uuid": Binary.from_uuid(uuid4()), "subject": "anyone"}},
        {"_id": {"tenant": "acme", "uuid": Binary.from_uuid(uuid4()), "subject": "user:a", "more": 1}},
        # The order of the fields is part of an embedded key.
        {"_id": SON([("uuid", Binary.from_uuid(uuid4())), ("tenant", "acme"), ("subject", "user:a")])},
    ],
)
def test_a_grant_that_could_not_be_enforced_is_refused(settings, database, change):
    run(settings)
    with pytest.raises(WriteError):
        database["acl"].insert_one(grant(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"_id": "A"},
        {"database": "a.b"},
        {"collections": {"a": {"key": "x"}}},
        {"collections": {"a": {}}},
        {"status": "?"},
    ],
)
def test_a_tenant_that_could_not_be_served_is_refused(settings, database, change):
    run(settings)
    good = {"_id": "acme", "database": "acme", "collections": {"a": {"key": "uuid"}}, "status": "active"}
    database["tenants"].insert_one(dict(good))
    with pytest.raises(WriteError) as refusal:
        database["tenants"].insert_one({**good, "_id": "other", "database": "other", **change})
    assert not isinstance(refusal.value, DuplicateKeyError)


def test_back_to_one_and_forward_again(settings, database):
    run(settings)
    assert SECOND in run(settings, FIRST)
    assert "guards" not in database.list_collection_names()
    assert [state["_id"] for state in database["migrations"].find()] == [FIRST]
    assert run(settings, SECOND) == [SECOND]
    assert "guards" in database.list_collection_names()


def test_all_the_way_back_leaves_nothing_of_theirs(settings, database):
    applied = run(settings)
    assert run(settings, "zero") == applied[::-1]
    assert set(database.list_collection_names()) <= {"migrations", "locks"}
    assert run(settings, "zero") == []


def test_going_back_loses_no_grant(settings, database):
    run(settings)
    kept = grant()
    database["acl"].insert_one(kept)
    run(settings, "zero")
    assert database["acl"].count_documents({}) == 1
    assert "validator" not in database["acl"].options()
    assert list(database["acl"].index_information()) == ["_id_"]
    run(settings)
    assert database["acl"].count_documents({}) == 1
    with pytest.raises(WriteError):
        database["acl"].insert_one(grant(role="admin"))


def test_a_script_changed_after_it_was_applied_is_named(settings, database, tmp_path):
    write(tmp_path, "0001_one", [])
    run(settings, directory=tmp_path)
    write(tmp_path, "0001_one", [], upgrade="db['other'].insert_one({})")
    write(tmp_path, "0002_two", ["0001_one"])
    with pytest.raises(MigrationError, match="0001_one"):
        run(settings, directory=tmp_path)
    assert database["ran"].count_documents({}) == 1


def test_a_script_that_is_applied_but_missing_is_named(settings, database, tmp_path):
    write(tmp_path, "0001_one", [])
    write(tmp_path, "0002_two", ["0001_one"])
    run(settings, directory=tmp_path)
    (tmp_path / "0002_two.py").unlink()
    with pytest.raises(MigrationError, match="0002_two"):
        run(settings, directory=tmp_path)


def test_an_unknown_target_is_named_with_those_there_are(settings, database):
    with pytest.raises(MigrationError, match=f"0009_nine.*zero.*{FIRST}"):
        run(settings, "0009_nine")
    assert "acl" not in database.list_collection_names()


def test_a_folder_without_scripts_is_no_reason_to_go_back(settings, tmp_path):
    with pytest.raises(MigrationError, match="no migrations"):
        run(settings, directory=tmp_path)


def test_what_a_failed_script_had_before_it_stays_applied(settings, database, tmp_path):
    write(tmp_path, "0001_one", [])
    write(tmp_path, "0002_two", ["0001_one"], upgrade="raise RuntimeError('not this time')")
    with pytest.raises(RuntimeError):
        run(settings, directory=tmp_path)
    assert [state["_id"] for state in database["migrations"].find()] == ["0001_one"]
    assert database["locks"].count_documents({}) == 0
    write(tmp_path, "0002_two", ["0001_one"])
    assert run(settings, directory=tmp_path) == ["0002_two"]


def test_of_processes_that_start_together_one_migrates_and_the_others_find_nothing_to_do(
    settings, database, tmp_path
):
    write(tmp_path, "0001_one", [])
    write(tmp_path, "0002_two", ["0001_one"])
    start = threading.Barrier(4)

    def process(_):
        start.wait(10)
        return run(settings, directory=tmp_path)

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(process, range(4)))
    assert sorted(results) == [[], [], [], ["0001_one", "0002_two"]]
    assert database["ran"].count_documents({}) == 2


def test_the_lock_of_a_dead_process_ends_with_its_lease(settings, database):
    database["locks"].insert_one(
        {"_id": "migrations", "owner": "dead", "expires_at": datetime.now(UTC) + timedelta(seconds=1)}
    )
    before = datetime.now(UTC)
    assert FIRST in run(settings)
    assert datetime.now(UTC) - before > timedelta(seconds=0.5)
    assert database["locks"].count_documents({}) == 0


def test_a_lock_is_kept_for_longer_than_its_lease_while_its_holder_lives(database):
    with Lock(database, "x", lease=0.6) as held:
        with pytest.raises(TimeoutError), Lock(database, "x", lease=0.6, patience=1.5, poll=0.05):
            pass
        held.check()
    with Lock(database, "x", patience=0):
        pass


def test_two_locks_of_different_names_do_not_wait_for_each_other(database):
    with Lock(database, "x"), Lock(database, "y", patience=0):
        pass


def test_a_holder_whose_lease_was_taken_notices_and_leaves_the_other_its_lock(database):
    with Lock(database, "x", lease=0.3, poll=0.05) as lost:
        database["locks"].replace_one(
            {"_id": "x"}, {"owner": "other", "expires_at": datetime.now(UTC) + timedelta(minutes=1)}
        )
        ended = threading.Event()
        with pytest.raises(LockLostError):
            while not ended.wait(0.05):
                lost.check()
    assert database["locks"].find_one({"_id": "x"})["owner"] == "other"
