"""What each grant gives, and to whom it gives nothing."""

from __future__ import annotations

import html
import re
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest

from livedocs.demo import people

CALLBACK = "http://localhost:8000/auth/callback"
SERVICE = ("acme-service", people.SERVICE_CLIENTS[0].secret)
SCOPE = "openid profile offline_access"


# Authorization code with PKCE


def test_a_login_gives_an_access_token_that_says_who_and_where(provider):
    verifier, answer = provider.authorize("alice", nonce="the-nonce")
    back = provider.redirect(answer)
    assert (back["state"], back["iss"]) == ("the-state", provider.issuer)
    token = provider.redeem(back["code"], verifier).json()
    claims = provider.claims(token["access_token"], "livedocs")
    expected = {"sub": "alice", "tenant": "acme", "groups": ["staff"], "client_id": "livedocs", "scope": SCOPE}
    assert expected.items() <= claims.items()
    assert claims["exp"] - claims["iat"] in {900, 901}
    assert jwt.get_unverified_header(token["access_token"])["typ"] == "at+jwt"
    assert len(token["access_token"]) < 2048
    identity = provider.claims(token["id_token"], "livedocs")
    assert (identity["nonce"], identity["sub"], identity["name"]) == ("the-nonce", "alice", "Alice")


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "openid livedocs:everything"}, "invalid_scope"),
        ({"scope": "livedocs:admin"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
        ({"ttl": "0"}, "invalid_request"),
        ({"ttl": "86401"}, "invalid_request"),
        ({"form": {"cancel": "1"}}, "invalid_page"),
    ],
)
def test_a_refused_login_goes_back_with_the_error_the_state_and_the_issuer(provider, query, error):
    if error == "invalid_page":  # even cancelling needs the page
        assert provider.authorize(**query)[1].status_code == 400
        return
    back = provider.redirect(provider.authorize(**query)[1])
    assert (back["error"], back["state"], back["iss"]) == (error, "the-state", provider.issuer)
    assert "code" not in back


@pytest.mark.parametrize(
    "query",
    [
        {"redirect_uri": CALLBACK + "/"},
        {"redirect_uri": "https://evil.example/auth/callback"},
        {"redirect_uri": CALLBACK + '"><script>'},
        {"redirect_uri": None},
        {"client_id": "nobody"},
        {"response_type": 'co"de', "client_id": "nobody"},
        {"response_type": "\u00e9"},
    ],
)
def test_a_login_for_an_unproven_application_goes_nowhere(provider, query):
    answer = provider.authorize(**query)[1]
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "<script>" not in answer.text


def test_cancelling_is_access_denied(provider):
    query = {
        "response_type": "code",
        "client_id": "livedocs",
        "redirect_uri": CALLBACK,
        "code_challenge": "c" * 43,
    }
    query["code_challenge_method"] = "S256"
    page = provider.http.get("/authorize", params=query)
    field = html.unescape(re.search(r'name="page" value="([^"]*)"', page.text)[1])
    answer = provider.http.post("/authorize", params=query, data={"page": field, "cancel": "1"})
    assert provider.redirect(answer)["error"] == "access_denied"
    # The page was made for that request and counts for no other.
    other = {**query, "state": "another"}
    assert provider.http.post("/authorize", params=other, data={"page": field, "user": "bob"}).status_code == 400


@pytest.mark.parametrize("form", [{"user": "alice"}, {"user": "alice", "page": "forged"}])
def test_a_form_that_did_not_come_from_the_page_logs_nobody_in(provider, form):
    assert provider.authorize(form=form)[1].status_code == 400


def test_the_login_page_shows_everybody_and_loads_nothing(provider):
    query = {
        "response_type": "code",
        "client_id": "livedocs",
        "redirect_uri": CALLBACK,
        "code_challenge": "c" * 43,
    }
    page = provider.http.get("/authorize", params={**query, "code_challenge_method": "S256", "login_hint": "bob"})
    assert set(re.findall(r'name="user" value="(\w+)"', page.text)) == {"alice", "bob", "ada", "carol"}
    assert re.search(r'value="bob" autofocus', page.text)
    assert not re.search(r"(src|href)=|://", page.text)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "set-cookie" not in page.headers


def test_two_windows_can_be_two_people(provider):
    alice, bob = provider.log_in("alice"), provider.log_in("bob")
    assert provider.introspect(alice["access_token"])["sub"] == "alice"
    assert provider.introspect(bob["access_token"])["sub"] == "bob"


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"verifier": "x" * 64}, 400, "invalid_grant"),
        ({"verifier": ""}, 400, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:8000/auth/callback"}, 400, "invalid_grant"),
        ({"auth": ("livedocs", "wrong")}, 401, "invalid_client"),
        ({"auth": None}, 401, "invalid_client"),
        ({"auth": None, "client_id": "livedocs-cli"}, 400, "invalid_grant"),
    ],
)
def test_a_code_is_worth_nothing_to_somebody_else(provider, change, status, error):
    verifier, answer = provider.authorize()
    code = provider.redirect(answer)["code"]
    response = provider.redeem(code, **{"verifier": verifier, **change})
    assert (response.status_code, response.json()["error"]) == (status, error)


def test_a_code_used_twice_ends_the_login(provider):
    verifier, answer = provider.authorize()
    code = provider.redirect(answer)["code"]
    token = provider.redeem(code, verifier).json()
    assert provider.redeem(code, verifier).json()["error"] == "invalid_grant"
    assert provider.introspect(token["access_token"]) == {"active": False}
    assert provider.refresh(token["refresh_token"]).json()["error"] == "invalid_grant"


def test_of_many_requests_with_one_code_one_wins(provider):
    verifier, answer = provider.authorize()
    code = provider.redirect(answer)["code"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: provider.redeem(code, verifier).status_code, range(8)))
    assert sorted(answers) == [200, *[400] * 7]


def test_scopes_are_narrowed_to_what_the_person_may_have(provider):
    asked = SCOPE + " livedocs:admin"
    assert provider.log_in("alice", scope=asked)["scope"] == SCOPE
    assert provider.log_in("ada", scope=asked)["scope"] == asked
    assert provider.log_in("ada", scope=None)["scope"] == asked


def test_without_offline_access_there_is_no_refresh_token(provider):
    assert "refresh_token" not in provider.log_in(scope="openid")


# Refresh


def test_a_refresh_rotates_and_remembers_the_lifetime(provider):
    first = provider.log_in(ttl="120")
    assert first["expires_in"] == 120
    second = provider.refresh(first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert (second["expires_in"], second["scope"]) == (120, SCOPE)
    third = provider.refresh(second["refresh_token"], ttl="60").json()
    assert third["expires_in"] == 60
    assert provider.refresh(third["refresh_token"], scope="openid").json()["scope"] == "openid"


def test_a_rotated_refresh_token_ends_the_whole_login(provider):
    first = provider.log_in()
    other = provider.log_in()
    second = provider.refresh(first["refresh_token"]).json()
    assert provider.introspect(second["access_token"])["active"] is True
    assert provider.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"
    assert provider.refresh(second["refresh_token"]).json()["error"] == "invalid_grant"
    assert provider.introspect(second["access_token"]) == {"active": False}
    assert provider.introspect(other["access_token"])["active"] is True


def test_of_many_refreshes_at_once_one_wins(provider):
    token = provider.log_in()["refresh_token"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: provider.refresh(token).status_code, range(8)))
    assert sorted(answers) == [200, *[400] * 7]


def test_a_refresh_token_is_worth_nothing_to_another_client(provider):
    token = provider.log_in()
    assert provider.refresh(token["refresh_token"], auth=SERVICE).status_code == 400
    assert provider.refresh(token["refresh_token"], scope=SCOPE + " livedocs:admin").status_code == 400
    assert provider.refresh(token["refresh_token"]).status_code == 200  # neither used it up


# Client credentials


@pytest.mark.parametrize("way", ["basic", "post"])
def test_a_service_gets_a_token_in_its_own_name(provider, way):
    post = dict(zip(("client_id", "client_secret"), SERVICE, strict=True))
    token = (provider.service() if way == "basic" else provider.service(auth=None, **post)).json()
    assert "refresh_token" not in token
    answer = provider.introspect(token["access_token"])
    assert (answer["sub"], answer["client_id"], answer["tenant"]) == ("acme-service", "acme-service", "acme")
    assert (answer["scope"], answer["groups"]) == ("livedocs:write", [])
    assert "username" not in answer


@pytest.mark.parametrize(
    ("asked", "status", "error"),
    [
        ({"auth": ("acme-service", "wrong")}, 401, "invalid_client"),
        ({"auth": ("nobody", "wrong")}, 401, "invalid_client"),
        ({"auth": ("livedocs", "a-secret-of-this-test")}, 400, "unauthorized_client"),
        ({"scope": "livedocs:admin"}, 400, "invalid_scope"),
        ({"ttl": "soon"}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ],
)
def test_client_credentials_are_refused(provider, asked, status, error):
    response = provider.service(**asked)
    assert (response.status_code, response.json()["error"]) == (status, error)


def test_parameters_in_the_address_are_refused(provider):
    for path in ("/token", "/introspect", "/revoke"):
        assert provider.http.post(path, params={"token": "x"}, auth=provider.login).status_code == 400
