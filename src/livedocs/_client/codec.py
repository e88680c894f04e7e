"""BSON values as the server reads them, and back: Extended JSON v2, with nothing lost on the way. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson import Int64

from livedocs.codec import extjson
from livedocs.errors import InvalidJson, UnexpectedAnswer


def dumps(value: Any) -> bytes:
    """The value as JSON text.

    Raises:
        TypeError: a value that BSON does not have.
    """
    return extjson.dumps(_typed(value))


def loads(text: bytes | str, status: int = 200) -> Any:
    """The value of an answer's body.

    Raises:
        UnexpectedAnswer: it is none.
    """
    try:
        return extjson.loads(text)
    except InvalidJson as error:
        raise UnexpectedAnswer(status, error.detail) from error


def _typed(value: Any) -> Any:
    """A 64-bit integer keeps its type: relaxed Extended JSON would make a plain number of it."""
    if isinstance(value, Int64):
        return {"$numberLong": str(int(value))}
    if isinstance(value, Mapping):
        return {name: _typed(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_typed(item) for item in value]
    return value
