"""The scenarios and the bars they are held against: issue and design name them, this is the list that runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import scenarios
from scenarios import Scenario

Runs = Sequence[dict[str, Any]]

_TWO = ("livedocs", "node")
_ALL = ("livedocs", "node", "pymongo", "motor")
# Nothing that is measured twice is equal; a cost has risen when it is that much more than before.
_RISE = 1.15


def build(*, quick: bool) -> list[Scenario]:
    """The scenarios. The quick form is shorter and leaves out what takes long, never how something is measured."""
    rounds, seconds, warm = (3, 3.0, 1.5) if quick else (5, 10.0, 3.0)
    systems = _TWO if quick else _ALL
    idle = 2000 if quick else 5000
    pace = {"seconds": seconds, "warm": warm}
    found = [
        Scenario(
            "one-room",
            "1 room of 1,000 sockets, 20 events/s",
            scenarios.fanout,
            systems,
            rounds,
            {"rooms": 1, "per_room": 1000, "rate": 20, **pace},
        ),
        Scenario(
            "many-rooms",
            "100 rooms of 10 sockets, 400 events/s",
            scenarios.fanout,
            systems,
            rounds,
            {"rooms": 100, "per_room": 10, "rate": 400, **pace},
        ),
        Scenario(
            "connect",
            "connect and join, 1,000 sockets; livedocs with ACL check and snapshot of the documents",
            scenarios.connecting,
            systems,
            rounds,
            {"sockets": 1000, "snapshot": True},
        ),
        Scenario(
            "ingest-insert",
            "inserts that nobody listens to",
            scenarios.ingest,
            systems,
            rounds if not quick else 1,
            {"events": 20000 if quick else 50000, "kind": "insert"},
        ),
        Scenario(
            "ingest-update",
            "updates that nobody listens to",
            scenarios.ingest,
            systems,
            rounds if not quick else 1,
            {"events": 20000 if quick else 50000, "kind": "update"},
        ),
        Scenario(
            "memory",
            "5,000 idle sockets, each a user of its own"
            if not quick
            else "2,000 idle sockets, each a user of its own",
            scenarios.memory,
            systems,
            1 if quick else 3,
            {"sockets": idle, "users": idle},
        ),
    ]
    if quick:
        return found
    found += [
        Scenario(
            "connect-plain",
            "connect and join, 1,000 sockets; livedocs with ACL check, no snapshot asked for",
            scenarios.connecting,
            _TWO,
            rounds,
            {"sockets": 1000, "snapshot": False},
        ),
        Scenario(
            "ten-thousand",
            "10,000 sockets on one process, 10 rooms, 1 event/s to each",
            scenarios.fanout,
            _TWO,
            3,
            {"rooms": 10, "per_room": 1000, "rate": 10, "sample": 10, **pace},
        ),
    ]
    found += [
        Scenario(
            f"room-of-{size}",
            f"1 room of {size:,} sockets, {rate} events/s",
            scenarios.fanout,
            ("livedocs",),
            3,
            {"rooms": 1, "per_room": size, "rate": rate, **pace},
        )
        for size, rate in ((10, 400), (100, 100), (1000, 20), (5000, 4))
    ]
    found += [
        Scenario(
            f"{rooms}-rooms",
            f"{rooms:,} rooms with a socket each, 200 events/s to one of them",
            scenarios.many_rooms,
            ("livedocs",),
            3,
            {"rooms": rooms, "sockets": 100, "rate": 200, **pace},
        )
        for rooms in (100, 1000, 10_000, 100_000)
    ]
    return found


def median(runs: Runs, scenario: str, system: str, figure: str) -> float | None:
    """The median of a figure over the rounds; None when it was not measured."""
    values = [run[figure] for run in runs if (run["scenario"], run["system"]) == (scenario, system)]
    return statistics.median(values) if values else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bar and what was measured.

    Attributes:
        passed: None when it was not measured in this run.
    """

    what: str
    bar: str
    found: str
    passed: bool | None


def _ratio(runs: Runs, scenario: str, figure: str, most: float, what: str) -> Verdict:
    ours, theirs = (median(runs, scenario, system, figure) for system in _TWO)
    bar = f"at most {most:.2f} of Node.js"
    if ours is None or not theirs:
        return Verdict(what, bar, "not measured", None)
    return Verdict(what, bar, f"{ours / theirs:.2f} ({ours:.4g} to {theirs:.4g})", ours / theirs <= most)


def _bound(
    runs: Runs, scenario: str, figure: str, what: str, *, bar: str, holds: Callable[[float], bool]
) -> Verdict:
    ours = median(runs, scenario, "livedocs", figure)
    if ours is None:
        return Verdict(what, bar, "not measured", None)
    return Verdict(what, bar, f"{ours:,.4g}", holds(ours))


def _no_rise(runs: Runs, names: Iterable[str], figure: str, what: str, unit: str) -> Verdict:
    bar = f"does not rise (by more than {_RISE - 1:.0%} a step)"
    values = [median(runs, name, "livedocs", figure) for name in names]
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Verdict(what, bar, "not measured", None)
    steps = pairwise(known)
    text = " → ".join(f"{value:,.4g}" for value in known)
    return Verdict(what, bar, f"{text} {unit}", all(after <= before * _RISE for before, after in steps))


def verdicts(runs: Runs) -> list[Verdict]:
    """Every bar of the project, judged by the medians of a run."""
    return [
        _ratio(runs, "one-room", "us_per_delivery", 0.50, "1 room, 1,000 sockets, 20 events/s: CPU per delivery"),
        _ratio(runs, "many-rooms", "us_per_delivery", 0.70, "100 rooms of 10, 400 events/s: CPU per delivery"),
        _ratio(runs, "one-room", "p99_ms", 1.0, "1 room, 1,000 sockets: p99 latency"),
        _ratio(runs, "many-rooms", "p99_ms", 1.0, "100 rooms of 10: p99 latency"),
        _ratio(
            runs, "connect", "ms_per_socket", 1.5, "connect, authenticate, ACL, snapshot, join: CPU per socket"
        ),
        _ratio(runs, "memory", "kib_per_socket", 1.25, "memory per idle socket"),
        _bound(
            runs,
            "ten-thousand",
            "p99_ms",
            "10,000 sockets on one process: p99 latency, no disconnect",
            bar="under 250 ms",
            holds=lambda value: value < 250,
        ),
        _bound(
            runs,
            "ingest-insert",
            "events_per_cpu_s",
            "ingest, no listeners, inserts: events per CPU second",
            bar="at least 20,000",
            holds=lambda value: value >= 20_000,
        ),
        _bound(
            runs,
            "ingest-update",
            "events_per_cpu_s",
            "ingest, no listeners, updates: events per CPU second",
            bar="at least 20,000",
            holds=lambda value: value >= 20_000,
        ),
        _no_rise(
            runs,
            [f"room-of-{size}" for size in (10, 100, 1000, 5000)],
            "us_per_delivery",
            "cost of a delivery as the room grows 10 → 100 → 1,000 → 5,000",
            "µs",
        ),
        _no_rise(
            runs,
            [f"{rooms}-rooms" for rooms in (100, 1000, 10_000, 100_000)],
            "us_per_event",
            "cost of an event as rooms grow 100 → 100,000",
            "µs",
        ),
    ]
