"""The routes about whose a UUID is, and what a subject has: transfer of ownership, grants by subject."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_request, document_response, tag

from livedocs.access.ownership import transfer
from livedocs.access.principal import Principal
from livedocs.errors import BadRequest, InvalidRole
from livedocs.http import grant_rules as rules
from livedocs.http.bodies import json_answer, list_answer, read_object
from livedocs.http.caller import caller
from livedocs.http.confinement import granting
from livedocs.http.grants import listed, shown
from livedocs.http.me import cursor, parse_cursor
from livedocs.http.pagination import USUAL, page_limit
from livedocs.http.prefer import receipt, wait_asked
from livedocs.http.shapes import GrantList, Holdings, HoldingsQuery, TransferBody
from livedocs.model import Grant, GrantKey, Role, parse_stored_subject, parse_subject, parse_uuid
from livedocs.store.documents import Documents
from livedocs.store.grant_book import GrantBook
from livedocs.store.grants import Grants
from livedocs.store.processes import Processes


def blueprint(grants: Grants, documents: Documents, processes: Processes, max_grants: int) -> Blueprint:
    """`GET /v1/grants` and `POST /v1/grants/{uuid}:transfer`.

    Args:
        grants: the store's grants.
        documents: the store's documents.
        processes: the server processes that a receipt has to name.
        max_grants: most grants on one UUID.
    """
    routes = Blueprint("transfers", __name__, url_prefix="/v1/grants")

    @routes.get("")
    @tag(["grants"])
    @document_querystring(HoldingsQuery)
    @document_response(Holdings)
    async def list_holdings() -> Response:
        """Every grant that a subject has, by UUID, in force or not.

        Needs the scope `livedocs:admin`, unless the subject is the caller or a group of the caller's.
        """
        who = caller()
        subject = parse_subject(request.args.get("subject"))
        if subject not in who.principal.subjects:
            who.require_unconfined(rules.ADMIN_SCOPE)
        limit, after = page_limit(request.args.get("limit")), parse_cursor(request.args.get("cursor"))
        found = await grants.of_subjects(who.tenant.slug, [subject], after=after, limit=limit)
        held = (_holding(grant) for _, group in found.grants for grant in group)
        rest = cursor(found.grants[-1][0]) if found.more else None
        return await list_answer({"subject": subject, "grants": held, "next": rest})

    @routes.post("/<uuid>:transfer")
    @tag(["grants"])
    @document_request(TransferBody)
    @document_response(GrantList)
    async def transfer_ownership(uuid: str) -> Response:
        """Make somebody else the owner, and take ownership from whoever has it, in one step.

        `from` is the caller when absent. With `keep` that one stays a reader or a writer. The answer has the first
        page of the grants there are then. `Prefer: wait=seconds` answers when every server process has applied it.
        """
        who, parsed = caller(), parse_uuid(uuid)
        giver, taker, keep = parse_transfer(await read_object(), who.principal)
        granter = await granting(documents, who, [parsed])

        def decide(book: GrantBook) -> list[Grant | GrantKey]:
            rules.require_manager(book, granter(parsed))
            giver_key, taker_key = (GrantKey(who.tenant.slug, parsed, subject) for subject in (giver, taker))
            held, by = book.get(giver), who.principal.subject
            changes = transfer(held, giver_key, taker_key, keep, by=by, now=book.now)
            book.require_room(taker)
            return changes

        manager = rules.manager(who.principal, granter, who.limit("max_grants_per_uuid", max_grants))
        held = await grants.change(
            who.tenant.slug, parsed, manager, who.actor, decide, subjects=(giver, taker), limit=USUAL + 1
        )
        seconds = wait_asked(request.headers.getlist("Prefer"))
        proof = None if seconds is None else await receipt(processes, seconds)
        answer = json_answer({**listed(parsed, held, USUAL), **(proof.members if proof else {})})
        answer.headers.update(proof.headers if proof else {})
        return answer

    return routes


def parse_transfer(body: Mapping[str, Any], principal: Principal) -> tuple[str, str, Role | None]:
    """Who gives, who takes, and what the giver keeps. Pure.

    Raises:
        BadRequest: a member that is none.
        InvalidSubject: no subject.
        InvalidRole: `keep` is something else than reader, writer or null.
    """
    unknown = sorted(set(body) - {"from", "to", "keep"})
    if unknown:
        raise BadRequest("Unknown member; expected `from`, `keep` or `to`.", path=unknown[0])
    keep = None if body.get("keep") is None else Role.parse(body["keep"])
    if (keep is None and body.get("keep") is not None) or keep is Role.OWNER:
        raise InvalidRole("`keep` must be `reader` or `writer`.", path="keep")
    given = body.get("from")
    giver = principal.subject if given is None else parse_stored_subject(given)
    return giver, parse_subject(body.get("to")), keep


def _holding(grant: Grant) -> dict[str, Any]:
    members = shown(grant)
    del members["subject"]
    return {"uuid": str(grant.key.uuid), **members, "in_force": grant.in_force(datetime.now(UTC))}
