"""Spans of what the server does, for OpenTelemetry when that is switched on, and for nobody otherwise.

The rest of the code calls `span` whether or not anybody looks. Attributes are names, numbers and codes: never a
token, a document, a query string or what a client made up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from livedocs.config import Settings

Kind = Literal["internal", "server", "client", "consumer"]
Value = str | int | float | bool

# W3C Trace Context, 3.2: version, trace, parent, flags. Later versions may have more behind another hyphen.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?\Z"
)


@dataclass(frozen=True, slots=True)
class Parent:
    """The span of somebody else that ours belongs to; ids in hexadecimal."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(text: str) -> Parent | None:
    """The parent that a `traceparent` header names (W3C Trace Context, 3.2), or None if it is not one. Pure."""
    found = _TRACEPARENT.match(text[:200])
    return Parent(found[1], found[2], bool(int(found[3], 16) & 1)) if found else None


class Span(Protocol):
    """A span under way."""

    def rename(self, name: str) -> None:
        """Give it its name, where that is known only now."""

    def note(self, attribute: str, value: Value) -> None:
        """Add an attribute."""

    def fail(self, kind: str) -> None:
        """It went wrong; `kind` is a code or the name of an exception."""


class Tracer(Protocol):
    """Makes spans."""

    def span(
        self, name: str, kind: Kind, parent: Parent | None, attributes: Mapping[str, Value]
    ) -> AbstractContextManager[Span]:
        """A span as long as its `with` lasts; the ones made inside are its children."""

    def trace_id(self) -> str | None:
        """The trace of the span under way, if there is one."""

    def listeners(self) -> Sequence[Any]:
        """What a MongoDB client tells of its commands."""

    def shutdown(self) -> None:
        """Send what has not been sent."""


class _NullSpan:
    """A span that nobody looks at."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def rename(self, name: str) -> None:
        """Nobody looks."""

    def note(self, attribute: str, value: Value) -> None:
        """Nobody looks."""

    def fail(self, kind: str) -> None:
        """Nobody looks."""


NO_SPAN = _NullSpan()


class _NullTracer:
    """Tracing switched off."""

    def span(
        self,
        name: str,  # noqa: ARG002
        kind: Kind,  # noqa: ARG002
        parent: Parent | None,  # noqa: ARG002
        attributes: Mapping[str, Value],  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        """The same for everything."""
        return NO_SPAN

    def trace_id(self) -> str | None:
        """None."""
        return None

    def listeners(self) -> Sequence[Any]:
        """None: a client without listeners does not even look at the clock."""
        return ()

    def shutdown(self) -> None:
        """There is nothing to send."""


_NOTHING: Mapping[str, Value] = {}
_tracer: Tracer = _NullTracer()


def configure(settings: Settings) -> None:
    """Have this process's spans sent as the settings say. To be called before the parts are built."""
    if settings.traces == "otlp":
        # The extra `otel`; configuration has looked whether it is there.
        from livedocs.otel import exporting_tracer  # noqa: PLC0415

        use(exporting_tracer())


def use(tracer: Tracer) -> Tracer:
    """Have this process's spans made by that tracer. Returns the one used until now."""
    # Like logging, one for the process.
    global _tracer
    former, _tracer = _tracer, tracer
    return former


def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: Parent | None = None,
    attributes: Mapping[str, Value] = _NOTHING,
) -> AbstractContextManager[Span]:
    """A span as long as its `with` lasts."""
    return _tracer.span(name, kind, parent, attributes)


def trace_id() -> str | None:
    """The trace of the span under way, in hexadecimal; None without one."""
    return _tracer.trace_id()


def mongodb_listeners() -> Sequence[Any]:
    """What to give a MongoDB client as `event_listeners`."""
    return _tracer.listeners()


def shutdown() -> None:
    """Send what has not been sent, and end."""
    use(_NullTracer()).shutdown()
