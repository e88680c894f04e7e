"""The provider as a program: where it may run, what it keeps, how it ends; and `livedocs token` against it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import jwt
import pytest

from livedocs.demo.oauth.client_secret import client_secret
from livedocs.demo.token import TokenError, fetch_token


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "livedocs.demo.oauth", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (["--host", "0.0.0.0"], {}, "loopback addresses only"),  # noqa: S104 - to be refused
        (["--host", "192.0.2.1"], {}, "loopback addresses only"),
        (["--server-url", "https://docs.example.com"], {}, "not a URL on this machine"),
        ([], {"LIVEDOCS_PUBLIC_URL": "https://docs.example.com"}, "LIVEDOCS_PUBLIC_URL is not on this machine"),
    ],
)
def test_it_runs_nowhere_but_on_this_machine(tmp_path, arguments, environment, reason):
    outcome = run("--port", "0", "--data-dir", str(tmp_path / "data"), *arguments, **environment)
    assert outcome.returncode != 0
    assert reason in outcome.stderr
    assert not (tmp_path / "data").exists()


def test_a_taken_port_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        outcome = run("--port", port, "--data-dir", str(tmp_path))
    assert outcome.returncode != 0
    assert f"port {port} is in use" in outcome.stderr


def test_a_restart_keeps_logins_revocations_and_the_key(tmp_path, provider_on):
    with provider_on(tmp_path / "data") as first:
        port = first.port
        keys = first.http.get("/jwks").json()
        kept, revoked = first.log_in(ttl="300"), first.log_in()
        used = first.log_in()
        after_use = first.refresh(used["refresh_token"]).json()
        first.dev("POST", "revoke", {"token": revoked["access_token"]})
    with provider_on(tmp_path / "data", port) as second:
        assert second.http.get("/jwks").json() == keys
        assert second.introspect(kept["access_token"])["sub"] == "alice"
        assert second.introspect(revoked["access_token"]) == {"active": False}
        assert second.refresh(kept["refresh_token"]).json()["expires_in"] == 300
        assert second.refresh(used["refresh_token"]).json()["error"] == "invalid_grant"
        assert second.introspect(after_use["access_token"]) == {"active": False}


def test_nothing_it_keeps_is_for_others_to_read(tmp_path, provider_on):
    with provider_on(tmp_path / "data") as provider:
        token = provider.log_in()
        provider.http.get("/logout", params={"id_token_hint": token["id_token"]})
        files = [tmp_path / "data", *(tmp_path / "data").iterdir()]
        assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in files} == {0}
    kept = b"".join(file.read_bytes() for file in (tmp_path / "data").iterdir())
    log = (tmp_path / "provider.log").read_text()
    for secret in (token["refresh_token"], token["access_token"], token["id_token"]):
        assert secret.encode() not in kept
        assert secret not in log


def test_it_ends_at_once_although_an_answer_is_outstanding(tmp_path, provider_on):
    with provider_on(tmp_path / "data") as provider, ThreadPoolExecutor(1) as pool:
        token = provider.log_in()["access_token"]
        before = provider.dev("GET", "faults").json()["calls"]
        provider.dev("POST", "faults", {"introspection": "slow", "delay": 60})
        hanging = pool.submit(provider.introspect, token)
        deadline = time.monotonic() + 10
        while provider.dev("GET", "faults").json()["calls"] == before:
            assert time.monotonic() < deadline
        provider.process.send_signal(signal.SIGTERM)
        assert provider.process.wait(timeout=5) == 0
        with pytest.raises(httpx.TransportError):
            hanging.result(timeout=10)


def test_a_second_signal_does_not_cut_the_end_short(tmp_path, provider_on):
    with provider_on(tmp_path / "data") as provider:
        deadline = time.monotonic() + 5
        while provider.process.poll() is None:
            assert time.monotonic() < deadline
            provider.process.send_signal(signal.SIGINT)
            provider.process.send_signal(signal.SIGTERM)
        assert provider.process.returncode == 0
    assert not list((tmp_path / "data").glob("*-wal"))  # the database was closed


def test_many_logins_at_once_all_succeed(provider):
    people = ["alice", "bob", "ada", "carol"] * 6
    with ThreadPoolExecutor(12) as pool:
        tokens = list(pool.map(provider.log_in, people))
        answers = list(pool.map(lambda token: provider.introspect(token["access_token"]), tokens))
    assert [answer["sub"] for answer in answers] == people
    assert len({answer["jti"] for answer in answers}) == len(people)


def test_the_client_secret_is_made_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: client_secret(tmp_path / "data", {}), range(16)))
    (secret,) = secrets
    assert len(secret) > 32
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["client-secret"]
    assert stat.S_IMODE((tmp_path / "data" / "client-secret").stat().st_mode) == 0o600
    assert client_secret(tmp_path / "data", {"LIVEDOCS_DEMO_CLIENT_SECRET": "given"}) == "given"


# `livedocs token`


@pytest.mark.parametrize(
    ("user", "tenant", "scope"),
    [
        ("alice", "acme", "openid profile"),
        ("carol", "globex", "openid profile"),
        ("ada", "acme", "openid profile livedocs:admin"),
        ("acme-service", "acme", "livedocs:write"),
    ],
)
def test_a_token_from_the_command_line_has_every_scope_of_its_user(provider, user, tenant, scope):
    token = fetch_token(user=user, tenant=tenant, oauth_port=provider.port)
    answer = provider.introspect(token)
    assert (answer["sub"], answer["tenant"], answer["scope"]) == (user, tenant, scope)


def test_a_token_from_the_command_line_takes_scope_and_lifetime(provider):
    for user, scope in (("ada", "livedocs:admin"), ("acme-service", "livedocs:write")):
        token = fetch_token(user=user, tenant="acme", scope=scope, ttl=7, oauth_port=provider.port)
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["scope"] == scope
        assert claims["exp"] - claims["iat"] in {7, 8}


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"user": "mallory"}, "there is no user 'mallory' in the demo; there are alice, bob"),
        ({"tenant": "globex"}, "alice belongs to tenant acme, not globex"),
        ({"user": "acme-service", "tenant": "globex"}, "acme-service belongs to tenant acme, not globex"),
        ({"scope": "openid livedocs:admin"}, "alice may not have the scope livedocs:admin"),
        ({"scope": "livedocs:admin"}, "may not have that scope"),
        ({"scope": "livedocs:everything"}, "may not have that scope"),
        ({"user": "acme-service", "scope": "livedocs:admin"}, "may not have that scope"),
        ({"ttl": 0}, "from 1 to 86400"),
    ],
)
def test_a_token_that_cannot_be_had_is_refused_with_the_reason(provider, asked, reason):
    with pytest.raises(TokenError, match=reason):
        fetch_token(**{"user": "alice", "tenant": "acme", "oauth_port": provider.port, **asked})


def test_a_disabled_user_gets_no_token(provider):
    provider.dev("POST", "users/alice", {"disabled": True})
    with pytest.raises(TokenError, match="this user is disabled"):
        fetch_token(user="alice", tenant="acme", oauth_port=provider.port)


def test_without_a_provider_the_command_line_says_what_to_start():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(TokenError, match=f"does not answer on port {port}; start it with `livedocs demo`"):
        fetch_token(user="alice", tenant="acme", oauth_port=port)
