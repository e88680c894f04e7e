"""What hands a UUID's ownership from one subject to another. Pure."""

from __future__ import annotations

from datetime import datetime

from livedocs.errors import Conflict
from livedocs.model import Grant, GrantKey, Role


def transfer(
    held: Grant | None, giver: GrantKey, taker: GrantKey, keep: Role | None, *, by: str, now: datetime
) -> list[Grant | GrantKey]:
    """What is to be written for it: the taker's grant first, so that there is an owner at every step.

    The taker becomes an owner without an end. The giver keeps a lower role, without an end as well, or nothing.

    Args:
        held: the giver's grant.
        giver: who owns the UUID, alone or with others.
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
    if held is None or held.role is not Role.OWNER or not held.in_force(now):
        raise Conflict("The subject that is to give it away is no owner of this UUID.", subject=giver.subject)
    # As MongoDB stores it.
    at = now.replace(microsecond=now.microsecond // 1000 * 1000)
    taken = Grant(taker, Role.OWNER, None, by, at)
    return [taken, giver if keep is None else Grant(giver, keep, None, by, at)]
