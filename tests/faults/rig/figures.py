"""What a run measured. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from rig.checker import Verdict
from rig.recording import Delivered, Recording
from rig.world import World

# Faults after which there is no primary for a while.
_ELECTIONS = frozenset({"kill_primary", "freeze_primary"})
# Seconds within which the gap of an election begins, and in which an event counts as on time.
_AFTERMATH, _ON_TIME = 20.0, 0.5


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least that share of them does not exceed; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def figures(recording: Recording, world: World, verdict: Verdict) -> dict[str, Any]:
    """Counts, and times in seconds."""
    calm = [took for _, at, took in verdict.revocations if not _disturbed(recording, at)]
    every = [took for _, _, took in verdict.revocations]
    gaps = [_gap(recording, world, fault.began) for fault in recording.faults if fault.name in _ELECTIONS]
    longest = max(gaps, default=(0.0, 0.0))
    return {
        "seconds": round(_length(recording), 1),
        "processes": len({connection.process[0] for connection in recording.connections}),
        "commits": world.count,
        "events_checked": verdict.counts["events"],
        "connections": verdict.counts["connections"],
        "joins": verdict.counts["join"],
        "resumes": verdict.counts["resume"],
        "resyncs": verdict.counts["resync"],
        "snapshots_checked": verdict.counts["snapshots"],
        "transactions_seen": verdict.counts["transactions"],
        "writes": verdict.counts["writes"],
        "unknown_writes_that_happened": verdict.counts["unknown_happened"],
        "unknown_writes_that_did_not": verdict.counts["unknown_did_not"],
        "faults_survived": len(recording.faults),
        "faults": dict(sorted(Counter(fault.name for fault in recording.faults).items())),
        "longest_gap_after_losing_the_primary": round(longest[0], 3),
        "caught_up_after_that_gap": round(longest[1], 3),
        "revocations": len(every),
        "revocation_p50": round(percentile(every, 0.5), 4),
        "revocation_p99": round(percentile(every, 0.99), 4),
        "revocations_without_fault": len(calm),
        "revocation_p50_without_fault": round(percentile(calm, 0.5), 4),
        "revocation_p99_without_fault": round(percentile(calm, 0.99), 4),
        "violations": len(verdict.violations),
    }


def line(parts: Sequence[dict[str, Any]]) -> str:
    """One line for one or more runs."""
    totals = {name: sum(part[name] for part in parts) for name in _SUMS}
    worst = {name: max((part[name] for part in parts), default=0) for name in _WORST}
    return " ".join(f"{name}={value:g}" for name, value in (totals | worst).items())


_SUMS = (
    *("events_checked", "faults_survived", "violations", "commits", "connections", "resumes", "resyncs"),
    *("snapshots_checked", "transactions_seen", "revocations"),
)
_WORST = ("revocation_p50", "revocation_p99", "longest_gap_after_losing_the_primary", "caught_up_after_that_gap")


def dumps(value: Any) -> str:
    """JSON for people and programs."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _length(recording: Recording) -> float:
    times = [entry.at for connection in recording.connections for entry in connection.entries]
    return max(times) - min(times) if times else 0.0


def _disturbed(recording: Recording, wall: float) -> bool:
    """Whether a fault was under way or had only just ended."""
    at = wall - recording.epoch
    return any(fault.began - 1 <= at <= fault.ended + 1 for fault in recording.faults)


def _gap(recording: Recording, world: World, began: float) -> tuple[float, float]:
    """The longest silence that begins soon after a moment, and how long until events then came on time again."""
    walls = {event.token: event.wall for events in world.events.values() for event in events}
    came = sorted(
        (entry.at, recording.wall(entry.at) - walls.get(entry.meta["id"], 0.0))
        for connection in recording.connections
        for entry in connection.entries
        if isinstance(entry, Delivered) and entry.at >= began - 1
    )
    longest, end = 0.0, began
    for (before, _), (after, _) in pairwise(came):
        if before > began + _AFTERMATH:
            break
        if after - before > longest:
            longest, end = after - before, after
    on_time = next((at for at, late in came if at >= end and late < _ON_TIME), end)
    return longest, on_time - end
