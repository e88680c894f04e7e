from __future__ import annotations

import json
import logging

import pytest
import structlog

from livedocs import config
from livedocs.telemetry import Metrics, configure_logging, get_logger, redact

ENVIRONMENT = {
    "LIVEDOCS_PUBLIC_URL": "http://localhost:8000",
    "LIVEDOCS_MONGODB_URI": "mongodb://localhost",
    "LIVEDOCS_OAUTH_ISSUER": "http://localhost:8001",
    "LIVEDOCS_OAUTH_CLIENT_ID": "livedocs",
    "LIVEDOCS_OAUTH_CLIENT_SECRET": "s",
    "LIVEDOCS_OAUTH_AUDIENCE": "livedocs",
}


@pytest.fixture
def log(capsys):
    """Logging set up as a server does; gives the lines, and puts everything back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    others = {name: logging.getLogger(name).level for name in ("httpx", "httpcore", "pymongo", "asyncio")}

    def start(**changes):
        configure_logging(config.load(ENVIRONMENT, **changes))
        return lambda: [line for line in capsys.readouterr().err.splitlines() if line]

    yield start
    root.handlers[:], root.level = handlers, level
    for name, value in others.items():
        logging.getLogger(name).setLevel(value)
    for name in ("engineio", "socketio"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


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
