"""The set-up's own promises: what is installed is locked, and a test run leaves nothing behind."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
_EXTRAS = _PROJECT["project"]["optional-dependencies"]
_GROUPS = _PROJECT["dependency-groups"]
_RUNTIME = [
    *_PROJECT["project"]["dependencies"],
    *(one for extra, packages in _EXTRAS.items() if extra != "testing" for one in packages),
    *_GROUPS["build"],
]
_DEV = [*_GROUPS["unit"], *(one for one in _GROUPS["dev"] if one != {"include-group": "unit"})]


def locked(name):
    """Name and version of every requirement in a lock file; a name may have several for several Pythons."""
    text = (ROOT / name).read_text()
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)
    return {(canonicalize_name(package), version) for package, version in pins}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock", "requirements-lowest.lock"])
def test_a_lock_file_holds_pins_and_hashes_and_no_place_to_download_from(name):
    for line in (ROOT / name).read_text().splitlines():
        assert re.fullmatch(
            r"[A-Za-z0-9._-]+==[^ /]+(?: ; [^/]+)? \\|    --hash=sha256:[0-9a-f]{64}(?: \\)?", line
        )


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("requirements.lock", _RUNTIME),
        ("requirements-dev.lock", [*_RUNTIME, *_EXTRAS["testing"], *_DEV]),
    ],
)
def test_every_dependency_is_locked_at_a_version_that_the_project_allows(name, wanted):
    pins = locked(name)
    for requirement in map(Requirement, wanted):
        found = [version for package, version in pins if package == canonicalize_name(requirement.name)]
        assert found, f"{requirement.name}: run make lock"
        assert all(version in requirement.specifier for version in found), f"{requirement}: run make lock"


def test_the_demo_and_the_tests_run_with_the_same_versions():
    assert locked("requirements.lock") < locked("requirements-dev.lock")


def test_the_lowest_versions_locked_are_those_that_the_project_allows():
    # The binary of mongod, of one exact version, is not among them: the unit tests start none.
    extras = (one for name, packages in _EXTRAS.items() if name != "embedded" for one in packages)
    pins = locked("requirements-lowest.lock")
    for requirement in map(Requirement, (*_PROJECT["project"]["dependencies"], *extras)):
        (bound,) = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
        found = [Version(version) for package, version in pins if package == canonicalize_name(requirement.name)]
        assert found == [bound], f"{requirement}: run make lock"


def test_the_lowest_versions_are_tested_with_the_tools_of_development():
    tools = {canonicalize_name(Requirement(one).name) for one in (*_GROUPS["unit"], *_GROUPS["build"])}
    pins = {pin for pin in locked("requirements-lowest.lock") if pin[0] in tools}
    assert {package for package, _ in pins} == tools
    assert pins < locked("requirements-dev.lock")


def test_whatever_the_package_imports_is_a_dependency_of_its_own():
    declared = {canonicalize_name(Requirement(one).name) for one in (*_RUNTIME, *_EXTRAS["testing"])}
    providers = packages_distributions()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"livedocs"}:
                found = {canonicalize_name(distribution) for distribution in providers[top]}
                assert found & declared, f"{path} imports {top}, of {found}"


# `livedocs` on the Python Package Index is somebody else's project; a path (`../livedocs[client]`) is ours.
_STRANGER = re.compile(
    r"""\b(?:pipx? install|uv add|poetry add)\b(?:[ ]+-[-\w]+)*[ ]+(?:[-.\w]+[ ]+)*["']?livedocs(?![-\w/])"""
    r"""|(?<![-\w/.])livedocs(?:\[|[=<>~!]=)"""
)


@pytest.mark.parametrize(
    ("text", "is_the_strangers"),
    [
        ("pip install livedocs", True),
        ("pip install -U 'livedocs[client]'", True),
        ("uv pip install pytest livedocs", True),
        ('dependencies = ["livedocs>=1"]', True),
        ('dev = ["livedocs[testing]", "pytest"]', True),
        ("pip install livedocs-server", False),
        ("pip install '../livedocs[client]'", False),
        ('dependencies = ["livedocs-server[client]"]', False),
        ("pip uninstall livedocs", False),
    ],
)
def test_advice_to_install_a_strangers_package_is_recognized(text, is_the_strangers):
    assert bool(_STRANGER.search(text)) is is_the_strangers


def test_no_text_tells_anybody_to_install_a_strangers_package():
    kinds = {".md", ".py", ".ts", ".html", ".toml", ".sh", ".yml", ".yaml", ".txt", ".cfg", ""}
    places = [
        *ROOT.glob("*.*"),
        ROOT / "Dockerfile",
        ROOT / "Makefile",
        *(path for name in ("docs", "src", "examples", "ops", "scripts") for path in (ROOT / name).rglob("*")),
        *(ROOT / "frontend" / "src").rglob("*"),
    ]
    texts = [path for path in places if path.is_file() and path.suffix in kinds]
    assert len(texts) > 200
    assert [str(path) for path in texts if _STRANGER.search(path.read_text())] == []


def leaves_nothing(program):
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "leaves_nothing.py", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("status", [0, 3])
def test_the_status_of_a_run_that_cleans_up_is_its_own(status):
    program = f"import subprocess, sys; subprocess.run(['true']); print('done'); sys.exit({status})"
    done = leaves_nothing(program)
    assert (done.returncode, done.stdout, done.stderr) == (status, "done\n", "")


def test_a_process_left_behind_in_a_session_of_its_own_fails_the_run_and_is_ended():
    program = (
        "import subprocess; p = subprocess.Popen(['sh', '-c', 'setsid sleep 4242 & echo $!'], stdout=-1);"
        "print(int(p.stdout.readline()), flush=True)"
    )
    done = leaves_nothing(program)
    assert done.returncode == 1
    assert "left behind" in done.stderr
    assert "sleep 4242" in done.stderr
    assert not Path(f"/proc/{done.stdout.strip()}").exists()
