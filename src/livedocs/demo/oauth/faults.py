"""Faults that a test can put into the introspection endpoint."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass, replace


class Kind(enum.StrEnum):
    """What goes wrong."""

    ERROR = "error"
    """Status 500."""
    SLOW = "slow"
    """The right answer, late."""
    SHAPE = "shape"
    """Status 200 and JSON, but `active` is a string: the shape that fools a careless caller."""
    LIST = "list"
    """Status 200 and JSON, but a list."""
    TEXT = "text"
    """Status 200, but no JSON."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble. `remaining` calls meet it, every one until the reset when that is None."""

    kind: Kind
    remaining: int | None = None
    delay: float = 0.0


class Faults:
    """The fault in force, if any, and how often introspection was asked. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._calls = 0
        # Set when the fault it belongs to is over, so that slow answers need not be waited for.
        self._over = threading.Event()

    def set(self, fault: Fault | None) -> None:
        """Put a fault in force, or none; calls that the last one still delays go on at once."""
        with self._lock:
            self._over.set()
            self._over = threading.Event()
            self._fault = fault

    def take(self) -> Kind | None:
        """Count a call and meet the fault in force: what the call must do wrong, after any delay."""
        with self._lock:
            self._calls += 1
            fault, over = self._fault, self._over
            if fault is not None and fault.remaining is not None:
                left = fault.remaining - 1
                self._fault = replace(fault, remaining=left) if left else None
        if fault is None:
            return None
        if fault.delay:
            over.wait(fault.delay)
        return fault.kind

    def report(self) -> dict[str, object]:
        """The fault in force and the calls so far."""
        with self._lock:
            fault = self._fault
            return {
                "introspection": fault.kind if fault else None,
                "count": fault.remaining if fault else None,
                "delay": fault.delay if fault else 0.0,
                "calls": self._calls,
            }
