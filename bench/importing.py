"""Loads a million documents by `livedocs import`, with interruptions, and counts what is there.

    python bench/importing.py                       1,000,000 documents
    python bench/importing.py --documents 20000     fewer

Every document carries its line's number. The command is killed (SIGKILL) when a quarter and when half is written,
the server at three quarters; each time the same command is given again. In the end every number has to be there
exactly once. The largest resident memory of both processes is recorded, and the share of CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import machine
from accounting import cpu_seconds, resident_kib
from load import database
from systems import COLLECTION, DATABASE, HERE, Running, Surroundings, running, surroundings

_TOKEN = "bench-service"
_KEY = "bench-import"
_LINE = 300


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "importing.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="livedocs-import-") as folder:
        file = Path(folder) / "documents.ndjson"
        _write(file, options.documents)
        with surroundings(Path(folder) / "around") as around:
            figures = _load(file, options.documents, around)
    results = {
        "command": " ".join(["python", "bench/importing.py", *sys.argv[1:]]),
        "machine": machine.describe(),
        **figures,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
    return 0 if figures["distinct"] == figures["stored"] == options.documents else 1


def _write(file: Path, documents: int) -> None:
    with file.open("wb") as output:
        for number in range(documents):
            line = json.dumps({"n": number, "text": "x" * _LINE, "at": {"$date": "2026-01-01T00:00:00Z"}})
            output.write(line.encode() + b"\n")


class _Largest:
    """The most memory a process was seen to have."""

    def __init__(self, pid: int) -> None:
        self.kib = resident_kib(pid)
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            try:
                self.kib = max(self.kib, resident_kib(self._pid))
            except (OSError, ValueError):
                return

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def _load(file: Path, documents: int, around: Surroundings) -> dict[str, Any]:
    began, server_kib, command_kib, idle_kib, cpu = time.monotonic(), 0, 0, 0, 0.0
    interruptions: list[dict[str, Any]] = []
    # What is left to be interrupted: at how many documents, and who is killed.
    kills = [(documents // 4, "command"), (documents // 2, "command"), (documents * 3 // 4, "server")]
    done = False
    while not done:
        with running("livedocs", around) as server:
            watched = _Largest(server.pid)
            idle_kib = idle_kib or watched.kib
            before = cpu_seconds(server.pid)
            while not done:
                kill = kills.pop(0) if kills else None
                done, most, at = _command(file, server, around, kill)
                command_kib = max(command_kib, most)
                if kill is not None and not done:
                    interruptions.append(
                        {"killed": kill[1], "at": at, "after_s": round(time.monotonic() - began, 1)}
                    )
                    if kill[1] == "server":
                        break
            watched.close()
            server_kib = max(server_kib, watched.kib)
            if done:
                cpu = cpu_seconds(server.pid) - before
    seconds = time.monotonic() - began
    with database(around) as client:
        stored = client[DATABASE][COLLECTION].count_documents({})
        [distinct] = client[DATABASE][COLLECTION].aggregate(
            [{"$group": {"_id": "$n"}}, {"$count": "n"}], allowDiskUse=True
        )
    return {
        "documents": documents,
        "stored": stored,
        "distinct": distinct["n"],
        "interruptions": interruptions,
        "seconds": round(seconds, 1),
        "documents_per_second": round(documents / seconds),
        "server_cpu_ms_per_document": round(cpu / (documents / 4) * 1000, 3) if interruptions else None,
        "server_idle_mib": round(idle_kib / 1024, 1),
        "server_most_mib": round(server_kib / 1024, 1),
        "command_most_mib": round(command_kib / 1024, 1),
    }


def _command(
    file: Path, server: Running, around: Surroundings, kill: tuple[int, str] | None
) -> tuple[bool, int, int]:
    """Give the command once. Whether it ended by itself, its memory in KiB, and how many documents there were."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "livedocs", "import", COLLECTION, str(file), "--key", _KEY),
            *("--url", f"http://127.0.0.1:{server.port}"),
        ],
        env={
            **{key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ},
            "LIVEDOCS_TOKEN": _TOKEN,
            "NO_PROXY": "*",
        },
        stdout=subprocess.DEVNULL,
    )
    watched, stored = _Largest(process.pid), 0
    try:
        with database(around) as client:
            while process.poll() is None:
                time.sleep(0.5)
                stored = client[DATABASE][COLLECTION].estimated_document_count()
                if kill is not None and stored >= kill[0]:
                    os.kill(process.pid if kill[1] == "command" else server.pid, signal.SIGKILL)
                    process.kill()
                    process.wait()
                    return False, watched.kib, stored
        if process.returncode:
            raise RuntimeError(f"the import ended with {process.returncode}")
        return True, watched.kib, stored
    finally:
        watched.close()


if __name__ == "__main__":
    sys.exit(main())
