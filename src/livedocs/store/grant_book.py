"""The grants of one UUID as far as a change has to know them, and what changes make of them. Pure.

A UUID may have any number of grants, written directly into MongoDB. None of the decisions looks at all of them:
they take the caller's own grants, those that are to change, a few owners, and a number. A change costs the same
however many grants there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from datetime import datetime
from uuid import UUID

from livedocs.errors import TooManyGrants
from livedocs.model import Grant, Role

LASTING, ENDING, NONE = 2, 1, 0
"""How well a UUID is owned: by an owner without an end, by owners that all have one, by nobody."""


class GrantBook:
    """What is known of the grants of one UUID at one moment; changes are applied to it.

    Args:
        uuid: whose grants.
        grants: those that are known.
        subjects: the caller's.
        most: grants that the UUID may have.
        now: the moment, aware UTC.
        total: how many grants the UUID has, counted up to a bound past `most`; None when nobody has counted.
    """

    def __init__(
        self,
        uuid: UUID,
        grants: Iterable[Grant] = (),
        *,
        subjects: Collection[str],
        most: int,
        now: datetime,
        total: int | None = None,
    ) -> None:
        self.uuid = uuid
        self.now = now
        self.total = total
        self._most = most
        self._subjects = frozenset(subjects)
        # By subject, in force or not.
        self._known: dict[str, Grant] = {}
        # Of the known ones that are owners in force: how many own how well, and how many are the caller's.
        self._owners: Counter[int] = Counter()
        self._own_owners = 0
        for grant in grants:
            self.learn(grant)

    def learn(self, grant: Grant) -> None:
        """A further grant that there is."""
        self._forget(grant.key.subject)
        self._known[grant.key.subject] = grant
        self._count(grant, 1)

    def get(self, subject: str) -> Grant | None:
        """The grant of a subject, if it is known."""
        return self._known.get(subject)

    @property
    def owned_by_caller(self) -> bool:
        """Whether a subject of the caller is an owner, in force."""
        return self._own_owners > 0

    @property
    def ownership(self) -> int:
        """How well the known owners own the UUID."""
        return _best(self._owners)

    def ownership_after(self, subject: str, grant: Grant | None) -> int:
        """How well they would with that grant for the subject in place of the one it has."""
        owners = Counter(self._owners)
        for one, by in ((self._known.get(subject), -1), (grant, 1)):
            if one is not None:
                owners[self._kind(one)] += by
        return _best(owners)

    def require_room(self, subject: str) -> None:
        """Let the subject have a grant.

        Raises:
            TooManyGrants: it has none, and the UUID has as many as it may. One that is there can be changed.
        """
        if subject not in self._known and self.total is not None and self.total >= self._most:
            raise TooManyGrants(
                f"A UUID has at most {self._most} grants; remove some, or grant to a group.", limit=self._most
            )

    def put(self, grant: Grant) -> bool:
        """Put a grant in place of the one its subject has; whether there was none."""
        new = grant.key.subject not in self._known
        self.total = self.total + 1 if new and self.total is not None else self.total
        self.learn(grant)
        return new

    def remove(self, subject: str) -> None:
        """Take a subject's grant away."""
        if self._forget(subject) and self.total is not None:
            self.total -= 1

    def _forget(self, subject: str) -> bool:
        before = self._known.pop(subject, None)
        if before is None:
            return False
        self._count(before, -1)
        return True

    def _count(self, grant: Grant, by: int) -> None:
        kind = self._kind(grant)
        self._owners[kind] += by
        if kind and grant.key.subject in self._subjects:
            self._own_owners += by

    def _kind(self, grant: Grant) -> int:
        if grant.role is not Role.OWNER or not grant.in_force(self.now):
            return NONE
        return LASTING if grant.expires_at is None else ENDING


def _best(owners: Counter[int]) -> int:
    return next((kind for kind in (LASTING, ENDING) if owners[kind]), NONE)
