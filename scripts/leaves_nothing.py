"""Run a command; fail when it leaves a process behind.

This process makes itself the "subreaper" of all its descendants (prctl(2), PR_SET_CHILD_SUBREAPER): whatever loses
its parent becomes its child, sessions and daemons included, so after the command has ended every child it has left
is a leftover. Leftovers are named, ended, and turn success into failure.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE = 5.0
"""Seconds in which what is just ending may end."""


def descendants() -> dict[int, str]:
    """The command lines of all living descendants of this process."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything; what follows the last one is state, then parent.
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it ended meanwhile
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: command_line(pid) for pid in sorted(found - {os.getpid()})}


def command_line(pid: int) -> str:
    """What was started, as one line."""
    try:
        words = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "(ended)"
    return b" ".join(words).decode(errors="replace").strip()


def reap() -> None:
    """Take note of the children that have ended, so that they do not stay as zombies."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main() -> int:
    """The command's exit status, or 1 when it left something."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = subprocess.Popen(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: command.send_signal(received))
    status = command.wait()
    left = settle()
    for pid, line in left.items():
        print(f"error: left behind: {pid} {line}", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    settle()
    return 1 if left and status == 0 else status if status >= 0 else 128 - status


def settle() -> dict[int, str]:
    """The descendants that are still there after the grace."""
    deadline = time.monotonic() + GRACE
    while (left := descendants()) and time.monotonic() < deadline:
        reap()
        time.sleep(0.05)
    reap()
    return left


if __name__ == "__main__":
    sys.exit(main())
