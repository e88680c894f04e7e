"""JSON Merge Patch (RFC 7396) as the least update that does the same. Pure.

The least update, because a change event of MongoDB carries what the update names: only what really changed reaches
the sockets, and a patch that changes nothing writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from livedocs.codec import extjson
from livedocs.errors import InvalidJson


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

    The names at the top of the patch must be validated: a dot in one would be taken for a path.
    """
    steps = _differences(current, patch, "")
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


def _differences(current: Mapping[str, Any], patch: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Paths and their new values. No path is part of another, so MongoDB takes them in one update."""
    found: list[tuple[str, Any]] = []
    for name, value in patch.items():
        changes = _difference(current, name, value, prefix + name)
        if changes and prefix and not _is_step(name):
            # MongoDB would take the name for something else: what it is in is set as a whole.
            return [(prefix[:-1], kept(current, merged(current, patch)))]
        found += changes
    return found


def _difference(current: Mapping[str, Any], name: str, value: Any, path: str) -> list[tuple[str, Any]]:
    if value is None:
        return [(path, _GONE)] if name in current else []
    if name not in current:
        return [(path, merged(None, value))]
    if isinstance(value, Mapping) and isinstance(current[name], Mapping):
        return _differences(current[name], value, path + ".")
    new = merged(None, value)
    return [] if same(current[name], new) else [(path, kept(current[name], new))]


def _is_step(name: str) -> bool:
    """Whether a name can be part of a path."""
    return name != "" and "." not in name and not name.startswith("$")


def kept(current: Any, value: Any) -> Any:
    """The value, with what is in it as it is in the current one in place of what says the same."""
    if isinstance(value, dict) and isinstance(current, dict):
        return {name: kept(current[name], item) if name in current else item for name, item in value.items()}
    if isinstance(value, list) and isinstance(current, list):
        return [kept(before, item) for before, item in zip(current, value, strict=False)] + value[len(current) :]
    return current if same(current, value) else value


def same(one: Any, other: Any) -> bool:
    """Whether a value that a client has sent is the one that is stored, as far as JSON can tell.

    A plain whole number is any number of that value: a browser that sends back the 5.0 it was shown sends 5. One
    that says its type, as `$numberLong` or with a decimal point, is of that type.

    Args:
        one: what is stored.
        other: what was sent.
    """
    kind = type(one)
    if kind is type(other) and kind in _PLAIN:
        return bool(one == other)
    if kind is list and type(other) is list:
        return len(one) == len(other) and all(map(same, one, other))
    if kind is dict and type(other) is dict:
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if _number(one) and _number(other):
        fits = type(other) is int or type(one) is type(other)
        return fits and (one == other or (math.isnan(one) and math.isnan(other)))
    return _same_scalars(one, other)


def _same_scalars(one: Any, other: Any) -> bool:
    kinds = {type(one), type(other)}
    if kinds == {datetime}:
        # What MongoDB holds has no time zone, and is in UTC.
        return _utc(one) == _utc(other)
    if len(kinds) == 1 and one == other:
        return True
    if kinds <= _PLAIN:
        return False
    # Two values may have one form: a NaN of another kind, an object that looks like a value of Extended JSON.
    shown = extjson.dumps(one)
    return shown == extjson.dumps(other) or _read_as(shown, other)


def _read_as(shown: bytes, value: Any) -> bool:
    """Whether a text is read as that value, though the value is written in another way."""
    try:
        found = extjson.loads(shown)
    except InvalidJson:
        return False
    return type(found) is type(value) and bool(found == value)


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


_PLAIN = frozenset({str, int, bool, type(None)})


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
