"""The events a client may send: arguments read strictly, the work handed on, the answer written.

An answer goes into the acknowledgement when the client asked for one. The tutorial's clients do not: they are told
of refusals by `$refused` and of nothing else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from livedocs import tracing
from livedocs.access.credentials import well_formed
from livedocs.access.limits import Kind, Limits
from livedocs.access.principal import Principal
from livedocs.changes.cursor import Sealing
from livedocs.changes.event import RoomKey
from livedocs.codec import extjson
from livedocs.errors import (
    BadRequest,
    Forbidden,
    InvalidCursor,
    InvalidUuid,
    LivedocsError,
    RateLimited,
    TooManyRooms,
    Unavailable,
    UnknownCollection,
)
from livedocs.live import frames
from livedocs.live.client import Client
from livedocs.live.joins import MOST_PER_CALL, Joins, Wish
from livedocs.live.memberships import Memberships
from livedocs.live.protocol import Call
from livedocs.model import Tenant, parse_uuid
from livedocs.telemetry import Metrics

Reauthenticate = Callable[[Client, str], Awaitable[None]]

MOST_LEFT = 1000
"""Entries in the list of a LeaveRoom."""

_TEXT_FORM = 36
"""Characters of a UUID in text form."""


Spelled = dict[UUID, list[str]]
"""UUIDs as a client has written each, in upper case or lower; answers are keyed as it did."""


@dataclass(frozen=True, slots=True)
class JoinArguments:
    """JoinRoom's arguments: the good UUIDs as they were written, the codes of the others, and the options."""

    uuids: Spelled
    refused: dict[str, dict[str, Any]]
    wish: Wish


def bounded(items: Any, most: int) -> list[Any]:
    """The entries of a list, each text once, before any of them is looked at: 64 KiB hold 30,000.

    Raises:
        BadRequest: not a list.
        TooManyRooms: more than `most` entries.
    """
    if not isinstance(items, list):
        raise BadRequest(f"The first argument must be a list of UUIDs, not {type(items).__name__}.")
    texts = dict.fromkeys(item for item in items if isinstance(item, str))
    entries = [*texts, *(item for item in items if not isinstance(item, str))]
    if len(entries) > most:
        raise TooManyRooms(f"At most {most} entries in one call, not {len(entries)}; send several calls.")
    return entries


def read_uuids(entries: list[Any]) -> tuple[Spelled, dict[str, dict[str, Any]]]:
    """The UUIDs of a list from a client, and a refusal for each item that is none."""
    uuids: Spelled = {}
    refused: dict[str, dict[str, Any]] = {}
    for item in entries:
        try:
            uuids.setdefault(parse_uuid(item), []).append(item)
        except InvalidUuid as error:
            name = item if isinstance(item, str) else extjson.dumps(item).decode()
            refused[name[:100]] = {"code": error.on_socket()}
    return uuids, refused


def read_join(
    entries: list[Any], further: Sequence[Any], tenant: Tenant, who: Principal, cursors: Sealing
) -> JoinArguments:
    """The arguments of JoinRoom, as a caller of the tenant gives them.

    Args:
        entries: of the list, as `bounded` has them.
        further: what stands behind the list, an object of options if anything.
        tenant: the caller's.
        who: the caller.
        cursors: opens `since`.

    Raises:
        Forbidden: `collections` names one that the client is confined away from.
        BadRequest: not a list of UUIDs and an object of options.
        InvalidCursor: `since` is no cursor.
        UnknownCollection: `collections` names one that is not registered.
    """
    uuids, refused = read_uuids(entries)
    if len(further) > 1:
        raise BadRequest("JoinRoom takes a list of UUIDs and an object of options, no more.")
    options = further[0] if further and further[0] is not None else {}
    if not isinstance(options, dict) or not options.keys() <= {"since", "ticket", "snapshot", "collections"}:
        detail = "The options of JoinRoom are since, ticket, snapshot and collections."
        raise BadRequest(detail)
    since, snapshot, names = options.get("since"), options.get("snapshot", False), options.get("collections")
    if not isinstance(snapshot, bool):
        detail = "snapshot is true or false."
        raise BadRequest(detail)
    ticket = options.get("ticket")
    if ticket is not None and not isinstance(ticket, str):
        raise BadRequest(f"ticket must be a string, not {type(ticket).__name__}.")
    return JoinArguments(
        uuids,
        refused,
        Wish(
            None if since is None else cursors.open(since),
            snapshot,
            _read_collections(names, tenant, who),
            ticket,
        ),
    )


def _read_collections(names: Any, tenant: Tenant, who: Principal) -> frozenset[str] | None:
    confined_to = tenant.confines(who.subject, who.client_id)
    if names is None:
        return confined_to
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        detail = "collections must be a list of names."
        raise BadRequest(detail)
    if len(names) > max(MOST_PER_CALL, len(tenant.collections)):
        raise BadRequest("collections must not name more collections than there are.")
    if confined_to is not None and not confined_to.issuperset(names):
        # Alike for a collection that exists and for one that does not.
        raise Forbidden
    unknown = [name for name in names if name not in tenant.collections]
    if unknown:
        raise UnknownCollection(collection=unknown[0])
    return frozenset(names)


def refusal(error: LivedocsError) -> dict[str, Any]:
    """What a socket is told of an error: its code, and when to come back if that is known."""
    told: dict[str, Any] = {"code": error.on_socket()}
    if isinstance(error, RateLimited) and error.retry_after is not None:
        told["retry_after_ms"] = math.ceil(error.retry_after * 1000)
    return told


def _as_written(answers: Mapping[str, dict[str, Any]], uuids: Spelled) -> dict[str, dict[str, Any]]:
    """Answers by UUID, under each name that the client has for it."""
    return {name: answers[str(uuid)] for uuid, names in uuids.items() if str(uuid) in answers for name in names}


def _canonical(name: str) -> str:
    """A UUID in lower case; what is none, as it is."""
    return name.lower() if len(name) == _TEXT_FORM else name


class Calls:
    """Answers `JoinRoom`, `LeaveRoom`, `Check` and `Reauth`.

    Args:
        reauthenticate: puts a client under a new token; raises LivedocsError and leaves it as it was.
        metrics: `joins`, of what is refused here already, and `join_seconds`.
        limits: how many events, and joins, a client may send; none without.
        cursors: reads the cursors that clients give back.
    """

    def __init__(
        self,
        joins: Joins,
        memberships: Memberships,
        reauthenticate: Reauthenticate,
        metrics: Metrics,
        limits: Limits | None = None,
        *,
        cursors: Sealing,
    ) -> None:
        self._metrics = metrics
        self._limits = limits
        self._joins = joins
        self._memberships = memberships
        self._cursors = cursors
        self._reauthenticate = reauthenticate
        self._handlers: dict[str, Callable[[Client, Call], Awaitable[None]]] = {
            "JoinRoom": self._join,
            "LeaveRoom": self._leave,
            "Check": self._check,
            "Reauth": self._reauth,
        }

    async def answer(self, client: Client, call: Call) -> bool:
        """Do what one event asks for. Events of one socket are answered one after the other.

        Returns:
            False when it was refused because there were too many.
        """
        try:
            self._count(client, "events")
        except RateLimited as error:
            self._complain(client, call, error, {})
            return False
        handler = self._handlers.get(call.name)
        if handler is None:
            self._complain(client, call, BadRequest("There is no such event.", event=call.name), {})
        else:
            await handler(client, call)
        return True

    def counted(self, client: Client) -> bool:
        """Count a packet that asks for nothing as an event. False when there were too many."""
        try:
            self._count(client, "events")
        except RateLimited:
            return False
        return True

    def _count(self, client: Client, kind: Kind, count: int = 1) -> None:
        if self._limits is not None:
            self._limits.address(kind, client.address, count)
            self._limits.caller(kind, client.principal, client.tenant, count)

    def _complain(self, client: Client, call: Call, error: LivedocsError, empty: dict[str, Any]) -> None:
        """Refuse a whole call."""
        told = {**refusal(error), "detail": error.detail}
        if call.ack is None:
            client.send(frames.event("$refused", {"uuid": None, **told}))
        else:
            client.send(frames.ack(call.ack, {**empty, **told}))

    async def _join(self, client: Client, call: Call) -> None:
        items: Any = call.arguments[0] if call.arguments else None
        try:
            entries = bounded(items, MOST_PER_CALL)
            # Every entry costs what a join costs, whether or not it is a UUID, and before any is looked at.
            self._count(client, "joins", len(entries))
            asked = read_join(entries, call.arguments[1:], client.tenant, client.principal, self._cursors)
        except (InvalidCursor, UnknownCollection, Forbidden, RateLimited) as error:
            self._refuse_entries(client, call, items, error)
            return
        except BadRequest as error:
            self._complain(client, call, error, {"joined": {}, "refused": {}})
            return
        self._count_refused(asked.refused)
        with self._metrics.join_seconds.time(), tracing.span("JoinRoom", kind="server") as span:
            span.note("livedocs.tenant", client.tenant.slug)
            span.note("livedocs.rooms", len(asked.uuids))
            outcome = await self._joins.join(client, list(asked.uuids), asked.wish)
            span.note("livedocs.rooms.refused", len(outcome.refused))
        # No await from here to the end: the answer, then what was missed, then whatever comes next.
        refused = {**asked.refused, **_as_written(outcome.refused, asked.uuids)}
        joined = _as_written(outcome.joined, asked.uuids)
        ticket = self._joins.ticket(client) if outcome.looked and call.ack is not None else None
        self._answer_join(client, call, joined, refused, ticket)
        self._joins.complete(client, outcome)
        client.settle_unread()

    def _refuse_entries(self, client: Client, call: Call, items: list[Any], error: LivedocsError) -> None:
        """Refuse a JoinRoom as a whole: every entry that may be a UUID with the same code."""
        too_many = isinstance(error, TooManyRooms)
        if too_many:
            self._metrics.limits_hit.labels("rooms", "call").inc()
        told = refusal(error)
        # By length alone: a list that is too long is refused for its length, and must not be parsed for that.
        refused = {item: told for item in items if isinstance(item, str) and len(item) == _TEXT_FORM}
        self._count_refused(refused)
        # Without an acknowledgement it would be an event for each of a thousand and more.
        whole = not refused or (too_many and call.ack is None)
        self._answer_join(client, call, {}, refused, whole=error if whole else None)

    def _count_refused(self, refused: Mapping[str, Mapping[str, Any]]) -> None:
        for code, count in Counter(told["code"] for told in refused.values()).items():
            self._metrics.joins.labels(code).inc(count)

    def _answer_join(
        self,
        client: Client,
        call: Call,
        joined: Mapping[str, Mapping[str, Any]],
        refused: Mapping[str, Mapping[str, Any]],
        ticket: str | None = None,
        *,
        whole: LivedocsError | None = None,
    ) -> None:
        if whole is not None:
            self._complain(client, call, whole, {"joined": {}, "refused": {}})
            return
        if call.ack is not None:
            given = {} if ticket is None else {"ticket": ticket}
            client.send(frames.ack(call.ack, {"joined": joined, "refused": refused, **given}))
            return
        for name, refusal in refused.items():
            client.send(frames.event("$refused", {"uuid": _canonical(name), **refusal}))
        for uuid, answer in {_canonical(name): answer for name, answer in joined.items()}.items():
            if "snapshot" in answer:
                # Without an ack there is no other place for what was asked for.
                reason = answer.get("resync", "snapshot")
                body = {"reason": reason, "cursor": answer["cursor"], "snapshot": answer["snapshot"]}
                client.send(frames.event("$resync", {"uuid": uuid, **body}))

    async def _leave(self, client: Client, call: Call) -> None:
        try:
            entries = bounded(call.arguments[0] if len(call.arguments) == 1 else None, MOST_LEFT)
            # As many events as there would be if each call had as many entries as a JoinRoom.
            self._count(client, "events", len(entries) // MOST_PER_CALL)
        except (BadRequest, RateLimited) as error:
            self._complain(client, call, error, {"left": []})
            return
        uuids, refused = read_uuids(entries)
        left = []
        for uuid in uuids:
            membership = self._memberships.rooms.get(client, RoomKey(client.tenant.slug, uuid))
            if membership is not None and self._memberships.remove(membership):
                left.append(str(uuid))
        if call.ack is not None:
            client.send(frames.ack(call.ack, {"left": left, **({"refused": refused} if refused else {})}))
        else:
            for name, refusal in refused.items():
                client.send(frames.event("$refused", {"uuid": name, **refusal}))

    async def _check(self, client: Client, call: Call) -> None:
        if call.ack is not None:
            client.send(frames.ack(call.ack, *call.arguments))
        client.send(frames.event("Check", *call.arguments))

    async def _reauth(self, client: Client, call: Call) -> None:
        match call.arguments:
            case ({"token": str() as token},) if well_formed(token):
                pass
            case _:
                self._complain(client, call, BadRequest("Reauth takes an object with a token."), {})
                return
        try:
            # As much work as a handshake, and limited as one.
            self._count(client, "handshakes")
            await self._reauthenticate(client, token)
        except (Unavailable, RateLimited) as error:
            # It says nothing about the token: the socket stays under its present one.
            self._complain(client, call, error, {})
            return
        except LivedocsError as error:
            self._complain(client, call, error, {})
            client.close("reauth_refused")
            return
        if call.ack is not None:
            client.send(frames.ack(call.ack, {"expires_at": client.principal.expires_at}))
