"""The pages about the client and the plugin: their code is run as it stands."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import livedocs.client
from livedocs import errors
from livedocs.testing import people, plugin

DOCS = Path(__file__).parents[2] / "docs"
CLIENT = (DOCS / "python-client.md").read_text()
TESTING = (DOCS / "testing.md").read_text()
BLOCK = re.compile(r'^```python(?: title="([\w.]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


# The page's code in its order, in one namespace, with what it calls by an example's name.
RUNNER = """
import ast, inspect

async def test_page(livedocs_server):
    oauth = livedocs_server.oauth
    names = {
        "https://id.example.com": oauth.issuer,
        "https://docs.example.com": livedocs_server.url,
        "its secret": oauth.client(oauth.service("orders")),
    }
    namespace = {}
    for number, code in enumerate(BLOCKS):
        for example, real in names.items():
            code = code.replace(example, real)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        run = eval(compile(code, f"block {number}", "exec", flags), namespace)
        if inspect.isawaitable(run):
            await run
"""


def run(folder, files):
    """The output of pytest on these files, in a repository of somebody else's."""
    for name, code in files.items():
        (folder / name).write_text(code)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    options = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-W", "error", *options]
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


def files_of(page):
    return {name: code for name, code in BLOCK.findall(page) if name}


def test_the_clients_page_does_what_it_says(tmp_path):
    blocks = [code for _, code in BLOCK.findall(CLIENT)]
    assert len(blocks) == CLIENT.count("```python") == 10
    conftest = files_of(TESTING)["conftest.py"]
    output = run(tmp_path, {"conftest.py": conftest, "test_page.py": f"BLOCKS = {blocks!r}\n{RUNNER}"})
    assert "1 passed" in output, output
    for shown in ("somebody was faster", "as it is now [", "update {"):
        assert shown in output


def test_the_plugins_page_does_what_it_says(tmp_path):
    files = files_of(TESTING)
    assert sorted(files) == ["conftest.py", "test_blocking.py", "test_orders.py", "test_tokens.py"]
    output = run(tmp_path, files)
    assert "3 passed" in output, output


def listed(page, after):
    """The code in the first column of the table behind that text."""
    table, _, _ = page.split(after, 1)[1].strip().partition("\n\n")
    return " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))


def test_every_fixture_is_listed_and_no_other():
    named = set(re.findall(r"`(livedocs_\w+)`", listed(TESTING, "## The fixtures\n")))
    fixtures = {name for name in vars(plugin) if name.startswith("livedocs_")}
    assert named == fixtures
    assert fixtures == set(re.findall(r"^ +(livedocs_\w+) ", plugin.__doc__, re.MULTILINE))


def test_everything_a_socket_does_is_listed():
    named = set(re.findall(r"`(\w+)", listed(TESTING, "| Of a socket | |\n")))
    does = {name for name in vars(people.Socket) if not name.startswith("_")}
    assert does <= named
    blocking = {name for name in vars(people.BlockingSocket) if not name.startswith("_")}
    assert blocking == does
    for name in does:
        assert inspect.signature(getattr(people.Socket, name)) == inspect.signature(
            getattr(people.BlockingSocket, name)
        )


def test_every_error_of_the_client_is_listed_with_its_code():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", CLIENT, re.MULTILINE)
    assert rows
    assert {(kind.__name__, kind.code) for kind in errors.ClientError.__subclasses__()} == set(rows)


def test_the_face_of_the_client_is_what_it_says_and_typed():
    assert sorted(livedocs.client.__all__) == livedocs.client.__all__
    for name in livedocs.client.__all__:
        assert getattr(livedocs.client, name).__doc__ or name == "Event", name
    assert (Path(livedocs.client.__file__).parent / "py.typed").exists()
