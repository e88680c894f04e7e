"""The events a client may send: arguments read strictly, the work handed on, the answer written.

An answer goes into the acknowledgement when the client asked for one. The tutorial's clients do not: they are told
of refusals by `$refused` and of nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from livedocs import extjson, tracing
from livedocs.access.credentials import well_formed
from livedocs.access.limits import Kind, Limits
from livedocs.changes import cursor
from livedocs.changes.event import RoomKey
from livedocs.errors import (
    BadRequest,
    Forbidden,
    InvalidCursor,
    InvalidUuid,
    LivedocsError,
    RateLimited,
    UnknownCollection,
)
from livedocs.live import frames
from livedocs.live.client import Client
from livedocs.live.fanout import Fanout, event_frame
from livedocs.live.joins import Joins, Wish
from livedocs.live.protocol import Call
from livedocs.model import Tenant, parse_uuid
from livedocs.telemetry import Metrics

Reauthenticate = Callable[[Client, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class JoinArguments:
    """JoinRoom's arguments: the good UUIDs, the codes of the others as they were written, and the options."""

    uuids: list[UUID]
    refused: dict[str, dict[str, Any]]
    wish: Wish


def read_uuids(items: Any) -> tuple[list[UUID], dict[str, dict[str, Any]]]:
    """The UUIDs of a list from a client, and a refusal for each item that is none.

    Raises:
        BadRequest: not a list.
    """
    if not isinstance(items, list):
        detail = "The first argument is a list of UUIDs."
        raise BadRequest(detail)
    uuids: list[UUID] = []
    refused: dict[str, dict[str, Any]] = {}
    for item in items:
        try:
            uuids.append(parse_uuid(item))
        except InvalidUuid as error:
            name = item if isinstance(item, str) else extjson.dumps(item).decode()
            refused[name[:100]] = {"code": error.on_socket()}
    return uuids, refused


def read_join(arguments: Sequence[Any], tenant: Tenant, subject: str) -> JoinArguments:
    """The arguments of JoinRoom, as that subject of the tenant gives them.

    Raises:
        Forbidden: `collections` names one that the subject, a service, is confined away from.
        BadRequest: not a list of UUIDs and an object of options.
        InvalidCursor: `since` is no cursor.
        UnknownCollection: `collections` names one that is not registered.
    """
    if not 1 <= len(arguments) <= 2:
        detail = "JoinRoom takes a list of UUIDs and an object of options."
        raise BadRequest(detail)
    uuids, refused = read_uuids(arguments[0])
    options = arguments[1] if len(arguments) == 2 and arguments[1] is not None else {}
    if not isinstance(options, dict) or not options.keys() <= {"since", "snapshot", "collections"}:
        detail = "The options of JoinRoom are since, snapshot and collections."
        raise BadRequest(detail)
    since, snapshot, names = options.get("since"), options.get("snapshot", False), options.get("collections")
    if not isinstance(snapshot, bool):
        detail = "snapshot is true or false."
        raise BadRequest(detail)
    return JoinArguments(
        uuids,
        refused,
        Wish(None if since is None else cursor.parse(since), snapshot, _read_collections(names, tenant, subject)),
    )


def _read_collections(names: Any, tenant: Tenant, subject: str) -> frozenset[str] | None:
    confined_to = tenant.confines(subject)
    if names is None:
        return confined_to
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        detail = "collections is a list of names."
        raise BadRequest(detail)
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


class Calls:
    """Answers `JoinRoom`, `LeaveRoom`, `Check` and `Reauth`.

    Args:
        reauthenticate: puts a client under a new token; raises LivedocsError and leaves it as it was.
        metrics: `joins`, of what is refused here already, and `join_seconds`.
        limits: how many events, and joins, a client may send; none without.
    """

    def __init__(
        self,
        joins: Joins,
        fanout: Fanout,
        reauthenticate: Reauthenticate,
        metrics: Metrics,
        limits: Limits | None = None,
    ) -> None:
        self._metrics = metrics
        self._limits = limits
        self._joins = joins
        self._fanout = fanout
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
        try:
            asked = read_join(call.arguments, client.tenant, client.principal.subject)
        except (InvalidCursor, UnknownCollection, Forbidden) as error:
            uuids, refused = read_uuids(call.arguments[0])
            refused |= {str(uuid): {"code": error.on_socket()} for uuid in uuids}
            self._count_refused(refused)
            self._answer_join(client, call, {}, refused)
            return
        except BadRequest as error:
            self._complain(client, call, error, {"joined": {}, "refused": {}})
            return
        try:
            self._count(client, "joins", len(asked.uuids))
        except RateLimited as error:
            refused = {**asked.refused, **{str(uuid): refusal(error) for uuid in asked.uuids}}
            self._count_refused(refused)
            self._answer_join(client, call, {}, refused)
            return
        self._count_refused(asked.refused)
        with self._metrics.join_seconds.time(), tracing.span("JoinRoom", kind="server") as span:
            span.note("livedocs.tenant", client.tenant.slug)
            span.note("livedocs.rooms", len(asked.uuids))
            outcome = await self._joins.join(client, asked.uuids, asked.wish)
            span.note("livedocs.rooms.refused", len(outcome.refused))
        # No await from here to the end: the answer, then what was missed, then whatever comes next.
        self._answer_join(client, call, outcome.joined, {**asked.refused, **outcome.refused})
        for change in outcome.replay:
            self._fanout.deliver(client, event_frame(change), change.room)
        self._joins.complete(client, outcome)

    def _count_refused(self, refused: Mapping[str, Mapping[str, Any]]) -> None:
        for told in refused.values():
            self._metrics.joins.labels(told["code"]).inc()

    def _answer_join(
        self,
        client: Client,
        call: Call,
        joined: Mapping[str, Mapping[str, Any]],
        refused: Mapping[str, Mapping[str, Any]],
    ) -> None:
        if call.ack is not None:
            client.send(frames.ack(call.ack, {"joined": joined, "refused": refused}))
            return
        for uuid, refusal in refused.items():
            client.send(frames.event("$refused", {"uuid": uuid, **refusal}))
        for uuid, answer in joined.items():
            if "snapshot" in answer:
                # Without an ack there is no other place for what was asked for.
                reason = answer.get("resync", "snapshot")
                body = {"reason": reason, "cursor": answer["cursor"], "snapshot": answer["snapshot"]}
                client.send(frames.event("$resync", {"uuid": uuid, **body}))

    async def _leave(self, client: Client, call: Call) -> None:
        try:
            uuids, refused = read_uuids(call.arguments[0] if len(call.arguments) == 1 else None)
        except BadRequest as error:
            self._complain(client, call, error, {"left": []})
            return
        left = []
        for uuid in dict.fromkeys(uuids):
            membership = self._fanout.rooms.get(client, RoomKey(client.tenant.slug, uuid))
            if membership is not None and self._fanout.remove(membership):
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
            await self._reauthenticate(client, token)
        except LivedocsError as error:
            self._complain(client, call, error, {})
            client.close("reauth_refused")
            return
        if call.ack is not None:
            client.send(frames.ack(call.ack, {"expires_at": client.principal.expires_at}))
