"""MongoDB's errors in the words of this project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pymongo
from bson.errors import BSONError
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.errors import DocumentTooLarge as BsonTooLarge

from livedocs.errors import Conflict, DocumentTooLarge, InvalidDocument, LivedocsError, Unavailable
from livedocs.telemetry import get_logger, redact

_log = get_logger(__name__)

# SnapshotTooOld, SnapshotUnavailable: a read as of a cluster time that the server has no history of (any more).
SNAPSHOT_UNAVAILABLE = 246
SNAPSHOT_GONE = frozenset({239, SNAPSHOT_UNAVAILABLE})
_RETRY_AFTER = 2.0
_TOO_LARGE = frozenset({10334, 17419, 17420})
_VALIDATION_FAILED = 121
_DUPLICATE = frozenset({11000, 11001, 12582})


def translate(error: PyMongoError | BSONError) -> LivedocsError:
    """What a caller is told about an error of MongoDB or its driver; the driver's words stay in the log."""
    if isinstance(error, BulkWriteError):
        error = _first(error)
    if isinstance(error, DuplicateKeyError):
        return Conflict()
    if isinstance(error, BsonTooLarge) or (isinstance(error, OperationFailure) and error.code in _TOO_LARGE):
        return DocumentTooLarge()
    if isinstance(error, OperationFailure) and error.code == _VALIDATION_FAILED:
        return InvalidDocument("The collection's own validator refuses the document.")
    if isinstance(error, BSONError):
        return InvalidDocument("The document has no BSON form.")
    _log.warning("mongodb_unavailable", error=type(error).__name__, detail=redact(str(error))[:500])
    return Unavailable("The database cannot answer now.", retry_after=_RETRY_AFTER)


def _first(error: BulkWriteError) -> OperationFailure:
    """The error of the one write at which an ordered bulk has stopped."""
    failed = (error.details.get("writeErrors") or [{}])[0]
    code, message = failed.get("code"), str(failed.get("errmsg", ""))
    kind = DuplicateKeyError if code in _DUPLICATE else OperationFailure
    return kind(message, code)


@contextmanager
def translated(*, seconds: float) -> Iterator[None]:
    """Give what runs inside that long, retries included, and raise MongoDB's errors in our words.

    Raises:
        Unavailable: MongoDB is out of reach, too slow or refuses for a reason the caller cannot mend.
        Conflict: a unique key is taken.
        DocumentTooLarge, InvalidDocument: MongoDB cannot hold the document.
    """
    try:
        with pymongo.timeout(seconds):
            yield
    except (PyMongoError, BSONError) as error:
        raise translate(error) from error
