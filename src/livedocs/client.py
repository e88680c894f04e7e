"""The Python client for services: documents, grants, subscriptions. See docs/python-client.md."""

from livedocs._client.events import Change, Event, Refused, Revoked, Snapshot, Truncated
from livedocs._client.retries import Retries
from livedocs._client.service import Client
from livedocs._client.tokens import ClientCredentials, TokenSource
from livedocs._client.values import (
    Document,
    Explanation,
    Grant,
    GrantChange,
    Imported,
    Item,
    NewGrant,
    Receipt,
    Result,
    Rule,
)
from livedocs.model import Role

__all__ = [
    "Change",
    "Client",
    "ClientCredentials",
    "Document",
    "Event",
    "Explanation",
    "Grant",
    "GrantChange",
    "Imported",
    "Item",
    "NewGrant",
    "Receipt",
    "Refused",
    "Result",
    "Retries",
    "Revoked",
    "Role",
    "Rule",
    "Snapshot",
    "TokenSource",
    "Truncated",
]
