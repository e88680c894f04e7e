"""Why a subject may, or may not, see a document: each rule that could let it in, and whether it does. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from livedocs.access.acl import Allowed, Denied, decide
from livedocs.http.document_rules import WRITE_SCOPE
from livedocs.http.grant_rules import ADMIN_SCOPE
from livedocs.model import Grant


@dataclass(frozen=True, slots=True)
class Rule:
    """A grant, and whether it counts for the subject.

    Attributes:
        kind: how it names the subject: itself, a group of it, or everyone in the tenant.
        member: whether the subject is who the grant is for; None when that is not known here, as with groups
            that only its token names.
        in_force: whether the grant has not ended.
    """

    kind: Literal["subject", "group", "tenant"]
    grant: Grant
    member: bool | None
    in_force: bool

    @property
    def applies(self) -> bool | None:
        """Whether it lets the subject in; None when nobody here can say."""
        return False if not self.in_force else self.member


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the grants mean for one subject.

    Attributes:
        decision: what the grants that certainly count allow.
        rules: every grant that counts or could, those of the subject itself first.
        scopes: OAuth scopes that the subject is known to hold and that count beside the grants, each with what it
            means.
    """

    decision: Allowed | Denied
    rules: Sequence[Rule]
    scopes: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a subject beside its name, which its token alone says for sure.

    Attributes:
        groups: without their prefix; None when they are not known.
        scopes: empty when they are not known.
        confined: whether it is a service that is confined to some collections.
    """

    groups: frozenset[str] | None = None
    scopes: frozenset[str] = frozenset()
    confined: bool = False


def explain(grants: Iterable[Grant], subject: str, held: Held, now: datetime) -> Explanation:
    """Why the subject may, or may not.

    Args:
        grants: every grant of the UUID.
        subject: as grants name it.
        held: what is known of the subject.
        now: the moment, aware UTC.
    """
    rules = [rule for grant in grants if (rule := _rule(grant, subject, held.groups, now)) is not None]
    rules.sort(key=lambda rule: ("subject", "group", "tenant").index(rule.kind))
    counting = [rule.grant for rule in rules if rule.member]
    return Explanation(decide(counting, now), rules, _scopes(subject, held))


def _rule(grant: Grant, subject: str, groups: frozenset[str] | None, now: datetime) -> Rule | None:
    held_by, in_force = grant.key.subject, grant.in_force(now)
    if held_by == subject:
        return Rule("subject", grant, member=True, in_force=in_force)
    if held_by == "tenant:*":
        return Rule("tenant", grant, member=True, in_force=in_force)
    if held_by.startswith("group:") and subject.startswith(("user:", "client:")):
        member = None if groups is None else held_by.removeprefix("group:") in groups
        return Rule("group", grant, member=member, in_force=in_force)
    return None


def _scopes(subject: str, held: Held) -> Sequence[tuple[str, str]]:
    """The scopes that count for such a subject, of those that it holds."""
    counting: list[tuple[str, str]] = []
    if subject.startswith("client:"):
        documents = "of the collections it is confined to" if held.confined else "of the tenant"
        counting.append((WRITE_SCOPE, f"reads and writes every document {documents} over HTTP, grants or not"))
    # A confined service has it in vain.
    if subject.startswith(("client:", "user:")) and not held.confined:
        counting.append((ADMIN_SCOPE, "manages every grant of the tenant, its own too"))
    return [(scope, means) for scope, means in counting if scope in held.scopes]
