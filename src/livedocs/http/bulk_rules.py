"""What an item of a bulk request says, what it may do, and how its result looks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4, uuid5

from livedocs.access.principal import Principal
from livedocs.errors import (
    BadRequest,
    Conflict,
    InvalidDocument,
    InvalidJson,
    LivedocsError,
    TooManyGrants,
)
from livedocs.http import document_rules, grant_rules
from livedocs.http.etags import Conditions, conditions, entity_tag
from livedocs.http.written import Written
from livedocs.model import Grant, GrantKey, Role, parse_stored_subject, parse_subject, parse_uuid
from livedocs.store.batches import Changes, GrantChange, Granted, Upsert, Upserted, UpsertState
from livedocs.store.documents import Insert
from livedocs.store.grant_book import GrantBook
from livedocs.store.validation import size

MOST = 1000
"""Items of one request."""

MOST_GRANTS = 100
"""Grants of one item; further ones go to `/v1/grants:bulk`."""

# Of the name-based UUIDs (RFC 9562, 5.5) of items that have none of their own.
_SEEDED = UUID("3c0b6c51-9c2f-4f53-9f0e-0f6f3ad0c1b7")
_ITEM = frozenset({"uuid", "document", "mode", "if_match", "if_none_match", "grants"})
_GRANT = frozenset({"subject", "role", "expires_at"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A grant that an item brings along."""

    subject: str
    role: Role
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class UpsertItem:
    """One document that is to be written."""

    uuid: UUID
    document: Written
    merge: bool
    conditions: Conditions
    grants: tuple[Wanted, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class GrantItem:
    """One grant that is to be put into force, or, without a role, taken away."""

    uuid: UUID
    subject: str
    role: Role | None
    expires_at: datetime | None


Parsed = TypeVar("Parsed", UpsertItem, GrantItem)


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that says nothing that could be done; `uuid` as far as it could be read."""

    error: LivedocsError
    uuid: UUID | None = None


def items_of(body: object) -> list[Any]:
    """The items of a request.

    Raises:
        InvalidJson: the body is no object with a list of them.
        BadRequest: none, or too many.
    """
    match body:
        case {"items": list() as items, **rest} if not rest:
            if not 1 <= len(items) <= MOST:
                raise BadRequest(f"A bulk request must have 1 to {MOST} items.", items=len(items))
            return items
    raise InvalidJson('The body must be an object with one member, "items", a list.')


def spare(seed: str | None, place: int) -> UUID:
    """The UUID of an item that names none: random, or what follows from the seed and its place."""
    return uuid4() if seed is None else uuid5(_SEEDED, f"{seed}\n{place}")


def parse_upsert(item: object, now: datetime, spare: UUID) -> UpsertItem:
    """A document, checked (`written.writing`), that is to be written; `spare` is its UUID if it names none.

    Raises:
        LivedocsError: what a single write of it would be refused with.
    """
    members = _members(item, _ITEM)
    given, document, mode = members.get("uuid"), members.get("document"), members.get("mode", "replace")
    if not isinstance(document, Written):
        raise InvalidDocument("Each item needs the member `document`, an object.", path="document")
    named = document.given() if given is None else parse_uuid(given)
    if named is None:
        # There is no document that it could be.
        document.check(None)
    uuid = spare if named is None else named
    if mode not in ("replace", "merge"):
        raise BadRequest("`mode` must be `replace` or `merge`.", path="mode")
    held = conditions(_text(members, "if_match"), _text(members, "if_none_match"))
    grants = members.get("grants", [])
    if not isinstance(grants, list):
        raise BadRequest("`grants` must be a list.", path="grants")
    if len(grants) > MOST_GRANTS:
        raise TooManyGrants(
            f"An item has at most {MOST_GRANTS} grants, not {len(grants)}; send the others to /v1/grants:bulk.",
            limit=MOST_GRANTS,
        )
    wanted = tuple(_wanted(grant, now) for grant in grants)
    return UpsertItem(uuid, document.of(uuid), mode == "merge", held, wanted, size(document.fields))


def parse_grant(item: object, now: datetime) -> GrantItem:
    """A grant that is to be put into force or, with a role of null, taken away.

    Raises:
        LivedocsError: what a single change of it would be refused with.
    """
    members = _members(item, _GRANT | {"uuid"})
    uuid = parse_uuid(members.get("uuid"))
    if "role" in members and members["role"] is None:
        return GrantItem(uuid, parse_stored_subject(members.get("subject")), None, None)
    subject = parse_subject(members.get("subject"))
    wanted = _wanted({name: value for name, value in members.items() if name != "uuid"}, now)
    return GrantItem(uuid, subject, wanted.role, wanted.expires_at)


def _members(item: object, known: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise InvalidJson("Each item must be a JSON object.")
    unknown = sorted(set(item) - known)
    if unknown:
        raise BadRequest(f"Unknown member; expected one of: {', '.join(sorted(known))}.", path=unknown[0])
    return item


def _text(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"`{name}` must be a string: `*` or a list of entity tags.", path=name)
    return value


def _wanted(grant: object, now: datetime) -> Wanted:
    members = _members(grant, _GRANT)
    subject = parse_subject(members.get("subject"))
    role, expires_at = grant_rules.parse_body(
        {name: value for name, value in members.items() if name != "subject"}, now
    )
    return Wanted(subject, role, expires_at)


Held = TypeVar("Held", bound=UpsertItem | Refused | None)


def keeping_ownership(item: Held, granter: Principal) -> Held | Refused:
    """The item, or that it would leave what it may make without an owner that lasts.

    Decided before anything is read: of a UUID that is unknown it could only be refused then, and of one that is
    another's in another way, which would tell the two apart and leave nothing behind.
    """
    if not isinstance(item, UpsertItem) or grant_rules.ADMIN_SCOPE in granter.scopes:
        return item
    owners = {granter.subject}
    for wanted in item.grants:
        lasts = wanted.role is Role.OWNER and wanted.expires_at is None
        owners = owners | {wanted.subject} if lasts else owners - {wanted.subject}
        if not owners:
            detail = "The grants of an item leave an owner that lasts; name another one before you lower your own."
            return Refused(Conflict(detail), item.uuid)
    return item


def upsert(item: UpsertItem, tenant: str, principal: Principal, granter: Principal, max_bytes: int) -> Upsert:
    """The item for the store, with the rules of a single write and of single grants.

    Args:
        item: what is to be written.
        tenant: whose document it is.
        principal: who writes it.
        granter: the same caller, as whom its grants are set.
        max_bytes: most bytes of a document as BSON.
    """

    def decide(state: UpsertState) -> Changes:
        if item.merge:
            decision: Any = document_rules.patch(
                state.document, principal, item.document, item.conditions, max_bytes=max_bytes
            )
        else:
            decision = document_rules.put(state.document, principal, item.document, item.conditions)
        grants: list[Grant] = []
        if state.grants is not None:
            if isinstance(decision, Insert) and decision.owner is not None:
                key = GrantKey(tenant, item.uuid, decision.owner)
                state.grants.put(Grant(key, Role.OWNER, None, principal.subject, state.grants.now))
            for wanted in item.grants:
                key = GrantKey(tenant, item.uuid, wanted.subject)
                grants.append(grant_rules.put(state.grants, granter, key, wanted.role, wanted.expires_at))
                state.grants.put(grants[-1])
        return Changes(decision, grants)

    subjects = tuple(wanted.subject for wanted in item.grants)
    return Upsert(
        item.uuid,
        decide,
        creates=item.conditions.if_match is None,
        subjects=subjects,
        bytes=item.bytes,
    )


def grant_change(item: GrantItem, tenant: str, principal: Principal) -> GrantChange:
    """The item for the store, with the rules of a single change."""
    key = GrantKey(tenant, item.uuid, item.subject)

    def decide(book: GrantBook) -> Grant | None:
        if item.role is None:
            grant_rules.remove(book, principal, key)
            return None
        return grant_rules.put(book, principal, key, item.role, item.expires_at)

    return GrantChange(key, decide)


def woven(
    parsed: Sequence[Parsed | Refused], results: Sequence[Any], shown: Callable[[Parsed, Any], dict[str, Any]]
) -> dict[str, Any]:
    """The answer: a result per item in the request's order.

    Args:
        parsed: every item of the request.
        results: of those that were no `Refused`, in order; an error for one that was refused later.
        shown: an item's result when it went well.
    """
    pending, answers = iter(results), []
    for item in parsed:
        if isinstance(item, Refused):
            named = {"uuid": str(item.uuid)} if item.uuid is not None else {}
            answers.append({**named, **_refusal(item.error)})
            continue
        result = next(pending)
        uuid = {"uuid": str(item.uuid)}
        answers.append(
            {**uuid, **(_refusal(result) if isinstance(result, LivedocsError) else shown(item, result))}
        )
    failed = sum("code" in answer for answer in answers)
    return {"succeeded": len(answers) - failed, "failed": failed, "results": answers}


def _refusal(error: LivedocsError) -> dict[str, Any]:
    return {**error.data, "status": error.status, "code": error.code, "detail": error.detail}


def written(_item: UpsertItem, result: Upserted) -> dict[str, Any]:
    """The result of a document that was written."""
    return {"status": 201 if result.created else 200, "etag": entity_tag(result.version)}


def granted(item: GrantItem, result: Granted) -> dict[str, Any]:
    """The result of a grant that was put into force or taken away."""
    if result.grant is None:
        return {"subject": item.subject, "status": 204}
    return {"subject": item.subject, "status": 201 if result.created else 200}
