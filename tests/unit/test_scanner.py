"""What bandit, a scanner that nobody here wrote, says of the code: nothing but what has been looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "migrations", "ops", "scripts")

# By rule: why it is no finding, and the files in which it was looked at.
EXPLAINED = {
    "B105": (
        "A word with 'token' or 'secret' in it that is none: a name of a member, of a reason, of a form's field.",
        {
            *("src/livedocs/_client/subscription.py", "src/livedocs/_client/tokens.py"),
            *("src/livedocs/access/introspection.py", "src/livedocs/cli/doctor.py"),
            *("src/livedocs/http/socket_contract.py", "src/livedocs/http/socket_schemas.py"),
            *("src/livedocs/demo/oauth/endpoints.py", "src/livedocs/demo/oauth/server.py"),
            "src/livedocs/testing/oauth.py",
        },
    ),
    "B106": ("The stated secrets of the development provider's services.", {"src/livedocs/demo/people.py"}),
    "B110": (
        "PyMongo refuses what another decoder shows in the next line; `suppress` would cost as much as an event.",
        {"src/livedocs/codec/bsondecode.py"},
    ),
    "B112": (
        "What fails there fails again where it is contained and logged.",
        {"src/livedocs/changes/resolver.py"},
    ),
    "B311": (
        "Random numbers that spread load in time, or ports; what must not be guessed comes from `secrets`.",
        {
            *("src/livedocs/changes/stream.py", "src/livedocs/live/resyncs.py", "src/livedocs/live/sessions.py"),
            *("src/livedocs/runtime/parts.py", "src/livedocs/testing/deployment.py"),
        },
    ),
    "B404": (
        "They start mongod, the server and the tests.",
        {
            *("scripts/leaves_nothing.py", "src/livedocs/demo/mongod.py", "src/livedocs/demo/run.py"),
            "src/livedocs/testing/deployment.py",
        },
    ),
    "B603": (
        "With lists of arguments of their own, and no shell.",
        {
            *("scripts/leaves_nothing.py", "src/livedocs/demo/mongod.py", "src/livedocs/demo/run.py"),
            "src/livedocs/testing/deployment.py",
        },
    ),
    "B606": ("The same, in place of the process that asks for it.", {"src/livedocs/demo/leash.py"}),
    "B608": ("A column's name in an SQL text: one of two constants.", {"src/livedocs/demo/oauth/state.py"}),
}


def test_bandit_finds_nothing_that_nobody_has_looked_at():
    command = [sys.executable, "-m", "bandit", "--quiet", "--format", "json", "--recursive", *FOLDERS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    report = json.loads(done.stdout)
    assert report["errors"] == []
    assert report["metrics"]["_totals"]["loc"] > 15_000
    unexplained = [
        f"{found['filename']}:{found['line_number']} {found['test_id']} {found['issue_text']}"
        for found in report["results"]
        if found["filename"] not in EXPLAINED.get(found["test_id"], ("", set()))[1]
    ]
    assert not unexplained, "\n".join(unexplained)
    # None is switched off where it stands: what is no finding is said here.
    assert report["metrics"]["_totals"]["nosec"] == 0
    assert report["metrics"]["_totals"]["skipped_tests"] == 0


def test_nothing_is_explained_that_is_not_there():
    for files in (files for _, files in EXPLAINED.values()):
        assert [file for file in files if not (ROOT / file).is_file()] == []
