"""What an update description says: which paths could be misread, and the document it leads to. Pure.

Source: https://www.mongodb.com/docs/v6.0/reference/change-events/update/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# MongoDB stores 180 levels; a path with more dots than that has some in names.
_MOST_STEPS = 200


def names_a_nested_field(description: Mapping[str, Any]) -> bool:
    """Whether one of its paths may have several steps: only those can be misread."""
    if description.get("removedFields") or description.get("truncatedArrays"):
        return any("." in path for path in _paths(description))
    return "." in "".join(description.get("updatedFields") or ())


def _paths(description: Mapping[str, Any]) -> list[str]:
    return [
        *description.get("updatedFields", ()),
        *(description.get("removedFields") or ()),
        *(item["field"] for item in description.get("truncatedArrays") or ()),
    ]


def ambiguous(description: Mapping[str, Any], before: Mapping[str, Any] | None) -> bool:
    """Whether a path of an update may name a field whose own name has a dot.

    MongoDB tells from 6.1 on (`disambiguatedPaths`). Before, only the pre-image can: a name with a dot in it, or a
    path whose way does not exist there. It does not when such a name is new and the same path exists: no field of
    the event differs then.
    """
    if not names_a_nested_field(description):
        return False
    precise = description.get("disambiguatedPaths")
    if precise is not None:
        return any(isinstance(step, str) and "." in step for steps in precise.values() for step in steps)
    if before is None:
        return False
    way = _Way()
    return any("." in path and not way.is_unmistakable(before, path) for path in _paths(description))


class _Way:
    """Follows the paths of one update through the document before it.

    The names with a dot are gathered once for each level: an update of thousands of fields beside thousands of
    others would take minutes otherwise.
    """

    def __init__(self) -> None:
        self._dotted: dict[int, frozenset[str]] = {}

    def is_unmistakable(self, document: Any, path: str) -> bool:
        """Whether the path can only mean steps into nested values."""
        if path.count(".") > _MOST_STEPS:
            return False
        while True:
            first, dot, rest = path.partition(".")
            if isinstance(document, list):
                if not first.isdigit():
                    return False
                if not dot or int(first) >= len(document):
                    return True
                document, path = document[int(first)], rest
                continue
            if not isinstance(document, Mapping) or self._names_a_field(document, path):
                return False
            if not dot:
                return True
            document, path = document.get(first), rest
            if not isinstance(document, Mapping | list):
                return False

    def _names_a_field(self, document: Mapping[str, Any], path: str) -> bool:
        """Whether the path, or its first steps together, are one field's name."""
        dotted = self._dotted.get(id(document))
        if dotted is None:
            dotted = self._dotted[id(document)] = frozenset(name for name in document if "." in name)
        if not dotted:
            return False
        steps = path.split(".")
        return any(".".join(steps[:count]) in dotted for count in range(2, len(steps) + 1))


def updated(before: Mapping[str, Any], description: Mapping[str, Any]) -> dict[str, Any]:
    """The document that an update description makes of the document before it."""
    document: dict[str, Any] = _copied(before)
    for item in description.get("truncatedArrays") or []:
        holder, last = _holder(document, item["field"])
        array = _child(holder, last)
        if isinstance(array, list):
            del array[item["newSize"] :]
    for path in description.get("removedFields") or []:
        holder, last = _holder(document, path)
        if isinstance(holder, dict):
            holder.pop(last, None)
    for path, value in (description.get("updatedFields") or {}).items():
        holder, last = _holder(document, path)
        _put(holder, last, value)
    return document


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _holder(document: dict[str, Any], path: str) -> tuple[Any, str]:
    """What holds the last step of a dotted path, and that step. A field whose own name has a dot wins."""
    if path in document:
        return document, path
    *steps, last = path.split(".")
    holder: Any = document
    for step in steps:
        holder = _child(holder, step)
    return holder, last


def _child(holder: Any, step: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(step)
    if isinstance(holder, list) and step.isdigit() and int(step) < len(holder):
        return holder[int(step)]
    return None


def _put(holder: Any, step: str, value: Any) -> None:
    if isinstance(holder, dict):
        holder[step] = value
    elif isinstance(holder, list) and step.isdigit():
        index = int(step)
        if index < len(holder):
            holder[index] = value
        elif index == len(holder):
            holder.append(value)
