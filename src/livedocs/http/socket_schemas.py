"""The shapes of what goes over a socket, as JSON Schema (draft 07, which AsyncAPI takes as it is). Data.

An event's payload is the list of its arguments, an acknowledgement's the list of what the callback gets. Objects
are closed where the server alone says what is in them, so that a member nobody described does not go unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from livedocs import errors as e
from livedocs.errors import LivedocsError

Schema = dict[str, Any]

REVOKED: Mapping[str, str] = {
    "revoked": "the last grant that let the caller in was taken away",
    "expired": "the grant has come to its end",
    "unavailable": "whether the caller may still be in the room could not be decided; join again",
}
"""Why a socket is out of a room."""

RESYNC: Mapping[str, str] = {
    "window": "the cursor is older than the history, or what lies behind it is too large to be sent again",
    "access": "changes behind the cursor are from before the caller was let in; they are not replayed",
    "ambiguous_order": "two shards of a cluster changed the UUID at one time; their order does not show",
    "ambiguous_path": "an update named a field in a way that could be read as two",
    "slow": "the client did not read fast enough; what waited for it was dropped",
    "history_lost": "MongoDB's oplog no longer held the position",
    "document_too_large": "a change is beyond `LIVEDOCS_MAX_SHOWN_BYTES` or `LIVEDOCS_MAX_SHOWN_ELEMENTS`, "
    "or others would have waited too long for it",
    "event_too_large": "a change was larger than MongoDB can report",
    "event_unreadable": "a change could not be read",
    "collection_dropped": "a collection or a tenant's database was dropped",
    "grants_dropped": "the grants' collection was dropped",
    "snapshot": "a snapshot asked for without an acknowledgement",
}
"""Why the newest state comes in place of changes. `window` also stands in acknowledgements, as `resync`."""

GOAWAY: Mapping[str, str] = {
    "shutdown": "the server stops",
    "auth_unavailable": "the OAuth service could not be asked for longer than `LIVEDOCS_AUTH_GRACE`",
    "rate_limited": "a hundred events in a row came too fast; wait as long as the refusals said",
    "confined": "the collections that the service is confined to have changed; it may come back at once",
    "expired": "the token has come to its end",
    "token_revoked": "the token is no longer good",
    "logout": "the session was ended",
    "tenant_suspended": "the tenant was suspended",
    "reauth_refused": "the token of `Reauth` was not accepted",
    "disconnected": "an administrator ended the socket",
}
"""Why a socket is closed."""

FINAL = frozenset({"expired", "token_revoked", "logout", "tenant_suspended", "reauth_refused", "disconnected"})
"""Of these, the reasons after which the same credential would be refused again."""

Errors = tuple[type[LivedocsError], ...]

HANDSHAKE: Errors = (
    e.BadRequest,
    e.MultipleCredentials,
    e.DuplicateCookie,
    e.TokenTooLarge,
    e.Unauthenticated,
    e.ForbiddenOrigin,
    e.TenantUnknown,
    e.TenantSuspended,
    e.RateLimited,
    e.AuthUnavailable,
    e.TooManyConnections,
)
"""What the HTTP answer to a handshake may refuse with."""

_TOKEN: Errors = (e.InvalidToken, e.AuthUnavailable, e.TenantUnknown, e.TenantSuspended, e.RateLimited)
CONNECT: Errors = (e.BadRequest, e.MultipleCredentials, e.Unauthenticated, *_TOKEN, e.TooManyConnections)
"""What CONNECT may be refused with."""

JOIN: Errors = (
    e.InvalidUuid,
    e.InvalidCursor,
    e.UnknownCollection,
    e.Forbidden,
    e.TooManyRooms,
    e.AnswerTooLarge,
    e.TooManyBytes,
    e.RateLimited,
    e.Unavailable,
)
"""What a UUID of a JoinRoom may be refused with."""

LEAVE: Errors = (e.InvalidUuid,)
"""What an item of a LeaveRoom may be refused with."""

CALL: Errors = (e.BadRequest, e.RateLimited)
"""What any event as a whole may be refused with."""

ROOMS: Errors = (*CALL, e.TooManyRooms)
"""What a list of rooms as a whole may be refused with."""

REAUTH: Errors = (*CALL, *_TOKEN, e.Forbidden, e.Unavailable)
"""What Reauth may be refused with."""


def codes(errors: Errors) -> Schema:
    """The codes of those errors, as sockets see them, and what they mean."""
    by_code = {kind.on_socket(): kind for kind in reversed(errors)}
    meaning = "; ".join(f"`{code}`: {kind.title}" for code, kind in sorted(by_code.items()))
    return {"type": "string", "enum": sorted(by_code), "description": f"{meaning}."}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _closed(properties: Schema, *optional: str) -> Schema:
    """An object with these members and no other; all required but the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _map(values: Schema, description: str) -> Schema:
    return {"type": "object", "additionalProperties": values, "description": description}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _arguments(*items: Schema, least: int | None = None) -> Schema:
    """A list of exactly these, or of the first `least` of them at least."""
    return {
        "type": "array",
        "items": list(items),
        "additionalItems": False,
        "minItems": len(items) if least is None else least,
    }


def _reason(reasons: Mapping[str, str]) -> Schema:
    meaning = "; ".join(f"`{reason}`: {means}" for reason, means in reasons.items())
    return {"type": "string", "enum": list(reasons), "description": f"{meaning}."}


def _refusal(errors: Errors) -> Schema:
    return {"code": codes(errors), "retry_after_ms": _ref("RetryAfter")}


def _whole(errors: Errors, **empty: Schema) -> Schema:
    """The acknowledgement of a call that was refused as a whole."""
    detail = _text("One sentence for people.")
    return _closed({**_refusal(errors), "detail": detail, **empty}, "retry_after_ms", *empty)


_REFUSED_JOIN = _closed(_refusal(JOIN), "retry_after_ms")
_REFUSED_LEAVE = _closed(_refusal(LEAVE), "retry_after_ms")
_EMPTY = {"type": "object", "maxProperties": 0}
_META = {
    "id": _ref("Cursor"),
    "at": _ref("Date"),
    "removed": _list(_text("Path of a removed field."), description="What an update has removed."),
    "truncated": _list(
        _closed({"field": _text("Path of an array."), "newSize": {"type": "integer", "minimum": 0}}),
        description="Arrays that an update has shortened.",
    ),
    "txn": _text("The same for every event of one transaction; absent outside of one."),
    "_id": {
        "description": "The document's `_id`, relaxed Extended JSON; absent where the UUID is the `_id`.",
    },
}


def _meta(*ops: str) -> Schema:
    return _closed({"op": {"type": "string", "enum": list(ops)}, **_META}, "txn", "_id")


COMPONENTS: Mapping[str, Schema] = {
    "Uuid": _text("A UUID in text form (RFC 9562), hexadecimal digits in lower case.", format="uuid"),
    "Cursor": _text(
        "A position in the stream of changes; opaque. Keep it, give it back as `since`. Cursors sort as strings.",
        minLength=1,
        maxLength=160,
    ),
    "Ticket": _text(
        "Since when the caller has been in its groups; opaque. Keep the newest, give it back as `ticket`.",
        minLength=1,
        maxLength=2048,
    ),
    "Date": {
        **_closed({"$date": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "object"}]}}),
        "description": "A time, as in relaxed Extended JSON v2.",
    },
    "RetryAfter": {"type": "integer", "minimum": 1, "description": "Milliseconds after which it may go well."},
    "Document": {
        "type": "object",
        "properties": {"uuid": _ref("Uuid")},
        "required": ["uuid"],
        "description": "A document; values are relaxed Extended JSON v2.",
    },
    "TooLarge": {
        **_closed({"uuid": _ref("Uuid"), "$too_large": {"type": "integer", "minimum": 1}}),
        "description": (
            "In place of a document beyond `LIVEDOCS_MAX_SHOWN_BYTES` or `LIVEDOCS_MAX_SHOWN_ELEMENTS`: "
            "how many bytes it has. It is there, and is not shown."
        ),
    },
    "Unreadable": {
        **_closed({"uuid": _ref("Uuid"), "$unreadable": {"const": True}}),
        "description": "In place of documents that could not be read: the collection has become a view, say.",
    },
    "Snapshot": _map(
        _list({"anyOf": [_ref("TooLarge"), _ref("Unreadable"), _ref("Document")]}),
        "Whole documents, by collection.",
    ),
    "Joined": {
        **_closed(
            {
                "role": {"type": "string", "enum": ["reader", "writer", "owner"]},
                "cursor": {**_ref("Cursor")},
                "snapshot": _ref("Snapshot"),
                "resumed": {
                    "type": "integer",
                    "minimum": 0,
                    "description": "How many missed changes follow the acknowledgement.",
                },
                "resync": _reason({"window": RESYNC["window"]}),
            },
            "snapshot",
            "resumed",
            "resync",
        ),
        "description": "A room that the socket is in now.",
    },
    "JoinOptions": _closed(
        {
            "since": {"anyOf": [_ref("Cursor"), {"type": "null"}]},
            "ticket": {
                "anyOf": [_ref("Ticket"), {"type": "null"}],
                "description": "The newest one. Without it, or where it does not count, what was missed of rooms "
                "that are entered through a group is not replayed.",
            },
            "snapshot": {"type": "boolean", "default": False, "description": "Whole documents, too."},
            "collections": {
                "anyOf": [_list(_text("A registered collection.")), {"type": "null"}],
                "description": "Only these; all of them when absent.",
            },
        },
        "since",
        "ticket",
        "snapshot",
        "collections",
    ),
    "Connect": {
        "anyOf": [
            {"type": "object", "properties": {"token": _text("An access token.")}},
            {"type": "null"},
        ],
        "description": "`auth` of the client; with a token when the handshake brought none.",
    },
    "Connected": _closed({"sid": _text("The socket's id; no credential.")}),
    "ConnectError": _closed(
        {"message": _text("For people."), "data": _closed(_refusal(CONNECT), "retry_after_ms")}
    ),
    "JoinRoom": _arguments(
        _list(_text("A UUID."), description="Up to 100."),
        {"anyOf": [_ref("JoinOptions"), {"type": "null"}]},
        least=1,
    ),
    "JoinRoomAck": _arguments(
        {
            "anyOf": [
                _closed(
                    {
                        "joined": _map(_ref("Joined"), "By UUID."),
                        "refused": _map(_REFUSED_JOIN, "By UUID, or by what was sent in its place."),
                        "ticket": _ref("Ticket"),
                    },
                    "ticket",
                ),
                _whole(ROOMS, joined=_EMPTY, refused=_EMPTY),
            ]
        }
    ),
    "LeaveRoom": _arguments(_list(_text("A UUID."))),
    "LeaveRoomAck": _arguments(
        {
            "anyOf": [
                _closed(
                    {
                        "left": _list(_ref("Uuid"), description="The rooms that the socket was in."),
                        "refused": _map(_REFUSED_LEAVE, "What was no UUID."),
                    },
                    "refused",
                ),
                _whole(ROOMS, left={"type": "array", "maxItems": 0}),
            ]
        }
    ),
    "Check": {"type": "array", "description": "Anything."},
    "CheckAck": {"type": "array", "description": "The same; or, over a limit, `{code, detail, retry_after_ms}`."},
    "Reauth": _arguments(_closed({"token": _text("An access token of the same tenant and subject.")})),
    "ReauthAck": _arguments({"anyOf": [_closed({"expires_at": _ref("Date")}), _whole(REAUTH)]}),
    "Written": _arguments(_ref("Document"), _meta("insert", "replace")),
    "Updated": _arguments(
        {
            "type": "object",
            "properties": {"uuid": _ref("Uuid")},
            "required": ["uuid"],
            "description": "`uuid` and the changed fields, nested ones by their dotted path.",
        },
        _meta("update"),
    ),
    "Deleted": _arguments(_closed({"uuid": _ref("Uuid")}), _meta("delete")),
    "Revoked": _arguments(_closed({"uuid": _ref("Uuid"), "reason": _reason(REVOKED)})),
    "Refused": _arguments(
        _closed(
            {
                "uuid": {
                    "type": ["string", "null"],
                    "description": "What was refused; null when it was the whole event.",
                },
                **_refusal((*JOIN, *REAUTH)),
                "detail": _text("One sentence for people."),
            },
            "retry_after_ms",
            "detail",
        )
    ),
    "Resync": _arguments(
        _closed(
            {
                "uuid": _ref("Uuid"),
                "reason": _reason(RESYNC),
                "cursor": _ref("Cursor"),
                "snapshot": _ref("Snapshot"),
            }
        )
    ),
    "RenewedTicket": _arguments(_closed({"ticket": _ref("Ticket")})),
    "Expiring": _arguments(_closed({"at": _ref("Date")})),
    "GoAway": _arguments(_closed({"reason": _reason(GOAWAY), "within_ms": {"type": "integer", "minimum": 0}})),
}
"""Every schema, by name."""
