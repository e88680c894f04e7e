"""The description of the socket protocol: an AsyncAPI 3 document, put together from what the code knows.

Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from livedocs import __version__
from livedocs.access.credentials import cookie_name
from livedocs.config import Settings
from livedocs.errors import LivedocsError
from livedocs.http.socket_contract import MESSAGES, OPERATIONS, Message, Operation
from livedocs.http.socket_schemas import COMPONENTS, HANDSHAKE, Errors

_ABOUT = """\
Socket.IO protocol 5 over Engine.IO 4, over WebSocket only: no long-polling, no compression, no binary events.

The payload of an event is the list of its arguments: `42["JoinRoom", ["6f1b.."]]` on the wire has the payload
`[["6f1b.."]]`. The payload of an acknowledgement is the list that the client's callback gets. An
acknowledgement is optional; without one a refusal comes as `$refused`.

Names that start with `$` are the server's. Any other event that it sends is named after the collection of the
document that has changed, but for the echo of `Check`.
"""
_SERVER = """\
Who is asking is settled before the WebSocket is accepted. A refused handshake is an HTTP answer with a problem
body (RFC 9457), see `x-refusals`. A page's Origin must be allowed.
"""


def document(settings: Settings) -> dict[str, Any]:
    """The document of a server with those settings."""
    server = urlsplit(settings.public_url)
    schemes = _schemes(cookie_name(settings.secure))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "livedocs",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "this": {
                "host": server.netloc,
                "pathname": "/socket.io/",
                "protocol": "wss" if settings.secure else "ws",
                "protocolVersion": "13",
                "title": "Socket.IO",
                "description": _SERVER,
                "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in schemes],
                "x-refusals": _by_status(HANDSHAKE),
            }
        },
        "channels": {
            "namespace": {
                "address": "/",
                "title": "The default namespace",
                "description": "The socket itself: getting in, what a client may ask for, and the end.",
                "servers": [{"$ref": "#/servers/this"}],
                "messages": _messages(room=False),
                "bindings": {"ws": _handshake()},
            },
            "room": {
                "address": "{uuid}",
                "title": "A room",
                "description": "What a socket gets after it has joined the room of a UUID.",
                "servers": [{"$ref": "#/servers/this"}],
                "parameters": {
                    "uuid": {"description": "Of the room.", "location": "$message.payload#/0/uuid"},
                },
                "messages": _messages(room=True),
            },
        },
        "operations": {name: _operation(operation) for name, operation in OPERATIONS.items()},
        "components": {
            "messages": {name: _message(message) for name, message in MESSAGES.items()},
            "schemas": dict(COMPONENTS),
            "securitySchemes": schemes,
        },
    }


def _schemes(cookie: str) -> dict[str, Any]:
    """The three ways to bring an access token along; one of them, never two."""
    return {
        "cookie": {
            "type": "httpApiKey",
            "in": "cookie",
            "name": cookie,
            "description": "The httpOnly cookie of a login; from a page of an allowed Origin only.",
        },
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "`Authorization: Bearer` in the handshake, for programs.",
        },
        "auth": {
            "type": "apiKey",
            "in": "password",
            "description": "`auth: {token}` in CONNECT, for programs that cannot set headers: without an Origin, "
            "and within `LIVEDOCS_CONNECT_TIMEOUT` of the handshake.",
        },
    }


def _handshake() -> dict[str, Any]:
    def constant(value: str) -> dict[str, Any]:
        return {"type": "string", "const": value}

    return {
        "method": "GET",
        "query": {
            "type": "object",
            "properties": {"EIO": constant("4"), "transport": constant("websocket")},
            "required": ["EIO", "transport"],
        },
        "headers": {
            "type": "object",
            "properties": {"Origin": {"type": "string"}, "Authorization": {"type": "string"}},
        },
        "bindingVersion": "0.1.0",
    }


def _by_status(errors: Errors) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind in sorted(errors, key=_status):
        found.setdefault(str(kind.status), []).append(kind.code)
    return found


def _status(kind: type[LivedocsError]) -> int:
    return kind.status


def _channel(message: str) -> str:
    return "room" if MESSAGES[message].room else "namespace"


def _messages(*, room: bool) -> dict[str, Any]:
    return {
        name: {"$ref": f"#/components/messages/{name}"}
        for name, message in MESSAGES.items()
        if message.room is room
    }


def _message(message: Message) -> dict[str, Any]:
    described: dict[str, Any] = {
        "title": message.title,
        "summary": message.summary,
        "payload": {"$ref": f"#/components/schemas/{message.schema}"},
        "examples": [{"summary": shows, "payload": payload} for shows, payload in message.examples.items()],
    }
    if message.event is not None:
        described["name"] = message.event
    if message.errors:
        # What each code means is said once, in the schema; here is where it comes from in HTTP's terms.
        described["x-errors"] = {kind.on_socket(): kind.title for kind in reversed(message.errors)}
    return described


def _operation(operation: Operation) -> dict[str, Any]:
    channel = _channel(operation.messages[0])

    def references(names: tuple[str, ...]) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/{_channel(name)}/messages/{name}"} for name in names]

    described: dict[str, Any] = {
        "action": operation.action,
        "summary": operation.summary,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": references(operation.messages),
    }
    if operation.reply:
        described["reply"] = {
            "channel": {"$ref": f"#/channels/{_channel(operation.reply[0])}"},
            "messages": references(operation.reply),
        }
    return described
