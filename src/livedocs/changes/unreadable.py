"""What stands in place of an event that could not be read: the least that can be told apart. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bson.timestamp import Timestamp

from livedocs.changes import cursor
from livedocs.changes.event import Change, DocumentChange, Lost, RoomKey
from livedocs.changes.normalise import Registry, commit_time, uuid_in
from livedocs.changes.outline import control_event, document_key, whereabouts
from livedocs.model import Tenant, parse_grant_key


def stand_in(raw: bytes, registry: Registry, control: str, position: str) -> Change | None:
    """A change that breaks off the room, else the tenant, else everybody; None when it concerns nobody.

    Args:
        raw: the event.
        registry: the tenants.
        control: name of the control database.
        position: behind the batch that the event has come in, for one that does not even say where it is.
    """
    try:
        event = whereabouts(raw)
        token: str = event["_id"]["_data"]
        at: Timestamp = event["clusterTime"]
        database, collection = event["ns"]["db"], event["ns"].get("coll")
    except Exception:  # noqa: BLE001 - whatever it is, nothing can be told of it
        return Lost(position, cursor.cluster_time(position), None)
    if database == control:
        return _of_control(raw, token, at, collection)
    tenant = registry.by_database(database)
    if tenant is None or collection not in tenant.collections:
        # What makes a whole collection vanish has no part that could not be read.
        return None
    return _of_room(raw, event, tenant, collection) or Lost(token, at, tenant.slug)


def _of_control(raw: bytes, token: str, at: Timestamp, collection: str | None) -> Change | None:
    """An unreadable grant may have been anybody's of its tenant; nothing else there is worth a resync."""
    if collection != "acl":
        return None
    key = None
    with suppress(Exception):
        key = parse_grant_key(control_event(raw).get("documentKey", {}).get("_id"))
    return Lost(token, at, key.tenant if key is not None else None)


def _of_room(raw: bytes, event: Mapping[str, Any], tenant: Tenant, collection: str) -> Change | None:
    """Only where the `_id` is the key: a document with another key may have been in another room before."""
    if tenant.collections[collection] != "_id":
        return None
    uuid = None
    with suppress(Exception):
        uuid = uuid_in(document_key(raw)["_id"])
    if uuid is None:
        return None
    return DocumentChange(
        token=event["_id"]["_data"],
        at=event["clusterTime"],
        room=RoomKey(tenant.slug, uuid),
        collection=collection,
        key="_id",
        op="update",
        wall=commit_time(event),
        txn=None,
        raw=b"",
        withheld="event_unreadable",
    )
