"""Who may do what to a document, and what is then to be written. Pure: what was read in, what to do out.

A UUID without a grant and one that does not exist are refused alike, so that nobody learns which exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from livedocs.access.acl import Allowed, decide
from livedocs.access.principal import Principal
from livedocs.errors import Conflict, DocumentTooLarge, Forbidden, NotFound
from livedocs.http.etags import Conditions
from livedocs.model import Role
from livedocs.store.documents import Delete, DocumentState, Insert, Replace, Update
from livedocs.store.merge import merge, merged
from livedocs.store.validation import size

WRITE_SCOPE = "livedocs:write"
"""A service with it writes every document of its tenant."""


def read(state: DocumentState, principal: Principal) -> dict[str, Any]:
    """The document that the caller asked for.

    Raises:
        Forbidden: no grant in force.
        NotFound: the UUID has no document in this collection.
    """
    _require(state, principal, Role.READER)
    if state.document is None:
        raise NotFound("There is no document of this UUID in the collection.")
    return state.document


def create(state: DocumentState, principal: Principal, fields: Mapping[str, Any]) -> Insert:
    """POST: a document where there is none; on a new UUID the caller becomes owner.

    Raises:
        Conflict: the UUID is taken. Its answer is one for all that may not write there, whatever there is.
    """
    if not state.known:
        return Insert(fields, principal.subject)
    if state.document is not None or not _may(state, principal, Role.WRITER):
        raise Conflict("This UUID is taken.")
    return Insert(fields, None)


def put(
    state: DocumentState, principal: Principal, fields: Mapping[str, Any], conditions: Conditions
) -> Insert | Replace:
    """PUT: the document is these fields afterwards, whether there was one or not.

    Raises:
        Forbidden: the UUID exists and the caller may not write there.
        PreconditionFailed: the conditions do not hold.
        Conflict: the UUID names several documents of the collection.
    """
    owner = _writer(state, principal)
    conditions.check_write(state.document)
    return Insert(fields, owner) if state.document is None else Replace(fields)


def patch(
    state: DocumentState,
    principal: Principal,
    changes: Mapping[str, Any],
    conditions: Conditions,
    *,
    max_bytes: int,
) -> Insert | Update:
    """PATCH: the merge patch (RFC 7396) applied, to an empty document if there is none.

    Raises:
        Forbidden: the UUID exists and the caller may not write there.
        PreconditionFailed: the conditions do not hold.
        Conflict: the UUID names several documents of the collection.
        DocumentTooLarge: the document would be, and would have grown.
    """
    owner = _writer(state, principal)
    conditions.check_write(state.document)
    if state.document is None:
        return Insert(merged(None, changes), owner)
    outcome = merge(state.document, changes)
    # A document that another program made too large may still shrink.
    if outcome.changes and size(outcome.document) > max(max_bytes, size(state.document)):
        raise DocumentTooLarge(f"At most {max_bytes} bytes as BSON.", limit=max_bytes)
    return Update(outcome)


def delete(state: DocumentState, principal: Principal, conditions: Conditions) -> Delete:
    """DELETE: the document goes, the grants stay.

    Raises:
        Forbidden: no grant in force that lets the caller write.
        NotFound: the UUID has no document in this collection.
        PreconditionFailed: the conditions do not hold.
        Conflict: the UUID names several documents of the collection.
    """
    _require(state, principal, Role.WRITER)
    _single(state)
    conditions.check_write(state.document)
    if state.document is None:
        raise NotFound("There is no document of this UUID in the collection.")
    return Delete()


def _may(state: DocumentState, principal: Principal, needs: Role) -> bool:
    if principal.is_service and WRITE_SCOPE in principal.scopes and needs <= Role.WRITER:
        return True
    return isinstance(decide(state.grants, state.now, needs=needs), Allowed)


def _require(state: DocumentState, principal: Principal, needs: Role) -> None:
    if not _may(state, principal, needs):
        raise Forbidden


def _writer(state: DocumentState, principal: Principal) -> str | None:
    """Let a writer pass, and anybody on a new UUID; the latter's subject is the owner to be."""
    if not state.known:
        return principal.subject
    _require(state, principal, Role.WRITER)
    _single(state)
    return None


def _single(state: DocumentState) -> None:
    if state.several:
        raise Conflict("Several documents of this collection share the UUID; which one is meant is unknown.")
