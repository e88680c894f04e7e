"""Compares two checkouts of livedocs: is this version slower or larger than the one before?

    python bench/compare.py --base PATH                 nine rounds, this checkout against the one at PATH
    python bench/compare.py --base PATH --rounds 1 --scenario connect

Each checkout measures itself: its own `bench/run.py` in its own `.venv` (`scripts/setup dev` makes one), with a
MongoDB and a load of its own, so that no version meets data of the other. Rounds are paired: one run of each, one
right after the other, the order turned around each time, so that a machine that gets slower meanwhile slows both.
Of each pair the ratio is taken (this to base), and of the ratios the median: a disturbed round is one of nine.

The status is 1 when a figure is worse by more than a tenth. Nine rounds take about 18 minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from accounting import wait_for_quiet
from systems import HERE

MOST = 1.10
"""A median ratio beyond this is worse. All figures are costs: less is better."""

FIGURES = {
    "one-room": ("us_per_delivery", "p50_ms", "p99_ms"),
    "many-rooms": ("us_per_delivery", "p50_ms", "p99_ms"),
    "connect": ("ms_per_socket",),
    "memory": ("kib_per_socket", "idle_cpu_percent"),
    "ingest-insert": ("us_per_event",),
    "ingest-update": ("us_per_event",),
}
"""The scenarios of `make bench` that are compared, and what of each."""

# So small that a tenth of it is noise: shown, not judged.
_SHOWN_ONLY = frozenset({"idle_cpu_percent"})


@dataclass(frozen=True, slots=True)
class Pair:
    """A figure of one round: of the version before and of this one."""

    scenario: str
    figure: str
    base: float
    this: float

    @property
    def ratio(self) -> float:
        """Beyond 1: this one costs more."""
        return self.this / self.base if self.base else 1.0


def main() -> int:
    """Measure as the command line says. Returns the exit status."""
    options = _options()
    sides = {"base": options.base.resolve(), "this": HERE.parent}
    began = time.monotonic()
    pairs: list[Pair] = []
    for number in range(options.rounds):
        for scenario in options.scenario or FIGURES:
            found = dict(_round(scenario, sides, reverse=bool(number % 2), patience=options.patience))
            fresh = [
                Pair(scenario, figure, found["base"][figure], found["this"][figure])
                for figure in FIGURES[scenario]
            ]
            pairs += fresh
            told = ", ".join(f"{pair.figure} {pair.base:.4g} -> {pair.this:.4g}" for pair in fresh)
            print(f"{number + 1:2} {scenario:14} {told}", flush=True)
    if options.out:
        options.out.write_text(json.dumps([_members(pair) for pair in pairs], indent=1) + "\n")
    print(f"\n{time.monotonic() - began:.0f} s\n{_report(pairs)}")
    return 1 if any(_is_worse(one) for one in _grouped(pairs)) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--scenario", action="append", choices=list(FIGURES), help="only this one; may be given again"
    )
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds to wait, before each run, for a quiet machine"
    )
    parser.add_argument("--out", type=Path, help="a file for every pair, as JSON")
    return parser.parse_args()


def _round(
    scenario: str, sides: dict[str, Path], *, reverse: bool, patience: float
) -> Iterator[tuple[str, dict[str, float]]]:
    for side in sorted(sides, reverse=reverse):
        wait_for_quiet(patience)
        yield side, _measure(sides[side], scenario)


def _measure(checkout: Path, scenario: str) -> dict[str, float]:
    """One run of a scenario by that checkout; once more when it failed, since a busy machine can do that to it."""
    found = _once(checkout, scenario) or _once(checkout, scenario)
    return found or sys.exit(f"{checkout}: {scenario} failed twice")


def _once(checkout: Path, scenario: str) -> dict[str, float] | None:
    """One run by that checkout's own benchmark, in its quick form; None when it failed."""
    with tempfile.TemporaryDirectory(prefix="livedocs-compare-") as folder:
        command = [
            *(str(checkout / ".venv/bin/python"), str(checkout / "bench/run.py"), "--quick"),
            *("--scenario", scenario, "--systems", "livedocs", "--rounds", "1", "--out", folder),
        ]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
        results = Path(folder) / "results.json"
        if done.returncode or not results.exists():
            print(f"{checkout}: {scenario} failed\n{done.stderr[-1000:]}", flush=True)
            return None
        [run] = json.loads(results.read_text())["runs"]
        found: dict[str, float] = run
        return found


def _grouped(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """The pairs of each figure."""
    for scenario, figures in FIGURES.items():
        for figure in figures:
            found = [pair for pair in pairs if (pair.scenario, pair.figure) == (scenario, figure)]
            if found:
                yield found


def _is_worse(pairs: Sequence[Pair]) -> bool:
    return pairs[0].figure not in _SHOWN_ONLY and statistics.median(pair.ratio for pair in pairs) > MOST


def _report(pairs: Sequence[Pair]) -> str:
    """A line for each figure: medians of both, the median of the ratios, and how far these lie apart."""
    lines = [f"{'scenario':14} {'figure':18} {'base':>9} {'this':>9} {'ratio':>6}  quartiles     least to most"]
    for found in _grouped(pairs):
        ratios = sorted(pair.ratio for pair in found)
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios * 3)
        base, this = (statistics.median(getattr(pair, side) for pair in found) for side in ("base", "this"))
        lines.append(
            f"{found[0].scenario:14} {found[0].figure:18} {base:9.4g} {this:9.4g} {statistics.median(ratios):6.3f}"
            f"  {low:.3f}-{high:.3f}   {ratios[0]:.3f}-{ratios[-1]:.3f}{'  WORSE' if _is_worse(found) else ''}"
        )
    return "\n".join(lines)


def _members(pair: Pair) -> dict[str, object]:
    return {"scenario": pair.scenario, "figure": pair.figure, "base": pair.base, "this": pair.this}


if __name__ == "__main__":
    sys.exit(main())
