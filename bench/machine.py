"""What the figures were measured on and with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from systems import HERE

from livedocs.demo import mongod

_PACKAGES = (
    *("pymongo", "motor", "python-socketio", "python-engineio", "hypercorn", "wsproto", "h11", "orjson", "quart"),
    "prometheus-client",
)
_NPM = ("socket.io", "ws", "mongodb")


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, cwd=HERE)
    except OSError:
        return ""
    return done.stdout.strip().partition("\n")[0]


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""


def describe() -> dict[str, Any]:
    """Machine and versions."""
    lock = json.loads((HERE / "peers/node/package-lock.json").read_text())["packages"]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "commit": _first_line(["git", "rev-parse", "--short=12", "HEAD"]),
        "changed_files": bool(_first_line(["git", "status", "--porcelain", "--", "../src"])),
        "python": platform.python_version(),
        "node": _first_line(["node", "--version"]),
        "mongod": _first_line([str(mongod.find()), "--version"]).removeprefix("db version "),
        "packages": {
            **{name: version(name) for name in _PACKAGES},
            **{
                f"{name} (npm)": lock[f"node_modules/{name}"]["version"] for name in ("socket.io", "ws", "mongodb")
            },
        },
    }
