"""A bounded memory in which every value has an end."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime
from typing import Generic, TypeVar

V = TypeVar("V")

ALWAYS = datetime.max.replace(tzinfo=UTC)
"""The end of a value that stays until so many others have come after it."""


class TtlCache(Generic[V]):
    """Values by key, each until its own instant; the least recently used go first when it is full."""

    def __init__(self, size: int) -> None:
        self._size = size
        # Least recently used first; never more than `_size`.
        self._values: OrderedDict[str, tuple[V, datetime]] = OrderedDict()

    def get(self, key: str, now: datetime) -> V | None:
        """The value, or None when there is none any more; at its very end it is gone."""
        held = self._values.get(key)
        if held is None:
            return None
        value, until = held
        if now >= until:
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: str, value: V, until: datetime) -> None:
        """Keep a value until that instant, in place of the one before."""
        self._values[key] = (value, until)
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)

    def drop(self, key: str) -> None:
        """Forget the value now."""
        self._values.pop(key, None)

    def __len__(self) -> int:
        return len(self._values)
