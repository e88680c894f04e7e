"""Introspection, revocation, discovery, userinfo, logging out, and the controls for tests."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from authlib.oauth2 import rfc8414, rfc9207
from authlib.oidc.discovery import OpenIDProviderMetadata
from cryptography.hazmat.primitives.asymmetric import rsa

INACTIVE = {"active": False}


def test_introspection_says_what_the_token_means(provider):
    token = provider.log_in("carol", ttl="60")["access_token"]
    answer = provider.introspect(token)
    claims = provider.claims(token, "livedocs")
    assert answer == {
        "active": True,
        "iss": provider.issuer,
        "aud": "livedocs",
        "sub": "carol",
        "username": "carol",
        "client_id": "livedocs",
        "tenant": "globex",
        "groups": ["staff"],
        "scope": provider.scope,
        "token_type": "Bearer",
        **{name: claims[name] for name in ("exp", "iat", "nbf", "jti")},
    }
    post = dict(zip(("client_id", "client_secret"), provider.login, strict=True))
    assert provider.http.post("/introspect", data={"token": token, **post}).json() == answer
    hinted = provider.http.post(
        "/introspect", data={"token": token, "token_type_hint": "nonsense"}, auth=provider.login
    )
    assert hinted.json() == answer


def test_a_token_ends_at_its_time_and_not_before(provider):
    token = provider.log_in(ttl="1")["access_token"]
    end = jwt.decode(token, options={"verify_signature": False})["exp"]
    deadline = time.monotonic() + 10
    asked = time.time()
    while provider.introspect(token) != INACTIVE:
        assert asked < end
        assert time.monotonic() < deadline
        asked = time.time()
    assert time.time() >= end


def test_what_is_not_an_access_token_of_ours_is_inactive(provider):
    token = provider.log_in()
    access = token["access_token"]
    claims = jwt.decode(access, options={"verify_signature": False})
    header = jwt.get_unverified_header(access)
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    head, payload, signature = access.split(".")
    for other in (
        jwt.encode(claims, foreign, algorithm="RS256", headers=header),
        jwt.encode(claims, "secret-of-thirty-two-characters!!", algorithm="HS256", headers={"typ": "at+jwt"}),
        jwt.encode(claims, None, algorithm="none", headers={"typ": "at+jwt"}),
        f"{head}.{payload}.{signature[:-4]}AAAA",
        f"{head}.{payload}.",
        token["id_token"],
        token["refresh_token"],
        "not a token",
        "a.b.c",
        "\u00e9",
    ):
        assert provider.introspect(other) == INACTIVE, other
    assert provider.introspect(access)["active"] is True


@pytest.mark.parametrize("path", ["/introspect", "/revoke"])
@pytest.mark.parametrize(
    ("auth", "post"),
    [
        (("livedocs", "wrong"), {}),
        (("nobody", "wrong"), {}),
        (None, {"client_id": "livedocs", "client_secret": "wrong"}),
        (None, {"client_id": "nobody", "client_secret": "wrong"}),
        (None, {"client_id": "livedocs"}),
        (None, {}),
    ],
)
def test_a_client_that_does_not_prove_itself_learns_and_ends_nothing(provider, path, auth, post):
    token = provider.log_in()["access_token"]
    response = provider.http.post(path, data={"token": token, **post}, auth=auth)
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
    assert response.headers["www-authenticate"].startswith("Basic")
    assert provider.introspect(token)["active"] is True


def test_only_the_login_client_may_introspect(provider):
    token = provider.service().json()["access_token"]
    assert provider.introspect(token, auth=provider.service_login) == INACTIVE
    assert provider.introspect(token)["active"] is True
    assert provider.http.post("/introspect", auth=provider.login).status_code == 400


def test_revoking_an_access_token_leaves_the_login(provider):
    token = provider.log_in()
    revoked = {"token": token["access_token"], "token_type_hint": "nonsense"}
    assert provider.http.post("/revoke", data=revoked, auth=provider.login).status_code == 200
    assert provider.introspect(token["access_token"]) == INACTIVE
    assert provider.refresh(token["refresh_token"]).status_code == 200


def test_revoking_a_refresh_token_ends_the_login(provider):
    token = provider.log_in()
    second = provider.refresh(token["refresh_token"]).json()
    revoked = {"token": second["refresh_token"]}
    assert provider.http.post("/revoke", data=revoked, auth=provider.login).status_code == 200
    for access in (token, second):
        assert provider.introspect(access["access_token"]) == INACTIVE
    assert provider.refresh(second["refresh_token"]).json()["error"] == "invalid_grant"


def test_nobody_revokes_a_token_of_another_client(provider):
    token = provider.log_in()["access_token"]
    response = provider.http.post("/revoke", data={"token": token}, auth=provider.service_login)
    assert response.json()["error"] == "invalid_grant"
    assert provider.introspect(token)["active"] is True
    assert provider.http.post("/revoke", data={"token": "unknown"}, auth=provider.login).status_code == 200


def test_discovery_is_valid_and_alike_at_both_addresses(provider):
    found = provider.http.get("/.well-known/openid-configuration").json()
    assert found == provider.http.get("/.well-known/oauth-authorization-server").json()
    assert found["issuer"] == provider.issuer
    OpenIDProviderMetadata(found).validate()
    rfc8414.AuthorizationServerMetadata(found).validate(metadata_classes=[rfc9207.AuthorizationServerMetadata])
    for name in ("token", "introspection", "revocation"):
        path = found[f"{name}_endpoint"].removeprefix(provider.issuer)
        assert provider.http.post(path).status_code in {400, 401}
    assert "d" not in provider.http.get("/jwks").json()["keys"][0]


def test_userinfo_tells_what_the_scope_allows(provider):
    def ask(token):
        return provider.http.get("/userinfo", headers={"Authorization": f"Bearer {token}"})

    full = provider.log_in("alice")["access_token"]
    assert ask(full).json() == {
        "sub": "alice",
        "name": "Alice",
        "preferred_username": "alice",
        "tenant": "acme",
        "groups": ["staff"],
    }
    assert "name" not in ask(provider.log_in("alice", scope="openid")["access_token"]).json()
    assert ask(provider.service().json()["access_token"]).status_code == 403
    assert ask("nonsense").status_code == 401
    assert provider.http.get("/userinfo").status_code == 401
    provider.dev("POST", "users/alice", {"disabled": True})
    assert ask(full).status_code == 401


def test_logging_out_with_the_id_token_ends_the_login_and_returns(provider):
    token, other = provider.log_in(), provider.log_in()
    home = "http://localhost:8000/"
    query = {"id_token_hint": token["id_token"], "post_logout_redirect_uri": home, "state": "bye"}
    answer = provider.http.get("/logout", params=query)
    assert (answer.status_code, answer.headers["location"]) == (302, f"{home}?state=bye")
    assert provider.introspect(token["access_token"]) == INACTIVE
    assert provider.refresh(token["refresh_token"]).status_code == 400
    assert provider.introspect(other["access_token"])["active"] is True


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"client_id": "livedocs", "post_logout_redirect_uri": "http://127.0.0.1:8000/"}, 302),
        ({"client_id": "livedocs", "post_logout_redirect_uri": "https://evil.example/"}, 200),
        ({"post_logout_redirect_uri": "http://localhost:8000/"}, 200),
        ({}, 200),
        ({"id_token_hint": "nonsense"}, 400),
    ],
)
def test_logging_out_without_proof_ends_nothing_and_goes_nowhere_unknown(provider, query, status):
    token = provider.log_in()["access_token"]
    assert provider.http.get("/logout", params=query).status_code == status
    assert provider.introspect(token)["active"] is True


# Controls for tests


def test_a_change_of_groups_tenant_or_standing_shows_at_the_next_introspection(provider):
    token = provider.log_in("bob")
    provider.dev("POST", "users/bob", {"groups": ["board"], "tenant": "globex"})
    answer = provider.introspect(token["access_token"])
    assert (answer["groups"], answer["tenant"]) == (["board"], "globex")
    provider.dev("POST", "users/bob", {"disabled": True})
    assert provider.introspect(token["access_token"]) == INACTIVE
    assert provider.authorize("bob")[1].status_code == 403
    provider.dev("DELETE", "users/bob")
    assert provider.introspect(token["access_token"])["groups"] == ["staff"]
    provider.dev("POST", "users/bob", {"disabled": True})
    assert provider.refresh(token["refresh_token"]).json()["error"] == "invalid_grant"


def test_tokens_are_revoked_by_token_user_and_client(provider):
    one, two = provider.log_in("carol"), provider.log_in("carol")
    service = provider.service().json()["access_token"]
    assert provider.dev("POST", "revoke", {"token": one["access_token"]}).json() == {"revoked": 1}
    assert provider.introspect(one["access_token"]) == INACTIVE
    assert provider.introspect(two["access_token"])["active"] is True
    assert provider.dev("POST", "revoke", {"user": "carol"}).json()["revoked"] >= 1
    assert provider.introspect(two["access_token"]) == INACTIVE
    assert provider.refresh(two["refresh_token"]).status_code == 400
    assert provider.introspect(service)["active"] is True
    provider.dev("POST", "revoke", {"client": "acme-service"})
    assert provider.introspect(service) == INACTIVE
    assert provider.introspect(provider.log_in("carol")["access_token"])["active"] is True


def test_faults_come_as_often_as_asked_and_go(provider):
    token = provider.log_in()["access_token"]

    def ask():
        return provider.http.post("/introspect", data={"token": token}, auth=provider.login)

    before = provider.dev("GET", "faults").json()["calls"]
    assert provider.dev("POST", "faults", {"introspection": "error", "count": 2}).json()["count"] == 2
    assert [ask().status_code for _ in range(3)] == [500, 500, 200]
    assert provider.dev("GET", "faults").json()["calls"] == before + 3
    provider.dev("POST", "faults", {"introspection": "shape"})
    assert ask().json()["active"] == "true"
    provider.dev("POST", "faults", {"introspection": "list"})
    assert isinstance(ask().json(), list)
    provider.dev("POST", "faults", {"introspection": "text"})
    assert ask().headers["content-type"].startswith("text/html")
    provider.dev("DELETE", "faults")
    assert ask().json()["active"] is True


def test_a_slow_answer_holds_up_nobody_else_and_ends_with_the_fault(provider):
    token = provider.log_in()["access_token"]
    before = provider.dev("GET", "faults").json()["calls"]
    provider.dev("POST", "faults", {"introspection": "slow", "delay": 60, "count": 1})
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(provider.introspect, token)
        deadline = time.monotonic() + 10
        while provider.dev("GET", "faults").json()["calls"] == before:
            assert time.monotonic() < deadline
        assert provider.introspect(token)["active"] is True
        assert not slow.done()
        provider.dev("DELETE", "faults")
        assert slow.result(timeout=10)["active"] is True


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("users/nobody", {"disabled": True}, 404),
        ("users/bob", {"disabled": "yes"}, 400),
        ("users/bob", {"groups": "staff"}, 400),
        ("users/bob", {"tenant": "Not A Slug"}, 400),
        ("users/bob", {"admin": True}, 400),
        ("users/bob", [], 400),
        ("revoke", {"user": "nobody"}, 404),
        ("revoke", {"user": "bob", "token": "x"}, 400),
        ("faults", {"introspection": "meteor"}, 400),
        ("faults", {"introspection": "error", "count": 0}, 400),
        ("faults", {"introspection": "slow"}, 400),
        ("faults", {"introspection": "slow", "delay": 1e9}, 400),
    ],
)
def test_a_control_that_is_not_understood_changes_nothing(provider, path, body, status):
    before = provider.dev("GET", "users/bob").json()
    response = provider.dev("POST", path, body)
    assert (response.status_code, set(response.json())) == (status, {"error"})
    assert provider.dev("GET", "users/bob").json() == before
    assert provider.dev("GET", "faults").json()["introspection"] is None


def test_no_web_page_works_the_controls(provider):
    form = provider.http.post("/dev/revoke", data={"user": "bob"})
    assert form.status_code == 415
    rebound = provider.http.post("/dev/revoke", json={"user": "bob"}, headers={"Host": "evil.example"})
    assert rebound.status_code == 421
    preflight = provider.http.options("/dev/revoke", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in preflight.headers
