"""A document's change as the clients of its room get it. Pure."""

from __future__ import annotations

from typing import Any

from livedocs.changes.event import DocumentChange
from livedocs.codec.bsondecode import decode_for_json
from livedocs.presentation import present, present_changes, shown_path


def payload(change: DocumentChange, cursor: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(data, meta)` as a client gets them: design section 5. Dates without a time zone are UTC."""
    meta: dict[str, Any] = {"op": change.op, "id": cursor, "at": change.wall, "removed": [], "truncated": []}
    if change.txn is not None:
        meta["txn"] = change.txn
    uuid = change.room.uuid
    if change.key_of:
        meta["_id"] = decode_for_json(change.key_of).get("_id")
    if change.op == "delete":
        return {"uuid": str(uuid)}, meta
    if change.whole is not None:
        return present(decode_for_json(change.whole), change.key, uuid), meta
    event = decode_for_json(change.raw)
    if change.key != "_id":
        meta["_id"] = event["documentKey"].get("_id")
    if change.op == "update":
        description = event["updateDescription"]
        meta["removed"] = [shown_path(path, change.key) for path in description.get("removedFields") or []]
        meta["truncated"] = [
            {"field": shown_path(item["field"], change.key), "newSize": item["newSize"]}
            for item in description.get("truncatedArrays") or []
        ]
        return present_changes(description["updatedFields"], change.key, uuid), meta
    return present(event["fullDocument"], change.key, uuid), meta
