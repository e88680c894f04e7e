"""What a case found, held against the bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

MIB = 2**20
MOST_CPU = 0.050
"""Seconds of CPU between two ticks of the probe."""
MOST_MEMORY = 64 * MIB
"""Bytes by which memory may grow for each user of a case."""
MOST_MEMORY_OF_TENANT = 256 * MIB
MOST_LATE = 0.250
"""Seconds by which another tenant's events may be later than in the control run, at p99."""


class BarMissed(AssertionError):
    """A figure is beyond its bar."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One case.

    Attributes:
        cpu: the most CPU between two ticks of the probe, seconds.
        wait: the longest the probe waited for an answer, seconds; the machine's load is in it.
        memory: by how many bytes resident memory grew, at its peak.
        users: how many users took part.
        late: by how much another tenant's events were later than in the control run, seconds at p99, as far as
            the server is to blame: times `share`.
        share: which part of the processor time that the server wanted it was given.
        died: the server process is gone.
    """

    name: str
    cpu: float
    wait: float
    memory: int
    users: int
    late: float
    events: int
    total_cpu: float
    seconds: float
    died: bool = False
    note: str = ""
    share: float = 1.0
    allowed_memory: int = field(default=0)

    @property
    def faults(self) -> list[str]:
        """The bars it misses."""
        if self.died:
            return ["the server process has ended"]
        most = self.allowed_memory or min(MOST_MEMORY * self.users, MOST_MEMORY_OF_TENANT)
        found = []
        if self.cpu > MOST_CPU:
            found.append(f"{self.cpu * 1e3:.0f} ms of CPU between two ticks, at most {MOST_CPU * 1e3:.0f}")
        if self.memory > most:
            found.append(f"memory grew by {self.memory >> 20} MiB, at most {most >> 20}")
        if self.late > MOST_LATE:
            found.append(
                f"another tenant's events were {self.late * 1e3:.0f} ms later, at most {MOST_LATE * 1e3:.0f}"
            )
        return found

    def members(self) -> dict[str, object]:
        """For a file."""
        return {**asdict(self), "faults": self.faults}


FIGURES: list[Figures] = []
"""Of every case of this run."""


def table(figures: Sequence[Figures]) -> str:
    """All of them, for people."""
    head = f"{'case':64} {'CPU ms':>8} {'wait ms':>8} {'MiB':>6} {'users':>5} {'late ms':>8} {'share':>5} {'s':>6}"
    return "\n".join([head, *map(row, figures), ""])


def row(one: Figures) -> str:
    """One of them."""
    verdict = "  FAILS" if one.faults else ""
    return (
        f"{one.name:64.64} {one.cpu * 1e3:8.0f} {one.wait * 1e3:8.0f} {one.memory / 2**20:6.0f} {one.users:5} "
        f"{one.late * 1e3:8.0f} {one.share:5.2f} {one.seconds:6.1f}{verdict} {one.note}"
    )
