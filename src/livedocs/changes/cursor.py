"""Positions in the stream, and the cursors that clients get of them.

A position is the resume token of a change event (its `_data`), or a place between events that is made here.
MongoDB encodes a token as a KeyString whose first component is the cluster time, so positions sort as strings in
stream order. Inside the server everything compares positions; what comes from a client is never handed to MongoDB,
which would accept a token of any other stream in silence.

A cursor is a position as it crosses the wire: `a`, the part of the token that carries the order, `-`, and the rest
of it encrypted and authenticated.

    82 6B088F4A 0000001B 2B02    2C0100 2B04    6E 5A10.. 46..
       seconds  counter  version type   index   the rest: the collection's UUID and the `documentKey`
    a  6B088F4A0000001B2B022C01002B04 -         88 characters: AES-SIV (RFC 5297) of the rest

Of the components of the clear part none is the beginning of another, and `-` sorts ahead of every digit: cursors
sort as positions do. AES-SIV without a nonce is deterministic, so a cursor is the same bytes for everyone and in
every process; that two cursors are equal says no more than that they are one position. The clear part is
authenticated as associated data: nobody can make up a cursor, as anybody could when it was the token itself, and
replay what was written before they came to a group.

The rest is padded or cut to one length: a cursor's length tells nothing of a document's `_id`, and an `_id` of a
megabyte makes no cursor of two. What is cut off decides no order in a replica set, where cluster time and
transaction index are an event's own. In a sharded cluster, events of two shards may have both in common (one
transaction over both): `tied` tells such events, whose cursors need not sort.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from typing import Protocol

from bson.timestamp import Timestamp
from cryptography.exceptions import InvalidTag

from livedocs.changes.keyring import Keyring
from livedocs.errors import InvalidCursor

MOST_CHARACTERS = 160
"""Length of a cursor that is looked at; those given out have at most 142."""
TIME_ENDS = 18
"""Characters of a position that tell its cluster time."""

_FORM = "a"
_CURSOR = re.compile(_FORM + r"([0-9A-F]{16}(?:[0-9A-F]{2}){0,18})-([A-Za-z0-9_-]{88})\Z")
# After every event of its cluster time: events go on with "2B", and no KeyString type byte sorts past "FF".
_AFTER = "FF"
_TIMESTAMP = "82"
# A cluster time, and behind it what `after` makes, or integers: KeyString has a type for the number zero and one
# each for positive integers of 1 to 8 bytes.
_CLEAR = re.compile(
    "82[0-9A-F]{16}(?:FF$|(?:29|2B.{0,2}|2C.{0,4}|2D.{0,6}|2E.{0,8}|2F.{0,10}|30.{0,12}|31.{0,14}|32.{0,16})*)"
)
# Of the rest, so much is kept; a document with a UUID for its `_id` has 47 bytes.
_REST = 49
_CUT = 255
# Behind what was kept of a rest that was cut: sorts after whatever it may have been, as "~" is no digit.
_ANY = "~"


class Sealing(Protocol):
    """How positions become cursors, and cursors positions."""

    def seal(self, position: str) -> str:
        """The cursor of a position."""

    def open(self, text: object) -> str:
        """The position of a cursor that came from a client."""


def after(at: Timestamp) -> str:
    """The position behind every event of that cluster time."""
    return f"{_TIMESTAMP}{at.time:08X}{at.inc:08X}{_AFTER}"


def before(at: Timestamp) -> str:
    """The position ahead of every event of that cluster time."""
    return f"{_TIMESTAMP}{at.time:08X}{at.inc:08X}"


@lru_cache(maxsize=64)
def cluster_time(position: str) -> Timestamp:
    """The cluster time a position lies at; one object for all who ask about one position."""
    return Timestamp(int(position[2:10], 16), int(position[10:18], 16))


def tied(one: str, other: str) -> bool:
    """Whether nothing but the encrypted part of their cursors tells two positions apart."""
    if one[:TIME_ENDS] != other[:TIME_ENDS]:
        return False
    end = _clear_end(one)
    return one[:end] == other[:end] and end == _clear_end(other)


def _clear_end(position: str) -> int:
    """Where the part ends that carries the order: the cluster time and the integers behind it."""
    found = _CLEAR.match(position)
    return len(position) if found is None else found.end()


class Cursors:
    """Seals positions into cursors and opens cursors again.

    The key is that of the position's cluster time, so that every process makes the same cursor, before a rotation
    and after it.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        # The last that was sealed, and its cursor: all rooms of a snapshot are at one position.
        self._last = "", ""

    def seal(self, position: str) -> str:
        """The cursor of a position.

        Raises:
            Unavailable: whether another key counts at its cluster time is not known yet.
        """
        known, text = self._last
        if position == known:
            return text
        end = _clear_end(position)
        clear, rest = _FORM + position[2:end], position[end:]
        if len(rest) > 2 * _REST:
            body = bytes([_CUT]) + bytes.fromhex(rest[: 2 * _REST])
        else:
            kept = bytes.fromhex(rest)
            body = bytes([len(kept)]) + kept.ljust(_REST, b"\0")
        key = self._keyring.at(int(position[2:10], 16))
        sealed = key.cursors.encrypt(body, [clear.encode()])
        text = f"{clear}-{urlsafe_b64encode(sealed).decode()}"
        # Read and written as one: heavy changes are sealed in a thread.
        self._last = position, text
        return text

    def open(self, text: object) -> str:
        """The position of a cursor that came from a client; one whose key is gone lies before everything.

        Raises:
            InvalidCursor: this deployment has never given it out.
        """
        found = _CURSOR.match(text) if isinstance(text, str) and len(text) <= MOST_CHARACTERS else None
        if found is None:
            raise InvalidCursor
        clear, sealed = found[1], urlsafe_b64decode(found[2])
        key = self._keyring.claimed(int(clear[:8], 16))
        if key is None:
            return before(Timestamp(0, 0))
        try:
            body = key.cursors.decrypt(sealed, [(_FORM + clear).encode()])
        except InvalidTag:
            raise InvalidCursor from None
        count = body[0]
        rest = body[1:].hex().upper() + _ANY if count == _CUT else body[1 : 1 + count].hex().upper()
        return f"{_TIMESTAMP}{clear}{rest}"
