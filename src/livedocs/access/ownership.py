"""Who owns a UUID, and who does after its ownership has gone from one subject to another. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from livedocs.errors import Conflict
from livedocs.model import Grant, GrantKey, Role


def transfer(
    grants: Sequence[Grant], giver: GrantKey, taker: GrantKey, keep: Role | None, *, by: str, now: datetime
) -> list[Grant | GrantKey]:
    """What is to be written for it: the taker's grant first, so that there is an owner at every step.

    The taker becomes an owner without an end. The giver keeps a lower role, without an end as well, or nothing.

    Args:
        grants: every grant of the UUID.
        giver: who owns it, alone or with others.
        taker: who is to own it.
        keep: reader or writer; None takes the giver's grant away.
        by: who says so.
        now: aware UTC.

    Returns:
        Grants that are to be put into force, and keys of those that are to be taken away.

    Raises:
        Conflict: the giver is no owner, or the taker itself, or is to stay one.
    """
    if giver == taker:
        raise Conflict("Ownership goes to somebody else.")
    if keep is Role.OWNER:
        raise Conflict("Whoever gives ownership away keeps reader, writer or nothing.")
    held = next((grant for grant in grants if grant.key == giver), None)
    if held is None or held.role is not Role.OWNER or not held.in_force(now):
        raise Conflict(f"{giver.subject} is no owner of this UUID.", subject=giver.subject)
    # As MongoDB stores it.
    at = now.replace(microsecond=now.microsecond // 1000 * 1000)
    taken = Grant(taker, Role.OWNER, None, by, at)
    return [taken, giver if keep is None else Grant(giver, keep, None, by, at)]


def ownership(grants: Sequence[Grant], now: datetime) -> int:
    """How well a UUID is owned: 2 by an owner without an end, 1 when every owner has one, 0 without an owner."""
    owners = [grant for grant in grants if grant.role is Role.OWNER and grant.in_force(now)]
    return max((2 if grant.expires_at is None else 1 for grant in owners), default=0)
