"""The routes of grants: read the request, let `grant_rules` decide in the store's transaction, answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_request, document_response, tag

from livedocs.access.acl import Allowed, Denied
from livedocs.errors import BadRequest
from livedocs.http import grant_rules as rules
from livedocs.http.bodies import MINIMAL, json_answer, read_json, tagged_answer, wants_minimal
from livedocs.http.caller import Caller, caller
from livedocs.http.confinement import granting
from livedocs.http.explanation import Held, Rule, explain
from livedocs.http.pagination import page_limit, parse_subject_cursor, subject_cursor
from livedocs.http.prefer import Receipt, receipt, wait_asked
from livedocs.http.session_queries import Answers, SessionQueries, named
from livedocs.http.shapes import (
    Applied,
    ExplainQuery,
    ExplanationShown,
    GrantBody,
    GrantList,
    GrantListQuery,
    GrantShown,
    NoBody,
)
from livedocs.http.times import rfc3339
from livedocs.model import Grant, GrantKey, parse_stored_subject, parse_subject, parse_uuid
from livedocs.store.documents import Documents
from livedocs.store.grant_reads import Manager
from livedocs.store.grants import Grants
from livedocs.store.inquiries import Holders
from livedocs.store.processes import Processes

_MOST_SOCKETS = 100
_MOST_GROUPS = 1000
# Grants for groups that an explanation shows beside those that certainly concern the subject.
_MOST_RULES = 100


def blueprint(
    grants: Grants, documents: Documents, processes: Processes, sessions: SessionQueries, max_grants: int
) -> Blueprint:
    """The routes under `/v1/grants`.

    Args:
        grants: the store's grants.
        documents: the store's documents.
        processes: the server processes that a receipt has to name.
        sessions: the sockets of all server processes.
        max_grants: most grants on one UUID.
    """
    routes = Blueprint("grants", __name__, url_prefix="/v1/grants")
    # A subject may hold a slash: the server has decoded the path before it is taken apart.
    path = "/<uuid>/<path:subject>"

    @routes.get("/<uuid>")
    @tag(["grants"])
    @document_querystring(GrantListQuery)
    @document_response(GrantList)
    async def list_grants(uuid: str) -> Response:
        """The grants on a UUID, by subject, for its owners. Each page has an `ETag` and honours `If-None-Match`.

        `next` is the `cursor` of the next page, null on the last one.
        """
        who, parsed = caller(), parse_uuid(uuid)
        limit, after = page_limit(request.args.get("limit")), parse_subject_cursor(request.args.get("cursor"))
        manager = await _manager(who, parsed)
        found = await grants.page(who.tenant.slug, parsed, manager, after=after, limit=limit + 1)
        return tagged_answer(listed(parsed, found, limit))

    @routes.get("/<uuid>/explain")
    @tag(["grants"])
    @document_querystring(ExplainQuery)
    @document_response(ExplanationShown)
    async def explain_access(uuid: str) -> Response:
        """Why a subject may, or may not, see the documents of a UUID.

        A token alone says which groups somebody is in. They are taken from `group`, which may be repeated; without
        it they are unknown, and a group's rule has `applies` null. `rules` has the grants for the subject, for
        everyone and for those groups, and the first 100 of those for other groups; `rules_complete` is false when
        there are further ones.

        `scopes` has those of the subject's scopes that count beside the grants, where they are known: its own are
        to whoever asks about itself, and others' to administrators by the subject's live sockets.

        An administrator (`livedocs:admin`, not confined to collections) is also told which groups the subject's
        live sockets are in, and, in `sockets`, which of them hold the room: of all server processes but the
        `pending` ones, which did not answer in time.
        """
        who, parsed = caller(), parse_uuid(uuid)
        subject, asked = parse_subject(request.args.get("subject")), _asked_groups()
        manager, tenant = await _manager(who, parsed), who.tenant.slug
        sockets: Answers | None = None
        if rules.ADMIN_SCOPE in who.principal.scopes and who.confined_to is None:
            # Nobody else learns who is connected, and whoever may not know makes no other process look it up.
            await grants.require(tenant, parsed, manager)
            sockets = await sessions.ask(
                Holders(tenant, parsed, subject, limit=_MOST_SOCKETS), by=who.principal.subject
            )
        groups, source = _groups(asked, sockets)
        held = Held(groups, _scopes(who, subject, sockets), _is_confined(who, subject))
        person = subject.startswith(("user:", "client:"))
        found = await grants.concerning(
            tenant,
            parsed,
            manager,
            [subject, "tenant:*", *(f"group:{name}" for name in groups or () if person)],
            groups=_MOST_RULES + 1 if person else 0,
        )
        concerning = {grant.key.subject: grant for grant in (*found.certain, *found.groups[:_MOST_RULES])}
        explained = explain(concerning.values(), subject, held, datetime.now(UTC))
        return json_answer(
            {
                "uuid": str(parsed),
                "subject": subject,
                **_decision(explained.decision),
                "groups": {"source": source, "names": sorted(groups or ())},
                "rules": [_rule(rule) for rule in explained.rules],
                "rules_complete": len(found.groups) <= _MOST_RULES,
                "scopes": [{"scope": scope, "means": means} for scope, means in explained.scopes],
                **({"sockets": _sockets(sockets, parsed)} if sockets is not None else {}),
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
        manager = rules.manager(who.principal, granter, who.limit("max_grants_per_uuid", max_grants))
        grant, created = await grants.set(key, manager, who.actor, decide)
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
        key = GrantKey(who.tenant.slug, parse_uuid(uuid), parse_stored_subject(subject))
        granter = await granting(documents, who, [key.uuid])
        manager = rules.manager(who.principal, granter, max_grants)
        check = partial(rules.remove, principal=granter(key.uuid), key=key)
        await grants.remove(key, manager, who.actor, check)
        proof = await _receipt(processes)
        if proof is None:
            return Response(b"", 204)
        answer = json_answer({"uuid": str(key.uuid), "subject": key.subject, **proof.members})
        answer.headers.update(proof.headers)
        return answer

    async def _manager(who: Caller, uuid: UUID) -> Manager:
        return rules.manager(who.principal, await granting(documents, who, [uuid]), max_grants)

    return routes


async def _receipt(processes: Processes) -> Receipt | None:
    """The receipt that the request asks for; None when it asks for none."""
    seconds = wait_asked(request.headers.getlist("Prefer"))
    return None if seconds is None else await receipt(processes, seconds)


def _asked_groups() -> frozenset[str]:
    """The groups that the request takes the subject to be in."""
    names = request.args.getlist("group")
    if len(names) > _MOST_GROUPS:
        raise BadRequest(f"At most {_MOST_GROUPS} groups, not {len(names)}.", path="group")
    return frozenset(parse_subject(f"group:{name}").removeprefix("group:") for name in names)


def _groups(asked: frozenset[str], sockets: Answers | None) -> tuple[frozenset[str] | None, str]:
    """The subject's groups, and where they are from."""
    if asked:
        return asked, "request"
    held = None if sockets is None else _union(answer.groups for _, answer in sockets[0])
    return held, "unknown" if held is None else "sockets"


def _scopes(who: Caller, subject: str, sockets: Answers | None) -> frozenset[str]:
    """The subject's scopes as far as they are known: by the caller's own token, or by the subject's sockets."""
    own = who.principal.scopes if subject == who.principal.subject else frozenset[str]()
    return own.union(*(answer.scopes for _, answer in sockets[0])) if sockets is not None else own


def _is_confined(who: Caller, subject: str) -> bool:
    """Whether the subject is confined to collections: as a service, or the caller by the client of its token."""
    client_id = who.principal.client_id if subject == who.principal.subject else ""
    return who.tenant.confines(subject, client_id) is not None


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


def _sockets(answers: Answers, uuid: UUID) -> dict[str, Any]:
    """The sockets that hold the room on behalf of the subject."""
    answered, silent = answers
    sessions = sorted((one for _, answer in answered for one in answer.sessions), key=lambda one: one.place)
    held = []
    for one in sessions[:_MOST_SOCKETS]:
        members = {"subject": one.subject, "since": rfc3339(datetime.fromtimestamp(one.since, UTC))}
        if uuid in one.rooms:
            members["role"] = one.rooms[uuid].label
        held.append(members | {"sid": one.sid, "address": one.address})
    return {
        "complete": not silent,
        "pending": [named(process) for process in silent],
        "in_room": sum(answer.in_room for _, answer in answered),
        "of_subject": sum(answer.matching for _, answer in answered),
        "held": held,
    }


def listed(uuid: UUID, found: Sequence[Grant], limit: int) -> dict[str, Any]:
    """A page of the grants on a UUID, of which one more was read than is shown."""
    rest = subject_cursor(found[limit - 1].key.subject) if len(found) > limit else None
    return {"uuid": str(uuid), "grants": [shown(grant) for grant in found[:limit]], "next": rest}


def shown(grant: Grant) -> dict[str, Any]:
    """A grant as answers show it; times as in RFC 3339."""
    members: dict[str, Any] = {"subject": grant.key.subject, "role": grant.role.label}
    if grant.expires_at is not None:
        members["expires_at"] = rfc3339(grant.expires_at)
    members["granted_by"] = grant.granted_by
    if grant.granted_at is not None:
        members["granted_at"] = rfc3339(grant.granted_at)
    return members
