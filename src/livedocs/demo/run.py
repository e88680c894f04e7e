"""`livedocs demo`: everything on this machine, started in order and stopped in reverse order.

    mongod -> development OAuth provider -> migrations and tenants -> the server

Each is a process of its own on a leash (`leash.py`): none outlives this one, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Never

import click

from livedocs import config
from livedocs.demo.leash import hold, leashed
from livedocs.demo.mongod import HOST, MongodError, wait_until
from livedocs.demo.oauth.client_secret import VARIABLE as SECRET_VARIABLE
from livedocs.demo.oauth.client_secret import client_secret
from livedocs.demo.people import AUDIENCE, LOGIN_CLIENT, TENANTS
from livedocs.demo.replicaset import ReplicaSet
from livedocs.demo.token import note_port
from livedocs.demo.welcome import welcome
from livedocs.model import Tenant
from livedocs.store import migrate
from livedocs.store.connection import connect
from livedocs.store.tenants import Tenants
from livedocs.telemetry import configure_logging

_PAGE = Path(__file__).parents[3] / "frontend" / "dist"
_FOLDERS = ("mongodb", "oauth", "logs")
_READY = 60.0
_STOP = 15.0


class DemoError(Exception):
    """Why the demo cannot start or go on, and what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens, on 127.0.0.1."""

    server: int
    oauth: int
    mongo: int

    @property
    def metrics(self) -> int:
        """Of the server's metrics."""
        return self.server + 3


@dataclass(frozen=True, slots=True)
class Child:
    """A process of the demo. Its output is in `log`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> None:
        """End it in order; by force when it takes too long."""
        self.process.terminate()
        try:
            self.process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def demo(
    *,
    port: int,
    oauth_port: int | None,
    mongo_port: int | None,
    data_dir: Path,
    fresh: bool,
    stop_with_parent: bool,
) -> int:
    """Run until SIGINT, SIGTERM or SIGHUP.

    Returns:
        The exit status: 0 after a signal, 1 when something did not start or died.
    """
    _listen_to_signals()
    if stop_with_parent:
        hold(os.getppid(), signal.SIGTERM)
    ports = Ports(port, oauth_port or port + 1, mongo_port or port + 2)
    try:
        check_ports(ports)
        with _only_user(data_dir.absolute(), fresh=fresh) as folder, contextlib.ExitStack() as running:
            try:
                children = _start(ports, folder, running)
                for line in welcome(ports.server, ports.oauth, ports.mongo, folder):
                    click.echo(line)
                _wait_for_the_end(children)
            finally:
                _ignore_signals()
                click.echo("==> stopping ...")
    except KeyboardInterrupt:
        return 0
    except (DemoError, MongodError) as error:
        click.echo(f"error: {error}", err=True)
        return 1


# --- Signals ---


def _listen_to_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Under nohup, the terminal's end is not to be ours.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> Never:
    # Once: a second Ctrl-C must not cut the stopping short and leave something behind.
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


# --- Before the start ---


def check_ports(ports: Ports) -> None:
    """Make sure that every port is free, before anything is started.

    Raises:
        DemoError: naming the port and how to choose another.
    """
    wanted = {
        "the server": ports.server,
        "the OAuth provider": ports.oauth,
        "mongod": ports.mongo,
        "the server's metrics": ports.metrics,
    }
    for who, port in wanted.items():
        others = [other for other, taken in wanted.items() if taken == port and other != who]
        if others:
            raise DemoError(f"port {port} is asked for twice, for {who} and for {others[0]}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise DemoError(
                    f"port {port}, for {who}, cannot be used: {error.strerror}. Stop what uses it (is another demo"
                    f" running?), or choose other ports: make demo PORT={_elsewhere(ports.server)},"
                    f" or livedocs demo --port {_elsewhere(ports.server)}"
                ) from None


def _elsewhere(port: int) -> int:
    return port + 1000 if port < 60000 else 9000


@contextlib.contextmanager
def _only_user(folder: Path, *, fresh: bool) -> Iterator[Path]:
    """The data folder, for this process alone.

    Raises:
        DemoError: another demo uses it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"another demo uses {folder}; stop it, or choose another folder: --data-dir") from None
        if fresh:
            # Only what the demo made: the folder may be one that holds other things too.
            for name in _FOLDERS:
                shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "logs").mkdir(exist_ok=True)
        yield folder


# --- The start ---


def _start(ports: Ports, folder: Path, running: contextlib.ExitStack) -> dict[int, tuple[str, Path]]:
    """Start everything; name and log of each process, by process id."""
    click.echo(f"==> mongod on port {ports.mongo} ...")
    mongodb = ReplicaSet(folder / "mongodb", [ports.mongo], when_parent_ends=signal.SIGTERM)
    running.enter_context(mongodb)
    children = {mongodb.members[0].pid: ("mongod", mongodb.members[0].log)}

    click.echo(f"==> OAuth provider on port {ports.oauth} ...")
    own = {name: value for name, value in os.environ.items() if not name.startswith(config.PREFIX)}
    note_port(folder, ports.oauth)
    secret = client_secret(folder / "oauth")
    provider = _spawn(
        "the OAuth provider",
        [
            *("livedocs.demo.oauth", "--port", str(ports.oauth), "--data-dir", str(folder / "oauth")),
            *("--server-url", f"http://localhost:{ports.server}"),
        ],
        own | {SECRET_VARIABLE: secret},
        folder / "logs" / "oauth.log",
        running,
    )
    _wait_for(provider, ports.oauth, "/.well-known/openid-configuration")
    children[provider.process.pid] = (provider.name, provider.log)

    click.echo("==> migrations and tenants ...")
    environ = server_environ(ports, mongodb.uri, secret)
    settings = config.load(environ)
    configure_logging(settings.model_copy(update={"log_level": "error"}))
    migrate.run(settings)
    asyncio.run(_register_tenants(settings))

    click.echo(f"==> server on port {ports.server} ...")
    server = _spawn("the server", ["livedocs", "serve"], own | environ, folder / "logs" / "server.log", running)
    _wait_for(server, ports.server, "/readyz")
    children[server.process.pid] = (server.name, server.log)
    return children


def server_environ(ports: Ports, mongodb_uri: str, secret: str) -> dict[str, str]:
    """The settings of the demo's server."""
    values = {
        "bind": f"{HOST}:{ports.server}",
        "metrics_bind": f"{HOST}:{ports.metrics}",
        "public_url": f"http://localhost:{ports.server}",
        # The same page under the other name of this machine.
        "allowed_origins": f"http://{HOST}:{ports.server}",
        "mongodb_uri": mongodb_uri,
        "oauth_issuer": f"http://localhost:{ports.oauth}",
        "oauth_client_id": LOGIN_CLIENT.client_id,
        "oauth_client_secret": secret,
        "oauth_audience": AUDIENCE,
        # Who may not have a scope is logged in without it: only ada becomes an administrator.
        "oauth_scopes": "openid profile offline_access livedocs:admin",
        "log_format": "console",
        "shutdown_grace": "1",
    }
    # One person at one address plays everyone here, load tests among them.
    values |= {f"max_sockets_per_{whose}": "20000" for whose in ("user", "tenant", "address")}
    values["max_waiting_sockets_per_address"] = "200"
    values |= {
        name: str(10 * field.default)
        for name, field in config.Settings.model_fields.items()
        if name.startswith("limit_") and name != "limit_burst"
    }
    if (_PAGE / "index.html").is_file():
        values["frontend_dir"] = str(_PAGE)
    return {f"{config.PREFIX}{name.upper()}": value for name, value in values.items()}


async def _register_tenants(settings: config.Settings) -> None:
    client = connect(settings, appname="livedocs-demo")
    try:
        tenants = Tenants(client, settings.control_database)
        for one in TENANTS:
            if await tenants.get(one.slug) is None:
                await tenants.create(Tenant(one.slug, one.database, one.collections))
    finally:
        await client.close()


def _spawn(
    name: str, module: list[str], environ: Mapping[str, str], log: Path, running: contextlib.ExitStack
) -> Child:
    with log.open("wb") as output:
        process = subprocess.Popen(
            # -P: a file in the present folder must not stand in for a module.
            leashed([sys.executable, "-P", "-m", *module]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environ, "PYTHONUNBUFFERED": "1"},
            # Ctrl-C goes to the whole group of the terminal; here the order of stopping is ours.
            start_new_session=True,
        )
    child = Child(name, process, log)
    running.callback(child.stop)
    return child


def _wait_for(child: Child, port: int, path: str) -> None:
    """Until a GET of that path is answered with 200.

    Raises:
        DemoError: the process ended, or the answer did not come in time.
    """
    last = "nothing"

    def ready() -> bool:
        nonlocal last
        if child.process.poll() is not None:
            raise DemoError(_obituary(child.name, child.log, f"status {child.process.returncode}"))
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            last = f"{response.status} {response.read(2000).decode(errors='replace')}"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return response.status == http.client.OK

    try:
        wait_until(ready, _READY, child.name)
    except MongodError:
        raise DemoError(
            f"{child.name} is not ready after {_READY:g} s; {path} answered: {last}\n{_last_lines(child.log)}"
        ) from None


def _wait_for_the_end(children: Mapping[int, tuple[str, Path]]) -> Never:
    """Sleep until a signal comes.

    Raises:
        KeyboardInterrupt: it came.
        DemoError: a process ended by itself.
    """
    while True:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        if ended is not None and ended.si_pid in children:
            name, log = children[ended.si_pid]
            raise DemoError(_obituary(name, log, f"status {ended.si_status}"))
        if ended is not None:
            # Not one of ours: taken note of, so that it is not reported again.
            os.waitpid(ended.si_pid, 0)


def _obituary(name: str, log: Path, how: str) -> str:
    return f"{name} ended by itself ({how}); the end of {log}:\n{_last_lines(log)}"


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"  {line[:400]}" for line in lines[-12:])
