"""Who may change which grant, and what a grant from a client may say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from livedocs.access.acl import Allowed, decide
from livedocs.access.ownership import ownership
from livedocs.access.principal import Principal
from livedocs.errors import Conflict, Forbidden, InvalidGrant, InvalidRole, NotFound
from livedocs.http.document_rules import WRITE_SCOPE
from livedocs.http.times import parse_rfc3339
from livedocs.model import Grant, GrantKey, Role
from livedocs.store.grants import GrantState

ADMIN_SCOPE = "livedocs:admin"
"""Its holder manages every grant of the tenant."""


def parse_body(body: object, now: datetime) -> tuple[Role, datetime | None]:
    """Role and end of a grant that a client wants.

    Raises:
        InvalidRole: none of the three.
        InvalidGrant: an end that is past or no time, a member that grants do not have.
    """
    if not isinstance(body, Mapping):
        raise InvalidGrant("A grant is an object with role and, if it ends, expires_at.")
    unknown = sorted(set(body) - {"role", "expires_at"})
    if unknown:
        raise InvalidGrant("A grant has the members role and expires_at.", path=unknown[0])
    role = Role.parse(body.get("role"))
    if role is None:
        raise InvalidRole(path="role")
    return role, _end(body.get("expires_at"), now)


def _end(value: object, now: datetime) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = parse_rfc3339(value)
    if not isinstance(value, datetime):
        raise InvalidGrant("expires_at is a time as in RFC 3339, with its offset.", path="expires_at")
    try:
        end = value.astimezone(UTC)
    except OverflowError:
        raise InvalidGrant("expires_at is too far away.", path="expires_at") from None
    if end <= now:
        raise InvalidGrant("expires_at is in the past.", path="expires_at")
    return _milliseconds(end)


def listing(state: GrantState, principal: Principal) -> Sequence[Grant]:
    """Every grant of the UUID, for those who manage it.

    Raises:
        Forbidden: the caller does not, or the UUID does not exist.
    """
    _require_manager(state, principal)
    return state.grants


def put(state: GrantState, principal: Principal, key: GrantKey, role: Role, expires_at: datetime | None) -> Grant:
    """The grant to put into force.

    Raises:
        Forbidden: the caller does not manage the UUID's grants, or the UUID does not exist.
        Conflict: nobody would be left to manage them.
    """
    _require_manager(state, principal)
    grant = Grant(key, role, expires_at, principal.subject, _milliseconds(state.now))
    _keep_an_owner(state, principal, [*_others(state, key), grant])
    return grant


def remove(state: GrantState, principal: Principal, key: GrantKey) -> None:
    """Let the grant be taken away.

    Raises:
        Forbidden: the caller does not manage the UUID's grants, or the UUID does not exist.
        NotFound: there is no such grant.
        Conflict: nobody would be left to manage them.
    """
    _require_manager(state, principal)
    others = _others(state, key)
    if len(others) == len(state.grants):
        raise NotFound("The subject has no grant on this UUID.")
    _keep_an_owner(state, principal, others)


def _require_manager(state: GrantState, principal: Principal) -> None:
    """Let pass an owner, an administrator of the tenant, and a service that sets a UUID's very first grant."""
    if ADMIN_SCOPE in principal.scopes:
        return
    if not state.grants and principal.is_service and WRITE_SCOPE in principal.scopes:
        return
    own = [grant for grant in state.grants if grant.key.subject in principal.subjects]
    if not isinstance(decide(own, state.now, needs=Role.OWNER), Allowed):
        raise Forbidden


def _others(state: GrantState, key: GrantKey) -> list[Grant]:
    return [grant for grant in state.grants if grant.key != key]


def _keep_an_owner(state: GrantState, principal: Principal, after: Sequence[Grant]) -> None:
    """Refuse to leave a UUID without an owner, or with none that lasts, where it has one."""
    if ADMIN_SCOPE in principal.scopes:
        return
    if ownership(after, state.now) < ownership(state.grants, state.now):
        raise Conflict("The UUID would be left without an owner; name another one first.")


def _milliseconds(at: datetime) -> datetime:
    """The time as MongoDB stores it."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
