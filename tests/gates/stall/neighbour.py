"""Another tenant's stream: writes a document at a steady pace and says how late its socket heard. A program.

    python neighbour.py PORT TOKEN MONGODB_URI DATABASE UUID [DATABASE ...]

Lateness is from when a plain change stream of the driver had the event, in this process, to the arrival at this
socket. That stream is of all the databases, as the server's is: what MongoDB itself takes to bring a flood is not
the server's. Commands on standard input, an
answer in JSON for each: `mark` begins anew; `report` waits for what was written until then to have come.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parents[1]))

import bson
from bson.binary import Binary
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from stall.bare import TEXT, Bare

_RATE = 50.0
_PATIENCE = 60.0


class Neighbour:
    """The writer and the reader of one document."""

    def __init__(self, port: int, token: str, uri: str, database: str, uuid: str, *others: str) -> None:
        self._uri = uri
        self._notes: Any = MongoClient(uri)[database]["notes"]
        self._databases = [database, *others]
        self._key = {"_id": Binary.from_uuid(UUID(uuid))}
        self._written = 0
        self._heard = 0
        self._arrived: list[tuple[int, float]] = []
        # When the driver's stream had each of them.
        self._seen: dict[int, float] = {}
        self._newest = 0
        self._watching = threading.Event()
        self._socket = Bare(port, token)
        deadline = time.monotonic() + _PATIENCE
        while b'"refused":{}' not in (answer := self._join(uuid)):
            # A server that has just started may still be reading what others have written meanwhile.
            if b"unavailable" not in answer or time.monotonic() > deadline:
                raise ConnectionError(answer.decode())
            time.sleep(0.5)

    def _join(self, uuid: str) -> bytes:
        self._socket.send(f'420["JoinRoom",["{uuid}"]]'.encode())
        return self._socket.until(b"430")

    def write(self) -> None:
        """Write until the program ends."""
        while True:
            began = time.monotonic()
            self._notes.update_one(self._key, {"$set": {"n": self._written + 1}})
            self._written += 1
            time.sleep(max(0.0, 1 / _RATE - (time.monotonic() - began)))

    def watch(self) -> None:
        """Follow the databases as any program could, until this one ends."""
        selection = [{"$match": {"ns.db": {"$in": self._databases}}}]
        own = bson.encode(self._key)
        client: Any = MongoClient(self._uri, document_class=RawBSONDocument)
        with client.watch(selection) as stream:
            self._watching.set()
            for event in stream:
                if event["operationType"] == "update" and event["documentKey"].raw == own:
                    self._newest = event["updateDescription"]["updatedFields"]["n"]
                    self._seen[self._newest] = time.time()

    def read(self) -> None:
        """Whatever has come."""
        for opcode, payload in self._socket.frames():
            if opcode == TEXT and payload.startswith(b'42["notes"'):
                data = json.loads(payload[2:])[1]
                self._heard = max(self._heard, data["n"])
                self._arrived.append((data["n"], self._socket.arrived))
            elif payload.startswith(b'42["$resync"'):
                shown = json.loads(payload[2:])[1]["snapshot"]["notes"][0]
                self._heard = max(self._heard, shown["n"])

    def report(self) -> dict[str, float]:
        """How late events were since the mark, seconds."""
        last, deadline = self._written, time.monotonic() + _PATIENCE
        while min(self._heard, self._newest) < last and time.monotonic() < deadline:
            if select.select([self._socket], [], [], 0.1)[0]:
                self.read()
        # What one has and the other has not is in the next report.
        found = sorted(arrived - self._seen[number] for number, arrived in self._arrived if number in self._seen)
        lost = float(self._heard < last)
        return {
            "p99": found[int(len(found) * 0.99)] if found else _PATIENCE,
            "worst": found[-1] if found else _PATIENCE,
            "events": len(found),
            "lost": lost,
        }

    def run(self) -> None:
        """Read and obey until standard input ends."""
        threading.Thread(target=self.watch, daemon=True).start()
        self._watching.wait(_PATIENCE)
        threading.Thread(target=self.write, daemon=True).start()
        commands = b""
        while True:
            ready = select.select([0, self._socket], [], [])[0]
            if self._socket in ready:
                self.read()
            if 0 not in ready:
                continue
            data = os.read(0, 4096)
            if not data:
                return
            commands += data
            while b"\n" in commands:
                command, _, commands = commands.partition(b"\n")
                answer = self.report()
                if command == b"mark":
                    self._arrived.clear()
                    self._seen.clear()
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    Neighbour(int(sys.argv[1]), *sys.argv[2:]).run()
