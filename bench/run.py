"""Measures livedocs beside the stacks it replaces.

    python bench/run.py                      everything; results go to bench/results/
    python bench/run.py --quick              under three minutes: fewer rounds, only Node.js beside livedocs
    python bench/run.py --scenario one-room --rounds 3 --systems livedocs,node
    python bench/run.py --add --scenario connect   measure one again, keep the rest of the last results
    python bench/run.py --report FOLDER      write the report of earlier results anew

Systems take turns (A B A B), each round in a process of its own; every scenario has a MongoDB of its own that all
of them share.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import capacity
import machine
import report
from accounting import wait_for_quiet
from catalogue import build, verdicts
from load import LoadError
from scenarios import Figures, Scenario
from systems import HERE, SYSTEMS, Surroundings, surroundings

_ATTEMPTS = 2


def main() -> int:
    """Run as the command line says."""
    options = _options()
    if options.report:
        folder = Path(options.report)
        report.write(folder, json.loads((folder / "results.json").read_text()))
        return 0
    chosen = _chosen(options)
    folder = Path(options.out or HERE / "results" / ("quick" if options.quick else "full"))
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "command": " ".join(["python", "bench/run.py", *sys.argv[1:]]),
        "machine": machine.describe(),
        "scenarios": [{name: value for name, value in asdict(one).items() if name != "measure"} for one in chosen],
        "capacity": [] if options.scenario else [capacity.measure(1), capacity.measure(8)],
        "runs": [],
    }
    if options.add:
        _add_earlier(results, json.loads((folder / "results.json").read_text()))
    began = time.monotonic()
    for scenario in chosen:
        results["runs"] += _measure(scenario, options.patience)
        results["seconds"] = round(time.monotonic() - began)
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report.write(folder, results)
    print(f"\n{results['seconds']} s; the report is {folder / 'report.md'}\n")
    found = verdicts(results["runs"])
    for verdict in found:
        if verdict.passed is not None:
            print(f"{'met   ' if verdict.passed else 'MISSED'}  {verdict.what}: {verdict.found}; {verdict.bar}")
    return 0


def _add_earlier(results: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Keep of earlier results what is not measured again."""
    again = {one["name"] for one in results["scenarios"]}
    results["command"] = f"{earlier['command']}; {results['command']}"
    results["scenarios"] += [one for one in earlier["scenarios"] if one["name"] not in again]
    results["runs"] += [run for run in earlier["runs"] if run["scenario"] not in again]
    results["capacity"] = results["capacity"] or earlier["capacity"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--scenario", action="append", help="only this one; may be given again")
    parser.add_argument("--systems", help=f"only these, separated by commas: {', '.join(SYSTEMS)}")
    parser.add_argument("--rounds", type=int)
    parser.add_argument(
        "--patience",
        type=float,
        default=0.0,
        help="seconds to wait, before each run, for others to leave the machine alone",
    )
    parser.add_argument("--out", help="folder of the results")
    parser.add_argument("--add", action="store_true", help="keep what else is in that folder's results")
    parser.add_argument("--report", help="folder of earlier results")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> list[Scenario]:
    # What the quick form leaves out can still be asked for by name.
    known = {one.name: one for one in (*build(quick=False), *(build(quick=True) if options.quick else ()))}
    names = options.scenario or [one.name for one in build(quick=options.quick)]
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"there is no scenario {unknown[0]}; there are {', '.join(known)}")
    wanted = options.systems.split(",") if options.systems else list(SYSTEMS)
    return [
        replace(
            known[name],
            systems=tuple(system for system in known[name].systems if system in wanted),
            rounds=options.rounds or known[name].rounds,
        )
        for name in names
    ]


def _measure(scenario: Scenario, patience: float) -> list[dict[str, Any]]:
    print(f"\n{scenario.title}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="livedocs-bench-"))
    runs = []
    try:
        with surroundings(folder) as around:
            for number in range(scenario.rounds):
                for system in scenario.systems:
                    wait_for_quiet(patience)
                    figures = _once(scenario, system, around)
                    runs.append({"scenario": scenario.name, "system": system, "round": number, **figures})
                    print(f"  {number + 1} {system:9} {_brief(figures)}", flush=True)
    finally:
        shutil.rmtree(folder)
    return runs


def _once(scenario: Scenario, system: str, around: Surroundings) -> Figures:
    """One run; once more when the load was not what it should be, since a busy machine can do that to it."""
    for attempt in range(_ATTEMPTS):
        try:
            return scenario.measure(system, around, **scenario.options)
        except LoadError as error:
            print(f"    {system}: {error}", flush=True)
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


_BRIEF = {
    "us_per_delivery": "µs/delivery",
    "us_per_event": "µs/event",
    "ms_per_socket": "ms/socket",
    "kib_per_socket": "KiB/socket",
    "events_per_cpu_s": "events/CPU s",
    "p50_ms": "ms p50",
    "p99_ms": "ms p99",
    "max_ms": "ms max",
    "others": "of the machine used by others",
}


def _brief(figures: Figures) -> str:
    return ", ".join(
        f"{figures[name]:,.4g} {unit}" for name, unit in _BRIEF.items() if figures.get(name) is not None
    )


if __name__ == "__main__":
    sys.exit(main())
