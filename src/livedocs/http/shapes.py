"""The shapes of bodies and queries, for the description alone: what a request says is read by the rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field, RootModel
from pydantic.dataclasses import dataclass as model

RoleName = Literal["reader", "writer", "owner"]
SUBJECT = r"^((user|client|group):[!-~]{1,255}|tenant:\*)$"
"""What a subject looks like in a path; in a body it may also hold what ASCII has no sign for."""


class Document(RootModel[dict[str, Any]]):
    """A document: any JSON object, its values in relaxed Extended JSON v2; answers have its `uuid` first."""


class MergePatch(RootModel[dict[str, Any]]):
    """A JSON Merge Patch (RFC 7396)."""


class NoBody(RootModel[None]):
    """Nothing."""


@model(config=ConfigDict(extra="forbid"))
class GrantBody:
    """What a subject is to have."""

    role: RoleName
    expires_at: datetime | None = Field(None, description="When it ends (RFC 3339); without it, it does not.")


@model(config=ConfigDict(extra="forbid"))
class TransferBody:
    """Whose a UUID is to be."""

    to: str = Field(pattern=SUBJECT, description="The subject that becomes owner.")
    from_: str | None = Field(
        None, alias="from", pattern=SUBJECT, description="The owner so far; the caller when absent."
    )
    keep: Literal["reader", "writer"] | None = Field(None, description="What that one keeps.")


@model(config=ConfigDict(extra="forbid"))
class BulkGrant:
    """A grant that a document brings along."""

    subject: str
    role: RoleName
    expires_at: datetime | None = None


@model(config=ConfigDict(extra="forbid"))
class BulkDocument:
    """A document that is to be written."""

    document: dict[str, Any] = Field(description="Its fields; values in relaxed Extended JSON v2.")
    uuid: str | None = Field(None, description="Which; random when absent.")
    mode: Literal["replace", "merge"] = Field("replace", description="As PUT, or as PATCH (RFC 7396).")
    if_match: str | None = Field(None, description="As the header of that name.")
    if_none_match: str | None = Field(None, description="As the header of that name.")
    grants: list[BulkGrant] = Field(default_factory=list, description="Put into force with it, or not at all.")


@model(config=ConfigDict(extra="forbid"))
class BulkDocuments:
    """Documents that are to be written."""

    items: list[BulkDocument] = Field(min_length=1, max_length=1000)


@model(config=ConfigDict(extra="forbid"))
class BulkGrantChange:
    """A grant that is to be put into force or taken away."""

    uuid: str
    subject: str
    role: RoleName | None = Field(description="null takes the grant away.")
    expires_at: datetime | None = None


@model(config=ConfigDict(extra="forbid"))
class BulkGrants:
    """Grants that are to be changed."""

    items: list[BulkGrantChange] = Field(min_length=1, max_length=1000)


@dataclass
class BulkResult:
    """What became of an item; `code` and `detail` say why it was refused."""

    status: int
    uuid: str | None = None
    subject: str | None = None
    etag: str | None = None
    code: str | None = None
    detail: str | None = None


@dataclass
class BulkResults:
    """What became of each item, in the request's order."""

    succeeded: int
    failed: int
    results: list[BulkResult]


@dataclass
class PendingProcess:
    """A live server process that has not applied a change yet."""

    process: str
    host: str
    pid: int


@dataclass
class GrantShown:
    """What a subject has."""

    subject: str
    role: RoleName
    granted_by: str
    granted_at: datetime | None = None
    expires_at: datetime | None = None
    applied: bool | None = None
    pending: list[PendingProcess] | None = None


@dataclass
class Applied:
    """How far a removed grant's end has got, when the request asked to wait for it."""

    uuid: str
    subject: str
    applied: bool
    pending: list[PendingProcess]


@dataclass
class GrantListQuery:
    """Which page of a UUID's grants."""

    cursor: str | None = None
    limit: int | None = None


@dataclass
class GrantList:
    """One page of the grants on a UUID."""

    uuid: str
    grants: list[GrantShown]
    next: str | None
    applied: bool | None = None
    pending: list[PendingProcess] | None = None


@dataclass
class HoldingsQuery:
    """Whose grants, and which page of them."""

    subject: str
    cursor: str | None = None
    limit: int | None = None


@dataclass
class Holding:
    """A grant that a subject has."""

    uuid: str
    role: RoleName
    granted_by: str
    in_force: bool
    granted_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass
class Holdings:
    """One page of what a subject has."""

    subject: str
    grants: list[Holding]
    next: str | None


@dataclass
class ExplainQuery:
    """Whose access is to be explained."""

    subject: str
    group: str | None = None


@dataclass
class RuleShown:
    """A grant that lets the subject in, or could."""

    rule: Literal["subject", "group", "tenant"]
    applies: bool | None
    member: bool | None
    in_force: bool
    grant: GrantShown


@dataclass
class ScopeShown:
    """A scope that the subject is known to hold, and what it allows beside the grants."""

    scope: str
    means: str


@dataclass
class GroupsShown:
    """The groups that were taken into account, and where they are from."""

    source: Literal["request", "sockets", "unknown"]
    names: list[str]


@dataclass
class RoomSocket:
    """A socket in the room."""

    subject: str
    since: datetime
    role: RoleName | None = None
    sid: str | None = None
    address: str | None = None


@dataclass
class RoomSockets:
    """The sockets of all server processes but the `pending` ones, which did not answer in time."""

    complete: bool
    pending: list[PendingProcess]
    in_room: int
    of_subject: int
    held: list[RoomSocket]


@dataclass
class ExplanationShown:
    """Why a subject may, or may not."""

    uuid: str
    subject: str
    allowed: bool
    groups: GroupsShown
    rules: list[RuleShown]
    scopes: list[ScopeShown]
    rules_complete: bool
    role: RoleName | None = None
    until: datetime | None = None
    reason: Literal["no_grant", "expired", "role_too_low"] | None = None
    sockets: RoomSockets | None = None


@dataclass
class Me:
    """The caller."""

    tenant: str
    subject: str
    name: str
    groups: list[str]
    scopes: list[str]
    client_id: str
    expires_at: datetime


@dataclass
class Paging:
    """Which page."""

    cursor: str | None = None
    limit: int | None = None


@dataclass
class MyDocumentsQuery(Paging):
    """Which of the documents."""

    collection: str | None = None


@dataclass
class MyDocument:
    """A UUID, and what the caller may do with it."""

    uuid: str
    role: RoleName


@dataclass
class MyDocuments:
    """One page."""

    documents: list[MyDocument]
    next: str | None


@dataclass
class Health:
    """Alive."""

    status: Literal["ok"]


@dataclass
class Readiness:
    """Ready. `age` is in seconds: how long ago it was found out."""

    ready: Literal[True]
    checks: dict[str, bool]
    age: float


@dataclass
class ImportPosition:
    """How many lines of an import are done."""

    lines: int


@dataclass
class DocumentQuery:
    """Which of the documents of one UUID is meant."""

    _id: str | None = None


@dataclass
class ImportQuery:
    """Which part of an import a request is."""

    first: int | None = None


@dataclass
class RefusedLine(BulkResult):
    """A line that was refused."""

    line: int = 0


@dataclass
class ImportDone:
    """What has become of an import; `lines` is the number of the line behind the last one."""

    lines: int
    succeeded: int
    failed: int
    errors: list[RefusedLine]
