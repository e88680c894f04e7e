"""The one way to connect to MongoDB, so that every part reads and writes under the same guarantees."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.database import AsyncDatabase

from livedocs import tracing
from livedocs.config import Settings
from livedocs.mongodb_uri import without_ignored

MongoDocument = dict[str, Any]

# For reading documents that anybody may have written: `bsondecode` decodes them.
RAW: CodecOptions[RawBSONDocument] = CodecOptions(RawBSONDocument, uuid_representation=UuidRepresentation.STANDARD)

# The collections of the control database.
TENANTS = "tenants"
ACL = "acl"
AUDIT = "audit"
GUARDS = "guards"
PROCESSES = "processes"
IDEMPOTENCY = "idempotency"
INQUIRIES = "inquiries"
ANSWERS = "answers"
MIGRATIONS = "migrations"
KEYS = "keys"
RENEWALS = "renewals"

# Seconds. An election takes up to about twelve; a request gives up before, the stream calls again.
_SERVER_SELECTION = 5
_CONNECT = 5
_SOCKET = 30
_POOL_WAIT = 5


def _options(appname: str) -> dict[str, Any]:
    """Options of ours, which win over the connection string's."""
    return {
        "appname": appname,
        "tz_aware": True,
        "tzinfo": UTC,
        "uuidRepresentation": "standard",
        # Any driver may have written what we read: a year past 9999 or a byte that is no UTF-8 must not end the
        # change stream for everybody.
        "datetime_conversion": "DATETIME_AUTO",
        "unicode_decode_error_handler": "replace",
        # From a secondary that lags, a grant that is gone would still be read.
        "readPreference": "primary",
        # Whatever has become of the one server, the primary is asked.
        "directConnection": False,
        # A write that is answered is one that no election can take back, and that the change stream will show.
        "w": "majority",
        "readConcernLevel": "majority",
        "retryReads": True,
        "retryWrites": True,
        "serverSelectionTimeoutMS": _SERVER_SELECTION * 1000,
        "connectTimeoutMS": _CONNECT * 1000,
        "socketTimeoutMS": _SOCKET * 1000,
        "waitQueueTimeoutMS": _POOL_WAIT * 1000,
    }


def connect(settings: Settings, *, appname: str = "livedocs") -> AsyncMongoClient[MongoDocument]:
    """A client for the deployment of `settings.mongodb_uri`; nothing is sent before its first use.

    Times are aware and UTC, UUIDs are `uuid.UUID` (Binary subtype 4). Close it with `await client.close()`.
    """
    return AsyncMongoClient(
        _uri(settings),
        event_listeners=tracing.mongodb_listeners(),
        **_options(appname),
    )


def connect_raw(settings: Settings, *, appname: str = "livedocs-stream") -> AsyncMongoClient[RawBSONDocument]:
    """The same for the change stream: documents stay BSON until somebody wants to read one."""
    return AsyncMongoClient(_uri(settings), document_class=RawBSONDocument, **_options(appname))


def connect_blocking(settings: Settings, *, appname: str = "livedocs-migrate") -> MongoClient[MongoDocument]:
    """The same for code that runs outside an event loop: migrations."""
    return MongoClient(_uri(settings), **_options(appname))


def _uri(settings: Settings) -> str:
    return without_ignored(settings.mongodb_uri.get_secret_value())


def plain(database: AsyncDatabase[MongoDocument]) -> AsyncDatabase[MongoDocument]:
    """The same database, with its times in UTC and without saying so.

    For documents of clients: to make 50,000 times aware takes 80 ms, in which nobody else has a turn; without, 4.
    """
    options = database.codec_options.with_options(tz_aware=False, tzinfo=None)
    return database.with_options(codec_options=options)
