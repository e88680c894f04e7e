"""Tickets: since when, without a break, somebody has been seen with their groups and scopes.

Grants are in the stream, so it shows from where on they let somebody in. Groups are not: what the OAuth service
says of them is known from when it says so. Whoever has just come to a group, and has a colleague's cursor, would
be sent what was written before. So the server observes. A group counts from the first look behind the
introspection that named it, for as long as every introspection names it. A ticket carries that from one socket
to the next, at whichever process. Access through a group is replayed from there on; without a ticket, from now
on. Grants to the caller itself and to `tenant:*` need none.

A ticket binds tenant and subject (as associated data: a colleague's ticket does not open), each group and scope
with the cluster time from which it has been seen, and the cluster time of the last observation (`until`). No
clock matters, and a stream that is behind only makes a ticket older.

**How old may a ticket be?** Between its last observation and the first one of the next socket nobody has looked:
a group that was lost and regained in between is taken for one that was kept. A live socket has such a gap, too,
of one introspection interval. The server does not know when the old socket ended; its process may be gone. But a
client's ticket is renewed every interval, and a client resumes within the history's window or not at all. So the
two observations may be a window and two intervals apart (`reach`), and no more.

What is left: somebody who was in a group, was taken out, and is in it again within that time, may be sent what
was written meanwhile. Not even that where this process has seen them without the group (`_losses`), which is
what happens to those who stay connected. Records shared by all processes would add little: nobody is seen who
stays away until they are in the group again.

A ticket holds some 180 names one by one, as keyed hashes. Of more it holds one hash of all of them, and the
latest of their beginnings: it counts only while the set is the same.
"""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from re import compile as pattern
from typing import Protocol

from bson.timestamp import Timestamp
from cryptography.exceptions import InvalidTag

from livedocs.access.principal import Principal
from livedocs.changes import cursor
from livedocs.changes.keyring import Key, Keyring
from livedocs.live import frames
from livedocs.live.client import Client

MOST_CHARACTERS = 2048
"""Length of a ticket."""

_FORM = "t"
_TICKET = pattern(_FORM + r"(?:[A-Za-z0-9_-]{4})+\Z")
_TIME = struct.Struct("!II")
_COUNT = struct.Struct("!H")
_NAME_BYTES, _SET_BYTES, _TAG_BYTES = 8, 32, 16
# What is sealed: one byte of form, then the names by themselves or as a set, zero to two bytes to fill up.
_EACH, _SET = b"\x01", b"\x02"
_MOST_BYTES = (MOST_CHARACTERS - len(_FORM)) // 4 * 3 - _TIME.size - _TAG_BYTES - 2
# Losses remembered, by tenant, subject and name.
_MOST_LOSSES = 10_000
# Each `frozenset()` is another object, of 216 bytes.
_NO_NAMES: frozenset[str] = frozenset()


class Progress(Protocol):
    """What is needed of the history."""

    @property
    def position(self) -> str:
        """How far the stream has been followed."""


class Standing:
    """What has been observed of one socket's caller.

    Attributes:
        principal: as last introspected; a room may still go by the one before.
        until: the cluster time of that observation.
        spans: names, `group:NAME` or `scope:NAME`, with the cluster time from which on all of them have been seen
            without a break. Nearly always one: sockets are many, and their sets of names are shared.
        pending: names that no look has followed yet.
        given: whether the client has been given a ticket, and so is sent newer ones.
    """

    __slots__ = ("given", "pending", "principal", "spans", "until")

    def __init__(self, principal: Principal, until: Timestamp) -> None:
        self.principal = principal
        self.until = until
        self.spans: tuple[tuple[Timestamp, frozenset[str]], ...] = ()
        self.pending = names_of(principal)
        self.given = False

    def since(self, name: str) -> Timestamp | None:
        """The cluster time from which on it has been seen; None when that is not known."""
        return next((begin for begin, names in self.spans if name in names), None)

    def lose(self, lost: frozenset[str]) -> None:
        """Forget since when those names have been seen."""
        self.spans = tuple((begin, rest) for begin, names in self.spans if (rest := names - lost))
        self.pending -= lost

    def begin(self, at: Timestamp) -> None:
        """Count what is pending from that time on."""
        if self.pending:
            self.spans = (*self.spans, _span(at, self.pending))
            self.pending = _NO_NAMES

    def extend(self, earlier: Mapping[str, Timestamp]) -> None:
        """Take earlier beginnings for some of the principal's names."""
        since = dict(earlier)
        for begin, names in self.spans:
            since |= {name: min(begin, since.get(name, begin)) for name in names}
        together: dict[Timestamp, set[str]] = {}
        for name, begin in since.items():
            together.setdefault(begin, set()).add(name)
        everything = names_of(self.principal)
        self.spans = tuple(
            (begin, everything if names == everything else frozenset(names))
            for begin, names in sorted(together.items())
        )
        self.pending = self.pending.difference(since)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a good ticket says.

    Attributes:
        until: the cluster time of its last observation.
        key: what the names in it are hashed with.
        each: the beginnings of names, by their hashes.
        whole: the hash of all names together, and the latest of their beginnings, where they were too many.
    """

    until: Timestamp
    key: bytes
    each: dict[bytes, Timestamp]
    whole: tuple[bytes, Timestamp] | None = None

    def since(self, names: frozenset[str]) -> dict[str, Timestamp]:
        """The beginnings of those of the names that it vouches for."""
        if self.whole is not None:
            digest, since = self.whole
            return dict.fromkeys(names, since) if digest == _hash_of_all(self.key, names) else {}
        hashed = {name: self.each.get(_hash(self.key, name)) for name in names}
        return {name: since for name, since in hashed.items() if since is not None}


def names_of(principal: Principal) -> frozenset[str]:
    """What of a principal may let it into rooms and is no matter of the stream."""
    return _names(principal.groups, principal.scopes)


@lru_cache(maxsize=1024)
def _span(at: Timestamp, names: frozenset[str]) -> tuple[Timestamp, frozenset[str]]:
    """One object for all who were first seen in the same look."""
    return at, names


@lru_cache(maxsize=1024)
def _names(groups: frozenset[str], scopes: frozenset[str]) -> frozenset[str]:
    return frozenset((*(f"group:{name}" for name in groups), *(f"scope:{name}" for name in scopes)))


class Tickets:
    """Observes callers, and seals and opens tickets.

    Args:
        reach: seconds, in cluster time, that two observations may be apart for what both name to count as kept.
    """

    def __init__(self, keyring: Keyring, progress: Progress, *, reach: float) -> None:
        self._keyring = keyring
        self._progress = progress
        self._reach = reach
        # When a name was last seen to be missing, the oldest first. Tickets up to `_void` count for nothing.
        self._losses: OrderedDict[tuple[str, str, str], Timestamp] = OrderedDict()
        self._void = Timestamp(0, 0)

    # -- what is observed --

    def seen(self, client: Client, principal: Principal) -> None:
        """Note what an introspection has just said of a socket's caller."""
        until = cursor.cluster_time(self._progress.position)
        standing: Standing | None = client.standing
        if standing is None:
            client.standing = Standing(principal, until)
            return
        if standing.principal.groups != principal.groups or standing.principal.scopes != principal.scopes:
            before, now = names_of(standing.principal), names_of(principal)
            standing.lose(before - now)
            standing.pending |= now - before
            for name in before - now:
                self.lost(principal.tenant, principal.subject, name, until)
        standing.principal, standing.until = principal, until

    def lost(self, tenant: str, subject: str, name: str, at: Timestamp) -> None:
        """Remember that somebody was seen without a group or scope that they had before."""
        key = tenant, subject, name
        self._losses[key] = max(at, self._losses.pop(key, at))
        while self._losses:
            oldest, when = next(iter(self._losses.items()))
            if len(self._losses) > _MOST_LOSSES:
                # Rather nobody's ticket from before that time than one with a break that is forgotten.
                self._void = max(self._void, when)
            elif at.time - when.time <= self._reach:
                return
            del self._losses[oldest]

    def looked(self, client: Client, at: Timestamp) -> None:
        """Note that grants have been read as of that time: what is new about the caller counts from there."""
        standing: Standing | None = client.standing
        if standing is not None:
            standing.begin(max(at, standing.until))

    def admit(self, client: Client, ticket: str | None, at: Timestamp) -> None:
        """Take a ticket that a client has returned; for after a look of that time, before anybody is let in."""
        standing = self._standing(client)
        principal = standing.principal
        claim = None if ticket is None else self.open(ticket, principal)
        if claim is not None and standing.until.time - claim.until.time <= self._reach:
            standing.extend(
                {
                    name: since
                    for name, since in claim.since(names_of(principal)).items()
                    if self._last_loss(principal, name) < claim.until
                }
            )
        self.looked(client, at)

    def _last_loss(self, principal: Principal, name: str) -> Timestamp:
        """The last time at which that name may have been missing."""
        return max(self._void, self._losses.get((principal.tenant, principal.subject, name), self._void))

    def attested(self, client: Client, subject: str, otherwise: str) -> str:
        """The position from which on a subject is known to be the caller; `otherwise` when it is not known.

        Empty, ahead of everything, for a subject that nobody comes to: the caller itself, and the tenant's.
        """
        if not subject.startswith("group:"):
            return ""
        since = self._standing(client).since(subject)
        return otherwise if since is None else cursor.after(since)

    def _standing(self, client: Client) -> Standing:
        if client.standing is None:
            self.seen(client, client.principal)
        standing: Standing = client.standing
        return standing

    # -- tickets --

    def issue(self, client: Client) -> str:
        """The ticket of a client that takes one."""
        standing = self._standing(client)
        standing.given = True
        return self.seal(standing)

    def renew(self, client: Client) -> None:
        """Send a newer ticket to a client that knows what to do with one."""
        standing: Standing | None = client.standing
        if standing is not None and standing.given:
            client.send(frames.event("$ticket", {"ticket": self.seal(standing)}))

    def seal(self, standing: Standing) -> str:
        """The ticket of what has been observed.

        Raises:
            Unavailable: the keys have not been read for too long.
        """
        key = self._keyring.at(standing.until.time)
        until = _packed(standing.until)
        body = _each(key, standing) or _whole(key, standing)
        # To a multiple of three, so that a ticket has one spelling only.
        body += b"\0" * (-(len(until) + _TAG_BYTES + len(body)) % 3)
        sealed = key.tickets.encrypt(body, _bound_to(standing.principal, until))
        return _FORM + urlsafe_b64encode(until + sealed).decode()

    def open(self, text: str, principal: Principal) -> Claim | None:
        """What a ticket says of that principal; None for anything that was not sealed for it."""
        if len(text) > MOST_CHARACTERS or not _TICKET.match(text):
            return None
        raw = urlsafe_b64decode(text[len(_FORM) :])
        until, sealed = raw[: _TIME.size], raw[_TIME.size :]
        if len(sealed) <= _TAG_BYTES:
            return None
        at = _time(until)
        key = self._keyring.claimed(at.time)
        if key is None:
            return None
        try:
            body = key.tickets.decrypt(sealed, _bound_to(principal, until))
        except InvalidTag:
            return None
        if body[:1] == _SET:
            digest = body[1 + _TIME.size : 1 + _TIME.size + _SET_BYTES]
            return Claim(at, key.names, {}, (digest, _time(body[1:])))
        return Claim(at, key.names, dict(_read_each(body)))


def _bound_to(principal: Principal, until: bytes) -> list[bytes]:
    return [_FORM.encode(), until, _bytes(principal.tenant), _bytes(principal.subject)]


def _packed(at: Timestamp) -> bytes:
    return _TIME.pack(at.time, at.inc)


def _time(packed: bytes) -> Timestamp:
    return Timestamp(*_TIME.unpack_from(packed))


def _each(key: Key, standing: Standing) -> bytes | None:
    """The names by themselves, those with one beginning together; None when they are too many."""
    count = sum(len(names) for _, names in standing.spans)
    if count * _NAME_BYTES + len(standing.spans) * (_COUNT.size + _TIME.size) > _MOST_BYTES:
        return None
    parts = [_EACH]
    for begin, names in standing.spans:
        parts += [_COUNT.pack(len(names)), _packed(begin), *sorted(_hash(key.names, name) for name in names)]
    return b"".join(parts)


def _whole(key: Key, standing: Standing) -> bytes:
    latest = max(begin for begin, _ in standing.spans)
    return (
        _SET
        + _packed(latest)
        + _hash_of_all(key.names, frozenset().union(*(names for _, names in standing.spans)))
    )


def _read_each(body: bytes) -> Iterable[tuple[bytes, Timestamp]]:
    place = 1
    # What fills the body up is shorter than a beginning.
    while place + _COUNT.size + _TIME.size <= len(body):
        (count,) = _COUNT.unpack_from(body, place)
        since = _time(body[place + _COUNT.size :])
        place += _COUNT.size + _TIME.size
        for _ in range(count):
            yield body[place : place + _NAME_BYTES], since
            place += _NAME_BYTES


@lru_cache(maxsize=4096)
def _hash(key: bytes, name: str) -> bytes:
    return blake2b(_bytes(name), key=key, digest_size=_NAME_BYTES).digest()


def _hash_of_all(key: bytes, names: frozenset[str]) -> bytes:
    """Of names of fixed length, so that no two sets are written alike."""
    return blake2b(b"".join(sorted(_hash(key, name) for name in names)), key=key, digest_size=_SET_BYTES).digest()


def _bytes(text: str) -> bytes:
    """UTF-8, also of what has none: JSON can name half a surrogate pair."""
    return text.encode(errors="surrogatepass")
