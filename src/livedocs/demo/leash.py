"""Run a command that ends when the process that asked for it does, however that happens.

    python -I -S leash.py PARENT_PID SIGNAL COMMAND [ARGUMENT ...]

A parent that is killed with SIGKILL cannot stop its children; the kernel can (prctl(2), PR_SET_PDEATHSIG). This is
a program of its own, replaced by the command, because Python code between fork and exec is not safe in a process
with threads. The kernel watches the *thread* that made the child: start children from a thread that lives on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def leashed(command: Sequence[str | Path], when_parent_ends: signal.Signals = signal.SIGTERM) -> list[str]:
    """The command line that runs `command` on a leash held by this process."""
    here = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(when_parent_ends))]
    return [*here, *map(str, command)]


def hold(parent: int, when_parent_ends: int) -> bool:
    """Ask the kernel for the signal; whether the parent was still there to be watched."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, when_parent_ends, 0, 0, 0)
    return os.getppid() == parent


def main() -> None:
    """Become the command."""
    parent, when_parent_ends, *command = sys.argv[1:]
    if not hold(int(parent), int(when_parent_ends)):
        raise SystemExit(0)
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
