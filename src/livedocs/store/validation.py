"""What a document from a client may hold. Pure.

Extended JSON is decoded before this looks, so a name that still starts with `$` is a real one. Refused is what
MongoDB would take for an operator or a path (`{"$ne": null}` as a filter matches everything), what a browser would
take for an object's prototype, and what a later reader could not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import bson
from bson.binary import UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions
from bson.errors import BSONError

from livedocs.errors import DocumentTooLarge, InvalidDocument, InvalidField, TooDeep
from livedocs.runtime.slices import Steps, at_once, pieces

MAX_DEPTH = 32
"""Levels of objects and arrays, the document itself being the first."""

MAX_NAMES = 10_000
"""Field names in one document, at every level together."""

MAX_ELEMENTS = 100_000
"""Fields and items of arrays of one document, unless the settings say otherwise."""

MOST_DOUBTS = 1_000
"""Names that nobody may choose, of a document that may have them already."""

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(dict, uuid_representation=UuidRepresentation.STANDARD)

# An object with one of these, merged into another by a careless script, changes every object of the page.
_PROTOTYPES = frozenset({"__proto__", "constructor", "prototype"})
_CONTAINERS = frozenset({dict, list, Code})
# What a reference to another document is made of, wherever it leads (the manual's page on DBRefs).
_REFERENCE, _REQUIRED = frozenset({"$ref", "$id", "$db"}), frozenset({"$ref", "$id"})
# Elements between two moments in which others may go on.
_STEP = 1_000
_LEAST, _MOST = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Doubt:
    """A name that nobody may choose, and that the document may have nevertheless: other programs write, too.

    Attributes:
        path: where its value is, from the top.
        error: what it is refused with.
    """

    path: tuple[str | int, ...]
    error: InvalidField


def validate(document: Mapping[str, Any], *, max_bytes: int, max_elements: int = MAX_ELEMENTS) -> None:
    """`validating` at once."""
    at_once(validating(document, max_bytes=max_bytes, max_elements=max_elements))


def validating(
    document: Mapping[str, Any],
    *,
    max_bytes: int,
    max_elements: int = MAX_ELEMENTS,
    doubts: list[Doubt] | None = None,
) -> Steps[None]:
    """Refuse a document, or a merge patch, that must not be stored; in steps.

    Args:
        document: decoded, of BSON values.
        max_bytes: most bytes it may have as BSON.
        max_elements: most fields and items of arrays, at every level together.
        doubts: takes the names that are refused, up to `MOST_DOUBTS`, in place of an error.

    Raises:
        InvalidField: a name that is refused; `path` says where.
        TooDeep: more than `MAX_DEPTH` levels.
        DocumentTooLarge: more than `max_bytes` bytes, `max_elements` elements or `MAX_NAMES` names.
        InvalidDocument: a value that BSON cannot hold.
    """
    names = elements = seen = 0
    # A stack of our own: a client chooses the depth, and must not choose the interpreter's.
    waiting: list[_Node] = [(None, "", 1, document)]
    while waiting:
        node = waiting.pop()
        value: Any = (node[3].scope or {}) if isinstance(node[3], Code) else node[3]
        named = () if isinstance(value, list) else value
        elements, names = elements + len(value), names + len(named)
        _check_counts(names, elements, max_elements)
        for name in named:
            try:
                _check_name(name, node)
            except InvalidField as error:
                if doubts is None or len(doubts) >= MOST_DOUBTS:
                    raise
                doubts.append(Doubt(_path(node, name), error))
        for piece in pieces(value):
            waiting += _containers(piece, node)
            seen += min(len(value), _STEP) + 1
            if seen >= _STEP:
                seen = 0
                yield
    yield
    if size(document) > max_bytes:
        raise DocumentTooLarge(f"The document must be at most {max_bytes} bytes as BSON.", limit=max_bytes)


def size(document: Mapping[str, Any]) -> int:
    """Bytes of the document as BSON.

    Raises:
        InvalidDocument: it has no BSON form.
    """
    try:
        return len(bson.encode(document, codec_options=CODEC))
    except (BSONError, OverflowError, ValueError, TypeError) as error:
        raise InvalidDocument("The document has no BSON form.") from error


# A container: the one that it is in, its name or place there, its level, itself. A path is put together for errors
# only: a client chooses how many there are.
_Node = tuple[Any, str | int, int, Any]


def _path(node: _Node | None, *below: str | int) -> tuple[str | int, ...]:
    """Where a container is, or what is in it."""
    names = [*reversed(below)]
    while node is not None and node[0] is not None:
        names.append(node[1])
        node = node[0]
    return tuple(reversed(names))


def _shown(node: _Node | None, *below: str | int) -> str:
    """The same for people."""
    return ".".join(map(str, _path(node, *below)))


def _check_counts(names: int, elements: int, max_elements: int) -> None:
    if names > MAX_NAMES:
        raise DocumentTooLarge(f"The document must have at most {MAX_NAMES} field names.", limit=MAX_NAMES)
    if elements > max_elements:
        raise DocumentTooLarge(
            f"The document must have at most {max_elements} fields and array items.", limit=max_elements
        )


def _containers(pairs: Iterable[tuple[Any, Any]], node: _Node) -> list[_Node]:
    """The containers among the values in one; all others are checked."""
    found: list[_Node] = []
    level = node[2] + 1
    for name, item in pairs:
        kind = type(item)
        if kind is str:
            if not item.isascii():
                _check_text(item, node, name)
        elif kind in _CONTAINERS:
            if level > MAX_DEPTH:
                raise TooDeep(f"Documents may be nested at most {MAX_DEPTH} levels deep.", path=_shown(node, name))
            found.append((node, name, level, item))
        elif isinstance(item, int) and not _LEAST <= item <= _MOST:
            raise InvalidDocument("Integers must fit into 64 bits.", path=_shown(node, name))
    return found


def _is_reference(value: Any) -> bool:
    # In a merge patch null takes away, and half a reference would be left.
    return isinstance(value, dict) and all(value.get(name) is not None for name in _REQUIRED)


def _check_name(name: str, node: _Node) -> None:
    if name.isidentifier() and name not in _PROTOTYPES and name.isascii():
        # What nearly every name is.
        return
    if not name:
        raise InvalidField("A field name must not be empty.", path=_shown(node, name))
    if name in _REFERENCE and node[0] is not None and _is_reference(node[3]):
        return
    if name.startswith("$"):
        raise InvalidField("A field name must not start with $.", path=_shown(node, name))
    if "." in name or "\0" in name:
        raise InvalidField("A field name must not contain a dot or NUL.", path=_shown(node, name))
    if name in _PROTOTYPES:
        raise InvalidField(
            "This field name is not allowed: it has a meaning of its own in JavaScript.", path=_shown(node, name)
        )
    _check_text(name, node)


def _check_text(text: str, node: _Node, *below: str | int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        # A half of a surrogate pair has no UTF-8, and the path may hold it too.
        shown = _shown(node, *below).encode(errors="replace").decode()
        raise InvalidDocument("Text must be valid Unicode.", path=shown) from None
