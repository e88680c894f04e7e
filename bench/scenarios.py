"""What is measured. Each function runs one system once and returns the figures of that run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from accounting import Meter, Usage, cpu_seconds, resident_kib
from load import Generator, LoadError, Writer, database, generator, make_rooms, tokens
from systems import Running, Surroundings, running, warm_tokens

Figures = dict[str, Any]

# Sockets of the fan-out share that many users' tokens, so that a user has no more sockets than the default limit.
_USERS = 50


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that is measured.

    Attributes:
        measure: runs one system once.
        systems: which ones.
        rounds: how often each, in turn: A B A B.
        options: what `measure` is told besides.
    """

    name: str
    title: str
    measure: Callable[..., Figures]
    systems: tuple[str, ...]
    rounds: int
    options: dict[str, Any] = field(default_factory=dict)


def settle(pid: int, within: float = 30.0) -> None:
    """Wait until a process has nothing to do: it has read what was written before it started."""
    deadline = time.monotonic() + within
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:
        before = cpu_seconds(pid)
        time.sleep(0.25)
        quiet = quiet + 1 if cpu_seconds(pid) - before <= 0.03 else 0


def _common(usage: Usage) -> Figures:
    return {
        "cpu_s": round(usage.server, 3),
        "kernel_s": round(usage.kernel, 3),
        "others": usage.others,
        "idle": usage.idle,
    }


def _joining(system: Running, users: int, *, snapshot: bool = False) -> Figures:
    """What sockets of that system bring to a join."""
    if system.name != "livedocs":
        return {}
    return {"tokens": tokens(users), **({"options": {"snapshot": True}} if snapshot else {})}


def _window(
    load: Generator,
    system: Running,
    around: Surroundings,
    ids: list[Any],
    *,
    rate: float,
    seconds: float,
    receivers: int,
    sample: int,
    warm: float = 0.0,
) -> Figures:
    """Write at a steady pace, each event to `receivers` sockets, and account for it."""
    if warm:
        load.ask("record", sample=sample)
        written = Writer(around, "paced", ids, rate=rate, seconds=warm).result()
        # Whoever cannot keep up has it all behind it, too, before the window begins.
        load.ask("await", deliveries=written["events"] * receivers, within=30)
    time.sleep(0.2)
    load.ask("record", sample=sample)
    writer = Writer(around, "paced", ids, rate=rate, seconds=seconds)
    meter = Meter(system.pid, [load.pid, *around.pids])
    written = writer.result()
    expected = written["events"] * receivers
    load.ask("await", deliveries=expected, within=10)
    usage = meter.read()
    report = load.ask("report")
    if report["deliveries"] != expected or report["lost"] or report["controls"]:
        counted = {name: report[name] for name in ("deliveries", "lost", "controls")}
        raise LoadError(f"{system.name}: expected {expected} deliveries, got {counted}")
    return {
        **_common(usage),
        "events": written["events"],
        "deliveries": expected,
        "us_per_delivery": round(usage.server / expected * 1e6, 3),
        "us_per_event": round(usage.server / written["events"] * 1e6, 2),
        "generator_us_per_delivery": round(report["cpu"] / expected * 1e6, 3),
        "bytes_per_delivery": report["bytes"] // expected,
        "writer_late_ms": written["late_ms"],
        "samples": report["samples"],
        **{f"{name}_ms": value for name, value in report["latency_ms"].items()},
    }


def fanout(
    name: str,
    around: Surroundings,
    *,
    rooms: int,
    per_room: int,
    rate: float,
    seconds: float,
    warm: float,
    sample: int = 1,
    users: int = _USERS,
) -> Figures:
    """Sockets in rooms, events to the rooms in turn."""
    with database(around) as client:
        uuids, ids = make_rooms(client, rooms)
    with running(name, around) as system, generator() as load:
        settle(system.pid)
        load.open(system.port, rooms * per_room, uuids, **_joining(system, users))
        return _window(
            load, system, around, ids, rate=rate, seconds=seconds, receivers=per_room, sample=sample, warm=warm
        )


def connecting(name: str, around: Surroundings, *, sockets: int, snapshot: bool) -> Figures:
    """Sockets that connect and join a room each, ten to a room; each is a user of its own."""
    with database(around) as client:
        uuids, _ = make_rooms(client, sockets // 10)
    with running(name, around) as system, generator() as load:
        settle(system.pid)
        options = _joining(system, sockets, snapshot=snapshot)
        # As many again as are measured, so that nothing is done for the first time.
        load.open(system.port, 200, uuids, **options)
        load.ask("close")
        if "tokens" in options:
            warm_tokens(system, options["tokens"])
        settle(system.pid)
        meter = Meter(system.pid, [load.pid, *around.pids])
        opened = load.open(system.port, sockets, uuids, **options)
        usage = meter.read()
    return {
        **_common(usage),
        "sockets": sockets,
        "ms_per_socket": round(usage.server / sockets * 1e3, 4),
        "sockets_per_cpu_s": round(sockets / usage.server),
        "seconds": opened["seconds"],
    }


def memory(name: str, around: Surroundings, *, sockets: int, users: int) -> Figures:
    """Resident memory of sockets that have joined a room and do nothing."""
    with database(around) as client:
        uuids, _ = make_rooms(client, sockets // 10)
    with running(name, around) as system, generator() as load:
        settle(system.pid)
        options = _joining(system, users)
        load.open(system.port, 200, uuids, **options)
        load.ask("close")
        settle(system.pid)
        before = resident_kib(system.pid)
        load.open(system.port, sockets, uuids, **options)
        settle(system.pid)
        time.sleep(2)
        after = resident_kib(system.pid)
        meter = Meter(system.pid, [load.pid, *around.pids])
        time.sleep(5)
        usage = meter.read()
    return {
        "sockets": sockets,
        "others": usage.others,
        "base_mib": round(before / 1024, 1),
        "kib_per_socket": round((after - before) / sockets, 2),
        "idle_cpu_percent": round(usage.server / 5 * 100, 1),
    }


def ingest(name: str, around: Surroundings, *, events: int, kind: str) -> Figures:
    """Events of rooms that nobody is in; one socket elsewhere sees the last event and so the end."""
    with database(around) as client:
        uuids, ids = make_rooms(client, 1000)
    with running(name, around) as system, generator() as load:
        settle(system.pid)
        load.open(system.port, 1, uuids[:1], **_joining(system, 1))
        Writer(around, "flood", ids[1:], count=2000, kind=kind).result()
        settle(system.pid)
        load.ask("record", sample=1)
        writer = Writer(around, "flood", ids[1:], count=events, kind=kind)
        meter = Meter(system.pid, [load.pid, *around.pids])
        written = writer.result()
        Writer(around, "paced", ids[:1], rate=1, seconds=1).result()
        if load.ask("await", deliveries=1, within=120)["deliveries"] != 1:
            raise LoadError(f"{name}: the last event did not arrive")
        usage = meter.read()
    return {
        **_common(usage),
        "events": events,
        "us_per_event": round(usage.server / events * 1e6, 2),
        "events_per_cpu_s": round(events / usage.server),
        "written_per_s": round(events / written["seconds"]),
    }


def many_rooms(
    name: str, around: Surroundings, *, rooms: int, sockets: int, rate: float, seconds: float, warm: float
) -> Figures:
    """Events to one room while that many others have a socket each."""
    with database(around) as client:
        uuids, ids = make_rooms(client, rooms)
    with running(name, around) as system, generator() as load:
        settle(system.pid)
        load.open(
            system.port, sockets, uuids, rooms_each=rooms // sockets, in_flight=8, **_joining(system, sockets)
        )
        settle(system.pid)
        figures = _window(
            load, system, around, ids[:1], rate=rate, seconds=seconds, receivers=1, sample=1, warm=warm
        )
    return {"rooms": rooms, **figures}
