"""The access decision. Pure: grants and a moment in, a decision out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from livedocs.model import Grant, Role


@dataclass(frozen=True, slots=True)
class Allowed:
    """The caller may, in that role, until `until` (aware UTC) if nothing changes; None is without end."""

    role: Role
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Denied:
    """The caller may not, and why."""

    reason: Literal["no_grant", "expired", "role_too_low"]


Decision = Allowed | Denied


def decide(grants: Iterable[Grant], now: datetime, *, needs: Role = Role.READER) -> Decision:
    """What the given grants, all of the caller's subjects and one UUID, allow at that moment.

    The role is the highest in force. `until` is the instant at which that answer changes by itself: the first
    end among the grants in force, whichever role it takes away.
    """
    held = list(grants)
    in_force = [grant for grant in held if grant.in_force(now)]
    if not in_force:
        return Denied("expired" if held else "no_grant")
    role = max(grant.role for grant in in_force)
    if role < needs:
        return Denied("role_too_low")
    ends = [grant.expires_at for grant in in_force if grant.expires_at is not None]
    return Allowed(role, min(ends, default=None))
