"""The guides of the documentation, done as they say: their commands are typed into terminals, at a demo that runs.

What a guide shows below a command has to be what the command prints. There `…` stands for anything, and a UUID
that no command has named stands for whichever comes, and from then on for that one. Only the ports are changed.
"""

from __future__ import annotations

import asyncio
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCS = Path(__file__).parents[2] / "docs"
PATIENCE = 60.0
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
# What has been done already for the tests.
DONE = {"the demo's terminal", "your project's terminal"}


@dataclass(frozen=True)
class Block:
    """A block of code: what is typed into a terminal, what a terminal shows, or a file."""

    language: str
    title: str | None
    text: str

    @property
    def shown(self):
        return self.language in {"text", "json"}


class Terminal:
    """A shell in which one types; what it prints is read line by line."""

    def __init__(self, folder, variables):
        search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {name: value for name, value in os.environ.items() if not name.startswith(("LIVEDOCS_", "PYTEST_"))}
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env={**own, "PATH": search, "PYTHONUNBUFFERED": "1", "no_proxy": "*", **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def type(self, command):
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def lines(self, count):
        taken = []
        try:
            while len(taken) < count:
                taken.append(self._lines.get(timeout=PATIENCE))
        except queue.Empty:
            raise AssertionError("\n".join(["nothing comes any more after", *taken])) from None
        return taken

    def run(self, command):
        """What the command prints until it has ended well."""
        self.type(f"{command}\nprintf '\\n=done= %s\\n' $?")
        printed = []
        while not (printed and printed[-1].startswith("=done=")):
            printed += self.lines(1)
        assert printed[-1] == "=done= 0", "\n".join([command, *printed])
        return [line for line in printed[:-1] if line]

    def close(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._process.stdin.close()
        self._process.stdout.close()


@dataclass
class Guide:
    """A page that is followed block by block."""

    page: str
    folder: Path
    # What the page names, and where that is here.
    places: dict[str, str]
    terminals: dict[str | None, Terminal] = field(default_factory=dict)
    # What the page's UUIDs are this time.
    uuids: dict[str, str] = field(default_factory=dict)
    # What the last command of the first terminal printed.
    printed: list[str] = field(default_factory=list)

    async def steps(self):
        """Do what the page says; each block is handed out when it has been done."""
        blocks = [Block(*found.groups()) for found in FENCE.finditer((DOCS / self.page).read_text())]
        assert blocks
        for block in blocks:
            if block.title not in DONE:
                await asyncio.to_thread(self._do, block)
            yield block

    async def follow(self):
        async for _ in self.steps():
            pass

    def close(self):
        for terminal in self.terminals.values():
            terminal.close()

    def _do(self, block):
        if block.shown:
            self._compare(block)
        elif block.language != "sh":
            (self.folder / block.title).write_text(self._here(block.text))
        elif block.title:
            self._terminal(block).type(self._here(block.text))
        else:
            self.printed = self._terminal(block).run(self._here(block.text))

    def _terminal(self, block):
        if block.title not in self.terminals:
            self.terminals[block.title] = Terminal(self.folder, self._variables(block) if block.title else {})
        return self.terminals[block.title]

    def _variables(self, block):
        """What a further terminal knows from the first one, as its reader does."""
        first = self.terminals[None]
        names = {*re.findall(r"\$([A-Z_]+)", block.text), *first.run("compgen -e LIVEDOCS_ || true")}
        return {name: first.run(f'echo "${name}"')[0] for name in sorted(names)}

    def _here(self, text):
        if self.places:
            text = re.sub("|".join(map(re.escape, self.places)), lambda found: self.places[found[0]], text)
        # The environment of the tests is another one.
        text = text.replace(". .venv/bin/activate\n", "")
        return UUID.sub(lambda found: self.uuids.setdefault(found[0], found[0]), text)

    def _compare(self, block):
        pattern, names = self._pattern(block.text.rstrip("\n"))
        lines = self.printed if block.title is None else self.terminals[block.title].lines(block.text.count("\n"))
        shown = re.fullmatch(pattern, "\n".join(lines), re.DOTALL)
        assert shown, f"{self.page} shows\n{block.text}\nbut it is\n" + "\n".join(lines)
        self.uuids |= {name: shown[group] for group, name in names.items()}

    def _pattern(self, text):
        """The regular expression of what is shown, and which of its groups stand for which UUIDs."""
        pattern, names = "", {}
        for part in re.split(f"(…|{UUID.pattern})", text):
            if part == "…":
                pattern += ".*"
            elif not UUID.fullmatch(part):
                pattern += re.escape(part)
            elif part in self.uuids:
                pattern += self.uuids[part]
            elif part in names.values():
                (group,) = (group for group, name in names.items() if name == part)
                pattern += f"(?P={group})"
            else:
                group = f"uuid{len(names)}"
                names[group] = part
                pattern += f"(?P<{group}>{UUID.pattern})"
        return pattern, names


@pytest.fixture
def follow(tmp_path):
    """A guide and the places of this machine to follow it at."""
    followed = []

    def of(page, places):
        followed.append(Guide(page, tmp_path, places))
        return followed[-1]

    yield of
    for one in followed:
        one.close()


@pytest.fixture
def guide(follow, demo):
    places = {
        "localhost:8000": f"localhost:{demo.port}",
        "localhost:8001": f"localhost:{demo.oauth_port}",
        "127.0.0.1:8002": f"127.0.0.1:{demo.mongo_port}",
        "livedocs token": f"livedocs token --oauth-port {demo.oauth_port}",
    }
    return lambda page: follow(page, places)


@pytest.mark.parametrize("page", ["how-to/tenant-service.md", "how-to/administrator.md"])
async def test_a_guide_leads_where_it_says(guide, page):
    await guide(page).follow()


async def test_the_quick_start_leads_where_it_says_and_its_page_shows_the_changes(guide, people):
    start, alice = guide("quickstart.md"), None
    async for block in start.steps():
        if block.text.startswith("UUID="):
            alice = await people("alice")
            (uuid,) = start.uuids.values()
            await alice.open(uuid)
            await alice.shows("live")
            await expect(alice.field("title")).to_contain_text("hello")
        elif "hello, world" in block.text and not block.shown:
            await expect(alice.field("title")).to_contain_text("hello, world")
            await expect(alice.field("done")).to_contain_text("false")
    await expect(alice.field("done")).to_contain_text("true")


async def test_the_operators_guide_leads_to_a_server_that_is_ready(follow, mongod, oauth, free_ports):
    port, metrics = free_ports(2)
    control = f"guide_{port}"
    places = {
        "https://docs.example.com": f"http://localhost:{port}",
        "mongodb://livedocs:PASSWORD@a,b,c/?replicaSet=rs0&authSource=admin&tls=true": mongod.uri,
        "https://login.example.com": oauth.issuer,
        "THE-SECRET": oauth.secret,
        "127.0.0.1:8000": f"127.0.0.1:{port}",
        # What the page leaves at its default is not free on every machine.
        "livedocs migrate": (
            f"export LIVEDOCS_BIND=127.0.0.1:{port} LIVEDOCS_METRICS_BIND=127.0.0.1:{metrics}\n"
            f"export LIVEDOCS_CONTROL_DATABASE={control}\nlivedocs migrate"
        ),
        "tenant create initech": f"tenant create initech --database {control}_initech",
    }
    try:
        await follow("how-to/operator.md", places).follow()
    finally:
        with mongod.members[0].client() as client:
            client.drop_database(control)
            client.drop_database(f"{control}_initech")


async def test_the_guide_to_contract_tests_leads_to_tests_that_pass(follow):
    await follow("how-to/contract-tests.md", {}).follow()
