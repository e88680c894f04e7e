"""Reads the truth from MongoDB once the dust has settled.

It is a plain change stream over the whole run, counted against the oplog of the primary that is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from bson.timestamp import Timestamp
from pymongo import MongoClient
from pymongo.read_concern import ReadConcern

from rig.world import Commit

_OPS = {"insert": "i", "update": "u", "replace": "u", "delete": "d"}


class TruthError(Exception):
    """The two readings of the truth differ: nothing can be checked against either."""


def now(client: MongoClient[Any]) -> Timestamp:
    """The cluster time of the majority-committed state."""
    reply = client["admin"].command({"hello": 1})
    found: Timestamp = reply["lastWrite"]["majorityOpTime"]["ts"]
    return found


def read(
    client: MongoClient[Any],
    begin: Timestamp,
    end: Timestamp,
    databases: Mapping[str, str | None],
    names: Collection[str],
) -> list[Commit]:
    """Every change of those collections in `(begin, end]`, in stream order.

    Args:
        client: with standard UUIDs and aware times.
        databases: by name, the tenant that owns it; None for the control database.
        names: of the collections.

    Raises:
        TruthError: the oplog has another number of them.
    """
    pipeline = [{"$match": {"ns.db": {"$in": list(databases)}, "ns.coll": {"$in": list(names)}}}]
    commits: list[Commit] = []
    start = Timestamp(begin.time, begin.inc + 1)
    with client.watch(pipeline, start_at_operation_time=start, max_await_time_ms=200, batch_size=1000) as stream:
        while stream.alive:
            event = stream.try_next()
            if event is None:
                token = (stream.resume_token or {}).get("_data", "")
                if token and _cluster_time(token) >= end:
                    break
            elif event["clusterTime"] > end:
                break
            elif event["operationType"] in _OPS:
                commits.append(_commit(event, databases))
    _compare(commits, client, begin=begin, end=end, databases=databases, names=names)
    return commits


def _cluster_time(token: str) -> Timestamp:
    return Timestamp(int(token[2:10], 16), int(token[10:18], 16))


def _commit(event: Mapping[str, Any], databases: Mapping[str, str | None]) -> Commit:
    description = event.get("updateDescription") or {}
    return Commit(
        event["_id"]["_data"],
        event["wallTime"].timestamp(),
        event["operationType"],
        databases[event["ns"]["db"]],
        event["ns"]["coll"],
        event["documentKey"]["_id"],
        event.get("fullDocument"),
        description.get("updatedFields") or {},
        description.get("removedFields") or (),
        description.get("truncatedArrays") or (),
        "txnNumber" in event,
    )


def _compare(
    commits: list[Commit],
    client: MongoClient[Any],
    *,
    begin: Timestamp,
    end: Timestamp,
    databases: Mapping[str, str | None],
    names: Collection[str],
) -> None:
    tenants = {tenant: name for name, tenant in databases.items()}
    streamed = Counter((tenants[commit.tenant], commit.collection, _OPS[commit.op]) for commit in commits)
    namespaces = {f"{database}.{name}" for database in databases for name in names}
    logged: Counter[tuple[str, str, str]] = Counter()
    oplog = client["local"].get_collection("oplog.rs", read_concern=ReadConcern("majority"))
    for entry in oplog.find({"ts": {"$gt": begin, "$lte": end}}):
        for operation in _operations(entry):
            if operation["ns"] in namespaces and operation["op"] in _OPS.values():
                database, _, name = operation["ns"].partition(".")
                logged[database, name, operation["op"]] += 1
    if streamed != logged:
        difference = {
            key: (streamed[key], logged[key]) for key in streamed | logged if streamed[key] != logged[key]
        }
        raise TruthError(f"change stream and oplog differ: {difference}")


def _operations(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """An oplog entry's operations; a transaction is one `applyOps` of several."""
    if entry["op"] == "c" and "applyOps" in entry["o"]:
        if not entry["o"].get("prepare"):
            yield from entry["o"]["applyOps"]
    else:
        yield entry
