"""What the parameters of paths and queries look like, and what they mean. Data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from livedocs.http.shapes import SUBJECT

SCHEMAS: Mapping[str, dict[str, Any]] = {
    "uuid": {"type": "string", "format": "uuid"},
    "collection": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_.-]{0,119}$"},
    "subject": {"type": "string", "pattern": SUBJECT},
    "slug": {"type": "string", "pattern": "^[a-z][a-z0-9-]{1,38}$"},
    "sid": {"type": "string", "pattern": "^[0-9a-f]{1,64}$"},
    "client_id": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
}
"""In place of what a signature says of them."""

IN_PATH: Mapping[str, str] = {
    "uuid": "The UUID of the documents (RFC 9562), in either case.",
    "collection": "A registered collection.",
    "subject": "`user:NAME`, `client:ID`, `group:NAME` or `tenant:*`.",
    "slug": "The tenant.",
    "sid": "The socket's id, as `GET /v1/admin/sessions` shows it.",
    "client_id": "The service's id at the OAuth provider.",
}

IN_QUERY: Mapping[str, str] = {
    "limit": "How many on a page.",
    "cursor": "`next` of the page before; opaque.",
    "collection": "Only what has a document in this collection.",
    "uuid": "Only what concerns this UUID.",
    "subject": "The subject in question: `user:NAME`, `client:ID`, `group:NAME` or `tenant:*`.",
    "group": "A group to take the subject to be in; may be repeated.",
    "actor": "Only what this subject did.",
    "action": "Only what was done in this way.",
    "since": "From this time on (RFC 3339).",
    "until": "Up to this time, it left out (RFC 3339).",
    "_id": "Of several documents of one UUID, the one with this `_id`: Extended JSON, or a bare ObjectId.",
    "first": "The number of the first line that is sent, counted from 0.",
    "data": "What becomes of the documents; `keep` when absent.",
    "confirm": "The `code` of the first step.",
    "return_to": "The local path to show after the login.",
    "code": "From the login service.",
    "state": "From the login service.",
    "iss": "From the login service (RFC 9207).",
    "error": "From the login service, in place of a code.",
}


def described(parameter: dict[str, Any]) -> dict[str, Any]:
    """A parameter of the description with its meaning, and with its schema where that is better known here."""
    name = parameter["name"]
    found = {"path": IN_PATH, "query": IN_QUERY}.get(parameter["in"], {})
    shown = dict(parameter)
    if name in SCHEMAS:
        shown["schema"] = dict(SCHEMAS[name])
    if name in found:
        shown["description"] = found[name]
    return shown
