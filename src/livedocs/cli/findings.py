"""What `livedocs doctor` prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `advice` says what to do; empty when all is well."""

    what: str
    advice: str = ""

    def __str__(self) -> str:
        """A line for the terminal."""
        return f"problem  {self.what}\n         -> {self.advice}" if self.advice else f"ok       {self.what}"
