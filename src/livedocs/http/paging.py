"""Which page a request asks for."""

from __future__ import annotations

from livedocs.errors import BadRequest

MOST = 500
_USUAL = 100


def page_limit(text: str | None) -> int:
    """The number of things on a page that a query's `limit` asks for. Pure.

    Raises:
        BadRequest: no number, or too large a one.
    """
    if text is None:
        return _USUAL
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= MOST:
        raise BadRequest(f"limit is a number from 1 to {MOST}.", limit=text)
    return int(text)
