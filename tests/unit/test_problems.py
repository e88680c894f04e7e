from __future__ import annotations

import orjson
import pytest
from werkzeug.exceptions import ImATeapot, MethodNotAllowed, NotFound, RequestEntityTooLarge
from werkzeug.routing.exceptions import RequestRedirect

from livedocs import errors
from livedocs.http.problems import MEDIA_TYPE, of_http_exception, problem


def kinds(kind=errors.LivedocsError):
    for child in kind.__subclasses__():
        yield child
        yield from kinds(child)


@pytest.mark.parametrize("kind", [errors.LivedocsError, *kinds()])
def test_every_error_has_an_answer_with_all_members(kind):
    answer = problem(kind())
    body = orjson.loads(answer.body)
    assert answer.status == body["status"] == kind.status
    assert answer.headers["Content-Type"] == MEDIA_TYPE
    assert body["code"] == kind.code
    assert body["type"] == f"/docs#{kind.code}"
    assert body["title"]
    assert body["detail"]


def test_what_an_error_is_about_is_in_the_body():
    body = orjson.loads(problem(errors.InvalidField(path="a.$b")).body)
    assert body["path"] == "a.$b"


def test_a_value_from_a_client_cannot_pose_as_a_standard_member():
    body = orjson.loads(problem(errors.BadRequest(code="internal", status=200, title="Fine")).body)
    assert (body["code"], body["status"], body["title"]) == ("bad_request", 400, "Malformed request")


def test_without_a_credential_the_challenge_names_no_error():
    assert problem(errors.Unauthenticated()).headers["WWW-Authenticate"] == 'Bearer realm="livedocs"'


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidToken(), "invalid_token"),
        (errors.InsufficientScope(scope="livedocs:admin"), "insufficient_scope"),
        (errors.MultipleCredentials(), "invalid_request"),
        (errors.DuplicateCookie(), "invalid_request"),
        (errors.TokenTooLarge(), "invalid_request"),
    ],
)
def test_a_bad_credential_is_challenged_with_its_error(error, code):
    assert f'error="{code}"' in problem(error).headers["WWW-Authenticate"]


def test_a_missing_scope_is_named_in_the_challenge():
    challenge = problem(errors.InsufficientScope(scope="livedocs:admin")).headers["WWW-Authenticate"]
    assert challenge.endswith('scope="livedocs:admin"')


@pytest.mark.parametrize("error", [errors.Forbidden(), errors.BadRequest(), errors.Unavailable()])
def test_other_refusals_challenge_nobody(error):
    assert "WWW-Authenticate" not in problem(error).headers


def test_retry_after_is_in_whole_seconds_and_never_too_soon():
    assert problem(errors.Unavailable(retry_after=1.2)).headers["Retry-After"] == "2"
    assert "Retry-After" not in problem(errors.Unavailable()).headers


def test_the_frameworks_refusals_are_problems_too():
    codes = {}
    for exception in (NotFound(), MethodNotAllowed(["GET"]), RequestEntityTooLarge(), ImATeapot()):
        answer = of_http_exception(exception)
        codes[answer.status] = orjson.loads(answer.body)["code"]
    assert codes == {404: "not_found", 405: "method_not_allowed", 413: "payload_too_large", 418: "i'm_a_teapot"}


def test_allow_is_kept():
    assert of_http_exception(MethodNotAllowed(["GET", "PUT"])).headers["Allow"] == "GET, PUT"


def test_a_redirect_is_no_refusal():
    assert of_http_exception(RequestRedirect("/elsewhere")) is None


def test_a_content_type_that_is_not_taken_is_told_which_are():
    answer = problem(errors.UnsupportedMediaType(accepts=["application/json"]))
    assert answer.headers["Accept"] == "application/json"
    patch = problem(errors.UnsupportedMediaType(accepts=["application/json", "application/merge-patch+json"]))
    assert patch.headers["Accept-Patch"] == "application/json, application/merge-patch+json"
    assert "Accept" not in problem(errors.UnsupportedMediaType()).headers
