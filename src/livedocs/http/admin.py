"""The routes of a tenant's own administrators: who is connected, and what was done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, get_args

from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_response, tag

from livedocs.errors import BadRequest, InvalidCursor, InvalidSubject, NotFound, Unavailable
from livedocs.http.admin_shapes import (
    AuditPage,
    AuditQuery,
    Disconnected,
    DisconnectQuery,
    SessionPage,
    SessionQuery,
)
from livedocs.http.bodies import list_answer
from livedocs.http.caller import Caller, caller
from livedocs.http.grant_rules import ADMIN_SCOPE
from livedocs.http.pagination import page_limit
from livedocs.http.session_queries import SessionQueries, named
from livedocs.http.shapes import NoBody
from livedocs.http.times import parse_rfc3339, rfc3339
from livedocs.model import parse_subject, parse_uuid
from livedocs.store.audit import Action, Entry
from livedocs.store.audit_log import AuditLog, Recorded, Search
from livedocs.store.inquiries import Disconnection, Listing, Place, Session
from livedocs.store.processes import Process

# As MongoDB can hold it: 63 bits.
_MOMENT = re.compile(r"[0-7][0-9a-f]{15}\Z")
_RETRY_AFTER = 5.0


def blueprint(sessions: SessionQueries, audit: AuditLog) -> Blueprint:
    """`/v1/admin/sessions` and `/v1/admin/audit`.

    Args:
        sessions: the sockets of all server processes.
        audit: the audit log.
    """
    routes = Blueprint("admin", __name__, url_prefix="/v1/admin")

    @routes.get("/sessions")
    @tag(["sessions"])
    @document_querystring(SessionQuery)
    @document_response(SessionPage)
    async def list_sessions() -> Response:
        """Who of the tenant is connected, to whichever server process, in the order of their coming.

        Needs the scope `livedocs:admin`. `complete` is false when a process did not answer in time; `processes`
        says which: its sockets are not in the list.
        """
        who = _admin()
        limit, after = page_limit(request.args.get("limit")), request.args.get("cursor")
        room = request.args.get("uuid")
        question = Listing(
            who.tenant.slug,
            subject=request.args.get("subject"),
            uuid=None if room is None else parse_uuid(room),
            after=None if after is None else _after(after),
            # One more than is shown says whether there is a next page.
            limit=limit + 1,
        )
        answers, silent = await sessions.ask(question, by=who.principal.subject)
        found = ((process, one) for process, answer in answers for one in answer.sessions)
        # Where an answer left sessions away, they are behind its last one: the page ends there at the latest.
        ends = [answer.sessions[-1].place for _, answer in answers if not answer.complete and answer.sessions]
        listed = sorted(
            (item for item in found if item[1].place <= min(ends, default=item[1].place)), key=_by_place
        )
        further = len(listed) > limit
        listed = listed[:limit]
        return await list_answer(
            {
                "process": sessions.process.id if sessions.process is not None else None,
                "complete": not silent,
                "processes": [
                    *({**named(process), "answered": True} for process, _ in answers),
                    *({**named(process), "answered": False} for process in silent),
                ],
                "total": sum(answer.matching for _, answer in answers),
                "sessions": (session(process, one) for process, one in listed),
                "next": _cursor(listed[-1][1].place) if further or ends else None,
            }
        )

    @routes.delete("/sessions")
    @tag(["sessions"])
    @document_querystring(DisconnectQuery)
    @document_response(Disconnected)
    async def disconnect_subject() -> Response:
        """Disconnect every socket of a user or service for good, at whichever server process.

        Its tokens stay valid: to keep somebody out, revoke them. `applied` is false when a process did not confirm
        in time; `pending` says which. It does it as soon as it reads on.
        """
        who = _admin()
        subject = parse_subject(request.args.get("subject"))
        if not subject.startswith(("user:", "client:")):
            raise InvalidSubject("Only user:NAME and client:ID have sessions.", subject=subject)
        answers, silent = await sessions.ask(
            Disconnection(who.tenant.slug, subject=subject), by=who.principal.subject
        )
        gone = [(process, one) for process, answer in answers for one in answer.sessions]
        detail = {"sids": [one.sid for _, one in gone], **_pending(silent)}
        await audit.add(who.actor, Entry("session.disconnect", who.tenant.slug, subject=subject, detail=detail))
        return await list_answer(
            {
                "subject": subject,
                "disconnected": sum(answer.matching for _, answer in answers),
                "sessions": (
                    {"sid": one.sid, "address": one.address, "process": process.id} for process, one in gone
                ),
                "applied": not silent,
                "pending": [named(process) for process in silent],
            }
        )

    @routes.delete("/sessions/<sid>")
    @tag(["sessions"])
    @document_response(NoBody, 204)
    async def disconnect_session(sid: str) -> Response:
        """Disconnect a socket for good. Its token stays valid: to keep somebody out, revoke that.

        404 when no server process has such a socket; 503, with `pending`, when one that did not answer in time may
        have it. That one disconnects it as soon as it reads on.
        """
        who = _admin()
        answers, silent = await sessions.ask(Disconnection(who.tenant.slug, sid=sid), by=who.principal.subject)
        gone = next((one for _, answer in answers for one in answer.sessions), None)
        if gone is None and not silent:
            raise NotFound("There is no such session.")
        subject = gone.subject if gone is not None else None
        detail = {"sid": sid, **({"address": gone.address} if gone is not None else _pending(silent))}
        await audit.add(who.actor, Entry("session.disconnect", who.tenant.slug, subject=subject, detail=detail))
        if gone is None:
            raise Unavailable(
                "Not every server process has answered: the session may still be there.",
                retry_after=_RETRY_AFTER,
                **_pending(silent),
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
        entries = await audit.search(
            who.tenant.slug, _search(), before=request.args.get("cursor"), limit=limit + 1
        )
        rest = entries[limit - 1].cursor if len(entries) > limit else None
        return await list_answer({"entries": (entry(found) for found in entries[:limit]), "next": rest})

    return routes


def _by_place(item: tuple[Process, Session]) -> Place:
    return item[1].place


def _admin() -> Caller:
    who = caller()
    who.require_unconfined(ADMIN_SCOPE)
    return who


def _pending(silent: Sequence[Process]) -> dict[str, Any]:
    return {"pending": [process.id for process in silent]} if silent else {}


def _cursor(place: Place) -> str:
    moment, sid = place
    return f"{moment:016x}-{sid}"


def _after(cursor: str) -> Place:
    moment, _, sid = cursor.partition("-")
    if not _MOMENT.match(moment) or not sid:
        raise InvalidCursor
    return int(moment, 16), sid


def _search() -> Search:
    action = request.args.get("action")
    if action is not None and action not in get_args(Action):
        raise BadRequest(f"`action` must be one of: {', '.join(get_args(Action))}.", action=action)
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
        raise BadRequest(
            f"`{name}` must be an RFC 3339 time with an offset, such as 2026-01-02T03:04:05Z.", path=name
        )
    return found


def session(process: Process, one: Session) -> dict[str, Any]:
    """A socket as answers show it."""
    return {
        "sid": one.sid,
        "subject": one.subject,
        "name": one.name,
        "client_id": one.client_id,
        "address": one.address,
        "since": rfc3339(datetime.fromtimestamp(one.since, UTC)),
        "expires_at": rfc3339(one.expires_at),
        "process": process.id,
        "room_count": one.room_count,
        "rooms": [{"uuid": str(uuid), "role": role.label} for uuid, role in one.rooms.items()],
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
