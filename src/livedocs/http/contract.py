"""What each operation asks of its caller, may refuse, and looks like: what a signature cannot say. Data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from livedocs import errors as e
from livedocs.errors import LivedocsError
from livedocs.http.parameters import described

Errors = tuple[type[LivedocsError], ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """One operation.

    Attributes:
        errors: what it may be refused with, beside what any caller may be.
        scope: the OAuth scope that the token needs.
        request: an example of the body.
        answer: an example of the usual answer.
        answers: examples of others, by their status.
        bodiless: further statuses, of answers without a body, and when they are given.
        headers: request headers that mean something here, and what.
        lines: an example of a body that is no JSON text as a whole but has one on each line.
    """

    errors: Errors = ()
    scope: str | None = None
    request: Any = None
    answer: Any = None
    bodiless: Mapping[int, str] | None = None
    headers: Mapping[str, str] | None = None
    lines: str | None = None
    answers: Mapping[int, Any] | None = None


CALLER: Errors = (
    e.BadRequest,
    e.MultipleCredentials,
    e.DuplicateCookie,
    e.TokenTooLarge,
    e.Unauthenticated,
    e.InvalidToken,
    e.CsrfRejected,
    e.TenantUnknown,
    e.TenantSuspended,
    e.NotFound,
    e.MethodNotAllowed,
    e.RateLimited,
    e.TooManyBytes,
    e.Unavailable,
    e.AuthUnavailable,
)
"""What every operation that needs a caller may be refused with."""

_BODY: Errors = (e.InvalidJson, e.PayloadTooLarge, e.UnsupportedMediaType)
_DOCUMENT: Errors = (*_BODY, e.InvalidDocument, e.InvalidField, e.TooDeep, e.DocumentTooLarge)
_PLACE: Errors = (e.InvalidUuid, e.UnknownCollection)
_WRITE: Errors = (*_PLACE, *_DOCUMENT, e.Forbidden, e.Ambiguous, e.Conflict, e.PreconditionFailed)
_GRANT: Errors = (
    *_BODY,
    e.InvalidUuid,
    e.InvalidSubject,
    e.InvalidGrant,
    e.InvalidRole,
    e.TooManyGrants,
    e.Forbidden,
    e.Conflict,
)
# A service that is confined to collections has the scope in vain.
_SCOPED: Errors = (e.InsufficientScope, e.Forbidden)

_UUID = "6f1b0c1e-3a52-4c8e-9d5b-2f6f6c2f8a11"
_FIELDS = {"title": "First", "at": {"$date": "2026-01-02T03:04:05.678Z"}}
_SHOWN = {"uuid": _UUID, **_FIELDS}
_SET = {
    "subject": "user:bob",
    "role": "reader",
    "granted_by": "user:alice",
    "granted_at": "2026-01-02T03:04:05.678Z",
}
_TENANT = {
    "slug": "initech",
    "status": "active",
    "database": "livedocs_initech",
    "collections": {"notes": {"key": "_id"}},
    "limits": {},
    "services": {},
    "created_at": "2026-01-02T03:04:05.678Z",
}
_PROCESS = {"process": "9b9d7f1c", "host": "docs-1", "pid": 4711}
_LOSS = {"slug": "initech", "data": "keep", "documents": {"notes": 12}, "grants": 30}
_SOCKET = {
    "sid": "0f2d6a0c4b1e4f0f8c39f1f5a53c9f6e",
    "subject": "user:bob",
    "name": "Bob",
    "client_id": "livedocs",
    "address": "192.0.2.7",
    "since": "2026-01-02T03:04:05.678Z",
    "expires_at": "2026-01-02T03:19:05.678Z",
    "process": _PROCESS["process"],
    "room_count": 1,
    "rooms": [{"uuid": _UUID, "role": "reader"}],
}

_TAG = "An entity tag, a list of them, or *."
_IF_MATCH = {"If-Match": _TAG, "If-None-Match": _TAG}
_PREFER = {"Prefer": "`return=minimal`: an answer without a body."}
_WAIT = {"Prefer": "`wait=SECONDS`: answer when every server process has applied it; `return=minimal`."}
_KEY = {"Idempotency-Key": "1 to 255 visible ASCII characters; the same for the same request sent again."}
_UNCHANGED = {304: "If-None-Match names what there is."}
_MINIMAL = {204: "Done; `Prefer: return=minimal` asked for no body."}

CONTRACTS: Mapping[str, Contract] = {
    "documents.create_document": Contract(
        (e.InvalidUuid, e.UnknownCollection, e.Forbidden, e.Conflict, *_DOCUMENT, e.IdempotencyKeyReused),
        request=_FIELDS,
        answer=_SHOWN,
        headers=_KEY | _PREFER,
    ),
    "documents.read_document": Contract(
        (*_PLACE, e.Forbidden, e.Ambiguous, e.InvalidDocument, e.PreconditionFailed, e.DocumentTooLarge),
        answer=_SHOWN,
        bodiless=_UNCHANGED,
        headers=_IF_MATCH,
    ),
    "documents.replace_document": Contract(
        _WRITE, request=_FIELDS, answer=_SHOWN, bodiless=_MINIMAL, headers=_IF_MATCH | _PREFER
    ),
    "documents.merge_document": Contract(
        _WRITE,
        request={"title": "Second", "at": None},
        answer={"uuid": _UUID, "title": "Second"},
        bodiless=_MINIMAL,
        headers=_IF_MATCH | _PREFER,
    ),
    "documents.delete_document": Contract(
        (*_PLACE, e.Forbidden, e.Ambiguous, e.PreconditionFailed, e.DocumentTooLarge), headers=_IF_MATCH
    ),
    "bulk.write_documents": Contract(
        (*_BODY, e.UnknownCollection, e.Forbidden, e.IdempotencyKeyReused),
        request={
            "items": [
                {"document": _FIELDS, "grants": [{"subject": "group:staff", "role": "reader"}]},
                {"uuid": _UUID, "mode": "merge", "document": {"title": "Second"}},
            ]
        },
        answer={
            "succeeded": 1,
            "failed": 1,
            "results": [
                {"uuid": "b0a5b6ce-5a0c-4e0a-8c64-6a8c8f1c1d51", "status": 201, "etag": '"4d1f"'},
                {"uuid": _UUID, "status": 403, "code": "forbidden", "detail": "Not allowed."},
            ],
        },
        headers=_KEY,
    ),
    "imports.import_position": Contract(
        (e.UnknownCollection, e.Forbidden, e.IdempotencyKeyReused), answer={"lines": 200}, headers=_KEY
    ),
    "imports.import_documents": Contract(
        (
            e.UnknownCollection,
            e.Forbidden,
            e.UnsupportedMediaType,
            e.DocumentTooLarge,
            e.IdempotencyKeyReused,
        ),
        answer={"lines": 2, "succeeded": 2, "failed": 0, "errors": []},
        headers=_KEY,
        lines='{"document": {"title": "First"}}\n{"document": {"title": "Second"}}\n',
    ),
    "bulk.change_grants": Contract(
        _BODY,
        request={"items": [{"uuid": _UUID, "subject": "user:bob", "role": "reader"}]},
        answer={
            "succeeded": 1,
            "failed": 0,
            "results": [{"uuid": _UUID, "subject": "user:bob", "status": 201}],
        },
    ),
    "grants.list_grants": Contract(
        (e.InvalidUuid, e.InvalidCursor, e.Forbidden),
        answer={"uuid": _UUID, "grants": [_SET], "next": None},
        bodiless=_UNCHANGED,
        headers={"If-None-Match": _TAG},
    ),
    "grants.explain_access": Contract(
        (e.InvalidUuid, e.InvalidSubject, e.Forbidden),
        answer={
            "uuid": _UUID,
            "subject": "user:bob",
            "allowed": True,
            "role": "reader",
            "groups": {"source": "request", "names": ["staff"]},
            "rules": [{"rule": "subject", "applies": True, "member": True, "in_force": True, "grant": _SET}],
            "rules_complete": True,
            "scopes": [],
        },
    ),
    "grants.set_grant": Contract(_GRANT, request={"role": "reader"}, answer=_SET, headers=_WAIT),
    "grants.remove_grant": Contract(
        (e.InvalidUuid, e.InvalidSubject, e.Forbidden, e.Conflict),
        headers=_WAIT,
        answer={"uuid": _UUID, "subject": "user:bob", "applied": True, "pending": []},
    ),
    "transfers.list_holdings": Contract(
        (*_SCOPED, e.InvalidSubject, e.InvalidCursor),
        answer={
            "subject": "user:bob",
            "grants": [
                {
                    "uuid": _UUID,
                    "role": "reader",
                    "granted_by": "user:alice",
                    "granted_at": "2026-01-02T03:04:05.678Z",
                    "in_force": True,
                }
            ],
            "next": None,
        },
    ),
    "transfers.transfer_ownership": Contract(
        (*_BODY, e.InvalidUuid, e.InvalidSubject, e.InvalidRole, e.TooManyGrants, e.Forbidden, e.Conflict),
        request={"to": "user:bob", "keep": "writer"},
        answer={
            "uuid": _UUID,
            "grants": [{**_SET, "subject": "user:alice", "role": "writer"}, {**_SET, "role": "owner"}],
            "next": None,
        },
        headers={"Prefer": "`wait=SECONDS`: answer when every server process has applied it."},
    ),
    "me.who_am_i": Contract(
        answer={
            "tenant": "acme",
            "subject": "user:alice",
            "name": "Alice",
            "groups": ["staff"],
            "scopes": ["openid"],
            "client_id": "livedocs",
            "expires_at": "2026-01-02T03:19:05.678Z",
        }
    ),
    "me.my_documents": Contract(
        (e.InvalidCursor, e.UnknownCollection),
        answer={"documents": [{"uuid": _UUID, "role": "owner"}], "next": None},
    ),
    "admin_tenants.list_tenants": Contract(
        _SCOPED, "livedocs:platform", answer={"tenants": [_TENANT], "next": None}
    ),
    "admin_tenants.create_tenant": Contract(
        (*_SCOPED, *_BODY, e.Conflict),
        "livedocs:platform",
        request={
            "slug": "initech",
            "collections": {"notes": {"key": "_id", "json_schema": {"bsonType": "object", "required": ["title"]}}},
        },
        answer=_TENANT,
    ),
    "admin_tenants.read_tenant": Contract(_SCOPED, "livedocs:platform", answer=_TENANT),
    "admin_tenants.register_collection": Contract(
        (*_SCOPED, *_BODY, e.Conflict),
        "livedocs:platform",
        request={"key": "uuid"},
        answer={
            "collection": "orders",
            "key": "uuid",
            "without_uuid": 3,
            "not_streamed": {"binData 3": 2, "missing": 1},
            "examined": 1200,
            "complete": True,
        },
    ),
    "admin_tenants.set_limits": Contract(
        (*_SCOPED, *_BODY),
        "livedocs:platform",
        request={"max_document_bytes": 65536},
        answer={**_TENANT, "limits": {"max_document_bytes": 65536}},
    ),
    "admin_tenants.confine_service": Contract(
        (*_SCOPED, *_BODY, e.InvalidSubject, e.UnknownCollection),
        "livedocs:platform",
        request={"collections": ["notes"]},
        answer={**_TENANT, "services": {"initech-billing": {"collections": ["notes"]}}},
    ),
    "admin_tenants.release_service": Contract((*_SCOPED, e.InvalidSubject), "livedocs:platform", answer=_TENANT),
    "admin_tenants.suspend_tenant": Contract(
        (*_SCOPED, e.Conflict), "livedocs:platform", answer={**_TENANT, "status": "suspended"}
    ),
    "admin_tenants.resume_tenant": Contract(_SCOPED, "livedocs:platform", answer=_TENANT),
    "admin_tenants.delete_tenant": Contract(
        (*_SCOPED, e.Conflict),
        "livedocs:platform",
        answer=_LOSS,
        answers={202: {**_LOSS, "code": "Yk3v8xJ2", "expires_at": "2026-01-02T03:19:05.678Z"}},
    ),
    "admin.list_sessions": Contract(
        (*_SCOPED, e.InvalidUuid, e.InvalidCursor),
        "livedocs:admin",
        answer={
            "process": _PROCESS["process"],
            "complete": True,
            "processes": [{**_PROCESS, "answered": True}],
            "total": 1,
            "sessions": [_SOCKET],
            "next": None,
        },
    ),
    "admin.disconnect_subject": Contract(
        (*_SCOPED, e.InvalidSubject),
        "livedocs:admin",
        answer={
            "subject": "user:bob",
            "disconnected": 1,
            "sessions": [{"sid": _SOCKET["sid"], "address": _SOCKET["address"], "process": _PROCESS["process"]}],
            "applied": True,
            "pending": [],
        },
    ),
    "admin.disconnect_session": Contract(_SCOPED, "livedocs:admin"),
    "admin.search_audit": Contract(
        (*_SCOPED, e.InvalidUuid, e.InvalidCursor),
        "livedocs:admin",
        answer={
            "entries": [
                {
                    "at": "2026-01-02T03:04:05.678Z",
                    "actor": "user:alice",
                    "address": "192.0.2.7",
                    "action": "grant.set",
                    "uuid": _UUID,
                    "subject": "user:bob",
                    "detail": {"role": "reader"},
                }
            ],
            "next": None,
        },
    ),
}

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def refusals(errors: Sequence[type[LivedocsError]]) -> dict[str, Any]:
    """Responses by status, each with the codes that come with it."""
    by_status: dict[str, list[type[LivedocsError]]] = {}
    for kind in dict.fromkeys(errors):
        by_status.setdefault(str(kind.status), []).append(kind)
    return {
        status: {
            "description": "; ".join(f"`{kind.code}`: {kind.title}" for kind in kinds) + ".",
            "content": _PROBLEM,
        }
        for status, kinds in sorted(by_status.items())
    }


def complete(operation: dict[str, Any], contract: Contract) -> None:
    """Add to an operation of the description what its contract says."""
    responses: dict[str, Any] = operation["responses"]
    for status, when in (contract.bodiless or {}).items():
        responses[str(status)] = {"description": when}
    for code, refusal in refusals((*CALLER, *contract.errors)).items():
        responses.setdefault(code, refusal)
    examples = contract.answers or {}
    for good in ("200", "201", "202"):
        example = examples.get(int(good), contract.answer)
        if example is not None and good in responses:
            responses[good]["content"]["application/json"]["example"] = example
    if contract.request is not None:
        for content in operation["requestBody"]["content"].values():
            content["example"] = contract.request
    if contract.lines is not None:
        content = {"application/x-ndjson": {"schema": {"type": "string"}, "example": contract.lines}}
        operation["requestBody"] = {"required": True, "content": content}
    scopes = [contract.scope] if contract.scope else []
    operation["security"] = [{"bearer": scopes}, {"cookie": scopes}]
    operation["parameters"] = [
        *map(described, operation["parameters"]),
        *(
            {"name": name, "in": "header", "required": False, "description": means, "schema": {"type": "string"}}
            for name, means in (contract.headers or {}).items()
        ),
    ]
