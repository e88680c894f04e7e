"""A long run under random faults: `make soak DURATION=3600 SEED=7`.

The seed decides the load, the order of the faults and their details; `--round N` plays one round of it again. Each
round is checked on its own, so that memory stays the same however long it goes on; the server processes live
through all of them. The last line is one of counts; the status is 1 when a promise was not kept.
"""

# ruff: noqa: T201 - a command-line tool
from __future__ import annotations

import argparse
import asyncio
import pickle
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from rig.deployment import Deployment
from rig.figures import dumps, figures, line
from rig.nemesis import FAULTS
from rig.timeline import page
from rig.trial import Sizes, Trial

_FAULTS_A_ROUND = 10


def schedule(seed: int, number: int) -> list[str]:
    """The faults of one round, always the same for a seed."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - reproducible
    return rng.choices(list(FAULTS), k=_FAULTS_A_ROUND)


async def soak(options: argparse.Namespace) -> int:
    """Rounds until the time is over. Returns how many promises were not kept."""
    deadline = time.monotonic() + options.duration
    folder = Path(tempfile.mkdtemp(prefix="livedocs-soak-"))
    found: list[dict[str, Any]] = []
    try:
        async with Deployment(folder, servers=options.servers, workers=options.workers) as deployment:
            number = options.round if options.round is not None else 0
            while not found or (time.monotonic() < deadline and options.round is None):
                found.append(await _round(deployment, options, number))
                number += 1
    finally:
        if any(part["violations"] for part in found) or not found:
            _keep_logs(folder, options.out)
        shutil.rmtree(folder, ignore_errors=True)
    (options.out / "figures.json").write_text(dumps(found))
    print(f"soak seed={options.seed} rounds={len(found)} {line(found)}")
    return sum(part["violations"] for part in found)


def _keep_logs(folder: Path, out: Path) -> None:
    for log in folder.glob("*.log"):
        shutil.copy(log, out / log.name)


async def _round(deployment: Deployment, options: argparse.Namespace, number: int) -> dict[str, Any]:
    faults = schedule(options.seed, number)
    trial = Trial(deployment, f"{options.seed}/{number}", Sizes(people=options.people))
    outcome = await trial.run(faults, pause=2)
    found = {
        "round": number,
        **figures(outcome.recording, outcome.world, outcome.verdict),
    }
    title = f"livedocs soak, seed {options.seed}, round {number}: {line([found])}"
    picture = options.out / f"round-{number}.html"
    picture.write_text(page(outcome.recording, outcome.world, outcome.verdict, found, title))
    print(f"round {number}: {line([found])}", flush=True)
    for violation in outcome.verdict.violations[:20]:
        print(f"  {str(violation)[:500]}", file=sys.stderr, flush=True)
    if outcome.verdict.violations:
        # Everything sent and received, and the truth, for whoever looks for the reason.
        (options.out / f"round-{number}.pickle").write_bytes(pickle.dumps((outcome.recording, outcome.world)))
    elif number % options.keep:
        picture.unlink()
    return found


def main() -> int:
    """Read the command line and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=600, help="seconds; the round under way is finished")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round", type=int, help="only this round of the seed")
    parser.add_argument("--servers", type=int, default=2, help="servers")
    parser.add_argument("--workers", type=int, default=1, help="processes of each server")
    parser.add_argument("--people", type=int, default=12, help="clients of each tenant")
    parser.add_argument(
        "--keep", type=int, default=10, help="keep the picture of every so many rounds without fault"
    )
    parser.add_argument("--out", type=Path, default=Path(".cache/soak"), help="folder for pictures and figures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    return 1 if asyncio.run(soak(options)) else 0


if __name__ == "__main__":
    sys.exit(main())
