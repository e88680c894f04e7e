"""The routes of grants: read the request, let `grant_rules` decide in the store's transaction, answer."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_request, document_response, tag

from livedocs.access.acl import Allowed, Denied
from livedocs.http import grant_rules as rules
from livedocs.http.bodies import MINIMAL, json_answer, read_json, tagged_answer, wants_minimal
from livedocs.http.caller import Caller, caller
from livedocs.http.confinement import granting
from livedocs.http.explanation import Rule, explain
from livedocs.http.receipts import Receipt, receipt, wait_asked
from livedocs.http.roster import Answers, Roster, named
from livedocs.http.shapes import (
    Applied,
    ExplainQuery,
    ExplanationShown,
    GrantBody,
    GrantList,
    GrantShown,
    NoBody,
)
from livedocs.http.times import rfc3339
from livedocs.model import Grant, GrantKey, parse_subject, parse_uuid
from livedocs.store.documents import Documents
from livedocs.store.grants import Grants, GrantState
from livedocs.store.inquiries import Holders
from livedocs.store.processes import Processes

_MOST_SOCKETS = 100


def blueprint(grants: Grants, documents: Documents, processes: Processes, roster: Roster) -> Blueprint:
    """The routes under `/v1/grants`.

    Args:
        grants: the store's grants.
        documents: the store's documents.
        processes: the server processes that a receipt has to name.
        roster: the sockets of all server processes.
    """
    routes = Blueprint("grants", __name__, url_prefix="/v1/grants")
    # A subject may hold a slash: the server has decoded the path before it is taken apart.
    path = "/<uuid>/<path:subject>"

    @routes.get("/<uuid>")
    @tag(["grants"])
    @document_response(GrantList)
    async def list_grants(uuid: str) -> Response:
        """Every grant on a UUID, for its owners. Has an `ETag`, honours `If-None-Match`."""
        who, parsed = caller(), parse_uuid(uuid)
        granter = await granting(documents, who, [parsed])
        held = await grants.of_uuid(who.tenant.slug, parsed)
        listed = rules.listing(GrantState(held, datetime.now(UTC)), granter(parsed))
        return tagged_answer({"uuid": str(parsed), "grants": [shown(grant) for grant in listed]})

    @routes.get("/<uuid>/explain")
    @tag(["grants"])
    @document_querystring(ExplainQuery)
    @document_response(ExplanationShown)
    async def explain_access(uuid: str) -> Response:
        """Why a subject may, or may not, see the documents of a UUID, and which sockets hold its room now.

        A token alone says which groups somebody is in: they are taken from `group` (which may be repeated), else
        from the subject's live sockets, else they are unknown and a group's rule has `applies` null. Sockets are
        those of all server processes but the `pending` ones, which did not answer in time.
        """
        who, parsed = caller(), parse_uuid(uuid)
        subject = parse_subject(request.args.get("subject"))
        granter = await granting(documents, who, [parsed])
        held = await grants.of_uuid(who.tenant.slug, parsed)
        state = GrantState(held, datetime.now(UTC))
        listed = rules.listing(state, granter(parsed))
        sockets = await roster.ask(Holders(who.tenant.slug, parsed, subject, limit=_MOST_SOCKETS))
        groups, source = _groups(_union(answer.groups for _, answer in sockets[0]))
        found = explain(listed, subject, groups, state.now)
        return json_answer(
            {
                "uuid": str(parsed),
                "subject": subject,
                **_decision(found.decision),
                "groups": {"source": source, "names": sorted(groups or ())},
                "rules": [_rule(rule) for rule in found.rules],
                "scopes": [{"scope": scope, "means": means} for scope, means in found.scopes],
                "sockets": _sockets(sockets, who, parsed),
            }
        )

    @routes.put(path)
    @tag(["grants"])
    @document_request(GrantBody)
    @document_response(GrantShown)
    @document_response(GrantShown, 201)
    @document_response(NoBody, 204)
    async def set_grant(uuid: str, subject: str) -> Response:
        """Grant a role to a subject, in place of the one it has.

        A subject is `user:NAME`, `client:ID`, `group:NAME` or `tenant:*`. A UUID is never left without an owner.
        `Prefer: wait=seconds` answers when every server process has applied it, or names those that have not.
        """
        who = caller()
        key = GrantKey(who.tenant.slug, parse_uuid(uuid), parse_subject(subject))
        role, expires_at = rules.parse_body(await read_json(), datetime.now(UTC))
        granter = await granting(documents, who, [key.uuid])
        decide = partial(rules.put, principal=granter(key.uuid), key=key, role=role, expires_at=expires_at)
        grant, created = await grants.set(key, who.actor, decide)
        proof = await _receipt(processes)
        if proof is None and wants_minimal():
            return Response(b"", 201 if created else 204, dict(MINIMAL))
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
        granter = await granting(documents, who, [key.uuid])
        await grants.remove(key, who.actor, partial(rules.remove, principal=granter(key.uuid), key=key))
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


def _groups(held: frozenset[str] | None) -> tuple[frozenset[str] | None, str]:
    """The subject's groups, and where they are from."""
    asked = request.args.getlist("group")
    if asked:
        return frozenset(asked), "request"
    return held, "unknown" if held is None else "sockets"


def _decision(decision: Allowed | Denied) -> dict[str, Any]:
    match decision:
        case Allowed(role, until):
            return {"allowed": True, "role": role.label, **({"until": rfc3339(until)} if until else {})}
        case Denied(reason):
            return {"allowed": False, "reason": reason}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "rule": rule.kind,
        "applies": rule.applies,
        "member": rule.member,
        "in_force": rule.in_force,
        "grant": shown(rule.grant),
    }


def _union(sets: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    """What is in any of them; None when there is none."""
    known = [names for names in sets if names is not None]
    return frozenset().union(*known) if known else None


def _sockets(answers: Answers, who: Caller, uuid: UUID) -> dict[str, Any]:
    """The sockets that hold the room on behalf of the subject; who they are in detail is for administrators."""
    answered, silent = answers
    sessions = sorted((one for _, answer in answered for one in answer.sessions), key=lambda one: one.place)
    held = []
    for one in sessions[:_MOST_SOCKETS]:
        members = {"subject": one.subject, "since": rfc3339(datetime.fromtimestamp(one.since, UTC))}
        if uuid in one.rooms:
            members["role"] = one.rooms[uuid].label
        if rules.ADMIN_SCOPE in who.principal.scopes and who.confined_to is None:
            members |= {"sid": one.sid, "address": one.address}
        held.append(members)
    return {
        "complete": not silent,
        "pending": [named(process) for process in silent],
        "in_room": sum(answer.in_room for _, answer in answered),
        "of_subject": sum(answer.matching for _, answer in answered),
        "held": held,
    }


def shown(grant: Grant) -> dict[str, Any]:
    """A grant as answers show it; times as in RFC 3339."""
    members: dict[str, Any] = {"subject": grant.key.subject, "role": grant.role.label}
    if grant.expires_at is not None:
        members["expires_at"] = rfc3339(grant.expires_at)
    members["granted_by"] = grant.granted_by
    if grant.granted_at is not None:
        members["granted_at"] = rfc3339(grant.granted_at)
    return members
