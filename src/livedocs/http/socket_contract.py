"""The messages of the socket protocol and what answers what: the matter of the AsyncAPI document. Data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from livedocs.http import socket_schemas as schemas
from livedocs.http.socket_schemas import Errors

_UUID = "6f1b0c1e-3a52-4c8e-9d5b-2f6f6c2f8a11"
_OTHER = "b0a5b6ce-5a0c-4e0a-8c64-6a8c8f1c1d51"
_CURSOR = (
    "a69570B3D000000012B022C010029-dW2WT0HNb7QsvoWsJzlSLLS3IonJA"
    "6eiKi3mWvQUBEpzMmRddhAuQWtQPaTrzELkmraOvXyXto2AiBRajlDaRaUd"
)
_TICKET = "taVcLPQAAAAFkq1v0m3oQJb4c0FJr7o1pXbQe4n8mD6U-3n2WcY5rVw"
_AT = {"$date": "2026-01-02T03:04:05.678Z"}
_META = {"id": _CURSOR, "at": _AT, "removed": [], "truncated": []}


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of message.

    Attributes:
        schema: of its payload, by name.
        event: the Socket.IO event's name; None where the packet is no event, or the name is a collection's.
        title: what the message is.
        summary: what it means.
        examples: payloads by what they show.
        room: whether it is about one room.
        errors: what it may refuse with.
    """

    schema: str
    event: str | None
    title: str
    summary: str
    examples: Mapping[str, Any]
    room: bool = False
    errors: Errors = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """What the server does.

    Attributes:
        action: `receive` what clients send, or `send` to them.
        messages: which messages, by name.
        reply: the messages that may answer, by name.
    """

    action: Literal["receive", "send"]
    messages: tuple[str, ...]
    summary: str
    reply: tuple[str, ...] = ()


MESSAGES: Mapping[str, Message] = {
    "connect": Message(
        "Connect",
        None,
        "CONNECT",
        "The client's first packet, to the namespace `/`. A second one on the same connection ends it.",
        {"The handshake had the credential": None, "A program without headers": {"token": "eyJhbGciOi.."}},
    ),
    "connected": Message(
        "Connected", None, "CONNECT's answer", "The socket may send events.", {"In": {"sid": "0f2d6a0c4b1e"}}
    ),
    "connectError": Message(
        "ConnectError",
        None,
        "CONNECT_ERROR",
        "The socket is refused, and closed.",
        {"No token": {"message": "Log in first.", "data": {"code": "unauthenticated"}}},
        errors=schemas.CONNECT,
    ),
    "joinRoom": Message(
        "JoinRoom",
        "JoinRoom",
        "JoinRoom",
        "Enter the rooms of these UUIDs. Without an acknowledgement, refusals come as `$refused`.",
        {
            "Two rooms": [[_UUID, _OTHER]],
            "With the documents": [[_UUID], {"snapshot": True, "collections": ["notes"]}],
            "After a reconnect": [[_UUID], {"since": _CURSOR, "ticket": _TICKET}],
        },
    ),
    "joinRoomAck": Message(
        "JoinRoomAck",
        None,
        "JoinRoom's acknowledgement",
        "Every UUID is joined or refused. A UUID that does not exist and one without a grant are refused alike.",
        {
            "One in, one not": [
                {
                    "joined": {_UUID: {"role": "reader", "cursor": _CURSOR}},
                    "refused": {_OTHER: {"code": "forbidden"}},
                    "ticket": _TICKET,
                }
            ],
            "With the documents": [
                {
                    "joined": {
                        _UUID: {
                            "role": "owner",
                            "cursor": _CURSOR,
                            "snapshot": {"notes": [{"uuid": _UUID, "title": "First"}]},
                        }
                    },
                    "refused": {},
                    "ticket": _TICKET,
                }
            ],
            "Not what the interface describes": [
                {
                    "joined": {},
                    "refused": {},
                    "code": "bad_request",
                    "detail": "The first argument is a list of UUIDs.",
                }
            ],
        },
        errors=(*schemas.JOIN, *schemas.ROOMS),
    ),
    "leaveRoom": Message("LeaveRoom", "LeaveRoom", "LeaveRoom", "Leave these rooms.", {"One": [[_UUID]]}),
    "leaveRoomAck": Message(
        "LeaveRoomAck",
        None,
        "LeaveRoom's acknowledgement",
        "Nothing of these rooms is written to the socket any more.",
        {"Left": [{"left": [_UUID]}], "No UUID": [{"left": [], "refused": {"x": {"code": "invalid_uuid"}}}]},
        errors=(*schemas.LEAVE, *schemas.ROOMS),
    ),
    "check": Message(
        "Check",
        "Check",
        "Check",
        "Anything; it comes back as acknowledgement and event.",
        {"A word": ["hello"]},
    ),
    "checkAck": Message(
        "CheckAck", None, "Check's acknowledgement", "The same.", {"A word": ["hello"]}, errors=schemas.CALL
    ),
    "reauth": Message(
        "Reauth",
        "Reauth",
        "Reauth",
        "Go on under a new token, for clients that hold theirs. A browser renews over HTTP and reconnects.",
        {"A token": [{"token": "eyJhbGciOi.."}]},
    ),
    "reauthAck": Message(
        "ReauthAck",
        None,
        "Reauth's acknowledgement",
        "The new end; the socket keeps its rooms. A refused token ends the socket with `$goaway`.",
        {
            "Accepted": [{"expires_at": _AT}],
            "Somebody else's": [{"code": "forbidden", "detail": "The new token is somebody else's."}],
        },
        errors=schemas.REAUTH,
    ),
    "written": Message(
        "Written",
        None,
        "A document was written",
        "The event's name is the collection. The whole document as an insert or a replacement has left it.",
        {"An insert": [{"uuid": _UUID, "title": "First"}, {"op": "insert", **_META}]},
        room=True,
    ),
    "updated": Message(
        "Updated",
        None,
        "A document was updated",
        "The event's name is the collection. Only what has changed.",
        {
            "A field set, another removed": [
                {"uuid": _UUID, "title": "Second", "author.name": "Bob"},
                {"op": "update", **_META, "removed": ["draft"]},
            ]
        },
        room=True,
    ),
    "deleted": Message(
        "Deleted",
        None,
        "A document was deleted",
        "The event's name is the collection. The room stays.",
        {"A delete": [{"uuid": _UUID}, {"op": "delete", **_META}]},
        room=True,
    ),
    "revoked": Message(
        "Revoked",
        "$revoked",
        "$revoked",
        "The socket is out of the room; nothing committed after the revocation was or will be sent.",
        {"A grant was taken away": [{"uuid": _UUID, "reason": "revoked"}]},
        room=True,
    ),
    "resync": Message(
        "Resync",
        "$resync",
        "$resync",
        "Changes were lost on the way: here is the newest state, forget what you have.",
        {
            "A slow client": [
                {"uuid": _UUID, "reason": "slow", "cursor": _CURSOR, "snapshot": {"notes": [{"uuid": _UUID}]}}
            ]
        },
        room=True,
    ),
    "refused": Message(
        "Refused",
        "$refused",
        "$refused",
        "The answer to an event without acknowledgement.",
        {
            "A room": [{"uuid": _UUID, "code": "forbidden"}],
            "Too fast": [
                {
                    "uuid": None,
                    "code": "rate_limited",
                    "retry_after_ms": 1500,
                    "detail": "Too many events of this user.",
                }
            ],
        },
        errors=(*schemas.JOIN, *schemas.REAUTH),
    ),
    "ticket": Message(
        "RenewedTicket",
        "$ticket",
        "$ticket",
        "A newer ticket; sent to who has had one with an acknowledgement, whenever the token has been checked.",
        {"A ticket": [{"ticket": _TICKET}]},
    ),
    "expiring": Message(
        "Expiring",
        "$expiring",
        "$expiring",
        "The token ends at that time, at most a minute from now: renew it.",
        {"Soon": [{"at": _AT}]},
    ),
    "goAway": Message(
        "GoAway",
        "$goaway",
        "$goaway",
        "The socket will be closed. Reconnect, unless the reason is final: "
        + ", ".join(f"`{reason}`" for reason in schemas.GOAWAY if reason in schemas.FINAL)
        + ".",
        {
            "A stop": [{"reason": "shutdown", "within_ms": 10000}],
            "A logout": [{"reason": "logout", "within_ms": 0}],
        },
    ),
}

OPERATIONS: Mapping[str, Operation] = {
    "connect": Operation("receive", ("connect",), "Let a client in.", ("connected", "connectError")),
    "joinRoom": Operation("receive", ("joinRoom",), "Let a socket into rooms.", ("joinRoomAck",)),
    "leaveRoom": Operation("receive", ("leaveRoom",), "Let a socket out of rooms.", ("leaveRoomAck",)),
    "check": Operation("receive", ("check",), "Echo.", ("checkAck",)),
    "reauth": Operation("receive", ("reauth",), "Put a socket under a new token.", ("reauthAck",)),
    "echo": Operation("send", ("check",), "The echo of a Check, as an event."),
    "sendChange": Operation(
        "send",
        ("written", "updated", "deleted"),
        "A committed change of a document, in the order of the commits of its UUID.",
    ),
    "sendRevoked": Operation("send", ("revoked",), "The end of the right to a room."),
    "sendResync": Operation("send", ("resync",), "The newest state of a room in place of its changes."),
    "sendRefused": Operation("send", ("refused",), "A refusal that no acknowledgement takes."),
    "sendTicket": Operation("send", ("ticket",), "A newer ticket."),
    "sendExpiring": Operation("send", ("expiring",), "A word ahead of a token's end."),
    "sendGoAway": Operation("send", ("goAway",), "A word ahead of a socket's end."),
}
