from __future__ import annotations

import asyncio
import json
import logging

import pytest

from livedocs import tracing
from livedocs.errors import ServerUnreachable
from livedocs.telemetry import DISCONNECTS, Metrics, get_logger, log_unhandled, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mongodb://u:p4ss@h/db", "mongodb://u:**********@h/db"),
        (
            "a mongodb+srv://u:p%40@h and https://x:y@z",
            "a mongodb+srv://u:**********@h and https://x:**********@z",
        ),
        ("Authorization: Bearer abc.DEF-1_~+/=", "Authorization: Bearer **********"),
        ("bearer abc", "bearer **********"),
        ("mongodb://host:27017/db", "mongodb://host:27017/db"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_secrets_inside_a_text_are_masked(text, shown):
    assert redact(text) == shown


def test_a_line_carries_its_fields_and_no_secret(log):
    lines = log()
    get_logger("livedocs.test").info(
        "something",
        access_token="s3cret",
        Cookie="s3cret",
        client_secret="s3cret",
        token_id="abc",
        uri="mongodb://u:s3cret@h",
        uuid="1",
    )
    (line,) = lines()
    assert "s3cret" not in line
    fields = json.loads(line)
    assert (fields["event"], fields["uuid"], fields["token_id"]) == ("something", "1", "abc")
    assert fields["level"] == "info"
    assert fields["logger"] == "livedocs.test"
    assert fields["timestamp"].endswith("Z")


def test_an_exceptions_text_is_masked_as_well(log):
    lines = log()
    error = ValueError("mongodb://u:s3cret@h")
    get_logger("livedocs.test").error("failed", exc_info=error)
    (line,) = lines()
    assert "ValueError" in line
    assert "s3cret" not in line


def test_the_libraries_lines_have_the_same_form_and_are_masked(log):
    lines = log()
    logging.getLogger("hypercorn.error").warning("lost mongodb://u:s3cret@h")
    assert json.loads(lines()[0])["event"] == "lost mongodb://u:**********@h"


@pytest.mark.parametrize("name", ["engineio", "socketio", "engineio.server", "httpx", "pymongo.command"])
def test_libraries_that_log_whole_packets_are_kept_quiet(log, name):
    lines = log(log_level="debug")
    logging.getLogger(name).info("40{token}")
    assert lines() == []


def test_less_than_the_level_is_not_logged(log):
    lines = log(log_level="warning")
    get_logger("livedocs.test").info("quiet")
    get_logger("livedocs.test").warning("loud")
    assert [json.loads(line)["event"] for line in lines()] == ["loud"]


def test_a_person_gets_a_line_that_is_not_json(log):
    lines = log(log_format="console")
    get_logger("livedocs.test").info("hello", password="s3cret")
    (line,) = lines()
    assert "hello" in line
    assert "s3cret" not in line
    assert not line.startswith("{")


def test_every_metric_is_ours_explained_and_the_processes_own():
    metrics = Metrics()
    families = list(metrics.registry.collect())
    assert all(family.name.startswith("livedocs_") and family.documentation for family in families)
    metrics.deliveries.inc()
    assert metrics.registry.get_sample_value("livedocs_deliveries_total") == 1
    assert Metrics().registry.get_sample_value("livedocs_deliveries_total") == 0


def test_a_line_says_to_which_trace_it_belongs(log):
    class Tracer:
        def trace_id(self):
            return "0af7651916cd43dd8448eb211c80319c"

    lines = log()
    former = tracing.use(Tracer())
    get_logger("livedocs.test").info("inside")
    tracing.use(former)
    get_logger("livedocs.test").info("outside")
    inside, outside = map(json.loads, lines())
    assert inside["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert "trace_id" not in outside


@pytest.mark.parametrize("name", ["sockets", "rooms"])
def test_a_gauge_by_tenant_names_those_with_most_and_adds_up_the_others(name):
    metrics = Metrics(tenants=2)
    getattr(metrics, name).follow(lambda: {"a": 1, "b": 5, "c": 3, "d": 2, "other": 9})
    assert by_tenant(metrics, name) == {"b": 5, "c": 3, "other": 12}


def test_a_gauge_by_tenant_follows_what_it_counts():
    metrics, counts = Metrics(), {}
    metrics.rooms.follow(lambda: counts)
    assert by_tenant(metrics, "rooms") == {"other": 0}
    counts["acme"] = 2
    assert by_tenant(metrics, "rooms") == {"acme": 2, "other": 0}
    del counts["acme"]
    assert by_tenant(metrics, "rooms") == {"other": 0}


def test_without_named_tenants_there_is_one_series():
    metrics = Metrics(tenants=0)
    metrics.sockets.follow(lambda: {f"tenant-{number}": 1 for number in range(1000)})
    assert by_tenant(metrics, "sockets") == {"other": 1000}


def by_tenant(metrics, name):
    families = {family.name: family for family in metrics.registry.collect()}
    return {sample.labels["tenant"]: sample.value for sample in families[f"livedocs_{name}"].samples}


def test_what_may_happen_is_at_zero_before_it_has():
    value = Metrics().registry.get_sample_value
    assert [value("livedocs_disconnects_total", {"reason": reason}) for reason in DISCONNECTS] == [0] * len(
        DISCONNECTS
    )
    assert value("livedocs_events_total", {"op": "insert"}) == 0
    assert value("livedocs_limits_hit_total", {"kind": "sockets", "scope": "user"}) == 0


def failing():
    """An error of a library that repeats what it was given, behind one of ours, in a group."""
    try:
        try:
            int("".join(("s3", "cret")))
        except ValueError as error:
            msg = "the stream has ended"
            raise ServerUnreachable(msg) from error
    except ServerUnreachable as error:
        return ExceptionGroup("s3cret", [error, KeyError("s3cret"), ConnectionResetError(104, "reset by peer")])


@pytest.mark.parametrize("logger", ["livedocs.test", "hypercorn.error", "anything"])
def test_of_an_exception_of_unknown_origin_the_type_is_said_and_where_it_was(log, logger):
    lines = log(log_level="debug")
    logging.getLogger(logger).error("failed", exc_info=failing())
    (line,) = lines()
    assert "s3cret" not in line
    told = json.loads(line)["exception"]
    assert "builtins.ValueError" in told
    assert "in failing" in told
    assert "the stream has ended" in told
    assert "reset by peer" in told
    assert "builtins.KeyError" in told


def test_raw_bytes_and_exceptions_in_a_librarys_line_are_not_shown(log):
    lines = log(log_level="debug")
    logging.getLogger("any").warning("got %r, %s from %s", b"Cookie: s3cret", ValueError("s3cret"), "10.0.0.1")
    assert json.loads(lines()[0])["event"] == "got '<14 bytes>', <ValueError> from 10.0.0.1"


async def test_what_nobody_catches_is_logged_without_what_it_was_about(log):
    lines = log(log_level="debug")
    loop = asyncio.get_running_loop()

    def broken(data):
        raise ValueError(data)

    loop.set_exception_handler(log_unhandled)
    try:
        loop.call_soon(broken, b"Cookie: s3cret")
        task = loop.create_task(asyncio.sleep(0), name="the-task")
        await task
        loop.call_exception_handler(
            {"message": "lost", "task": task, "exception": failing(), "protocol": "s3cret"}
        )
    finally:
        loop.set_exception_handler(None)
    lost, unhandled = sorted(lines(), key=lambda line: "the-task" not in line)
    assert "s3cret" not in lost + unhandled
    assert (json.loads(lost)["what"], json.loads(lost)["task"]) == ("lost", "the-task")
    assert json.loads(unhandled)["what"] == "Exception"
    assert "in broken" in json.loads(unhandled)["exception"]
