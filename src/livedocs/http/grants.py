"""The routes of grants: read the request, let `grant_rules` decide in the store's transaction, answer."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

from quart import Blueprint, Response, request
from quart_schema import document_request, document_response, tag

from livedocs.http import grant_rules as rules
from livedocs.http.bodies import json_answer, read_json
from livedocs.http.caller import caller
from livedocs.http.receipts import Receipt, receipt, wait_asked
from livedocs.http.reference import Applied, GrantBody, GrantList, GrantShown, NoBody
from livedocs.model import Grant, GrantKey, parse_subject, parse_uuid
from livedocs.store.grants import Grants, GrantState
from livedocs.store.processes import Processes


def blueprint(grants: Grants, processes: Processes) -> Blueprint:
    """The routes under `/v1/grants`.

    Args:
        grants: the store's grants.
        processes: the server processes that a receipt has to name.
    """
    routes = Blueprint("grants", __name__, url_prefix="/v1/grants")
    # A subject may hold a slash: the server has decoded the path before it is taken apart.
    path = "/<uuid>/<path:subject>"

    @routes.get("/<uuid>")
    @tag(["grants"])
    @document_response(GrantList)
    async def list_grants(uuid: str) -> Response:
        """Every grant on a UUID, for its owners."""
        who, parsed = caller(), parse_uuid(uuid)
        held = await grants.of_uuid(who.tenant.slug, parsed)
        listed = rules.listing(GrantState(held, datetime.now(UTC)), who.principal)
        return json_answer({"uuid": str(parsed), "grants": [shown(grant) for grant in listed]})

    @routes.put(path)
    @tag(["grants"])
    @document_request(GrantBody)
    @document_response(GrantShown)
    @document_response(GrantShown, 201)
    async def set_grant(uuid: str, subject: str) -> Response:
        """Grant a role to a subject, in place of the one it has.

        A subject is `user:NAME`, `client:ID`, `group:NAME` or `tenant:*`. A UUID is never left without an owner.
        `Prefer: wait=seconds` answers when every server process has applied it, or names those that have not.
        """
        who = caller()
        key = GrantKey(who.tenant.slug, parse_uuid(uuid), parse_subject(subject))
        role, expires_at = rules.parse_body(await read_json(), datetime.now(UTC))
        decide = partial(rules.put, principal=who.principal, key=key, role=role, expires_at=expires_at)
        grant, created = await grants.set(key, who.actor, decide)
        proof = await _receipt(processes)
        answer = json_answer({**shown(grant), **(proof.members if proof else {})}, 201 if created else 200)
        answer.headers.update(proof.headers if proof else {})
        return answer

    @routes.delete(path)
    @tag(["grants"])
    @document_response(NoBody, 204)
    @document_response(Applied, 200)
    async def remove_grant(uuid: str, subject: str) -> Response:
        """Take a subject's grant away; its sockets leave the room at once.

        `Prefer: wait=seconds` answers when every server process has applied it, or names those that have not.
        """
        who = caller()
        key = GrantKey(who.tenant.slug, parse_uuid(uuid), parse_subject(subject))
        await grants.remove(key, who.actor, partial(rules.remove, principal=who.principal, key=key))
        proof = await _receipt(processes)
        if proof is None:
            return Response(b"", 204)
        answer = json_answer({"uuid": str(key.uuid), "subject": key.subject, **proof.members})
        answer.headers.update(proof.headers)
        return answer

    return routes


async def _receipt(processes: Processes) -> Receipt | None:
    """The receipt that the request asks for; None when it asks for none."""
    seconds = wait_asked(request.headers.getlist("Prefer"))
    return None if seconds is None else await receipt(processes, seconds)


def shown(grant: Grant) -> dict[str, Any]:
    """A grant as answers show it; times as in RFC 3339."""
    members: dict[str, Any] = {"subject": grant.key.subject, "role": grant.role.label}
    if grant.expires_at is not None:
        members["expires_at"] = rfc3339(grant.expires_at)
    members["granted_by"] = grant.granted_by
    if grant.granted_at is not None:
        members["granted_at"] = rfc3339(grant.granted_at)
    return members


def rfc3339(at: datetime) -> str:
    """An aware UTC time as text (RFC 3339), to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
