"""Every command of docs/cli.md is run here against real servers, and does what its page says.

A test is named by a command of the parser. What has been run is recorded as it is run: a test that has not run its
command to a good end fails, and so does a command that nobody has written a proof for.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import re
import secrets
import select
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import click
import pytest
from bson.binary import Binary, UuidRepresentation
from click.testing import CliRunner
from pymongo import MongoClient
from pymongo.errors import WriteError
from websockets.sync.client import connect

from livedocs.cli.main import main
from livedocs.demo.mongod import wait_until

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
_reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_reference)
COMMANDS = [" ".join(path) for path, _ in _reference.leaves(main)]
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def command_of(arguments):
    """The command that the arguments call, by the parser itself."""
    command, path = main, []
    for argument in arguments:
        if not isinstance(command, click.Group) or argument.startswith("-"):
            break
        command = command.get_command(click.Context(command), argument)
        path.append(argument)
    return " ".join(path)


class Shell:
    """Runs commands, as somebody who holds the settings; keeps which have ended, and how."""

    def __init__(self, server, oauth, folder, free_ports):
        self.server = server
        self.oauth = oauth
        self.folder = folder
        self.free_ports = free_ports
        self.ended = []

    def _environ(self, user):
        outside = {name: value for name, value in os.environ.items() if not name.startswith("LIVEDOCS_")}
        environ = {**outside, **self.server.deployment.environ(), "NO_PROXY": "*", "PYTHONUNBUFFERED": "1"}
        return environ | ({"LIVEDOCS_TOKEN": self.server.token(user)} if user else {})

    def run(self, *arguments, user=None, status=0):
        """What a command printed; with a user, one that asks the server with a token of theirs."""
        asked = ["--url", self.server.url] if user else []
        done = subprocess.run(
            [sys.executable, "-m", "livedocs", *arguments, *asked],
            env=self._environ(user),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stderr
        self.ended.append((command_of(arguments), done.returncode))
        return done.stdout

    def rows(self, *arguments, user=None):
        """The same with --json, each line read."""
        return [json.loads(line) for line in self.run(*arguments, "--json", user=user).splitlines()]

    @contextmanager
    def running(self, *arguments, user=None, stop=signal.SIGTERM, **settings):
        """A command that runs until it is told to stop; gives its output so far."""
        output = self.folder / f"{secrets.token_hex(4)}.out"
        asked = ["--url", self.server.url] if user else []
        environ = self._environ(user) | {f"LIVEDOCS_{name.upper()}": value for name, value in settings.items()}
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "livedocs", *arguments, *asked],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        try:
            yield output.read_text
            process.send_signal(stop)
            self.ended.append((command_of(arguments), process.wait(30)))
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def mongo(deployment):
    with MongoClient(deployment.uri, uuidRepresentation="standard") as client:
        yield client


@pytest.fixture
def shell(server, oauth, tmp_path, free_ports):
    return Shell(server, oauth, tmp_path, free_ports)


@pytest.fixture
def tenant(shell, deployment, mongo):
    """A tenant of the test's own: its slug."""
    slug = f"t-{secrets.token_hex(4)}"
    database = f"{deployment.control_database}_{slug}"
    shell.run(
        "tenant", "create", slug, "--database", database, "--collection", "memos", "--collection", "jobs:uuid"
    )
    yield slug
    mongo[deployment.control_database].tenants.delete_one({"_id": slug})
    mongo.drop_database(database)


def shown(shell, slug):
    [found] = shell.rows("tenant", "show", slug)
    return found


def granted(shell, uuid):
    return {found["subject"]: found["role"] for found in shell.rows("grant", "list", "acme", uuid)}


def answers(url):
    try:
        with _direct.open(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


@contextmanager
def a_socket(shell, user, uuid):
    """A socket of somebody's in the room of a UUID."""
    headers = {"Authorization": f"Bearer {shell.server.token(user)}"}
    with connect(shell.server.ws_url, additional_headers=headers, proxy=None) as socket:
        socket.send("40")
        socket.send("421" + json.dumps(["JoinRoom", [uuid]]))
        while not (text := socket.recv(10)).startswith("431"):
            pass
        assert uuid in json.loads(text[3:])[0]["joined"]
        yield socket


# -- a proof for each command --


def audit(shell, **_):
    uuid = str(uuid4())
    for name in ("bob", "carol", "dan"):
        shell.run("grant", "set", "acme", uuid, f"user:{name}", "reader")
    lines = shell.run("audit", "acme", "--uuid", uuid, "--limit", "2").splitlines()
    assert [line.split()[2:5] for line in lines] == [
        ["grant.set", uuid, "user:dan"],
        ["grant.set", uuid, "user:carol"],
    ]
    assert len(shell.rows("audit", "acme", "--uuid", uuid, "--action", "grant.set")) == 3


def completion(shell, **_):
    for kind, part in (
        ("bash", "complete -o nosort"),
        ("zsh", "#compdef livedocs"),
        ("fish", "complete --no-files"),
    ):
        assert part in shell.run("completion", kind)


def demo(shell, **_):
    port, oauth, mongod = shell.free_ports(3)
    options = ["--port", port, "--oauth-port", oauth, "--mongo-port", mongod, "--data-dir", shell.folder / "demo"]
    with shell.running("demo", *map(str, options)) as text:
        wait_until(lambda: f"livedocs is ready on http://localhost:{port}" in text(), 90, "the demo")
        assert answers(f"http://127.0.0.1:{port}/readyz")


def doctor(shell, **_):
    assert {line.split()[0] for line in shell.run("doctor").splitlines()} == {"ok"}


def grant_bulk(shell, **_):
    uuid = str(uuid4())
    shell.run("grant", "set", "acme", uuid, "user:alice", "owner")
    wanted = [{"uuid": uuid, "subject": "user:bob", "role": "reader"}]
    wanted += [{"uuid": uuid, "subject": "user:dan", "role": "writer"}]
    file = shell.folder / "grants.ndjson"
    file.write_text("".join(json.dumps(line) + "\n\n" for line in wanted))
    dry = shell.run("grant", "bulk", str(file), "--dry-run", user="ada").splitlines()
    assert dry[0] == f"line 1: user:bob would be reader of {uuid}"
    assert granted(shell, uuid) == {"user:alice": "owner"}
    assert shell.run("grant", "bulk", str(file), user="ada") == "2 changed, 0 refused\n"
    file.write_text(
        json.dumps(wanted[0] | {"role": None}) + "\n" + json.dumps(wanted[1] | {"role": "king"}) + "\n"
    )
    assert shell.run("grant", "bulk", str(file), user="ada", status=1) == "1 changed, 1 refused\n"
    assert granted(shell, uuid) == {"user:alice": "owner", "user:dan": "writer"}


def grant_explain(shell, **_):
    uuid = str(uuid4())
    shell.run("grant", "set", "acme", uuid, "user:bob", "writer")
    with a_socket(shell, "bob", uuid):
        lines = shell.run("grant", "explain", uuid, "user:bob", user="ada").splitlines()
        assert lines[0] == "user:bob may: writer"
        assert any(line.split()[:3] == ["grant", "user:bob", "writer"] for line in lines)
        assert any(line.startswith("socket ") for line in lines)
        # Bob has none.
        assert not any(line.startswith("scope ") for line in lines)
    own = shell.run("grant", "explain", uuid, "user:ada", user="ada").splitlines()
    assert [line.split()[1] for line in own if line.startswith("scope ")] == ["livedocs:admin"]
    [found] = shell.rows("grant", "explain", uuid, "user:carol", "--group", "staff", user="ada")
    assert (found["allowed"], found["reason"]) == (False, "no_grant")


def grant_list(shell, **_):
    subject = f"user:{uuid4()}"
    uuids = sorted((str(uuid4()) for _ in range(3)), key=lambda uuid: UUID(uuid).bytes)
    for uuid in uuids:
        shell.run("grant", "set", "acme", uuid, subject, "reader")
    lines = shell.run("grant", "list", "acme", "--subject", subject).splitlines()
    assert [line.split()[:2] for line in lines] == [[uuid, "reader"] for uuid in uuids]
    assert granted(shell, uuids[0]) == {subject: "reader"}
    shell.run("grant", "list", "acme", status=2)


def grant_revoke(shell, **_):
    uuid = str(uuid4())
    shell.run("grant", "set", "acme", uuid, "user:bob", "reader")
    shell.run("grant", "set", "acme", uuid, "user:alice", "owner")
    assert "1 others would stay" in shell.run("grant", "revoke", "acme", uuid, "user:bob", "--dry-run")
    shell.run("grant", "revoke", "acme", uuid, "user:bob")
    shell.run("grant", "revoke", "acme", uuid, "user:bob", status=1)
    # The last owner does not go by accident.
    shell.run("grant", "revoke", "acme", uuid, "user:alice", status=1)
    assert granted(shell, uuid) == {"user:alice": "owner"}
    shell.run("grant", "revoke", "acme", uuid, "user:alice", "--force")
    assert granted(shell, uuid) == {}


def grant_set(shell, **_):
    uuid = str(uuid4())
    assert shell.run("grant", "set", "acme", uuid, "user:alice", "owner") == f"user:alice is owner of {uuid}\n"
    shell.run("grant", "set", "acme", uuid, "user:alice", "reader", status=1)
    shell.run("grant", "set", "acme", uuid, "user:bob", "reader", "--for", "60")
    assert granted(shell, uuid) == {"user:alice": "owner", "user:bob": "reader"}
    shell.run("grant", "set", "acme", uuid, "user:alice", "writer", "--force")
    assert granted(shell, uuid)["user:alice"] == "writer"


def grant_transfer(shell, **_):
    uuid = str(uuid4())
    shell.run("grant", "set", "acme", uuid, "user:alice", "owner")
    arguments = ["grant", "transfer", "acme", uuid, "user:alice", "user:bob", "--keep", "reader"]
    assert shell.run(*arguments, "--dry-run") == f"user:bob would own {uuid}; user:alice would stay reader\n"
    assert granted(shell, uuid) == {"user:alice": "owner"}
    assert shell.run(*arguments) == f"user:bob owns {uuid}; user:alice is reader\n"
    assert granted(shell, uuid) == {"user:alice": "reader", "user:bob": "owner"}
    shell.run(*arguments, status=1)


def import_(shell, mongo, **_):
    mark = secrets.token_hex(8)
    file = shell.folder / "documents.ndjson"
    file.write_text("".join(json.dumps({"mark": mark, "n": n}) + "\n" for n in range(3)))
    arguments = ["import", "notes", str(file), "--grant", "user:bob=reader"]
    assert shell.run(*arguments, user="acme-service").endswith("3 lines done, 0 refused\n")
    assert shell.run(*arguments, user="acme-service") == "nothing is left to do\n"
    notes = mongo[shell.server.databases["acme"]].notes
    assert sorted(found["n"] for found in notes.find({"mark": mark})) == [0, 1, 2]


def keys_list(shell, **_):
    found = shell.rows("keys", "list")
    assert found[0].keys() == {"number", "made", "begins"}
    assert (found[0]["number"], found[0]["begins"]) == (0, "1970-01-01T00:00:00+00:00")
    assert len(shell.run("keys", "list").splitlines()) == len(found)


def keys_rotate(shell, **_):
    before = shell.rows("keys", "list")
    assert shell.run("keys", "rotate").startswith(str(len(before)))
    made = shell.rows("keys", "list")[-1]
    assert made["number"] == len(before)
    assert datetime.fromisoformat(made["begins"]) - datetime.fromisoformat(made["made"]) >= timedelta(minutes=20)


def migrate(shell, **_):
    assert shell.run("migrate") == "nothing to do\n"
    assert {line.split()[0] for line in shell.run("migrate", "--list").splitlines()} == {"applied"}


def serve(shell, **_):
    port, metrics = shell.free_ports(2)
    bind = {"bind": f"127.0.0.1:{port}", "metrics_bind": f"127.0.0.1:{metrics}"}
    with shell.running("serve", public_url=f"http://localhost:{port}", **bind) as text:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 30, f"the server: {text()}")


def sessions_list(shell, **_):
    uuid = str(uuid4())
    shell.run("grant", "set", "acme", uuid, "user:bob", "reader")
    with a_socket(shell, "bob", uuid):
        [found] = shell.rows("sessions", "list", "--uuid", uuid, user="ada")
        assert (found["subject"], found["room_count"]) == ("user:bob", 1)
        assert found["sid"] in shell.run("sessions", "list", user="ada")
    shell.run("sessions", "list", user="alice", status=os.EX_NOPERM)


def sessions_disconnect(shell, **_):
    uuid = str(uuid4())
    shell.run("grant", "set", "acme", uuid, "user:bob", "reader")
    with a_socket(shell, "bob", uuid) as socket:
        [found] = shell.rows("sessions", "list", "--uuid", uuid, user="ada")
        assert "would disconnect" in shell.run("sessions", "disconnect", found["sid"], "--dry-run", user="ada")
        socket.send('422["Check",1]')
        while not socket.recv(10).startswith("432"):
            pass
        assert found["sid"] in shell.run("sessions", "disconnect", found["sid"], user="ada")
        while "$goaway" not in (text := socket.recv(10)):
            pass
        assert '"disconnected"' in text


def tenant_create(shell, tenant, **_):
    assert shown(shell, tenant)["collections"] == {"jobs": "uuid", "memos": "_id"}
    shell.run("tenant", "create", tenant, status=1)
    shell.run("tenant", "create", "other", "--collection", "memos:id", status=2)


def tenant_confine(shell, tenant, **_):
    shell.run("tenant", "confine", tenant, "billing", "jobs")
    assert shown(shell, tenant)["services"] == {"billing": ["jobs"]}


def tenant_release(shell, tenant, **_):
    shell.run("tenant", "confine", tenant, "billing", "jobs")
    shell.run("tenant", "release", tenant, "billing")
    assert shown(shell, tenant)["services"] == {}


def tenant_delete(shell, tenant, mongo, **_):
    database = mongo[shown(shell, tenant)["database"]]
    database.memos.insert_one({"_id": uuid4()})
    loss = f"jobs of {tenant}: 0 documents would be dropped\nmemos of {tenant}: 1 documents would be dropped\n"
    loss += "0 grants would be gone\n"
    assert shell.run("tenant", "delete", tenant, "--drop", "--dry-run") == loss
    assert shown(shell, tenant)["status"] == "active"
    # Two steps: nobody is there to say yes.
    shell.run("tenant", "delete", tenant, "--drop", status=1)
    assert (shown(shell, tenant)["status"], database.memos.count_documents({})) == ("suspended", 1)
    assert shell.run("tenant", "delete", tenant, "--drop", "--yes") == f"{loss}deleted {tenant}\n"
    assert database.list_collection_names() == []


def tenant_alias(shell, tenant, **_):
    shell.run("tenant", "alias", tenant, "org_2x9", "7")
    assert shown(shell, tenant)["aliases"] == ["7", "org_2x9"]
    # A name is one tenant's, and no other's slug.
    assert shell.run("tenant", "alias", "globex", "7", status=1) == ""
    assert shell.run("tenant", "alias", tenant, "acme", status=1) == ""
    shell.run("tenant", "alias", tenant)
    assert shown(shell, tenant)["aliases"] == []


def tenant_limits(shell, tenant, **_):
    shell.run("tenant", "limits", tenant, "max_document_bytes=5000")
    assert shown(shell, tenant)["limits"] == {"max_document_bytes": 5000}
    shell.run("tenant", "limits", tenant)
    assert shown(shell, tenant)["limits"] == {}


def tenant_list(shell, tenant, **_):
    assert {"acme", "globex", tenant} <= {found["slug"] for found in shell.rows("tenant", "list")}
    [line] = [line for line in shell.run("tenant", "list").splitlines() if line.startswith(f"{tenant} ")]
    assert line.split()[1] == "active"


def tenant_register(shell, tenant, mongo, **_):
    database = mongo[shown(shell, tenant)["database"]]
    legacy = Binary.from_uuid(uuid4(), UuidRepresentation.JAVA_LEGACY)
    database.old.insert_many([{"uuid": uuid4()}, {"uuid": legacy}, {"uuid": legacy}, {}])
    told = shell.run("tenant", "register", tenant, "old").splitlines()
    assert told == [
        f"registered old of {tenant}",
        "3 documents have no UUID (Binary subtype 4) and are not streamed:",
        "          2  binData 3 (legacy UUIDs, as Java, C# and Python drivers wrote them)",
        "          1  missing (no such field)",
    ]
    assert shown(shell, tenant)["collections"]["old"] == "uuid"
    schema = shell.folder / "schema.json"
    schema.write_text(json.dumps({"bsonType": "object", "required": ["n"]}))
    shell.run("tenant", "register", tenant, "old", "--schema", str(schema))
    with pytest.raises(WriteError):
        database.old.insert_one({"uuid": uuid4()})
    schema.write_text("[]")
    shell.run("tenant", "register", tenant, "old", "--schema", str(schema), status=2)


def tenant_resume(shell, tenant, **_):
    shell.run("tenant", "suspend", tenant)
    assert shell.run("tenant", "resume", tenant) == f"{tenant} is active\n"


def tenant_show(shell, tenant, **_):
    lines = [line.split() for line in shell.run("tenant", "show", tenant).splitlines()]
    assert ["status", "active"] in lines
    assert ["collection", "jobs", "uuid"] in lines
    shell.run("tenant", "show", "nobody", status=1)


def tenant_suspend(shell, tenant, **_):
    assert "would be suspended" in shell.run("tenant", "suspend", tenant, "--dry-run")
    assert shown(shell, tenant)["status"] == "active"
    assert shell.run("tenant", "suspend", tenant) == f"{tenant} is suspended\n"


def token(shell, **_):
    printed = shell.run("token", "--user", "alice", "--tenant", "acme", "--oauth-port", str(shell.oauth.port))
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", printed)


def watch(shell, mongo, **_):
    uuid = uuid4()
    shell.run("grant", "set", "acme", str(uuid), "user:bob", "reader")
    with shell.running("watch", str(uuid), "--count", "1", user="bob", stop=signal.SIGCONT) as text:
        wait_until(lambda: "$joined" in text(), 20, "the room to be joined")
        mongo[shell.server.databases["acme"]].notes.insert_one({"_id": Binary.from_uuid(uuid), "title": "one"})
        wait_until(lambda: '"title"' in text(), 20, "the change")


PROOFS = {
    name: proof
    for name, proof in {command: globals().get(re.sub(r"\W", "_", command)) for command in COMMANDS}.items()
    if proof is not None
} | {"import": import_}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_does_what_its_page_says(command, shell, mongo, request):
    proof = PROOFS[command]
    wanted = {"tenant"} & set(proof.__code__.co_varnames[: proof.__code__.co_argcount])
    proof(shell=shell, mongo=mongo, **{name: request.getfixturevalue(name) for name in wanted})
    assert (command, 0) in shell.ended


def test_every_command_of_the_page_is_run(shell):
    page = re.findall(r"^### livedocs (.+)$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
    assert page == COMMANDS
    assert set(PROOFS) == set(COMMANDS)


# -- what the page says of all of them --


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_that_is_none_ends_with_status_2(command):
    assert CliRunner().invoke(main, [*command.split(), "--no-such-option"]).exit_code == 2


def with_option(name):
    found = _reference.leaves(main)
    return {" ".join(path) for path, command in found if any(name in one.opts for one in command.params)}


def test_what_shows_something_shows_it_to_programs_too():
    shows = {"audit", "grant list", "grant explain", "sessions list", "tenant list", "tenant show"}
    assert shows <= with_option("--json")


def test_what_destroys_something_can_be_tried_first():
    destroys = {"grant revoke", "grant transfer", "grant bulk", "sessions disconnect", "tenant delete"}
    assert destroys | {"tenant suspend"} <= with_option("--dry-run")


def test_an_import_shows_how_far_it_is_on_a_terminal(shell):
    file = shell.folder / "documents.ndjson"
    file.write_text("".join(json.dumps({"n": n}) + "\n" for n in range(50)))
    screen, terminal = pty.openpty()
    try:
        arguments = ["import", "notes", str(file), "--url", shell.server.url]
        done = subprocess.run(
            [sys.executable, "-m", "livedocs", *arguments],
            env=shell._environ("acme-service"),
            stdout=terminal,
            timeout=60,
            check=False,
        )
        shown = os.read(screen, 65536).decode()
    finally:
        os.close(terminal)
        os.close(screen)
    assert done.returncode == 0
    assert re.search(r"documents.ndjson +\[#+\] +100%", shown), shown
    assert "50 lines done, 0 refused" in shown


def typed(keys, seen, within=20):
    """What a real bash shows on its terminal after these keys, until `seen` is part of it."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        os.environ["TERM"] = "dumb"
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])  # noqa: S606
    screen = b""
    try:
        os.write(terminal, b'PS1="> "; eval "$(livedocs completion bash)"; echo rea""dy\n')
        deadline, written = time.monotonic() + within, False
        while time.monotonic() < deadline and seen not in screen.decode():
            if select.select([terminal], [], [], 0.2)[0]:
                screen += os.read(terminal, 4096)
            if not written and b"\r\nready" in screen:
                os.write(terminal, keys)
                written = True
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)
    return screen.decode()


@pytest.mark.parametrize(
    ("keys", "seen"),
    [
        (b"livedocs sess\t", "livedocs sessions "),
        (b"livedocs grant tr\t", "livedocs grant transfer "),
        (b"livedocs completion f\t", "livedocs completion fish "),
        (b"livedocs tenant delete --dry\t", "livedocs tenant delete --dry-run "),
    ],
    ids=["command", "subcommand", "choice", "option"],
)
def test_bash_completes_what_is_typed(keys, seen):
    assert seen in typed(keys, seen)
