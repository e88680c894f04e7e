"""Measures how much CPU a server uses between two answers to a WebSocket ping. A program of its own.

    python probe.py PORT TOKEN PID

The server's event loop answers a ping, so as long as one piece of work keeps the loop, no answer comes. What is
measured is not how long that took, but how much CPU the process used meanwhile (its CPU clock, all threads
together): a thread that holds the interpreter counts, another program that has the processor does not. On a busy
machine the probe itself may be woken late; the server may have used at most that much CPU since it answered, which
is taken off.

Between an answer and the next ping lie a few milliseconds, which count. A ping that comes in the middle of one
piece of work is answered after the next one at the latest, so a piece may in the worst case count together with
its neighbour: work in slices stays below half the bar with each.

Commands on standard input, an answer in JSON for each: `mark` begins anew, `report` says what was since.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from stall.bare import PING, PONG, Bare

_PAUSE = 0.003
_PAGE = os.sysconf("SC_PAGE_SIZE")
_KIB = 1024


class Probe:
    """A server process seen from outside."""

    def __init__(self, port: int, token: str, pid: int) -> None:
        self._socket = Bare(port, token)
        self._pid = pid
        # The kernel's clock of another process's CPU: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED).
        self._clock = (~pid << 3) | 2
        self._pings = 0
        self._last = self._cpu()
        self.mark()

    def _cpu(self) -> float:
        return time.clock_gettime(self._clock)

    def _status(self, name: str) -> int:
        text = Path(f"/proc/{self._pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name)) * _KIB

    def _scheduled(self) -> tuple[int, int]:
        """Nanoseconds on a processor, and waiting for one, of the thread with the event loop."""
        ran, waited, _ = Path(f"/proc/{self._pid}/task/{self._pid}/schedstat").read_text().split()
        return int(ran), int(waited)

    def mark(self) -> None:
        """Begin anew."""
        self._before = self._scheduled()
        # The peak of resident memory begins anew, too (proc_pid_clear_refs(5)).
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")
        self._resident = self._status("VmRSS")
        self._worst = self._wall = 0.0
        self._began = self._last = self._cpu()
        self._ticks = 0

    def tick(self) -> None:
        """One ping and its answer."""
        began = time.monotonic()
        self._pings += 1
        name = str(self._pings).encode()
        self._socket.send(name, PING)
        while (PONG, name) not in set(self._socket.frames()):
            pass
        now = self._cpu()
        late = max(0.0, time.time() - self._socket.arrived)
        self._worst = max(self._worst, now - late - self._last)
        self._wall = max(self._wall, time.monotonic() - began)
        self._last = now
        self._ticks += 1

    def report(self) -> dict[str, float]:
        """What was since the mark; seconds and bytes."""
        return {
            "cpu_between_ticks": self._worst,
            "longest_wait": self._wall,
            "cpu": self._last - self._began,
            "ticks": self._ticks,
            "share": self._share(),
            "resident_before": self._resident,
            "resident_peak": self._status("VmHWM"),
            "resident": self._status("VmRSS"),
        }

    def _share(self) -> float:
        """Which part of the processor time that the server wanted it was given."""
        ran, waited = (now - before for now, before in zip(self._scheduled(), self._before, strict=True))
        return ran / (ran + waited) if ran + waited else 1.0

    def run(self) -> None:
        """Tick and obey until standard input ends."""
        commands = b""
        while True:
            self.tick()
            while select.select([0], [], [], 0)[0]:
                data = os.read(0, 4096)
                if not data:
                    return
                commands += data
                while b"\n" in commands:
                    command, _, commands = commands.partition(b"\n")
                    if command == b"mark":
                        self.mark()
                    sys.stdout.write(json.dumps(self.report()) + "\n")
                    sys.stdout.flush()
            time.sleep(_PAUSE)


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        # Woken at once: less of a busy machine has to be taken off.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    Probe(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])).run()
