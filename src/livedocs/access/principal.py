"""Who is asking: the result of a successful authentication."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller of one tenant.

    Attributes:
        tenant: slug of the tenant, from the validated token and nowhere else.
        subject: `user:<sub>` or `client:<client_id>`; a service and a user of one name are different subjects.
        name: for people to read; never decides anything.
        groups: group names without the `group:` prefix.
        scopes: OAuth scopes.
        expires_at: aware UTC; the token's `exp`.
        client_id: the OAuth client the token was issued to.
        token_id: SHA-256 of the token, hexadecimal; the token itself is kept nowhere.
    """

    tenant: str
    subject: str
    name: str
    groups: frozenset[str]
    scopes: frozenset[str]
    expires_at: datetime
    client_id: str
    token_id: str

    @property
    def subjects(self) -> tuple[str, ...]:
        """Every subject whose grants count for this caller."""
        return (self.subject, *_group_subjects(self.groups), "tenant:*")

    @property
    def is_service(self) -> bool:
        """Whether a program, not a person, is asking."""
        return self.subject.startswith("client:")


@lru_cache(maxsize=256)
def _group_subjects(groups: frozenset[str]) -> tuple[str, ...]:
    """The subjects of those groups, in their order: asked for at every request and join, sorted once."""
    return tuple(sorted(f"group:{name}" for name in groups))
