"""The plugin in a repository of somebody else's, run by a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TESTS = """
import uuid
import pytest

{mark}
async def test_asynchronous(livedocs_server, livedocs_sockets):
    alice = await livedocs_sockets.connect("alice")
    await alice.join_refused(uuid.uuid4())
    assert sorted(livedocs_server.database().list_collection_names()) == ["orders"]
    assert livedocs_server.database().name.endswith("shop")

def test_synchronous(livedocs_blocking_sockets):
    livedocs_blocking_sockets.connect("alice").expect_nothing()

def test_a_limit_of_their_own(livedocs_server):
    with livedocs_server.http(livedocs_server.oauth.service("s")) as http:
        answer = http.post("/v1/docs/orders", json={{"text": "x" * 3000}})
    assert answer.json()["code"] == "document_too_large"
"""
CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def livedocs_tenants():
    return {"shop": {"orders": "_id"}}

@pytest.fixture(scope="session")
def livedocs_settings():
    return {"max_document_bytes": 2048}

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""

BROKEN = """
import pytest

@pytest.fixture(scope="session")
def livedocs_settings():
    return {"bind": "192.0.2.1:1"}

def test_it(livedocs_server):
    pass
"""


@pytest.fixture
def repository(tmp_path):
    def run(tests, *options, **environ):
        (tmp_path / "conftest.py").write_text(CONFTEST)
        (tmp_path / "test_them.py").write_text(tests)
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        environ = {**os.environ, **environ}
        for name in ("PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"):
            environ.pop(name, None)
        # pytest-asyncio warns without it.
        scope = () if "no:asyncio" in options else ("-o", "asyncio_default_fixture_loop_scope=function")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *scope, *options]
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
        )
        return done.stdout + done.stderr

    return run


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_it_works_in_either_mode_of_pytest_asyncio(repository, mode):
    mark = "@pytest.mark.asyncio" if mode == "strict" else ""
    output = repository(TESTS.format(mark=mark), "-o", f"asyncio_mode={mode}")
    assert "3 passed" in output


def test_it_works_with_anyios_plugin(repository):
    output = repository(TESTS.format(mark="@pytest.mark.anyio"), "-p", "no:asyncio")
    assert "3 passed" in output


def test_it_works_without_pytest_asyncio(repository):
    synchronous = TESTS[TESTS.index("def test_synchronous") :].format(mark="")
    assert "2 passed" in repository(synchronous, "-p", "no:asyncio")


def test_a_missing_mongod_is_said_with_what_to_install(repository, tmp_path):
    # A package of that name without a mongod in it, ahead of the real one.
    (tmp_path / "fiftyone").mkdir()
    (tmp_path / "fiftyone" / "__init__.py").touch()
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    output = repository("def test_it(livedocs_server): pass", PATH="/nonexistent", PYTHONPATH=path)
    assert "livedocs needs a mongod for its tests: no usable mongod found" in output
    assert "pip install 'CHECKOUT[embedded]'" in output
    assert "Traceback" not in output


def test_a_server_that_does_not_start_is_shown_with_its_words(repository):
    output = repository(BROKEN)
    assert "the livedocs server ended with status" in output
    assert "LIVEDOCS_BIND: nobody can listen on" in output
    assert "cannot assign requested address" in output


def test_who_has_it_installed_and_does_not_use_it_waits_for_nothing():
    look = (
        "import sys, pytest; before = set(sys.modules); import livedocs.testing.plugin;"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('livedocs')))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
