"""Structured logs with redaction, and Prometheus metrics.

A `Metrics` object holds the figures of one process; every name starts with `livedocs_`. Labels come from closed
sets (codes, kinds) or from registered tenants, never from what a client sends, so that cardinality stays bounded.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pymongo.errors import ConnectionFailure

from livedocs import tracing
from livedocs.config import Settings

# A secret can reach a log line only under one of these names or inside a URI; both are masked at the last step.
_SECRET_NAMES = re.compile(r"token|secret|password|cookie|authorization|credential|verifier", re.IGNORECASE)
_URI_PASSWORD = re.compile(r"(\w+://[^\s:/@]+):[^\s@]+@")
_BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+")
_MASK = "**********"
# Hashes and counts of secrets are not secrets.
_HARMLESS = frozenset({"token_id", "resume_token", "token_type"})


def _redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name, value in event.items():
        if name not in _HARMLESS and _SECRET_NAMES.search(name):
            event[name] = _MASK
        elif isinstance(value, str):
            event[name] = redact(value)
    return event


def _add_trace(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The trace that a line belongs to: that of the span under way rather than the one a request came with."""
    trace_id = tracing.trace_id()
    if trace_id is not None:
        event["trace_id"] = trace_id
    return event


def redact(text: str) -> str:
    """The text with passwords in URIs and bearer tokens masked."""
    return _BEARER.sub(rf"\1{_MASK}", _URI_PASSWORD.sub(rf"\1:{_MASK}@", text))


def _speaks(error: BaseException) -> bool:
    """Whether an exception's text is about the server and its connections, not about what somebody has sent."""
    ours = type(error).__module__.partition(".")[0] == "livedocs"
    return ours or isinstance(error, OSError | ConnectionFailure)


def _lines(error: BaseException, depth: int = 5) -> Iterator[str]:
    """A traceback as Python writes it, with the texts of exceptions that may repeat a request left out."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and depth:
        yield from _lines(before, depth - 1)
        yield "\nwhich led to:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    text = f": {error}" if _speaks(error) else ""
    yield f"{type(error).__module__}.{type(error).__qualname__}{text}\n"
    if isinstance(error, BaseExceptionGroup) and depth:
        for one in error.exceptions[:5]:
            yield from _lines(one, depth - 1)


def _traceback(exc_info: structlog.typing.ExcInfo) -> str:
    return "".join(_lines(exc_info[1])).rstrip("\n")


def _shown(argument: object) -> object:
    """An argument of a library's log line; raw bytes and exceptions may hold a request, its cookies among it."""
    if isinstance(argument, bytes | bytearray | memoryview):
        return f"<{len(argument)} bytes>"
    if isinstance(argument, BaseException) and not _speaks(argument):
        return f"<{type(argument).__qualname__}>"
    return argument


def _quieten(record: logging.LogRecord) -> bool:
    if record.name.partition(".")[0] != "livedocs" and isinstance(record.args, tuple):
        record.args = tuple(map(_shown, record.args))
    return True


def log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody has caught in an event loop, for `set_exception_handler`.

    asyncio's own handler writes whatever is at hand: callbacks with their arguments, protocols, results.
    """
    task = context.get("task") or context.get("future")
    get_logger(__name__).error(
        "unhandled_error",
        what=str(context.get("message", "")).partition(" in callback ")[0],
        task=task.get_name() if isinstance(task, asyncio.Task) else None,
        exc_info=context.get("exception"),
    )


def configure_logging(settings: Settings) -> None:
    """Send this process's logs, our own and the libraries', to standard error in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_traceback),
        _redact,
    ]
    structlog.configure(
        # What is below the level costs next to nothing that way.
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_quieten)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in ("httpx", "httpcore", "pymongo", "asyncio", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # These two log whole packets, CONNECT's token among them, at INFO.
    for leaky in ("engineio", "socketio"):
        logging.getLogger(leaky).setLevel(logging.WARNING)


# The values of labels that come from one place in the code each; see `Metrics`.
EVENTS = ("insert", "update", "replace", "delete", "grant", "gone", "unreadable")
RESYNCS = (
    *(
        "access",
        "ambiguous_order",
        "ambiguous_path",
        "collection_dropped",
        "document_too_large",
        "event_too_large",
    ),
    *("event_unreadable", "grants_dropped", "history_lost", "slow", "window"),
)
PARTS = (
    *("changes", "cluster", "journal", "lease", "logouts", "metrics", "sealing keys", "slow sockets", "timers"),
)
CONTAINED = ("change", "inquiry", "resync", "socket", "timer")
DISCONNECTS = (
    *("auth_unavailable", "connect_timeout", "disconnected", "error", "expired", "logout", "ping_timeout"),
    *("protocol_error", "rate_limited", "reauth_refused", "shutdown", "slow", "tenant_suspended", "token_revoked"),
)
BOUNDS = (
    *(("sockets", scope) for scope in ("server", "address", "user", "tenant")),
    *(("waiting sockets", scope) for scope in ("server", "address")),
    *(("connections", scope) for scope in ("server", "address")),
    *((kind, "address") for kind in ("requests", "waiting requests", "unread bytes")),
    *(("rooms", scope) for scope in ("socket", "call")),
    *(("bytes", scope) for scope in ("user", "tenant")),
    ("session queries", "user"),
    ("waiting documents", "user"),
    *(("imports", scope) for scope in ("user", "tenant")),
)
OTHER_TENANTS = "other"
_SINCE_COMMIT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

Family = TypeVar("Family", Counter, Gauge)


def _labelled(family: Family, *values: str) -> Family:
    """The family with those values of its one label in it from the start."""
    for value in values:
        family.labels(value)
    return family


class TenantGauge(Collector):
    """A gauge by tenant. It is read when Prometheus asks, so that counting costs nothing meanwhile.

    The tenants with most have a label of their own, all others together are `other`: a deployment may have more
    tenants than a time-series database wants series.

    Args:
        most: how many tenants get a label.
    """

    def __init__(self, name: str, documentation: str, *, most: int, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = ("tenant",)
        self._most = most
        self._count: Callable[[], Mapping[str, int]] = dict
        registry.register(self)

    def follow(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Say where the figures are: a function that returns them by tenant."""
        self._count = count

    def describe(self) -> Iterable[Metric]:
        """The family without its values."""
        return [GaugeMetricFamily(self._name, self._documentation, labels=self._labelnames)]

    def collect(self) -> Iterable[Metric]:
        """The family as it is now."""
        counts = self._count()
        # A tenant may be called `other` itself; it is counted there.
        named = heapq.nlargest(
            self._most, ((count, tenant) for tenant, count in counts.items() if tenant != OTHER_TENANTS)
        )
        family = GaugeMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for count, tenant in sorted(named, key=itemgetter(1)):
            family.add_metric([tenant], count)
        family.add_metric([OTHER_TENANTS], sum(counts.values()) - sum(count for count, _ in named))
        return [family]


class Metrics:
    """The figures of one process.

    A label's values that are known beforehand exist from the start, at zero: a rate or an alert that compares with
    "one minute ago" would not see the first occurrence otherwise.

    Args:
        tenants: how many tenants get a label of their own; the others share `other`.
    """

    def __init__(self, *, tenants: int = 100) -> None:
        self.registry = registry = CollectorRegistry()
        self.sockets = TenantGauge("livedocs_sockets", "Connected sockets", most=tenants, registry=registry)
        self.rooms = TenantGauge(
            "livedocs_rooms", "Rooms with at least one socket", most=tenants, registry=registry
        )
        self.transports = _labelled(
            Gauge("livedocs_transports", "Sockets by write path", ["path"], registry=registry), "direct", "asgi"
        )
        self.joins = _labelled(
            Counter("livedocs_joins", "Rooms joined or refused, by code", ["code"], registry=registry),
            *("ok", "forbidden", "rate_limited", "too_many_rooms", "unavailable"),
        )
        self.join_seconds = Histogram(
            "livedocs_join_seconds", "Time of a JoinRoom, from its arrival to its answer", registry=registry
        )
        self.handshakes = _labelled(
            Counter("livedocs_handshakes", "Handshakes, by code", ["code"], registry=registry),
            *("ok", "unauthenticated", "forbidden_origin", "auth_unavailable", "tenant_suspended"),
            *("too_many_connections", "rate_limited"),
        )
        self.events = _labelled(
            Counter("livedocs_events", "Change events, by kind", ["op"], registry=registry), *EVENTS
        )
        self.unresolved = Counter(
            "livedocs_events_unresolved", "Events dropped because no UUID could be found", registry=registry
        )
        self.contained = _labelled(
            Counter(
                "livedocs_contained_errors",
                "Errors nobody foresaw that harmed one room or one socket only, by what failed",
                ["what"],
                registry=registry,
            ),
            *CONTAINED,
        )
        self.part_restarts = _labelled(
            Counter(
                "livedocs_part_restarts",
                "Times a part of the process died and was started again in place, by part",
                ["part"],
                registry=registry,
            ),
            *PARTS,
        )
        self.deliveries = Counter("livedocs_deliveries", "Events written to sockets", registry=registry)
        self.latency = Histogram(
            "livedocs_commit_to_write_seconds",
            "Time from a change's commit to its write to the sockets",
            buckets=_SINCE_COMMIT,
            registry=registry,
        )
        self.stream_lag = Gauge("livedocs_stream_lag_seconds", "Age of the stream's position", registry=registry)
        self.stream_live = Gauge(
            "livedocs_stream_live", "1 while the stream is open and the server answers, else 0", registry=registry
        )
        self.stream_restarts = _labelled(
            Counter(
                "livedocs_stream_restarts",
                "Times the stream was opened again, by cause",
                ["cause"],
                registry=registry,
            ),
            *("reopen", "resume", "trimmed", "without_images", "skip", "start_over"),
        )
        self.history_events = Gauge("livedocs_history_events", "Events in the history", registry=registry)
        self.history_bytes = Gauge("livedocs_history_bytes", "Bytes in the history", registry=registry)
        self.history_seconds = Gauge(
            "livedocs_history_window_seconds",
            "How far back a cursor can resume now, in tenants that hold no more than their share",
            registry=registry,
        )
        self.history_shortest = Gauge(
            "livedocs_history_shortest_window_seconds",
            "The same in the tenant whose window is the shortest",
            registry=registry,
        )
        self.history_shortened = Gauge(
            "livedocs_history_shortened_tenants",
            "Tenants whose window is shorter than that of the others",
            registry=registry,
        )
        self.evictions = _labelled(
            Counter(
                "livedocs_evictions", "Memberships ended by the server, by reason", ["reason"], registry=registry
            ),
            *("revoked", "expired", "unavailable"),
        )
        self.revocation = Histogram(
            "livedocs_revocation_seconds",
            "Time from the commit of a revocation to the end of the memberships that rested on it",
            buckets=_SINCE_COMMIT,
            registry=registry,
        )
        self.resyncs = _labelled(
            Counter("livedocs_resyncs", "Resyncs sent, by reason", ["reason"], registry=registry), *RESYNCS
        )
        self.slow_sockets = Counter("livedocs_slow_sockets", "Times a socket fell behind", registry=registry)
        self.sockets_behind = Gauge("livedocs_sockets_behind", "Sockets that are behind now", registry=registry)
        self.disconnects = _labelled(
            Counter(
                "livedocs_disconnects", "Sockets closed by the server, by reason", ["reason"], registry=registry
            ),
            *DISCONNECTS,
        )
        self.introspections = _labelled(
            Counter(
                "livedocs_introspections",
                "Calls of the introspection service, by result",
                ["result"],
                registry=registry,
            ),
            *("active", "inactive", "connection", "timeout", "status", "misconfigured", "not_asked"),
        )
        self.introspection_seconds = Histogram(
            "livedocs_introspection_seconds", "Time of an introspection call", registry=registry
        )
        self.token_checks = Counter(
            "livedocs_token_checks", "Access tokens checked by signature, by result", ["result"], registry=registry
        )
        self.rate_limited = Counter(
            "livedocs_rate_limited",
            "What came too fast and was refused, by kind and by whose limit",
            ["kind", "scope"],
            registry=registry,
        )
        self.inquiries = _labelled(
            Counter(
                "livedocs_inquiries",
                "Questions of other processes about this one's sockets, by result",
                ["result"],
                registry=registry,
            ),
            *("answered", "failed", "dropped", "unknown"),
        )
        self.limits_hit = Counter(
            "livedocs_limits_hit",
            "What was refused because there were enough already, by kind and by whose limit",
            ["kind", "scope"],
            registry=registry,
        )
        for kind, scope in BOUNDS:
            self.limits_hit.labels(kind, scope)
        self.requests = Counter(
            "livedocs_http_requests",
            "HTTP requests, by method and status",
            ["method", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "livedocs_http_request_seconds",
            "Time of an HTTP request until its answer begins, by route",
            ["method", "route"],
            registry=registry,
        )
        self.loop_lag = Histogram(
            "livedocs_loop_lag_seconds",
            "How late the event loop woke, twenty times a second",
            buckets=_LAGS,
            registry=registry,
        )
        self.loop_lag_worst = Gauge(
            "livedocs_loop_lag_worst_seconds",
            "The longest of these delays within the last minute",
            registry=registry,
        )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines carry fields, not formatted sentences."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def log_failure(logger: structlog.stdlib.BoundLogger, event: str, error: BaseException, **subject: Any) -> None:
    """Log an error that was contained: its kind, where it arose and whose it is.

    Not its message, which may quote a document.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    logger.error(event, error=type(error).__name__, where=where, **subject)
