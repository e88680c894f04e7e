"""The lower bounds of pyproject.toml are true: with the lowest versions that it allows, the code works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The unit tests; those of HTTP clients and JWTs against a made-up provider; those of the demo's provider, which is
# made of the `demo` extra. None of them needs a mongod.
PLACES = ("tests/unit", "tests/contract", "tests/integration/provider")


def run(*command, timeout):
    # What this run of pytest tells its own workers is not for another one.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:]


@pytest.fixture
def lowest(tmp_path_factory):
    """The Python of an environment that has nothing but requirements-lowest.lock and this checkout."""
    folder = tmp_path_factory.mktemp("lowest")
    run(sys.executable, "-m", "venv", folder, timeout=120)
    python = folder / "bin" / "python"
    install = (python, "-m", "pip", "install", "--quiet", "--no-deps")
    run(*install, "--require-hashes", "--requirement", "requirements-lowest.lock", timeout=600)
    run(*install, "--no-build-isolation", "--editable", ".", timeout=120)
    yield python
    shutil.rmtree(folder)


def test_with_the_lowest_versions_allowed_the_unit_tests_pass(lowest):
    run(lowest, "-m", "pip", "check", timeout=60)
    run(lowest, "-m", "pytest", *PLACES, "-n", "2", "-x", "-q", "-p", "no:cacheprovider", timeout=900)
