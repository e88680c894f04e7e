"""What a document from a client may hold. Pure.

Extended JSON is decoded before this looks, so a name that still starts with `$` is a real one. Refused is what
MongoDB would take for an operator or a path (`{"$ne": null}` as a filter matches everything), what a browser would
take for an object's prototype, and what a later reader could not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import bson
from bson.binary import UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions
from bson.errors import BSONError

from livedocs.errors import DocumentTooLarge, InvalidDocument, InvalidField, TooDeep

MAX_DEPTH = 32
"""Levels of objects and arrays, the document itself being the first."""

MAX_NAMES = 10_000
"""Field names in one document, at every level together."""

RESERVED = frozenset({"_id", "uuid"})
"""Names at the top of a document that belong to the server."""

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(dict, uuid_representation=UuidRepresentation.STANDARD)

# An object with one of these, merged into another by a careless script, changes every object of the page.
_PROTOTYPES = frozenset({"__proto__", "constructor", "prototype"})
_LEAST, _MOST = -(2**63), 2**63 - 1


def validate(document: Mapping[str, Any], *, max_bytes: int, reserved: AbstractSet[str] = RESERVED) -> None:
    """Refuse a document, or a merge patch, that must not be stored.

    Args:
        document: decoded, of BSON values.
        max_bytes: most bytes it may have as BSON.
        reserved: names refused at the top level.

    Raises:
        InvalidField: a name that is refused; `path` says where.
        TooDeep: more than `MAX_DEPTH` levels.
        DocumentTooLarge: more than `max_bytes` bytes or `MAX_NAMES` names.
        InvalidDocument: a value that BSON cannot hold.
    """
    for name in document:
        if name in reserved:
            raise InvalidField("This name belongs to the server.", path=name)
    names = 0
    # A stack of our own: a client chooses the depth, and must not choose the interpreter's.
    waiting: list[tuple[tuple[str, ...], Any]] = [((), document)]
    while waiting:
        path, value = waiting.pop()
        for name, item in _items(value):
            if not isinstance(value, list):
                names += 1
                _check_name(name, path)
            inner = (*path, name)
            if isinstance(item, Mapping | list | Code):
                if len(inner) >= MAX_DEPTH:
                    raise TooDeep(f"At most {MAX_DEPTH} levels.", path=".".join(inner))
                waiting.append((inner, item))
            else:
                _check_value(item, inner)
        if names > MAX_NAMES:
            raise DocumentTooLarge(f"At most {MAX_NAMES} field names.")
    if size(document) > max_bytes:
        raise DocumentTooLarge(f"At most {max_bytes} bytes as BSON.", limit=max_bytes)


def size(document: Mapping[str, Any]) -> int:
    """Bytes of the document as BSON.

    Raises:
        InvalidDocument: it has no BSON form.
    """
    try:
        return len(bson.encode(document, codec_options=CODEC))
    except (BSONError, OverflowError, ValueError, TypeError) as error:
        raise InvalidDocument("The document has no BSON form.") from error


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Code):
        yield from (value.scope or {}).items()
    elif isinstance(value, Mapping):
        yield from value.items()
    else:
        yield from ((str(index), item) for index, item in enumerate(value))


def _check_name(name: str, path: tuple[str, ...]) -> None:
    shown = ".".join((*path, name))
    if not name:
        raise InvalidField("A field name must not be empty.", path=shown)
    if name.startswith("$"):
        raise InvalidField("A field name must not start with $.", path=shown)
    if "." in name or "\0" in name:
        raise InvalidField("A field name must not contain a dot or NUL.", path=shown)
    if name in _PROTOTYPES:
        raise InvalidField("This field name is refused for the browsers' sake.", path=shown)
    _check_text(name, path)


def _check_value(value: Any, path: tuple[str, ...]) -> None:
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, int) and not _LEAST <= value <= _MOST:
        raise InvalidDocument("Integers have at most 64 bits.", path=".".join(path))


def _check_text(text: str, path: tuple[str, ...]) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        # A half of a surrogate pair has no UTF-8, and the path may hold it too.
        shown = ".".join(path).encode(errors="replace").decode()
        raise InvalidDocument("Text must be valid Unicode.", path=shown) from None
