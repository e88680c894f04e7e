"""Which page a request asks for."""

from __future__ import annotations

import base64
import binascii

from livedocs.errors import BadRequest, InvalidCursor, InvalidSubject
from livedocs.model import parse_stored_subject

MOST = 500
"""On a page."""
USUAL = 100
"""On a page, unless the request says how many."""


def page_limit(text: str | None) -> int:
    """The number of things on a page that a query's `limit` asks for. Pure.

    Raises:
        BadRequest: no number, or too large a one.
    """
    if text is None:
        return USUAL
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MOST:
        raise BadRequest(f"`limit` must be a number from 1 to {MOST}.", limit=text)
    return int(text)


def subject_cursor(subject: str) -> str:
    """Where the next page of a list by subject begins: behind this one. Opaque to clients."""
    return base64.urlsafe_b64encode(subject.encode()).decode().rstrip("=")


def parse_subject_cursor(text: str | None) -> str | None:
    """The subject in a cursor.

    Raises:
        InvalidCursor: it is none of ours.
    """
    if text is None:
        return None
    try:
        # What is missing of the padding, and no more of it than there can be.
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
        return parse_stored_subject(decoded)
    except (binascii.Error, ValueError, InvalidSubject):
        raise InvalidCursor from None
