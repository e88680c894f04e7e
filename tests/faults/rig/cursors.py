"""A recording in positions instead of cursors, so that it can be compared with the oplog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bson.timestamp import Timestamp
from pymongo.collection import Collection

from livedocs.changes.cursor import Cursors
from livedocs.changes.keyring import Keyring
from livedocs.errors import InvalidCursor
from livedocs.model import SealingKeys
from livedocs.store.keys import parse_key
from rig.recording import Answered, Asked, Connection, Delivered, Entry, Recording, Told


def sealing(keys: Collection[dict[str, Any]]) -> Cursors:
    """What has made the cursors of a deployment."""
    ring = Keyring(_no_more)
    ring.learn(SealingKeys([parse_key(stored) for stored in keys.find()], Timestamp(2**32 - 1, 1)))
    return Cursors(ring)


async def _no_more() -> SealingKeys:
    raise AssertionError


def opened(recording: Recording, cursors: Cursors) -> Recording:
    """The recording with positions in place of cursors; what is no cursor stays, for the checker to see."""
    return replace(recording, connections=[_connection(each, cursors) for each in recording.connections])


def _connection(connection: Connection, cursors: Cursors) -> Connection:
    return replace(connection, entries=[_entry(entry, cursors) for entry in connection.entries])


def _entry(entry: Entry, cursors: Cursors) -> Entry:
    match entry:
        case Asked(since=str() as since):
            return replace(entry, since=_position(since, cursors))
        case Answered(body={"joined": dict() as joined}):
            rooms = {uuid: _with(told, "cursor", cursors) for uuid, told in joined.items()}
            return replace(entry, body={**entry.body, "joined": rooms})
        case Delivered():
            return replace(entry, meta=_with(entry.meta, "id", cursors))
        case Told():
            return replace(entry, body=_with(entry.body, "cursor", cursors))
    return entry


def _with(told: Mapping[str, Any], member: str, cursors: Cursors) -> Mapping[str, Any]:
    return {**told, member: _position(told[member], cursors)} if member in told else told


def _position(cursor: Any, cursors: Cursors) -> Any:
    try:
        return cursors.open(cursor)
    except InvalidCursor:
        return cursor
