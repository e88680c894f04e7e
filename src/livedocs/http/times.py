"""Times as text (RFC 3339). Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# RFC 3339, 5.6; `datetime.fromisoformat` alone takes much else.
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)\Z")


def rfc3339(at: datetime) -> str:
    """An aware UTC time as text, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> datetime | None:
    """The aware UTC time of a text, or None when it is none."""
    if not _RFC3339.match(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
