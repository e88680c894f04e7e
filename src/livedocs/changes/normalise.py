"""Change events of MongoDB, read into what they mean here, and written as clients get them. Pure.

Source: https://www.mongodb.com/docs/v6.0/reference/change-events/
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import bson
from bson.binary import UUID_SUBTYPE, Binary, UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import InvalidBSON
from bson.timestamp import Timestamp

from livedocs.changes.event import (
    Change,
    CollectionGone,
    DocumentChange,
    GrantChange,
    InquiryMade,
    Op,
    RoomKey,
    TenantsChange,
)
from livedocs.model import Grant, GrantKey, Tenant, parse_grant, parse_grant_key
from livedocs.presentation import present

# Dates past the year 9999 are valid BSON: they must not kill the stream.
CODEC: CodecOptions[Mapping[str, Any]] = CodecOptions(
    dict,
    tz_aware=True,
    tzinfo=UTC,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)

# MongoDB stores a Binary of subtype 4 that is not 16 bytes long; PyMongo refuses to read it as a UUID.
_LENIENT = CODEC.with_options(uuid_representation=UuidRepresentation.UNSPECIFIED)

# Dates as BSON has them, in UTC: giving each its time zone takes as long as all the rest of an event. Dates and
# UUIDs that Python has no values for are an error here.
_PLAIN = CODEC.with_options(tz_aware=False, tzinfo=None, datetime_conversion=DatetimeConversion.DATETIME)

_OPS: Mapping[str, Op] = {"insert": "insert", "update": "update", "replace": "replace", "delete": "delete"}
_GONE = frozenset({"drop", "rename", "dropDatabase"})


class Registry(Protocol):
    """Which database belongs to which tenant."""

    def by_database(self, database: str) -> Tenant | None:
        """The tenant that owns the database, or None."""


class Unresolved(NamedTuple):
    """A document change whose room the event alone may not tell: the resolver's input.

    Attributes:
        change: the event, decoded; dates in it have no time zone.
        uuid: the UUID after the change where the event names it.
        uuid_before: the UUID before the change where the pre-image names it.
        settled: whether `uuid` None means "has none" (a whole document without a UUID) rather than "not known".
    """

    tenant: Tenant
    collection: str
    op: Op
    change: Mapping[str, Any]
    raw: bytes
    uuid: UUID | None
    uuid_before: UUID | None
    settled: bool

    @property
    def document_id(self) -> Any:
        """The document's `_id`, unique in its collection."""
        return self.change["documentKey"]["_id"]


def uuid_in(value: object) -> UUID | None:
    """The UUID of a BSON value, or None: only Binary subtype 4 counts."""
    if isinstance(value, UUID):
        return value
    if isinstance(value, Binary) and value.subtype == UUID_SUBTYPE and len(value) == 16:
        return value.as_uuid()
    return None


def decode(raw: bytes) -> Mapping[str, Any]:
    """A BSON document, whatever a service has put into it."""
    try:
        return bson.decode(raw, codec_options=CODEC)
    except InvalidBSON:
        return bson.decode(raw, codec_options=_LENIENT)


def _glance(raw: bytes) -> Mapping[str, Any]:
    """The same in half the time; dates come without a time zone, unless one of them has no Python value."""
    try:
        return bson.decode(raw, codec_options=_PLAIN)
    except InvalidBSON:
        return decode(raw)


def read(raw: bytes, registry: Registry, control: str) -> Change | Unresolved | None:
    """What an event means, or None when it means nothing here (an unregistered collection, say)."""
    event = _glance(raw)
    kind = event["operationType"]
    namespace = event.get("ns") or {}
    database, collection = namespace.get("db", ""), namespace.get("coll", "")
    token, at = event["_id"]["_data"], event["clusterTime"]
    if database == control:
        return _control(decode(raw), kind, collection, token, at)
    tenant = registry.by_database(database)
    if tenant is None:
        return None
    if kind in _GONE:
        names = {collection, (event.get("to") or {}).get("coll")}
        concerns = kind == "dropDatabase" or not names.isdisjoint(tenant.collections)
        return CollectionGone(token, at, tenant.slug, collection or None) if concerns else None
    op = _OPS.get(kind)
    if op is None or collection not in tenant.collections:
        return None
    return _document(event, tenant, collection, op, raw)


def _control(event: Mapping[str, Any], kind: str, collection: str, token: str, at: Timestamp) -> Change | None:
    if collection == "tenants" or (kind == "dropDatabase"):
        return TenantsChange(token, at) if kind != "dropDatabase" else CollectionGone(token, at, None, None)
    if collection == "inquiries" and kind == "insert":
        made = event["fullDocument"]
        return InquiryMade(token, at, made["_id"], made.get("by"), made.get("question"))
    if collection != "acl":
        return None
    if kind in _GONE:
        return CollectionGone(token, at, None, None)
    key = parse_grant_key(event.get("documentKey", {}).get("_id"))
    if key is None or kind not in _OPS:
        return None
    before = parse_grant(event.get("fullDocumentBeforeChange") or {})
    grant = _grant_after(event, kind, key)
    wall = _wall(event)
    ended = kind == "delete" and before is not None and not before.in_force(wall)
    return GrantChange(token, at, RoomKey(key.tenant, key.uuid), key.subject, grant, before, wall, ended)


def _grant_after(event: Mapping[str, Any], kind: str, key: GrantKey) -> Grant | None:
    """The grant as the event leaves it; None where that cannot be told, so that it allows nothing."""
    if kind in {"insert", "replace"}:
        grant = parse_grant(event.get("fullDocument") or {})
        return grant if grant is not None and grant.key == key else None
    before = event.get("fullDocumentBeforeChange")
    if kind != "update" or not before:
        return None
    return parse_grant(updated(before, event["updateDescription"]))


def _document(event: Mapping[str, Any], tenant: Tenant, collection: str, op: Op, raw: bytes) -> Unresolved:
    """The event with every UUID it names itself."""
    document_id = event["documentKey"]["_id"]
    if tenant.collections[collection] == "_id":
        uuid = uuid_in(document_id)
        return Unresolved(tenant, collection, op, event, raw, uuid, uuid, settled=True)
    before = event.get("fullDocumentBeforeChange") or {}
    uuid_before = uuid_in(before.get("uuid"))
    uuid, settled = None, False
    if op in {"insert", "replace"}:
        uuid, settled = uuid_in((event.get("fullDocument") or {}).get("uuid")), True
    elif op == "update":
        description = event["updateDescription"]
        if "uuid" in description["updatedFields"]:
            uuid, settled = uuid_in(description["updatedFields"]["uuid"]), True
        elif "uuid" in description["removedFields"]:
            settled = True
    return Unresolved(tenant, collection, op, event, raw, uuid, uuid_before, settled)


def place(item: Unresolved, uuid: UUID | None, uuid_before: UUID | None) -> list[DocumentChange]:
    """The changes a resolved event makes in its rooms, in order.

    A document whose UUID changed leaves its old room, where that is a delete, and enters the new one whole.
    """
    if item.op == "delete":
        return [_placed(item, uuid_before or uuid, "delete")] if uuid_before or uuid else []
    moved = uuid_before is not None and uuid != uuid_before and item.op != "insert"
    changes = [_placed(item, uuid_before, "delete")] if moved else []
    if uuid is not None:
        if item.op == "update" and (moved or uuid_before is None) and _names_uuid(item):
            changes.append(_entered(item, uuid))
        else:
            changes.append(_placed(item, uuid, item.op))
    return changes


def _names_uuid(item: Unresolved) -> bool:
    """Whether the update itself gave the document its UUID."""
    return (
        item.tenant.collections[item.collection] == "uuid"
        and "uuid" in item.change["updateDescription"]["updatedFields"]
    )


def _entered(item: Unresolved, uuid: UUID) -> DocumentChange:
    before = item.change.get("fullDocumentBeforeChange")
    if not before:
        return _placed(item, uuid, "update")
    whole = bson.encode(updated(before, item.change["updateDescription"]), codec_options=CODEC)
    return _placed(item, uuid, "insert", whole)


def _placed(item: Unresolved, uuid: UUID | None, op: Op, whole: bytes | None = None) -> DocumentChange:
    if uuid is None:
        msg = "a change without a UUID has no room"
        raise ValueError(msg)
    event = item.change
    return DocumentChange(
        token=event["_id"]["_data"],
        at=event["clusterTime"],
        room=RoomKey(item.tenant.slug, uuid),
        collection=item.collection,
        key=item.tenant.collections[item.collection],
        op=op,
        wall=_wall(event),
        txn=_transaction(event),
        raw=item.raw,
        whole=whole,
        doubtful=whole is None and op == "update" and ambiguous(event),
    )


def ambiguous(event: Mapping[str, Any]) -> bool:
    """Whether a path of an update may name a field whose own name has a dot.

    MongoDB tells from 6.1 on (`disambiguatedPaths`). Before, only the pre-image can: a name with a dot in it, or a
    path whose way does not exist there.
    """
    description = event["updateDescription"]
    if not description.get("removedFields") and not description.get("truncatedArrays"):
        fields = description.get("updatedFields")
        if not fields or "." not in "".join(fields):
            return False
    precise = description.get("disambiguatedPaths")
    if precise is not None:
        return any(isinstance(step, str) and "." in step for steps in precise.values() for step in steps)
    before = event.get("fullDocumentBeforeChange")
    if before is None:
        return False
    paths = [
        *description.get("updatedFields", ()),
        *(description.get("removedFields") or ()),
        *(item["field"] for item in description.get("truncatedArrays") or ()),
    ]
    return any("." in path and not _unmistakable(before, path) for path in paths)


def _unmistakable(document: Any, path: str) -> bool:
    """Whether the path can only mean steps into nested values, seen from the document before the update."""
    first, dot, rest = path.partition(".")
    if isinstance(document, list):
        return first.isdigit() and (
            not dot or int(first) >= len(document) or _unmistakable(document[int(first)], rest)
        )
    if not isinstance(document, Mapping):
        return False
    if any("." in name and (path == name or path.startswith(name + ".")) for name in document):
        return False
    if not dot:
        return True
    return isinstance(document.get(first), Mapping | list) and _unmistakable(document[first], rest)


def _wall(event: Mapping[str, Any]) -> datetime:
    """Commit time: the wall clock of the primary, or of the cluster time before MongoDB 6.0."""
    wall = event.get("wallTime")
    if isinstance(wall, datetime):
        return wall if wall.tzinfo else wall.replace(tzinfo=UTC)
    at: Timestamp = event["clusterTime"]
    return at.as_datetime()


def _transaction(event: Mapping[str, Any]) -> str | None:
    if "txnNumber" not in event:
        return None
    return f"{uuid_in(event['lsid']['id'])}:{int(event['txnNumber'])}"


def payload(change: DocumentChange) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(data, meta)` as a client gets them: design section 5. Dates without a time zone are UTC."""
    event = _glance(change.raw)
    meta: dict[str, Any] = {"op": change.op, "id": change.token, "at": change.wall, "removed": [], "truncated": []}
    if change.txn is not None:
        meta["txn"] = change.txn
    uuid = change.room.uuid
    if change.op == "delete":
        return {"uuid": str(uuid)}, meta
    if change.whole is not None:
        return present(_glance(change.whole), change.key, uuid), meta
    if change.op == "update":
        description = event["updateDescription"]
        meta["removed"] = list(description.get("removedFields") or [])
        meta["truncated"] = [
            {"field": item["field"], "newSize": item["newSize"]}
            for item in description.get("truncatedArrays") or []
        ]
        return present(description["updatedFields"], "uuid", uuid), meta
    return present(event["fullDocument"], change.key, uuid), meta


def updated(before: Mapping[str, Any], description: Mapping[str, Any]) -> dict[str, Any]:
    """The document that an update description makes of the document before it."""
    document: dict[str, Any] = _copied(before)
    for item in description.get("truncatedArrays") or []:
        holder, last = _holder(document, item["field"])
        array = _child(holder, last)
        if isinstance(array, list):
            del array[item["newSize"] :]
    for path in description.get("removedFields") or []:
        holder, last = _holder(document, path)
        if isinstance(holder, dict):
            holder.pop(last, None)
    for path, value in (description.get("updatedFields") or {}).items():
        holder, last = _holder(document, path)
        _put(holder, last, value)
    return document


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _holder(document: dict[str, Any], path: str) -> tuple[Any, str]:
    """What holds the last step of a dotted path, and that step. A field whose own name has a dot wins."""
    if path in document:
        return document, path
    *steps, last = path.split(".")
    holder: Any = document
    for step in steps:
        holder = _child(holder, step)
    return holder, last


def _child(holder: Any, step: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(step)
    if isinstance(holder, list) and step.isdigit() and int(step) < len(holder):
        return holder[int(step)]
    return None


def _put(holder: Any, step: str, value: Any) -> None:
    if isinstance(holder, dict):
        holder[step] = value
    elif isinstance(holder, list) and step.isdigit():
        index = int(step)
        if index < len(holder):
            holder[index] = value
        elif index == len(holder):
            holder.append(value)
