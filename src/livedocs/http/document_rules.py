"""Who may do what to a document, and what is then to be written. Pure: what was read in, what to do out.

A UUID without a grant and one that does not exist are refused alike, so that nobody learns which exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from livedocs.access.acl import Allowed, decide
from livedocs.access.principal import Principal
from livedocs.errors import Ambiguous, Conflict, DocumentTooLarge, Forbidden, NotFound
from livedocs.http.etags import Conditions
from livedocs.http.written import Written
from livedocs.model import Grant, Role
from livedocs.store.documents import Access, Delete, DocumentState, Insert, Replace, Update
from livedocs.store.merge import merge, merged
from livedocs.store.validation import size

WRITE_SCOPE = "livedocs:write"
"""A service with it writes every document of its tenant."""


def access(principal: Principal, needs: Role, conditions: Conditions | None = None) -> Access:
    """What is read for a request of the caller's: for one that creates a document, when it comes with conditions.

    With If-Match none is ever created (RFC 9110, 13.1.1), and such a request is told no more than a read.
    """

    def allowed(grants: Sequence[Grant], now: datetime) -> bool:
        return _may(grants, now, principal, needs)

    creates = conditions is not None and conditions.if_match is None
    return Access(principal.subjects, allowed, creates)


def read(state: DocumentState, principal: Principal) -> dict[str, Any]:
    """The document that the caller asked for.

    Raises:
        Forbidden: no grant in force.
        NotFound: the UUID has no document in this collection.
        Ambiguous: it has several.
    """
    _require(state, principal, Role.READER)
    _single(state)
    if state.document is None:
        raise NotFound("There is no document of this UUID in the collection.")
    return state.document


def existing(state: DocumentState, principal: Principal) -> None:
    """Refuse to write a document that is named by its `_id` and is not there.

    Raises:
        Forbidden: the caller may not write there, whatever there is.
        NotFound: the UUID has no such document.
    """
    _require(state, principal, Role.WRITER)
    if state.document is None:
        raise NotFound("There is no document of this UUID and _id in the collection.")


def create(state: DocumentState, principal: Principal, sent: Written) -> Insert:
    """POST: a document where there is none; on a new UUID the caller becomes owner.

    Raises:
        Conflict: the UUID is taken. Its answer is one for all that may not write there, whatever there is.
        InvalidField: it names its `_id`, or a field in a way that nobody may choose.
    """
    sent.check(None)
    if not state.known:
        return Insert(sent.fields, principal.subject)
    if state.document is not None or not _may(state.grants, state.now, principal, Role.WRITER):
        raise Conflict("This UUID is already in use.")
    return Insert(sent.fields, None)


def put(state: DocumentState, principal: Principal, sent: Written, conditions: Conditions) -> Insert | Replace:
    """PUT: the document is these fields afterwards, whether there was one or not.

    Raises:
        InvalidField: it names another `_id`, or a field in a way that nobody may choose.
        Forbidden: the UUID exists, or none is to be created, and the caller may not write there.
        PreconditionFailed: the conditions do not hold.
        Ambiguous: the UUID names several documents of the collection.
    """
    if state.document is None:
        # First: of a UUID that is unknown and of one that is another's the answer is the same.
        sent.check(None)
    owner = _writer(state, principal, conditions)
    conditions.check_write(state.document)
    sent.check(state.document)
    return Insert(sent.fields, owner) if state.document is None else Replace(sent.fields)


def patch(
    state: DocumentState,
    principal: Principal,
    sent: Written,
    conditions: Conditions,
    *,
    max_bytes: int,
) -> Insert | Update:
    """PATCH: the merge patch (RFC 7396) applied, to an empty document if there is none.

    Raises:
        Forbidden: the UUID exists, or none is to be created, and the caller may not write there.
        PreconditionFailed: the conditions do not hold.
        Ambiguous: the UUID names several documents of the collection.
        DocumentTooLarge: the document would be, and would have grown; or it is beyond what is shown.
    """
    if state.document is None:
        sent.check(None)
    owner = _writer(state, principal, conditions)
    conditions.check_write(state.document)
    sent.check(state.document, patch=True)
    if state.document is None:
        return Insert(merged(None, sent.fields), owner)
    state.document.require()
    outcome = merge(state.document, sent.fields)
    # A document that another program made too large may still shrink. To look at its size then is to encode it.
    after = size(outcome.document) if outcome.changes else 0
    if after > max_bytes and after > state.document.size:
        raise DocumentTooLarge(f"The document must be at most {max_bytes} bytes as BSON.", limit=max_bytes)
    return Update(outcome)


def delete(state: DocumentState, principal: Principal, conditions: Conditions) -> Delete:
    """DELETE: the document goes, the grants stay.

    Raises:
        Forbidden: no grant in force that lets the caller write.
        NotFound: the UUID has no document in this collection.
        PreconditionFailed: the conditions do not hold.
        Ambiguous: the UUID names several documents of the collection.
    """
    _require(state, principal, Role.WRITER)
    _single(state)
    conditions.check_write(state.document)
    if state.document is None:
        raise NotFound("There is no document of this UUID in the collection.")
    return Delete()


def _may(grants: Sequence[Grant], now: datetime, principal: Principal, needs: Role) -> bool:
    if principal.is_service and WRITE_SCOPE in principal.scopes and needs <= Role.WRITER:
        return True
    return isinstance(decide(grants, now, needs=needs), Allowed)


def _require(state: DocumentState, principal: Principal, needs: Role) -> None:
    if not _may(state.grants, state.now, principal, needs):
        raise Forbidden


def _writer(state: DocumentState, principal: Principal, conditions: Conditions) -> str | None:
    """Let a writer pass, and anybody on a new UUID; the latter's subject is the owner to be.

    Not with If-Match: a 412 for a UUID that is new, a 403 for one that is another's, would tell which exist.
    """
    if not state.known and conditions.if_match is None:
        return principal.subject
    _require(state, principal, Role.WRITER)
    _single(state)
    return None


def _single(state: DocumentState) -> None:
    if state.several:
        raise Ambiguous("Several documents of this collection have the UUID; say which is meant with ?_id=.")
