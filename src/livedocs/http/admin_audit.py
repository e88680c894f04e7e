"""Refusals that belong in the audit log: somebody asked for an administrator's work and may not do it."""

from __future__ import annotations

import time
from collections.abc import Callable

from quart import g, request

from livedocs.access.limits import Buckets, Rate
from livedocs.errors import Forbidden, LivedocsError
from livedocs.http.caller import Caller
from livedocs.store.audit import Actor, Entry

Note = Callable[[Actor, Entry], None]

_ADMINISTRATION = frozenset({"admin", "admin_tenants"})
_GRANTS = frozenset({"grants", "transfers"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# Of one caller: enough to see what was tried, too few to fill the log with it.
_RATE = Rate(0.1, burst=20)


class AdminAudit:
    """Notes who was refused an administrator's work.

    Args:
        note: takes the entries.
    """

    def __init__(self, note: Note) -> None:
        self._note = note
        self._buckets = Buckets(_RATE)

    def consider(self, error: LivedocsError) -> None:
        """Note the refusal of the present request, if it is one of these."""
        who: Caller | None = g.get("caller")
        if who is None or not isinstance(error, Forbidden) or not _is_administration():
            return
        key = f"{who.principal.tenant} {who.principal.subject}"
        if self._buckets.take(key, time.monotonic()):
            return
        route = request.url_rule.rule if request.url_rule is not None else ""
        detail = {"method": request.method, "route": route, "code": error.code}
        self._note(who.actor, Entry("admin.refused", who.tenant.slug, detail=detail))


def _is_administration() -> bool:
    if request.blueprint in _GRANTS or request.endpoint == "bulk.change_grants":
        return request.method not in _SAFE
    return request.blueprint in _ADMINISTRATION
