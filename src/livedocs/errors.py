"""The error tree: every refusal with its stable code, HTTP status and socket code, here and nowhere else.

    LivedocsError
    +-- BadRequest                400  bad_request
    |   +-- InvalidJson           400  invalid_json
    |   +-- InvalidUuid           400  invalid_uuid
    |   +-- InvalidSubject        400  invalid_subject
    |   +-- InvalidCursor         400  invalid_cursor
    |   +-- MultipleCredentials   400  multiple_credentials
    |   +-- DuplicateCookie       400  duplicate_cookie
    |   +-- TokenTooLarge         400  token_too_large
    |   +-- LoginFailed           400  login_failed
    |   +-- AnswerTooLarge        400  answer_too_large
    +-- Unauthenticated           401  unauthenticated
    |   +-- InvalidToken          401  invalid_token
    +-- Forbidden                 403  forbidden
    |   +-- InsufficientScope     403  insufficient_scope
    |   +-- ForbiddenOrigin       403  forbidden_origin
    |   +-- CsrfRejected          403  csrf
    |   +-- TenantUnknown         403  unknown_tenant
    |   +-- TenantSuspended       403  tenant_suspended
    +-- NotFound                  404  not_found
    |   +-- UnknownCollection     404  unknown_collection
    +-- MethodNotAllowed          405  method_not_allowed
    +-- Conflict                  409  conflict
    |   +-- Ambiguous             409  ambiguous
    +-- PreconditionFailed        412  precondition_failed
    +-- PayloadTooLarge           413  payload_too_large
    |   +-- DocumentTooLarge      413  document_too_large
    +-- UnsupportedMediaType      415  unsupported_media_type
    +-- InvalidDocument           422  invalid_document
    |   +-- InvalidField          422  invalid_field
    |   +-- TooDeep               422  too_deep
    +-- InvalidGrant              422  invalid_grant
    |   +-- InvalidRole           422  invalid_role
    |   +-- TooManyGrants         422  too_many_grants
    +-- UnsuitableCollection      422  unsuitable_collection
    +-- IdempotencyKeyReused      422  idempotency_key_reused
    +-- RateLimited               429  rate_limited
    |   +-- TooManyRooms          429  too_many_rooms
    |   +-- TooManyBytes          429  too_many_bytes
    +-- Unavailable               503  unavailable
        +-- AuthUnavailable       503  auth_unavailable
        +-- TooManyConnections    503  too_many_connections

An error's attributes are data; its message is built from them. Nothing secret is ever an attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from livedocs.names import escaped


class LivedocsError(Exception):
    """Anything the server refuses on purpose.

    Args:
        detail: one sentence for the person who reads the answer; no secrets, no document contents.
        **data: members of the problem body (RFC 9457 extension members), such as `path` or `value`.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    # What a socket is told; the HTTP code says more than a socket needs to know only for credentials.
    socket_code: ClassVar[str | None] = None

    def __init__(self, detail: str = "", *, retry_after: float | None = None, **data: Any) -> None:
        self.data = {name: _shown(value) for name, value in data.items()}
        self.retry_after = retry_after
        self.detail = detail or self._sentence()
        super().__init__(f"{self.code}: {self.detail}")

    def _sentence(self) -> str:
        """The detail when none is given."""
        return self.title + "."

    @classmethod
    def on_socket(cls) -> str:
        """The code a Socket.IO client sees."""
        return cls.socket_code or cls.code


def _shown(value: Any) -> Any:
    """A value from a client as an answer may repeat it: short, and always JSON."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        # JSON's writer refuses a longer one, and one in a type of BSON.
        return int(value) if abs(value) < 2**63 else str(value)[:200]
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value[:100]]
    # Shown in terminals and logs, where a control or a bidirectional mark would be carried out.
    return escaped(str(value)[:200])


class BadRequest(LivedocsError):
    """The request is not what the interface describes."""

    code, status, title = "bad_request", 400, "Malformed request"


class InvalidJson(BadRequest):
    """The body is not JSON (RFC 8259), or not the JSON type asked for."""

    code, title = "invalid_json", "Body is not valid JSON"


class InvalidUuid(BadRequest):
    """Not a UUID in RFC 9562 text form."""

    code, title = "invalid_uuid", "Not a UUID: 36 characters, hexadecimal digits and hyphens"


class InvalidSubject(BadRequest):
    """Not a subject."""

    code = "invalid_subject"
    title = "Not a subject: user:NAME, client:ID, group:NAME (1 to 255 visible characters, NFC) or tenant:*"


class InvalidCursor(BadRequest):
    """Not a cursor that this server ever gave out."""

    code, title = "invalid_cursor", "Not a cursor"


class MultipleCredentials(BadRequest):
    """A cookie and an Authorization header in one request: which one is meant would be a guess."""

    code, title = "multiple_credentials", "Send a cookie or an Authorization header, not both"
    socket_code = "unauthenticated"


class DuplicateCookie(BadRequest):
    """Two cookies of one name: one of them may have been planted by a sibling domain."""

    code, title = "duplicate_cookie", "The session cookie was sent twice"
    socket_code = "unauthenticated"


class TokenTooLarge(BadRequest):
    """An access token too large for a cookie; browsers drop such a cookie in silence (RFC 6265bis, 5.7)."""

    code, title = "token_too_large", "The access token is larger than 4096 octets"
    socket_code = "unauthenticated"


class LoginFailed(BadRequest):
    """The way back from the OAuth provider did not fit the way there."""

    code, title = "login_failed", "The login could not be completed"


class AnswerTooLarge(BadRequest):
    """The answer would be larger than the server sends at once; ask for less at a time."""

    code, title = "answer_too_large", "The answer would be too large; ask for fewer at a time"


class Unauthenticated(LivedocsError):
    """No credential (RFC 6750, 3.1: then the challenge carries no error)."""

    code, status, title = "unauthenticated", 401, "Log in first"


class InvalidToken(Unauthenticated):
    """A credential that is expired, revoked, malformed or not meant for this server."""

    code, title = "invalid_token", "The access token is not valid"
    socket_code = "unauthenticated"


class Forbidden(LivedocsError):
    """No grant. Also the answer for a UUID that does not exist, so that nobody learns which do."""

    code, status, title = "forbidden", 403, "Not allowed"


class InsufficientScope(Forbidden):
    """The token lacks the scope (RFC 6750, 3.1)."""

    code, title = "insufficient_scope", "The access token lacks a scope"


class ForbiddenOrigin(Forbidden):
    """A page of another origin used the browser's cookie (cross-site WebSocket hijacking)."""

    code, title = "forbidden_origin", "This origin is not allowed"


class CsrfRejected(Forbidden):
    """A cookie came without the proof that one of our own pages sent the request."""

    code, title = "csrf", "Requests with a cookie need an Origin of ours and an X-Requested-With header"


class TenantUnknown(Forbidden):
    """The token names a tenant that is not registered here."""

    code, title = "unknown_tenant", "This tenant is not registered"


class TenantSuspended(Forbidden):
    """The tenant is suspended."""

    code, title = "tenant_suspended", "This tenant is suspended"


class NotFound(LivedocsError):
    """There is no such thing, said only to somebody who may know."""

    code, status, title = "not_found", 404, "Not found"


class UnknownCollection(NotFound):
    """A collection that is not registered for the tenant."""

    code, title = "unknown_collection", "This collection is not registered"


class MethodNotAllowed(LivedocsError):
    """The path exists, the method does not."""

    code, status, title = "method_not_allowed", 405, "Method not allowed"


class Conflict(LivedocsError):
    """What is to be created exists."""

    code, status, title = "conflict", 409, "It exists already"


class Ambiguous(Conflict):
    """Several documents of the collection have the UUID; `?_id=` says which is meant."""

    code, title = "ambiguous", "Several documents have this UUID"


class PreconditionFailed(LivedocsError):
    """The document is not in the state that If-Match or If-None-Match names (RFC 9110, 13.1)."""

    code, status, title = "precondition_failed", 412, "The document has changed meanwhile"


class PayloadTooLarge(LivedocsError):
    """The body is larger than the server reads."""

    code, status, title = "payload_too_large", 413, "The body is too large"


class DocumentTooLarge(PayloadTooLarge):
    """The document would be larger than the limit."""

    code, title = "document_too_large", "The document is too large"


class UnsupportedMediaType(LivedocsError):
    """The body's content type is not one the method takes."""

    code, status, title = "unsupported_media_type", 415, "Unsupported content type"


class InvalidDocument(LivedocsError):
    """A document that MongoDB, a browser or a later reader would misread."""

    code, status, title = "invalid_document", 422, "The document is not valid"


class InvalidField(InvalidDocument):
    """A field name that starts with `$`, holds `.` or NUL, is empty or is reserved; `path` says where."""

    code, title = "invalid_field", "A field name is not allowed"


class TooDeep(InvalidDocument):
    """Nested deeper than 32 levels."""

    code, title = "too_deep", "The document is nested too deeply"


class InvalidGrant(LivedocsError):
    """A grant that says nothing that could be put into force."""

    code, status, title = "invalid_grant", 422, "The grant is not valid"


class InvalidRole(InvalidGrant):
    """A role other than reader, writer, owner."""

    code, title = "invalid_role", "The role is one of reader, writer, owner"


class TooManyGrants(InvalidGrant):
    """More grants than one UUID, or one item of a bulk request, may have."""

    code, title = "too_many_grants", "Too many grants"


class UnsuitableCollection(LivedocsError):
    """A collection that cannot be registered; `reason`: `view`, `timeseries`, `capped` or `system`."""

    code, status, title = "unsuitable_collection", 422, "This collection cannot be streamed"


class IdempotencyKeyReused(LivedocsError):
    """The Idempotency-Key was used for another request (draft-ietf-httpapi-idempotency-key-header, 2.7)."""

    code, status, title = "idempotency_key_reused", 422, "This Idempotency-Key was used for another request"


class RateLimited(LivedocsError):
    """Too much, too fast; `Retry-After` says when to come back."""

    code, status, title = "rate_limited", 429, "Too many requests"


class TooManyRooms(RateLimited):
    """More rooms than one call, or one socket, may have."""

    code, title = "too_many_rooms", "Too many rooms"


class TooManyBytes(RateLimited):
    """More bytes in flight than a user or a tenant may have: bodies, imports, answers that were not read yet."""

    code, title = "too_many_bytes", "Too many bytes in flight"


class Unavailable(LivedocsError):
    """MongoDB or the change stream is out of reach; the same request may work later."""

    code, status, title = "unavailable", 503, "Temporarily unavailable"


class AuthUnavailable(Unavailable):
    """The introspection service is out of reach or misconfigured: nobody new gets in."""

    code, title = "auth_unavailable", "The authentication service is unavailable"


class TooManyConnections(Unavailable):
    """No more sockets for this address, user or process."""

    code, title = "too_many_connections", "Too many connections"


class ConfigurationError(Exception):
    """Settings that are missing, unknown or unsafe: the start is refused.

    Attributes:
        problems: one line per setting, its name first, never its value.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class ClientError(Exception):
    """What a client meets that is no refusal by the server.

    Attributes:
        code: stable, as those of refusals are.
    """

    code: ClassVar[str] = "client_error"


class ServerUnreachable(ClientError):
    """No answer came, or none that the server itself wrote.

    Attributes:
        uncertain: whether the request may have been carried out all the same.
    """

    code = "unreachable"

    def __init__(self, reason: str, *, uncertain: bool = False) -> None:
        self.uncertain = uncertain
        super().__init__(f"{reason}; it may have been carried out" if uncertain else reason)


class UnexpectedAnswer(ClientError):
    """An answer that no livedocs of this version gives.

    Attributes:
        status: of the answer.
    """

    code = "unexpected_answer"

    def __init__(self, status: int, detail: str = "") -> None:
        self.status = status
        super().__init__(f"status {status}" + (f": {detail}" if detail else ""))


class TokenUnavailable(ClientError):
    """The OAuth service gave no access token."""

    code = "token_unavailable"


class Disconnected(ClientError):
    """The server has ended a subscription for good.

    Attributes:
        reason: the `$goaway` reason.
    """

    code = "disconnected"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class ItemsInterrupted(ClientError):
    """The caller's own items ended in an error, which is the cause; what they gave before has been sent.

    Attributes:
        results: of each item that was given, in order, as the call would have returned them.
    """

    code = "items_interrupted"

    def __init__(self, reason: str) -> None:
        self.results: Sequence[Any] = ()
        super().__init__(f"the items ended in an error: {reason}")
