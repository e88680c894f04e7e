"""What answers of the server mean to a client."""

from __future__ import annotations

import json

import pytest

from livedocs import errors
from livedocs._client import answers
from livedocs.errors import LivedocsError, ServerUnreachable, UnexpectedAnswer


def every_error(kind=LivedocsError):
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from every_error(child)


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.code)
def test_every_code_is_the_error_that_the_server_raised(kind):
    body = {"code": kind.code, "status": kind.status, "detail": "Why.", "type": "t", "title": "T", "path": "a.b"}
    error = answers.error_of(kind.status, {"retry-after": "7"}, json.dumps(body).encode())
    assert type(error) is kind
    assert (error.code, error.status, error.detail, error.retry_after) == (kind.code, kind.status, "Why.", 7.0)
    assert error.data == {"path": "a.b"}


def test_an_answer_of_something_in_between_leaves_open_what_was_done():
    for status in (502, 503, 504):
        error = answers.error_of(status, {}, b"<html>")
        assert isinstance(error, ServerUnreachable)
        assert error.uncertain


@pytest.mark.parametrize("body", [b"", b"[]", b'{"code": 1}', b'{"code": "of_tomorrow", "detail": "x"}'])
def test_what_no_livedocs_of_this_version_says_is_told_apart(body):
    error = answers.error_of(418, {}, body)
    assert isinstance(error, UnexpectedAnswer)
    assert error.status == 418


def test_a_socket_says_in_milliseconds_when_to_come_back():
    assert answers.refusal({"code": "rate_limited", "retry_after_ms": 1500}).retry_after == 1.5


@pytest.mark.parametrize(
    ("code", "passing", "uncertain"),
    [
        ("unavailable", True, True),
        ("auth_unavailable", True, False),
        ("too_many_connections", True, False),
        ("rate_limited", True, False),
        ("too_many_rooms", False, False),
        ("internal", False, True),
        ("forbidden", False, False),
        ("conflict", False, False),
    ],
)
def test_which_refusals_pass_and_which_leave_open_what_was_done(code, passing, uncertain):
    error = answers.refusal({"code": code})
    assert (answers.passing(error), answers.uncertain(error)) == (passing, uncertain)


@pytest.mark.parametrize("header", [None, "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "\u0661"])
def test_a_retry_after_that_is_no_number_of_seconds_is_none(header):
    assert answers.seconds(header) is None
