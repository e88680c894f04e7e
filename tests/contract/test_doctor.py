"""What a token of the server's own client tells `livedocs doctor`, from a service that issues it one."""

from __future__ import annotations

from urllib.parse import parse_qs

import httpx
import pytest

from livedocs.access.issuer import Issuer
from livedocs.cli.doctor_tokens import own_token

ISSUER = "https://id.example/realm"


@pytest.fixture
def asked(provider):
    """The requests to the token and the revocation endpoint, and a setter for what introspection says."""
    provider.get(f"{ISSUER}/.well-known/openid-configuration").respond(
        json={
            "issuer": ISSUER,
            "token_endpoint": f"{ISSUER}/token",
            "revocation_endpoint": f"{ISSUER}/revoke",
            "introspection_endpoint": f"{ISSUER}/introspect",
        }
    )
    provider.post(f"{ISSUER}/token").respond(json={"access_token": "a-token", "token_type": "Bearer"})
    provider.post(f"{ISSUER}/revoke").respond(200)
    return provider


@pytest.fixture
def finding(configure, clock, asked):
    async def finding(**claims):
        answer = {
            "active": True,
            "exp": 2**33,
            "iss": ISSUER,
            "client_id": "livedocs",
            "sub": "livedocs",
            **claims,
        }
        asked.post(f"{ISSUER}/introspect").respond(json=answer)
        settings = configure()
        issuer = Issuer(settings, now=clock)
        try:
            return await own_token(settings, issuer, await issuer.metadata())
        finally:
            await issuer.aclose()

    return finding


def sent(provider, path):
    return [
        parse_qs(call.request.content.decode()) for call in provider.calls if call.request.url.path.endswith(path)
    ]


async def test_a_wrong_audience_is_a_problem_with_claim_and_reason(finding, asked):
    found = await finding(aud=["account", "docs"])
    assert "is refused (reason audience, claim aud)" in found.what
    assert "LIVEDOCS_OAUTH_AUDIENCE" in found.advice
    assert [form["grant_type"] for form in sent(asked, "/token")] == [["client_credentials"]]
    # It was asked for to be looked at, and for nothing else.
    assert [form["token"] for form in sent(asked, "/revoke")] == [["a-token"]]


async def test_another_issuer_is_a_problem(finding):
    found = await finding(aud="livedocs", iss="https://other.example")
    assert "reason issuer, claim iss" in found.what


@pytest.mark.parametrize("claims", [{}, {"tenant": "acme"}, {"tenant": "acme", "sub": "somebody"}])
async def test_the_right_audience_is_enough_for_a_token_that_nobody_stands_behind(finding, claims):
    found = await finding(aud=["livedocs"], **claims)
    assert (found.what, found.advice) == ("tokens of the OAuth service are meant for LIVEDOCS_OAUTH_AUDIENCE", "")


@pytest.mark.parametrize("claims", [{"active": False}, {"exp": 1}, {"token_type": "DPoP"}])
async def test_what_says_nothing_of_the_audience_is_no_finding(finding, claims):
    assert await finding(aud="other", **claims) is None


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(400, json={"error": "unauthorized_client"}),
        httpx.Response(200, json={"token_type": "Bearer"}),
        httpx.Response(200, text="no"),
        httpx.ConnectError("gone"),
    ],
    ids=["refused", "no token", "no JSON", "gone"],
)
async def test_a_service_that_issues_it_none_is_no_problem(finding, asked, answer):
    asked.post(f"{ISSUER}/token").mock(side_effect=[answer])
    assert await finding(aud="other") is None
    assert sent(asked, "/revoke") == []
