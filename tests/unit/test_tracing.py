from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from livedocs import config, tracing
from livedocs.errors import ConfigurationError, Forbidden, Unavailable
from livedocs.otel import OtelTracer
from livedocs.tracing import Parent, parse_traceparent, span, trace_id

from .conftest import ENVIRONMENT

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans():
    """Tracing switched on, with the spans that have ended in memory; puts everything back."""
    exporter = InMemorySpanExporter()
    tracer = OtelTracer(SimpleSpanProcessor(exporter))
    former = tracing.use(tracer)
    yield exporter.get_finished_spans
    tracing.use(former)
    tracer.shutdown()


@pytest.mark.parametrize(
    ("text", "parent"),
    [
        (f"00-{TRACE}-{SPAN}-01", Parent(TRACE, SPAN, sampled=True)),
        (f"00-{TRACE}-{SPAN}-00", Parent(TRACE, SPAN, sampled=False)),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be", Parent(TRACE, SPAN, sampled=True)),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_its_standard_says(text, parent):
    assert parse_traceparent(text) == parent


def test_without_tracing_there_are_no_spans_and_nobody_listens_to_commands():
    with span("one", attributes={"n": 1}) as one:
        one.rename("two")
        one.note("n", 2)
        one.fail("code")
        assert trace_id() is None
    assert one is tracing.NO_SPAN
    assert list(tracing.mongodb_listeners()) == []


def test_spans_made_inside_are_children_of_the_same_trace(spans):
    with span("outer", kind="server", attributes={"livedocs.rooms": 3}) as outer:
        known = trace_id()
        with span("inner", kind="client"):
            assert trace_id() == known
        outer.rename("renamed")
        outer.note("livedocs.tenant", "acme")
    inner, outer = spans()
    assert (inner.name, outer.name) == ("inner", "renamed")
    assert inner.parent.span_id == outer.context.span_id
    assert f"{outer.context.trace_id:032x}" == known
    assert dict(outer.attributes) == {"livedocs.rooms": 3, "livedocs.tenant": "acme"}
    assert (inner.kind, outer.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert trace_id() is None


def test_a_span_continues_the_trace_it_is_told(spans):
    with span("one", parent=Parent(TRACE, SPAN, sampled=True)):
        assert trace_id() == TRACE
    (one,) = spans()
    assert f"{one.parent.span_id:016x}" == SPAN


def test_a_trace_that_is_not_wanted_is_not_made(spans):
    with span("one", parent=Parent(TRACE, SPAN, sampled=False)):
        assert trace_id() == TRACE
    assert spans() == ()


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (ValueError("mongodb://u:s3cret@h"), "ValueError", StatusCode.ERROR),
        (Unavailable("s3cret"), "unavailable", StatusCode.ERROR),
        # A refusal is an answer.
        (Forbidden("s3cret"), "forbidden", StatusCode.UNSET),
    ],
)
def test_of_an_error_only_its_kind_is_noted(spans, error, kind, status):
    with pytest.raises(type(error)), span("one"):
        raise error
    (one,) = spans()
    assert (one.attributes["error.type"], one.status.status_code) == (kind, status)
    assert "s3cret" not in one.to_json()


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "livedocs"),
        ({"OTEL_SERVICE_NAME": "feed"}, "feed"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=feed"}, "feed"),
    ],
)
def test_spans_are_sent_under_the_name_that_the_environment_says(monkeypatch, environment, name):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    exporter = InMemorySpanExporter()
    tracer = OtelTracer(SimpleSpanProcessor(exporter))
    with tracer.span("one", "internal", None, {}):
        pass
    (one,) = exporter.get_finished_spans()
    assert one.resource.attributes["service.name"] == name
    tracer.shutdown()


def test_tracing_that_is_not_installed_stops_the_start(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    assert config.load(ENVIRONMENT, traces="otlp").traces == "otlp"
    monkeypatch.setattr(config, "find_spec", missing)
    with pytest.raises(ConfigurationError) as refused:
        config.load(ENVIRONMENT, traces="otlp")
    assert refused.value.problems == ["LIVEDOCS_TRACES: needs the extra `otel` of this package"]
    assert config.load(ENVIRONMENT).traces == "off"
