"""Grants over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

from livedocs._client import batches, codec
from livedocs._client.batches import Entry
from livedocs._client.bulk import Bulk
from livedocs._client.requests import Request, Requests
from livedocs._client.values import Explanation, Grant, GrantChange, Receipt, Result, RoleName, Rule
from livedocs.errors import NotFound, UnexpectedAnswer
from livedocs.model import Role

_PAGE = 500
_JSON = {"Content-Type": "application/json"}


class Grants:
    """Says who may see what. Subjects are `user:NAME`, `client:ID`, `group:NAME` and `tenant:*`."""

    def __init__(self, requests: Requests, bulk: Bulk) -> None:
        self._requests = requests
        self._bulk = bulk

    async def put(
        self,
        uuid: UUID,
        subject: str,
        role: Role | RoleName,
        *,
        expires_at: datetime | None = None,
        wait: int | None = None,
    ) -> Grant:
        """Grant a role, in place of the one the subject has.

        Args:
            uuid: of the documents.
            subject: who.
            role: reader, writer or owner.
            expires_at: when it ends, an aware time; None for no end.
            wait: seconds to wait for every server process to have applied it; the grant then has a `receipt`.

        Raises:
            Conflict: the UUID would be left without an owner.
        """
        end = batches.time_text(expires_at)
        body = {"role": batches.role_name(role), **({"expires_at": end} if end else {})}
        headers = {**_JSON, **_prefer(wait)}
        answer = await self._requests.send(Request("PUT", _path(uuid, subject), headers, codec.dumps(body)))
        return _grant(_members(answer.body))

    async def delete(self, uuid: UUID, subject: str, *, wait: int | None = None) -> Receipt | None:
        """Take a grant away; the subject's sockets leave the room at once.

        Returns:
            How far it has got, when it was to `wait`; see `put`.

        Raises:
            Conflict: the UUID would be left without an owner.
            NotFound: the subject has no grant.
        """
        request = Request("DELETE", _path(uuid, subject), _prefer(wait))
        answer = await self._requests.send(request, gone=NotFound)
        return _receipt(_members(answer.body)) if answer.body else None

    async def of(self, uuid: UUID) -> list[Grant]:
        """Every grant on a UUID, asked for page by page."""
        return [grant async for grant in self._pages({"limit": _PAGE}, f"/v1/grants/{uuid}")]

    async def _pages(self, params: dict[str, Any], path: str) -> AsyncIterator[Grant]:
        while True:
            page = _members((await self._requests.send(Request("GET", path, params=params))).body)
            for one in page["grants"]:
                yield _grant(one)
            if page["next"] is None:
                return
            params["cursor"] = page["next"]

    async def transfer(
        self,
        uuid: UUID,
        to: str,
        *,
        giver: str | None = None,
        keep: Role | RoleName | None = None,
        wait: int | None = None,
    ) -> list[Grant]:
        """Make somebody else the owner, and take ownership from whoever has it, in one step.

        Args:
            uuid: of the documents.
            to: the subject that becomes owner.
            giver: the owner so far; the caller when None.
            keep: what that one stays, reader or writer; nothing when None.
            wait: seconds to wait for every server process to have applied it; see `put`.

        Returns:
            The first 100 grants, by subject, that there are then.
        """
        members = {"to": to, "from": giver, "keep": batches.role_name(keep)}
        body = codec.dumps({name: value for name, value in members.items() if value is not None})
        headers = {**_JSON, **_prefer(wait)}
        request = Request("POST", f"/v1/grants/{uuid}:transfer", headers, body, repeatable=False)
        told = _members((await self._requests.send(request)).body)
        proof: dict[str, Any] = {name: told[name] for name in ("applied", "pending") if name in told}
        return [_grant({**one, **proof}) for one in told["grants"]]

    async def held_by(self, subject: str) -> AsyncIterator[tuple[UUID, Grant]]:
        """Every grant that a subject has, in force or not, page by page; `livedocs:admin`, or one's own."""
        params: dict[str, Any] = {"subject": subject, "limit": _PAGE}
        while True:
            page = _members((await self._requests.send(Request("GET", "/v1/grants", params=params))).body)
            for one in page["grants"]:
                yield UUID(one["uuid"]), _grant({**one, "subject": subject})
            if page["next"] is None:
                return
            params["cursor"] = page["next"]

    async def bulk(self, changes: Iterable[GrantChange] | AsyncIterable[GrantChange]) -> list[Result]:
        """Change any number of grants, up to 1,000 a request, in order. Each has a result, as with documents.

        Raises:
            ItemsInterrupted: as with documents.
        """
        return await self._bulk.send("/v1/grants:bulk", _entries(changes))

    async def explain(self, uuid: UUID, subject: str, *, groups: Iterable[str] = ()) -> Explanation:
        """Why a subject may, or may not, see the documents of a UUID.

        Args:
            uuid: of the documents.
            subject: who.
            groups: the subject's; without any, what its live sockets say, to an administrator.
        """
        params = {"subject": subject, "group": [*groups]}
        answer = await self._requests.send(Request("GET", f"/v1/grants/{uuid}/explain", params=params))
        told = _members(answer.body)
        return Explanation(
            allowed=told["allowed"],
            role=Role.parse(told.get("role")),
            until=_time(told.get("until")),
            reason=told.get("reason"),
            rules=tuple(
                Rule(one["rule"], one["applies"], one["in_force"], _grant(one["grant"])) for one in told["rules"]
            ),
            sockets=told["sockets"]["of_subject"] if told.get("sockets") else None,
        )


async def _entries(changes: Iterable[GrantChange] | AsyncIterable[GrantChange]) -> AsyncIterator[Entry]:
    place = 0
    async for change in batches.each(changes):
        yield batches.grant_entry(place, change)
        place += 1


def _path(uuid: UUID, subject: str) -> str:
    return f"/v1/grants/{uuid}/{quote(subject, safe='')}"


def _prefer(wait: int | None) -> dict[str, str]:
    return {} if wait is None else {"Prefer": f"wait={wait}"}


def _members(body: bytes) -> dict[str, Any]:
    told = codec.loads(body)
    if not isinstance(told, dict):
        raise UnexpectedAnswer(200, "not an object")
    return told


def _grant(told: Mapping[str, Any]) -> Grant:
    role = Role.parse(told.get("role"))
    if role is None:
        raise UnexpectedAnswer(200, "not a grant")
    return Grant(
        told["subject"],
        role,
        told.get("granted_by", ""),
        _time(told.get("granted_at")),
        _time(told.get("expires_at")),
        _receipt(told),
    )


def _receipt(told: Mapping[str, Any]) -> Receipt | None:
    if told.get("applied") is None:
        return None
    return Receipt(told["applied"], tuple(one["process"] for one in told.get("pending") or ()))


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
