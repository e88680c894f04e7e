"""Sockets that the server ends against their will, for the audit log."""

from __future__ import annotations

from collections.abc import Callable

from livedocs.live.client import Client
from livedocs.store.audit import SYSTEM, Actor, Entry

# An end that was foreseen, as at `exp` or at a stop, is none; an administrator's `disconnected` is on record.
_FORCED = frozenset(
    {"token_revoked", "tenant_suspended", "reauth_refused", "auth_unavailable", "rate_limited", "slow"}
)


def noting(note: Callable[[Actor, Entry], None]) -> Callable[[Client], None]:
    """What is told of every socket that has ended, and notes those that were forced to."""

    def ended(client: Client) -> None:
        if client.closed not in _FORCED:
            return
        detail = {"reason": client.closed, "sid": client.sid, "address": client.address}
        who = client.principal
        note(SYSTEM, Entry("session.end", who.tenant, subject=who.subject, detail=detail))

    return ended
