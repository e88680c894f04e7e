"""JSON Merge Patch (RFC 7396) as the least update that does the same. Pure.

The least update, because a change event of MongoDB carries what the update names: only what really changed reaches
the sockets, and a patch that changes nothing writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Merged:
    """The outcome of a patch.

    Attributes:
        document: the whole document afterwards.
        set: new values by dotted path.
        unset: dotted paths to remove.
    """

    document: dict[str, Any]
    set: Mapping[str, Any]
    unset: tuple[str, ...]

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.set or self.unset)


def merge(current: Mapping[str, Any], patch: Mapping[str, Any]) -> Merged:
    """The patch applied to the document: objects merge, null removes, everything else replaces.

    The patch's names must be validated: a dot in one would be taken for a path.
    """
    steps = list(_differences(current, patch, ""))
    return Merged(
        merged(current, patch),
        {path: value for path, value in steps if value is not _GONE},
        tuple(path for path, value in steps if value is _GONE),
    )


def merged(target: Any, patch: Any) -> Any:
    """The function MergePatch of RFC 7396, section 2."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


_GONE = object()


def _differences(current: Mapping[str, Any], patch: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Paths and their new values. No path is part of another, so MongoDB takes them in one update."""
    for name, value in patch.items():
        path = prefix + name
        if value is None:
            if name in current:
                yield path, _GONE
        elif name not in current:
            yield path, merged(None, value)
        elif isinstance(value, Mapping) and isinstance(current[name], Mapping):
            yield from _differences(current[name], value, path + ".")
        elif not same(current[name], new := merged(None, value)):
            yield path, new


def same(one: Any, other: Any) -> bool:
    """Whether two BSON values are one value to a client that speaks JSON.

    Numbers compare by value, since JSON has one kind: a browser that sends back the 5.0 it was shown sends 5.
    """
    if _number(one) and _number(other):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
