"""A cursor's `getMore` as bytes: the question, and what the answer says without decoding the events in it. Pure.

Sources: https://github.com/mongodb/specifications/blob/master/source/message/OP_MSG.md;
https://www.mongodb.com/docs/v6.0/reference/command/getMore/; https://bsonspec.org/spec.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from pymongo.errors import OperationFailure, ProtocolError

_OP_MSG = 2013
# Length, number, number answered, operation; then flags and the kind of the only section.
_HEADER = struct.Struct("<iiiiIB")
_PREFIX = struct.Struct("<IB")
_INT32, _INT64 = struct.Struct("<i").unpack_from, struct.Struct("<q").unpack_from

# A refusal may quote a document, cut off in the middle of a character.
_LENIENT = CodecOptions(
    dict, unicode_decode_error_handler="replace", datetime_conversion=DatetimeConversion.DATETIME_AUTO
)

_STRING, _DOCUMENT, _ARRAY = 0x02, 0x03, 0x04
# Bytes of a value by its BSON type: the types that are in the answer to a command.
_FIXED = {0x01: 8, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8}
# Of those whose value begins with its size: how many bytes that is short of.
_SIZED = {_STRING: 4, _DOCUMENT: 0, _ARRAY: 0, 0x05: 5}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said at once.

    Attributes:
        cursor: the cursor's number; 0 when it is at its end.
        events: in stream order, as BSON.
        token: the position behind all that the server has looked at; None when nobody names one.
    """

    cursor: int
    events: Sequence[bytes]
    token: str | None


class _Value(NamedTuple):
    """Where a value lies: its BSON type, its first byte, the byte behind its last."""

    kind: int
    begin: int
    end: int


def question(number: int, cursor: int, namespace: str, *, batch: int, wait_ms: int) -> bytes:
    """The whole message that asks a cursor for what comes next.

    Args:
        number: of the message; the answer repeats it.
        cursor: the cursor's number.
        namespace: of the cursor, as the server gave it: database and collection.
        batch: most events at once.
        wait_ms: how long the server waits for the first.
    """
    database, _, collection = namespace.partition(".")
    body = bson.encode(
        {
            "getMore": bson.Int64(cursor),
            "collection": collection,
            "batchSize": batch,
            "maxTimeMS": wait_ms,
            "$db": database,
        }
    )
    return _HEADER.pack(_HEADER.size + len(body), number, 0, _OP_MSG, 0, 0) + body


def answer(message: bytes) -> Answer:
    """What a message says, without its header.

    Raises:
        OperationFailure: the server refused.
        ProtocolError: this is no answer to such a question.
    """
    try:
        if _PREFIX.unpack_from(message) != (0, 0):
            msg = "flags or sections that were not asked for"
            raise ProtocolError(msg)
        # In place: a copy without the prefix would be one more of 16 MiB.
        reply = dict(_walk(message, _PREFIX.size))
        # 1.0 or 1: everything else is a refusal, and rare enough to be decoded.
        if "cursor" not in reply:
            _refuse(message[_PREFIX.size :])
        cursor = dict(_walk(message, reply["cursor"].begin))
        position = dict(_walk(message, cursor["postBatchResumeToken"].begin))["_data"]
        return Answer(
            cursor=_INT64(message, cursor["id"].begin)[0],
            events=_documents(message, cursor["nextBatch"].begin),
            token=message[position.begin + 4 : position.end - 1].decode(),
        )
    except (BSONError, struct.error, LookupError, ValueError, TypeError) as error:
        msg = f"not the answer of a server: {error!r}"
        raise ProtocolError(msg) from error


def _refuse(body: bytes) -> None:
    details = bson.decode(body, codec_options=_LENIENT)
    if details.get("ok") == 1:
        msg = "an answer without a cursor"
        raise ProtocolError(msg)
    raise OperationFailure(str(details.get("errmsg", "refused")), details.get("code"), details)


def _walk(raw: bytes, at: int) -> Iterator[tuple[str, _Value]]:
    """The fields of the document that begins there, in order."""
    last = at + _INT32(raw, at)[0] - 1
    at += 4
    while at < last:
        kind = raw[at]
        begin = raw.index(0, at + 1) + 1
        name = raw[at + 1 : begin - 1].decode()
        at = begin + (_FIXED[kind] if kind in _FIXED else _INT32(raw, begin)[0] + _SIZED[kind])
        yield name, _Value(kind, begin, at)


def _documents(raw: bytes, at: int) -> list[bytes]:
    """The documents of the array that begins there."""
    found = []
    last = at + _INT32(raw, at)[0] - 1
    at += 4
    while at < last:
        if raw[at] != _DOCUMENT:
            msg = f"a batch with a value of type {raw[at]}"
            raise ValueError(msg)
        at = raw.index(0, at + 1) + 1
        end = at + _INT32(raw, at)[0]
        found.append(raw[at:end])
        at = end
    return found
