"""Structured logs with redaction, and Prometheus metrics.

A `Metrics` object holds the figures of one process; every name starts with `livedocs_`. Labels come from closed
sets (codes, kinds) or from registered tenants, never from what a client sends, so that cardinality stays bounded.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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


def redact(text: str) -> str:
    """The text with passwords in URIs and bearer tokens masked."""
    return _BEARER.sub(rf"\1{_MASK}", _URI_PASSWORD.sub(rf"\1:{_MASK}@", text))


def configure_logging(settings: Settings) -> None:
    """Send this process's logs, our own and the libraries', to standard error in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
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
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in ("httpx", "httpcore", "pymongo", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # These two log whole packets, CONNECT's token among them, at INFO.
    for leaky in ("engineio", "socketio"):
        logging.getLogger(leaky).setLevel(logging.WARNING)


class Metrics:
    """The figures of one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.sockets = Gauge("livedocs_sockets", "Connected sockets", ["tenant"], registry=registry)
        self.transports = Gauge("livedocs_transports", "Sockets by write path", ["path"], registry=registry)
        self.rooms = Gauge("livedocs_rooms", "Rooms with at least one socket", registry=registry)
        self.joins = Counter("livedocs_joins", "Rooms joined or refused, by code", ["code"], registry=registry)
        self.handshakes = Counter("livedocs_handshakes", "Handshakes, by code", ["code"], registry=registry)
        self.events = Counter("livedocs_events", "Change events, by kind", ["op"], registry=registry)
        self.unresolved = Counter(
            "livedocs_events_unresolved", "Events dropped because no UUID could be found", registry=registry
        )
        self.deliveries = Counter("livedocs_deliveries", "Events written to sockets", registry=registry)
        self.latency = Histogram(
            "livedocs_commit_to_write_seconds",
            "Time from a change's commit to its write to the sockets",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )
        self.stream_lag = Gauge("livedocs_stream_lag_seconds", "Age of the stream's position", registry=registry)
        self.stream_restarts = Counter(
            "livedocs_stream_restarts", "Times the stream was opened again, by cause", ["cause"], registry=registry
        )
        self.history_events = Gauge("livedocs_history_events", "Events in the history", registry=registry)
        self.history_bytes = Gauge("livedocs_history_bytes", "Bytes in the history", registry=registry)
        self.history_seconds = Gauge(
            "livedocs_history_window_seconds", "How far back a cursor can resume now", registry=registry
        )
        self.evictions = Counter(
            "livedocs_evictions", "Memberships ended by the server, by reason", ["reason"], registry=registry
        )
        self.resyncs = Counter("livedocs_resyncs", "Resyncs sent, by reason", ["reason"], registry=registry)
        self.slow_sockets = Counter("livedocs_slow_sockets", "Sockets that fell behind", registry=registry)
        self.disconnects = Counter(
            "livedocs_disconnects", "Sockets closed by the server, by reason", ["reason"], registry=registry
        )
        self.introspections = Counter(
            "livedocs_introspections",
            "Calls of the introspection service, by result",
            ["result"],
            registry=registry,
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
        self.requests = Counter(
            "livedocs_http_requests",
            "HTTP requests, by method and status",
            ["method", "status"],
            registry=registry,
        )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines carry fields, not formatted sentences."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
