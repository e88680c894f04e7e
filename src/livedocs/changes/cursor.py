"""Cursors: positions in the stream that a client may keep. Pure.

A cursor is the resume token of a change event (its `_data`), an opaque string to everyone outside this module.
MongoDB encodes it as a KeyString whose first component is the cluster time, so tokens sort as strings in stream
order. Positions between events are made here in the same order; they are only ever compared, never handed to
MongoDB, which would accept a token of any other stream in silence.
"""

from __future__ import annotations

import re

from bson.timestamp import Timestamp

from livedocs.errors import InvalidCursor

_CURSOR = re.compile(r"82[0-9A-F]{16}[0-9A-F]{0,4096}\Z")
# After every event of its cluster time: events go on with "2B", and no KeyString type byte sorts past "FF".
_AFTER = "FF"


def after(at: Timestamp) -> str:
    """The position behind every event of that cluster time."""
    return f"82{at.time:08X}{at.inc:08X}{_AFTER}"


def before(at: Timestamp) -> str:
    """The position ahead of every event of that cluster time."""
    return f"82{at.time:08X}{at.inc:08X}"


def cluster_time(cursor: str) -> Timestamp:
    """The cluster time a cursor lies at."""
    return Timestamp(int(cursor[2:10], 16), int(cursor[10:18], 16))


def parse(text: object) -> str:
    """A cursor that came from a client.

    Raises:
        InvalidCursor: not the form of one. Whether it was ever given out shows only when it is compared.
    """
    if not isinstance(text, str) or not _CURSOR.match(text):
        raise InvalidCursor
    return text
