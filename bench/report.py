"""The results of a run as a page to read, with plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalogue import median, verdicts
from plots import Bar, chart
from systems import SYSTEMS

# What is worth a column, by scenario family, with its heading.
_COLUMNS = {
    "us_per_delivery": "CPU per delivery, µs",
    "us_per_event": "CPU per event, µs",
    "p50_ms": "p50, ms",
    "p95_ms": "p95, ms",
    "p99_ms": "p99, ms",
    "max_ms": "max, ms",
    "ms_per_socket": "CPU per socket, ms",
    "sockets_per_cpu_s": "sockets per CPU s",
    "kib_per_socket": "KiB per socket",
    "base_mib": "empty process, MiB",
    "idle_cpu_percent": "CPU when idle, %",
    "events_per_cpu_s": "events per CPU s",
    "others": "others' share of the machine",
}
_PLOTS = (
    ("one-room", "us_per_delivery", "µs of server CPU per delivery"),
    ("one-room", "p99_ms", "p99 from commit to receipt, ms"),
    ("many-rooms", "us_per_delivery", "µs of server CPU per delivery"),
    ("many-rooms", "p99_ms", "p99 from commit to receipt, ms"),
    ("connect", "ms_per_socket", "ms of server CPU per socket"),
    ("memory", "kib_per_socket", "KiB of resident memory per socket"),
    ("ingest-insert", "events_per_cpu_s", "events per second of server CPU"),
)
_MARK = {True: "met", False: "**missed**", None: "not measured"}


def write(folder: Path, results: dict[str, Any]) -> None:
    """Write `report.md` and the plots into the folder."""
    runs = results["runs"]
    plots = _plot(folder, results["scenarios"], runs)
    parts = [
        f"# Performance, measured {results['machine']['at']}",
        "",
        f"Made by `{results['command']}`. Medians over the rounds. Only livedocs authenticates.",
        "",
        "## The bars",
        "",
        "| what | bar | measured | |",
        "|---|---|---|---|",
        *(f"| {v.what} | {v.bar} | {v.found} | {_MARK[v.passed]} |" for v in verdicts(runs)),
        "",
        "## What was measured",
        "",
        *(line for scenario in results["scenarios"] for line in _section(scenario, runs, plots)),
        "## The load generator",
        "",
        *_capacity(results),
        "",
        "## Machine and versions",
        "",
        *_machine(results["machine"]),
        "",
    ]
    (folder / "report.md").write_text("\n".join(parts))


def _section(scenario: dict[str, Any], runs: Sequence[dict[str, Any]], plots: dict[str, list[str]]) -> list[str]:
    name = scenario["name"]
    mine = [run for run in runs if run["scenario"] == name]
    if not mine:
        return []
    columns = [column for column in _COLUMNS if column in mine[0] and mine[0][column] is not None]
    lines = [
        f"### {scenario['title']}",
        "",
        f"`python bench/run.py --scenario {name}`, {scenario['rounds']} rounds, {scenario['options']}",
        "",
        f"| | {' | '.join(_COLUMNS[column] for column in columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for system in scenario["systems"]:
        values = [median(mine, name, system, column) for column in columns]
        cells = " | ".join("" if value is None else f"{value:,.4g}" for value in values)
        lines.append(f"| {SYSTEMS[system]} | {cells} |")
    return [*lines, "", *(f"![{scenario['title']}]({plot})" for plot in plots.get(name, [])), ""]


def _plot(
    folder: Path, scenarios: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]
) -> dict[str, list[str]]:
    titles = {scenario["name"]: scenario["title"] for scenario in scenarios}
    plots: dict[str, list[str]] = {}
    for name, figure, unit in _PLOTS:
        bars = []
        for system in SYSTEMS:
            values = [run[figure] for run in runs if (run["scenario"], run["system"]) == (name, system)]
            middle = median(runs, name, system, figure)
            if middle is not None:
                bars.append(Bar(system, system, middle, min(values), max(values)))
        if bars:
            file = f"{name}-{figure}.svg"
            (folder / file).write_text(chart(titles[name], unit, bars))
            plots.setdefault(name, []).append(file)
    return plots


def _capacity(results: dict[str, Any]) -> list[str]:
    measured = results.get("capacity")
    if not measured:
        return ["Not measured in this run."]
    lines = [
        "What one process of it takes, by `python bench/capacity.py measure [--together 8]`:",
        "",
        "| frames a write | deliveries/s sent | share of a core | deliveries per CPU s of the generator |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {one['frames_per_write']} | {one['deliveries_per_s']:,} | {one['cpu_share']:.0%}"
        f" | {one['deliveries_per_cpu_s']:,} |"
        for one in measured
    ]
    most = max(one["deliveries_per_cpu_s"] for one in measured)
    cost = median(results["runs"], "one-room", "livedocs", "us_per_delivery")
    if cost:
        lines += ["", f"livedocs gives {1e6 / cost:,.0f} a second of CPU: {most * cost / 1e6:.1f} times less."]
    return lines


def _machine(machine: dict[str, Any]) -> list[str]:
    lines = ["| | |", "|---|---|"]
    for name, value in machine.items():
        if name == "packages":
            lines += [f"| {package} | {found} |" for package, found in value.items()]
        else:
            lines.append(f"| {name.replace('_', ' ')} | {value} |")
    return lines
