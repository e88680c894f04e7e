"""What an item of a bulk request says, what it may do, and how its result looks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid4, uuid5

from livedocs import extjson
from livedocs.access.principal import Principal
from livedocs.errors import BadRequest, InvalidDocument, InvalidJson, LivedocsError
from livedocs.http import document_rules, grant_rules
from livedocs.http.etags import Conditions, conditions, etag
from livedocs.model import Grant, GrantKey, Role, parse_subject, parse_uuid
from livedocs.store.batches import Changes, GrantChange, Granted, Upsert, UpsertState
from livedocs.store.documents import Insert, Outcome
from livedocs.store.grants import GrantState
from livedocs.store.validation import validate

MOST = 1000
"""Items of one request."""

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
    fields: Mapping[str, Any]
    merge: bool
    conditions: Conditions
    grants: tuple[Wanted, ...]


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
                raise BadRequest(f"A bulk request has 1 to {MOST} items.", items=len(items))
            return items
    raise InvalidJson('The body must be an object with one member, "items", a list.')


def parse_upserts(
    data: bytes | str, now: datetime, max_bytes: int, seed: str | None = None
) -> list[UpsertItem | Refused]:
    """The items of the body of a request.

    With a `seed` those without a UUID get one that follows from it and from their place, so that the same request
    sent again writes the same documents.

    Raises:
        InvalidJson, BadRequest: there is no list of them to be had.
    """
    return [
        _or_refused(item, partial(parse_upsert, now=now, max_bytes=max_bytes, spare=spare(seed, place)))
        for place, item in enumerate(items_of(extjson.plain(data)))
    ]


def parse_line(line: bytes, now: datetime, max_bytes: int, spare: UUID) -> UpsertItem | Refused | None:
    """The item on a line of an import; None for a blank one."""
    if not line.strip():
        return None
    try:
        item = extjson.plain(line)
    except LivedocsError as error:
        return Refused(error)
    return _or_refused(item, partial(parse_upsert, now=now, max_bytes=max_bytes, spare=spare))


def spare(seed: str | None, place: int) -> UUID:
    """The UUID of an item that names none: random, or what follows from the seed and its place."""
    return uuid4() if seed is None else uuid5(_SEEDED, f"{seed}\n{place}")


def parse_grants(data: bytes | str, now: datetime) -> list[GrantItem | Refused]:
    """The same for grants."""
    return [_or_refused(item, partial(parse_grant, now=now)) for item in items_of(extjson.plain(data))]


def _or_refused(item: object, parse: Callable[[object], Parsed]) -> Parsed | Refused:
    """The item, or why it is refused: a value of it that is none of Extended JSON's is no matter of the others."""
    try:
        return parse(extjson.typed(item))
    except LivedocsError as error:
        try:
            return Refused(error, parse_uuid(item.get("uuid")) if isinstance(item, Mapping) else None)
        except LivedocsError:
            return Refused(error)


def parse_upsert(item: object, now: datetime, max_bytes: int, spare: UUID) -> UpsertItem:
    """A document that is to be written; `spare` is its UUID if it names none.

    Raises:
        LivedocsError: what a single write of it would be refused with.
    """
    members = _members(item, _ITEM)
    given, document, mode = members.get("uuid"), members.get("document"), members.get("mode", "replace")
    uuid = spare if given is None else parse_uuid(given)
    if not isinstance(document, Mapping):
        raise InvalidDocument("An item has the member document, an object.", path="document")
    if mode not in ("replace", "merge"):
        raise BadRequest("mode is replace or merge.", path="mode")
    validate(document, max_bytes=max_bytes)
    held = conditions(_text(members, "if_match"), _text(members, "if_none_match"))
    grants = members.get("grants", [])
    if not isinstance(grants, list):
        raise BadRequest("grants is a list.", path="grants")
    return UpsertItem(uuid, document, mode == "merge", held, tuple(_wanted(grant, now) for grant in grants))


def parse_grant(item: object, now: datetime) -> GrantItem:
    """A grant that is to be put into force or, with a role of null, taken away.

    Raises:
        LivedocsError: what a single change of it would be refused with.
    """
    members = _members(item, _GRANT | {"uuid"})
    uuid, subject = parse_uuid(members.get("uuid")), parse_subject(members.get("subject"))
    if "role" in members and members["role"] is None:
        return GrantItem(uuid, subject, None, None)
    wanted = _wanted({name: value for name, value in members.items() if name != "uuid"}, now)
    return GrantItem(uuid, subject, wanted.role, wanted.expires_at)


def _members(item: object, known: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise InvalidJson("An item is an object.")
    unknown = sorted(set(item) - known)
    if unknown:
        raise BadRequest(f"An item has the members {', '.join(sorted(known))}.", path=unknown[0])
    return item


def _text(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} is text: * or a list of entity tags.", path=name)
    return value


def _wanted(grant: object, now: datetime) -> Wanted:
    members = _members(grant, _GRANT)
    subject = parse_subject(members.get("subject"))
    role, expires_at = grant_rules.parse_body(
        {name: value for name, value in members.items() if name != "subject"}, now
    )
    return Wanted(subject, role, expires_at)


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
                state.document, principal, item.fields, item.conditions, max_bytes=max_bytes
            )
        else:
            decision = document_rules.put(state.document, principal, item.fields, item.conditions)
        held = list(state.grants.grants)
        if isinstance(decision, Insert) and decision.owner is not None:
            key = GrantKey(tenant, item.uuid, decision.owner)
            held.append(Grant(key, Role.OWNER, None, principal.subject, state.grants.now))
        grants = []
        for wanted in item.grants:
            key = GrantKey(tenant, item.uuid, wanted.subject)
            now_held = GrantState(held, state.grants.now)
            grant = grant_rules.put(now_held, granter, key, wanted.role, wanted.expires_at)
            held = [other for other in held if other.key != key] + [grant]
            grants.append(grant)
        return Changes(decision, grants)

    return Upsert(item.uuid, decide)


def grant_change(item: GrantItem, tenant: str, principal: Principal) -> GrantChange:
    """The item for the store, with the rules of a single change."""
    key = GrantKey(tenant, item.uuid, item.subject)

    def decide(state: GrantState) -> Grant | None:
        if item.role is None:
            grant_rules.remove(state, principal, key)
            return None
        return grant_rules.put(state, principal, key, item.role, item.expires_at)

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


def written(_item: UpsertItem, outcome: Outcome) -> dict[str, Any]:
    """The result of a document that was written."""
    tag = {"etag": etag(outcome.document)} if outcome.document is not None else {}
    return {"status": 201 if outcome.created else 200, **tag}


def granted(item: GrantItem, result: Granted) -> dict[str, Any]:
    """The result of a grant that was put into force or taken away."""
    if result.grant is None:
        return {"subject": item.subject, "status": 204}
    return {"subject": item.subject, "status": 201 if result.created else 200}
