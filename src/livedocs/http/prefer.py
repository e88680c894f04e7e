"""Revocation receipts: an answer that says whether every server process has applied a change of grants.

Asked for with `Prefer: wait=seconds` (RFC 7240, 4.3).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from livedocs.changes import cursor
from livedocs.errors import LivedocsError
from livedocs.http.freshness import recheck
from livedocs.http.session_queries import named
from livedocs.store.processes import Process, Processes

MOST_SECONDS = 30
_POLL = 0.05
_WAIT = re.compile(r"\s*wait\s*=\s*\"?(\d{1,9})\"?\s*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far a change had got when the wait was over. `pending` are the processes that had not applied it."""

    waited: int
    pending: tuple[Process, ...]

    @property
    def members(self) -> dict[str, Any]:
        """What the answer says of it."""
        behind = [named(process) for process in self.pending]
        return {"applied": not behind, "pending": behind}

    @property
    def headers(self) -> dict[str, str]:
        """That the preference was honoured, and for how long at most (RFC 7240, 3)."""
        return {"Preference-Applied": f"wait={self.waited}"}


def wait_asked(prefer: list[str]) -> int | None:
    """The seconds of a `wait` preference, capped at `MOST_SECONDS`; None when there is none. Pure.

    Of several the first counts (RFC 7240, 2); a preference that cannot be read is ignored, as the RFC has it.
    """
    for header in prefer:
        for preference in header.split(","):
            found = _WAIT.match(preference.split(";")[0])
            if found:
                return min(int(found[1]), MOST_SECONDS)
    return None


async def receipt(processes: Processes, seconds: int) -> Receipt:
    """Wait until every live process has applied everything committed so far, or the time is over.

    Raises:
        Unavailable: MongoDB cannot say; the change itself is committed.
        LivedocsError: whoever asked may not be told any more, see `freshness.recheck`; `committed` says that the
            change is done.
    """
    found = await _receipt(processes, seconds)
    try:
        await recheck()
    except LivedocsError as error:
        error.data["committed"] = True
        raise
    return found


async def _receipt(processes: Processes, seconds: int) -> Receipt:
    passed = cursor.after(await processes.committed())
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        behind = tuple(one for one in await processes.live() if one.position < passed)
        if not behind or asyncio.get_running_loop().time() >= deadline:
            return Receipt(seconds, behind)
        await asyncio.sleep(_POLL)
