"""Who may change which grant, and what a grant from a client may say. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from livedocs.access.principal import Principal
from livedocs.errors import Conflict, Forbidden, InvalidGrant, InvalidRole, NotFound
from livedocs.http.document_rules import WRITE_SCOPE
from livedocs.http.times import parse_rfc3339
from livedocs.model import Grant, GrantKey, Role
from livedocs.store.grant_book import GrantBook
from livedocs.store.grant_reads import Manager

ADMIN_SCOPE = "livedocs:admin"
"""Its holder manages every grant of the tenant."""


def parse_body(body: object, now: datetime) -> tuple[Role, datetime | None]:
    """Role and end of a grant that a client wants.

    Raises:
        InvalidRole: none of the three.
        InvalidGrant: an end that is past or no time, a member that grants do not have.
    """
    if not isinstance(body, Mapping):
        raise InvalidGrant("A grant must be an object with `role` and, if it is to expire, `expires_at`.")
    unknown = sorted(set(body) - {"role", "expires_at"})
    if unknown:
        raise InvalidGrant("Unknown member; expected `role` or `expires_at`.", path=unknown[0])
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
        raise InvalidGrant(
            "`expires_at` must be an RFC 3339 time with an offset, such as 2026-01-02T03:04:05Z.",
            path="expires_at",
        )
    try:
        end = value.astimezone(UTC)
    except OverflowError:
        raise InvalidGrant("`expires_at` is too far in the future.", path="expires_at") from None
    if end <= now:
        raise InvalidGrant("`expires_at` must be in the future.", path="expires_at")
    return _milliseconds(end)


def manager(principal: Principal, granter: Callable[[UUID], Principal], most: int) -> Manager:
    """Who wants to see or change grants, for the store.

    Args:
        principal: the caller.
        granter: as whom it manages the grants of each UUID.
        most: grants that a UUID may have.
    """

    def require(book: GrantBook) -> None:
        require_manager(book, granter(book.uuid))

    return Manager(principal.subjects, require, _sets_first_grants(principal), most)


def require_manager(book: GrantBook, principal: Principal) -> None:
    """Let pass an owner, an administrator of the tenant, and a service that sets a UUID's very first grant.

    Raises:
        Forbidden: the caller is none of these, or the UUID does not exist.
    """
    if ADMIN_SCOPE in principal.scopes or book.owned_by_caller:
        return
    if book.total != 0 or not _sets_first_grants(principal):
        raise Forbidden


def put(book: GrantBook, principal: Principal, key: GrantKey, role: Role, expires_at: datetime | None) -> Grant:
    """The grant to put into force.

    Raises:
        Forbidden: the caller does not manage the UUID's grants, or the UUID does not exist.
        TooManyGrants: the UUID has as many as it may have, and the subject none.
        Conflict: nobody would be left to manage them.
    """
    require_manager(book, principal)
    book.require_room(key.subject)
    grant = Grant(key, role, expires_at, principal.subject, _milliseconds(book.now))
    _keep_an_owner(book, principal, key, grant)
    return grant


def remove(book: GrantBook, principal: Principal, key: GrantKey) -> None:
    """Let the grant be taken away.

    Raises:
        Forbidden: the caller does not manage the UUID's grants, or the UUID does not exist.
        NotFound: there is no such grant.
        Conflict: nobody would be left to manage them.
    """
    require_manager(book, principal)
    if book.get(key.subject) is None:
        raise NotFound("The subject has no grant on this UUID.")
    _keep_an_owner(book, principal, key, None)


def _sets_first_grants(principal: Principal) -> bool:
    return principal.is_service and WRITE_SCOPE in principal.scopes


def _keep_an_owner(book: GrantBook, principal: Principal, key: GrantKey, grant: Grant | None) -> None:
    """Refuse to leave a UUID without an owner, or with none that lasts, where it has one."""
    if ADMIN_SCOPE in principal.scopes:
        return
    if book.ownership_after(key.subject, grant) < book.ownership:
        raise Conflict("This would leave the UUID without an owner; make somebody else an owner first.")


def _milliseconds(at: datetime) -> datetime:
    """The time as MongoDB stores it."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
