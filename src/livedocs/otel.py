"""Spans by OpenTelemetry; imported only when that is switched on (`tracing.configure`).

Where they are sent, how many, and under which name of the service is said by the standard variables `OTEL_*`,
which the SDK reads by itself: https://opentelemetry.io/docs/languages/sdk-configuration/
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import Timer

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from livedocs import __version__
from livedocs.errors import LivedocsError
from livedocs.tracing import Kind, Parent, Span, Value

_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
}
# A command that is cancelled is never reported as ended: of those, no more are kept.
_MOST_COMMANDS = 1000
# Seconds at the end of the process for what has not been sent yet.
_PATIENCE = 2.0


class _Span:
    """A span under way. Nothing of an exception but its kind is noted: its text may hold anything."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def note(self, attribute: str, value: Value) -> None:
        self._span.set_attribute(attribute, value)

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))

    def raised(self, error: BaseException) -> None:
        """A refusal is an answer like any other, unless it is the server's own fault."""
        if not isinstance(error, LivedocsError):
            self.fail(type(error).__name__)
        elif error.status >= 500:
            self.fail(error.code)
        else:
            self.note("error.type", error.code)


class OtelTracer:
    """Makes spans with the SDK.

    Args:
        processor: takes the spans that have ended.
        give_up: ends the sending of what cannot be sent; called when that keeps the process from ending.
    """

    def __init__(self, processor: SpanProcessor, *, give_up: Callable[[], None] = lambda: None) -> None:
        self._give_up = give_up
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("livedocs", __version__)

    def span(
        self, name: str, kind: Kind, parent: Parent | None, attributes: Mapping[str, Value]
    ) -> AbstractContextManager[Span]:
        """A span as long as its `with` lasts; the ones made inside are its children."""
        return self._span(name, kind, parent, attributes)

    @contextmanager
    def _span(
        self, name: str, kind: Kind, parent: Parent | None, attributes: Mapping[str, Value]
    ) -> Iterator[_Span]:
        with self._tracer.start_as_current_span(
            name,
            context=_context(parent),
            kind=_KINDS[kind],
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as made:
            span = _Span(made)
            try:
                yield span
            except BaseException as error:
                span.raised(error)
                raise

    def trace_id(self) -> str | None:
        """The trace of the span under way, if there is one."""
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else None

    def listeners(self) -> Sequence[CommandListener]:
        """What a MongoDB client tells of its commands."""
        return [_Commands(self._tracer)]

    def shutdown(self) -> None:
        """Send what has not been sent."""
        impatience = Timer(_PATIENCE, self._give_up)
        impatience.start()
        try:
            self._provider.shutdown()
        finally:
            impatience.cancel()


def _resource() -> Resource:
    """Who sends the spans. What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes first."""
    found = Resource.create({"service.version": __version__})
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": "livedocs"}))
    return found


def _context(parent: Parent | None) -> Context | None:
    """The context of a span from elsewhere; None is the present one."""
    if parent is None:
        return None
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    context = SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(NonRecordingSpan(context))


class _Commands(CommandListener):
    """A span for each MongoDB command of a request, a handshake or a join; none for those that nobody asked for.

    The driver calls in the task that sends the command, so that its span is found. Only names are noted, never
    what a command asks for or is answered.
    """

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        # By the driver's number of the command, oldest first.
        self._running: OrderedDict[int, trace.Span] = OrderedDict()

    def started(self, event: CommandStartedEvent) -> None:
        """A command is being sent."""
        if not trace.get_current_span().is_recording():
            return
        name = event.command_name
        attributes = {"db.system.name": "mongodb", "db.operation.name": name, "db.namespace": event.database_name}
        collection = event.command.get("collection" if name == "getMore" else name)
        if isinstance(collection, str):
            attributes["db.collection.name"] = collection
        title = f"{name} {collection}" if isinstance(collection, str) else name
        self._running[event.request_id] = self._tracer.start_span(
            title, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False
        )
        if len(self._running) > _MOST_COMMANDS:
            self._running.popitem(last=False)[1].end()

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """It was answered."""
        span = self._running.pop(event.request_id, None)
        if span is not None:
            span.end()

    def failed(self, event: CommandFailedEvent) -> None:
        """It was refused, or never answered."""
        span = self._running.pop(event.request_id, None)
        if span is not None:
            code = event.failure.get("code")
            kind = str(code) if code is not None else str(event.failure.get("errtype", "error"))
            _Span(span).fail(kind)
            span.end()


def exporting_tracer() -> OtelTracer:
    """A tracer whose spans go to a collector by OTLP over HTTP, in batches and from a thread of its own."""
    exporter = OTLPSpanExporter()
    return OtelTracer(BatchSpanProcessor(exporter), give_up=exporter.shutdown)
