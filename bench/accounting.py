"""What the kernel says a process has used: CPU from `/proc/PID/stat`, memory from `/proc/PID/status`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_times(pid: int) -> tuple[float, float]:
    """User and system time of all threads of a process, in seconds."""
    # The second field is the program's name in brackets, which may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / _TICKS, int(fields[12]) / _TICKS


def cpu_seconds(pid: int) -> float:
    """The two together."""
    return sum(cpu_times(pid))


def resident_kib(pid: int) -> int:
    """Resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def _machine_seconds() -> tuple[float, float]:
    """Busy and total time of all processors."""
    fields = [int(field) / _TICKS for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU between two moments.

    Attributes:
        server: seconds of the server under test.
        kernel: what of that was spent in the kernel.
        ours: seconds of everything that takes part in the measurement, the server among it.
        others: share of the machine that something else has used meanwhile: what makes figures noisy.
        idle: share of the machine that nobody used.
    """

    server: float
    kernel: float
    ours: float
    others: float
    idle: float


class Meter:
    """Measures CPU from its making to `read`."""

    def __init__(self, server: int, others: Iterable[int]) -> None:
        self._server = server
        self._pids = [server, *others, os.getpid()]
        self._before = {pid: cpu_seconds(pid) for pid in self._pids}
        self._kernel = cpu_times(server)[1]
        self._machine = _machine_seconds()

    def read(self) -> Usage:
        """What has been used since."""
        used = {pid: cpu_seconds(pid) - self._before[pid] for pid in self._pids}
        busy, total = (now - before for now, before in zip(_machine_seconds(), self._machine, strict=True))
        ours = sum(used.values())
        total = max(total, 0.01)
        return Usage(
            server=used[self._server],
            kernel=cpu_times(self._server)[1] - self._kernel,
            ours=ours,
            others=round(max(0.0, busy - ours) / total, 3),
            idle=round(max(0.0, total - busy) / total, 3),
        )


def wait_for_quiet(patience: float, busy: float = 0.1) -> None:
    """Wait until nobody uses more than that share of the machine for a second, or until patience is at an end."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = _machine_seconds()
        time.sleep(1.0)
        used, total = (now - then for now, then in zip(_machine_seconds(), before, strict=True))
        if used <= busy * total:
            return
