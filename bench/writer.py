"""Writes into MongoDB at a steady pace, or as fast as it goes, and stamps each change with the time of its commit.

    python writer.py paced --uri .. --database .. --rate 400 --seconds 5   (documents' `_id`s on standard input)
    python writer.py flood --uri .. --database .. --count 40000

The stamp `t` is the writer's clock in microseconds just before the write is sent, so that the latency measured is
from there to the receipt, MongoDB's own part included. Clocks agree: everything runs on one machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any
from uuid import uuid4

from bson import ObjectId
from pymongo import InsertOne, MongoClient, UpdateOne
from pymongo.collection import Collection

Documents = Collection[dict[str, Any]]
TEXT = "A change of a document as a service would write it, of ordinary length. " * 2


def stamp() -> int:
    """Now, in microseconds."""
    return time.time_ns() // 1000


def _changed(number: int) -> dict[str, Any]:
    """The fields of a change; none is as it was before."""
    return {"t": stamp(), "n": number, "text": f"{number}: {TEXT}", "position": {"x": number % 100, "y": 2.5}}


def paced(
    collection: Collection[dict[str, Any]], ids: list[ObjectId], rate: float, seconds: float
) -> dict[str, Any]:
    """One update after the other, round and round the documents, on time as far as the machine allows."""
    total = int(rate * seconds)
    began = time.perf_counter()
    late = 0.0
    for number in range(total):
        due = began + number / rate
        wait = due - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        else:
            late = max(late, -wait)
        collection.update_one({"_id": ids[number % len(ids)]}, {"$set": _changed(number)})
    return {"events": total, "seconds": time.perf_counter() - began, "late_ms": round(late * 1000, 2)}


def flood(collection: Documents, count: int, kind: str, ids: list[ObjectId]) -> dict[str, Any]:
    """Many changes in large batches, to documents that nobody watches."""
    began = time.perf_counter()
    for start in range(0, count, 1000):
        several = range(start, min(start + 1000, count))
        requests: list[Any]
        if kind == "insert":
            requests = [InsertOne({"uuid": uuid4(), **_changed(n)}) for n in several]
        else:
            requests = [UpdateOne({"_id": ids[n % len(ids)]}, {"$set": _changed(n)}) for n in several]
        collection.bulk_write(requests, ordered=False)
    return {"events": count, "seconds": time.perf_counter() - began}


def main() -> None:
    """Write as the command line says; the result is one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("paced", "flood"))
    parser.add_argument("--uri", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--collection", default="test")
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kind", choices=("insert", "update"), default="insert")
    options = parser.parse_args()
    ids = [ObjectId(line.strip()) for line in sys.stdin]
    with MongoClient(options.uri, uuidRepresentation="standard", w="majority") as client:
        collection = client[options.database][options.collection]
        collection.find_one({"_id": None})
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        if options.mode == "paced":
            result = paced(collection, ids, options.rate, options.seconds)
        else:
            result = flood(collection, options.count, options.kind, ids)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
