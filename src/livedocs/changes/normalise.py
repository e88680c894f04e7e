"""Change events of MongoDB, read into what they mean here. Pure.

Source: https://www.mongodb.com/docs/v6.0/reference/change-events/
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from bson.binary import UUID_SUBTYPE, Binary
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
from livedocs.changes.outline import (
    OWN_DOCUMENT,
    Outline,
    control_event,
    document_key,
    document_key_at,
    has_field,
    judged,
    read_outline,
    uuid_alone,
    uuid_of,
    whereabouts,
    without_image,
)
from livedocs.changes.updates import updated
from livedocs.codec.bsondecode import decode, decode_small
from livedocs.model import Grant, GrantKey, ShownBounds, Tenant, parse_grant, parse_grant_key
from livedocs.presentation import is_heavy

# Bytes of an event up to which it is decoded as a whole.
_SMALL = 16 * 1024

_OPS: Mapping[str, Op] = {"insert": "insert", "update": "update", "replace": "replace", "delete": "delete"}
# What an event says its change with.
_TOLD_BY: Mapping[Op, str] = {
    "insert": "fullDocument",
    "replace": "fullDocument",
    "update": "updateDescription",
}
_GONE = frozenset({"drop", "rename", "dropDatabase"})


class Registry(Protocol):
    """Which database belongs to which tenant."""

    def by_database(self, database: str) -> Tenant | None:
        """The tenant that owns the database, or None."""


class Unresolved(NamedTuple):
    """A document change whose room the event alone may not tell: the resolver's input.

    Attributes:
        change: the event, decoded as far as it is needed; dates in it have no time zone.
        raw: the event as MongoDB sent it, without its pre-image.
        uuid: the UUID after the change where the event names it.
        settled: whether `uuid` None means "has none" (a whole document without a UUID) rather than "not known".
        image: the pre-image where it may tell the room; of a large one no more than that.
    """

    tenant: Tenant
    collection: str
    op: Op
    change: Mapping[str, Any]
    raw: bytes
    uuid: UUID | None
    settled: bool
    withheld: str | None = None
    whole: bytes | None = None
    image: bytes | None = None

    @property
    def uuid_before(self) -> UUID | None:
        """The UUID before the change where the pre-image names it. Looked for whenever it is asked for."""
        return uuid_of(self.image) if self.image is not None else None

    @property
    def document_id(self) -> Any:
        """The document's `_id`, unique in its collection; None as well where it is too large to be decoded."""
        return self.change["documentKey"]["_id"]


def uuid_in(value: object) -> UUID | None:
    """The UUID of a BSON value, or None: only Binary subtype 4 counts."""
    if isinstance(value, UUID):
        return value
    if isinstance(value, Binary) and value.subtype == UUID_SUBTYPE and len(value) == 16:
        return UUID(bytes=value)
    return None


def is_small(raw: bytes, bounds: ShownBounds) -> bool:
    """Whether an event can be decoded as a whole at once: it is within every bound, and fast."""
    size = len(raw)
    return size <= _SMALL and size <= bounds.bytes and size <= bounds.elements * 2


def read(
    raw: bytes,
    registry: Registry,
    control: str,
    bounds: ShownBounds = ShownBounds(),  # noqa: B008 - frozen
) -> Change | Unresolved | None:
    """What an event means, or None when it means nothing here (an unregistered collection, say)."""
    small = is_small(raw, bounds)
    raw, image = without_image(raw)
    event = decode_small(raw) if small else whereabouts(raw)
    kind, token, at = event["operationType"], event["_id"]["_data"], event["clusterTime"]
    namespace = event.get("ns") or {}
    database, collection = namespace.get("db", ""), namespace.get("coll", "")
    if database == control:
        # With UUIDs as such: whoever reads these compares them.
        return _control(decode(raw) if small else control_event(raw), image)
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
    return _change(event, tenant, collection, op, raw, image=image, bounds=None if small else bounds)


def _change(
    event: Mapping[str, Any],
    tenant: Tenant,
    collection: str,
    op: Op,
    raw: bytes,
    *,
    image: bytes | None,
    bounds: ShownBounds | None,
) -> Unresolved:
    """A change of a document. Without bounds the event is decoded as a whole, and within them."""
    if op != "delete" and _TOLD_BY[op] not in event and not has_field(raw, _TOLD_BY[op]):
        return _untold(event, tenant, collection, op, raw)
    if bounds is not None:
        outline = read_outline(raw, image, bounds)
        image = uuid_alone(image) if image is not None else None
    else:
        outline = judged(event, image) if op == "update" else Outline(event)
    return _document(outline, tenant, collection, op, raw, image=image)


def _untold(event: Mapping[str, Any], tenant: Tenant, collection: str, op: Op, raw: bytes) -> Unresolved:
    """An event that was too large to come with its document.

    Raises:
        LookupError: only the document would have said where it belongs.
    """
    key = document_key(raw)
    uuid = uuid_in(key["_id"])
    if tenant.collections[collection] != "_id":
        msg = "an event without its document"
        raise LookupError(msg)
    event = {**event, "documentKey": key}
    return Unresolved(tenant, collection, op, event, raw, uuid, True, "event_too_large")  # noqa: FBT003


def _control(event: Mapping[str, Any], image: bytes | None) -> Change | None:
    kind, collection = event["operationType"], event["ns"].get("coll", "")
    token, at = event["_id"]["_data"], event["clusterTime"]
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
    document = decode(image) if image is not None and len(image) <= OWN_DOCUMENT else None
    before = parse_grant(document or {})
    grant = _grant_after(event, document, kind, key)
    wall = commit_time(event).replace(tzinfo=UTC)
    ended = kind == "delete" and before is not None and not before.in_force(wall)
    return GrantChange(token, at, RoomKey(key.tenant, key.uuid), key.subject, grant, before, wall, ended)


def _grant_after(
    event: Mapping[str, Any], before: Mapping[str, Any] | None, kind: str, key: GrantKey
) -> Grant | None:
    """The grant as the event leaves it; None where that cannot be told, so that it allows nothing."""
    if kind in {"insert", "replace"}:
        grant = parse_grant(event.get("fullDocument") or {})
        return grant if grant is not None and grant.key == key else None
    description = event.get("updateDescription")
    if kind != "update" or not before or not description:
        return None
    return parse_grant(updated(before, description))


def _document(
    outline: Outline, tenant: Tenant, collection: str, op: Op, raw: bytes, *, image: bytes | None
) -> Unresolved:
    """The event with the UUID that it names itself."""
    event, withheld, whole = outline
    document_id = event["documentKey"]["_id"]
    uuid: UUID | None
    if tenant.collections[collection] == "_id":
        uuid = uuid_in(document_id)
        return Unresolved(tenant, collection, op, event, raw, uuid, True, withheld, whole)  # noqa: FBT003
    uuid, settled = None, False
    if op in {"insert", "replace"}:
        uuid, settled = uuid_in((event.get("fullDocument") or {}).get("uuid")), True
    elif op == "update":
        description = event["updateDescription"]
        if "uuid" in description["updatedFields"]:
            uuid, settled = uuid_in(description["updatedFields"]["uuid"]), True
        elif "uuid" in description["removedFields"]:
            settled = True
    return Unresolved(tenant, collection, op, event, raw, uuid, settled, withheld, whole, image)


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
            op: Op = "update" if item.whole is None else "insert"
            changes.append(_placed(item, uuid, op, item.whole))
        else:
            changes.append(_placed(item, uuid, item.op))
    return changes


def _names_uuid(item: Unresolved) -> bool:
    """Whether the update itself gave the document its UUID."""
    return (
        item.tenant.collections[item.collection] == "uuid"
        and "uuid" in item.change["updateDescription"]["updatedFields"]
    )


def _placed(item: Unresolved, uuid: UUID | None, op: Op, whole: bytes | None = None) -> DocumentChange:
    if uuid is None:
        msg = "a change without a UUID has no room"
        raise ValueError(msg)
    event, key = item.change, item.tenant.collections[item.collection]
    withheld = None if op == "delete" or whole is not None else item.withheld
    raw, key_of = item.raw, b""
    if withheld or whole is not None or op == "delete":
        # What nobody is shown need not be kept.
        key_of = b"" if withheld or key == "_id" else document_key_at(raw)
        raw = b""
    token, at, wall, txn = event["_id"]["_data"], event["clusterTime"], commit_time(event), _transaction(event)
    room, heavy = RoomKey(item.tenant.slug, uuid), is_heavy(whole or raw)
    # By position, for every event: it takes half the time.
    return DocumentChange(
        token, at, room, item.collection, key, op, wall, txn, raw, whole, withheld, heavy, key_of
    )


def commit_time(event: Mapping[str, Any]) -> datetime:
    """Commit time, UTC without a time zone: the wall clock of the primary, before MongoDB 6.0 the cluster time."""
    wall = event.get("wallTime")
    if isinstance(wall, datetime):
        return wall
    at: Timestamp = event["clusterTime"]
    return at.as_datetime().replace(tzinfo=None)


def _transaction(event: Mapping[str, Any]) -> str | None:
    if "txnNumber" not in event:
        return None
    return f"{uuid_in(event['lsid']['id'])}:{int(event['txnNumber'])}"
