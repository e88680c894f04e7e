"""The routes of a tenant's own administrators: who is connected, and what was done."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, get_args

from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_response, tag

from livedocs.errors import BadRequest, InvalidCursor, NotFound
from livedocs.http.admin_shapes import AuditPage, AuditQuery, SessionPage, SessionQuery
from livedocs.http.bodies import json_answer
from livedocs.http.caller import Caller, caller
from livedocs.http.grant_rules import ADMIN_SCOPE
from livedocs.http.paging import page_limit
from livedocs.http.roster import Roster, Socket
from livedocs.http.shapes import NoBody
from livedocs.http.times import parse_rfc3339, rfc3339
from livedocs.model import parse_uuid
from livedocs.store.audit import Action, Entry
from livedocs.store.trail import Recorded, Search, Trail

_MOST_ROOMS = 100


def blueprint(roster: Roster, trail: Trail) -> Blueprint:
    """`/v1/admin/sessions` and `/v1/admin/audit`.

    Args:
        roster: the sockets of this process.
        trail: the audit trail.
    """
    routes = Blueprint("admin", __name__, url_prefix="/v1/admin")

    @routes.get("/sessions")
    @tag(["sessions"])
    @document_querystring(SessionQuery)
    @document_response(SessionPage)
    async def list_sessions() -> Response:
        """Who of the tenant is connected to the process that answers, in the order of their coming.

        Needs the scope `livedocs:admin`. `process` says which process that is; behind a balancer ask each of them.
        """
        who = _admin()
        limit, after = page_limit(request.args.get("limit")), request.args.get("cursor")
        subject, room = request.args.get("subject"), request.args.get("uuid")
        found: Iterable[Socket] = (
            roster.of_tenant(who.tenant.slug)
            if room is None
            else roster.in_room(who.tenant.slug, parse_uuid(room))
        )
        listed = sorted(
            ((_place(socket), socket) for socket in found if subject in {None, socket.subject}),
            key=lambda item: item[0],
        )
        if after is not None:
            listed = [item for item in listed if item[0] > _after(after)]
        rest = listed[limit - 1][0] if len(listed) > limit else None
        return json_answer(
            {
                "process": _process(roster),
                "sessions": [session(socket) for _, socket in listed[:limit]],
                "next": rest,
            }
        )

    @routes.delete("/sessions/<sid>")
    @tag(["sessions"])
    @document_response(NoBody, 204)
    async def disconnect_session(sid: str) -> Response:
        """Disconnect a socket for good. Its token stays valid: to keep somebody out, revoke that.

        404 when the process that answers has no such socket.
        """
        who = _admin()
        gone = roster.disconnect(who.tenant.slug, sid)
        if gone is None:
            raise NotFound("This process has no such session.", process=_process(roster))
        detail = {"sid": gone.sid, "address": gone.address}
        await trail.add(
            who.actor, Entry("session.disconnect", who.tenant.slug, subject=gone.subject, detail=detail)
        )
        return Response(b"", 204)

    @routes.get("/audit")
    @tag(["audit"])
    @document_querystring(AuditQuery)
    @document_response(AuditPage)
    async def search_audit() -> Response:
        """What was done in the tenant, the newest first. Needs the scope `livedocs:admin`.

        `since` is part of the range, `until` is not. `next` is the `cursor` of the next page.
        """
        who = _admin()
        limit = page_limit(request.args.get("limit"))
        entries = await trail.search(
            who.tenant.slug, _search(), before=request.args.get("cursor"), limit=limit + 1
        )
        rest = entries[limit - 1].cursor if len(entries) > limit else None
        return json_answer({"entries": [entry(found) for found in entries[:limit]], "next": rest})

    return routes


def _admin() -> Caller:
    who = caller()
    who.require(ADMIN_SCOPE)
    return who


def _process(roster: Roster) -> str | None:
    return roster.process.id if roster.process is not None else None


def _place(socket: Socket) -> str:
    """Where a socket stands in the list; also the cursor behind it."""
    return f"{int(socket.since.timestamp() * 1e6):016x}-{socket.sid}"


def _after(cursor: str) -> str:
    moment, _, sid = cursor.partition("-")
    if len(moment) != 16 or not sid:
        raise InvalidCursor
    return cursor


def _search() -> Search:
    action = request.args.get("action")
    if action is not None and action not in get_args(Action):
        raise BadRequest(f"action is one of {', '.join(get_args(Action))}.", action=action)
    uuid = request.args.get("uuid")
    return Search(
        actor=request.args.get("actor"),
        action=action,
        uuid=parse_uuid(uuid) if uuid is not None else None,
        subject=request.args.get("subject"),
        since=_time("since"),
        until=_time("until"),
    )


def _time(name: str) -> datetime | None:
    text = request.args.get(name)
    if text is None:
        return None
    # A plus sign of an offset that was not escaped has become a space.
    found = parse_rfc3339(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text.upper() else text)
    if found is None:
        raise BadRequest(f"{name} is a time as in RFC 3339, with its offset.", path=name)
    return found


def session(socket: Socket) -> dict[str, Any]:
    """A socket as answers show it."""
    rooms = socket.rooms
    return {
        "sid": socket.sid,
        "subject": socket.subject,
        "name": socket.name,
        "client_id": socket.client_id,
        "address": socket.address,
        "since": rfc3339(socket.since),
        "expires_at": rfc3339(socket.expires_at),
        "room_count": len(rooms),
        "rooms": [{"uuid": str(uuid), "role": role.label} for uuid, role in [*rooms.items()][:_MOST_ROOMS]],
    }


def entry(recorded: Recorded) -> dict[str, Any]:
    """An entry as answers show it."""
    members: dict[str, Any] = {
        "at": rfc3339(recorded.at),
        "actor": recorded.actor,
        "address": recorded.address,
        "action": recorded.action,
    }
    if recorded.uuid is not None:
        members["uuid"] = str(recorded.uuid)
    if recorded.subject is not None:
        members["subject"] = recorded.subject
    if recorded.detail:
        members["detail"] = recorded.detail
    return members
