"""Finding the provider's endpoints (OpenID Connect Discovery 1.0, RFC 8414), right and wrong."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from livedocs.access.issuer import Issuer, parse_metadata
from livedocs.errors import AuthUnavailable

ISSUER = "https://id.example/realm"
OPENID = f"{ISSUER}/.well-known/openid-configuration"
OAUTH = "https://id.example/.well-known/oauth-authorization-server/realm"


def document(**changes):
    return {
        "issuer": ISSUER,
        "introspection_endpoint": f"{ISSUER}/introspect",
        "token_endpoint": f"{ISSUER}/token",
        **changes,
    }


@pytest.fixture
async def issuer(configure, clock):
    opened = Issuer(configure(oauth_introspection_url=""), now=clock)
    yield opened
    await opened.aclose()


async def test_the_introspection_endpoint_is_found_by_discovery(start_introspector, provider, active):
    found = provider.get(OPENID).respond(json=document())
    asked = provider.post(f"{ISSUER}/introspect").respond(json=active())
    introspector = start_introspector(oauth_introspection_url="", introspection_cache=0)
    await introspector.principal("one")
    await introspector.principal("two")
    assert (found.call_count, asked.call_count) == (1, 2)


async def test_a_configured_endpoint_needs_no_discovery(introspector, provider, introspection, active):
    found = provider.get(OPENID).respond(500)
    introspection.respond(json=active())
    assert await introspector.principal("one")
    assert not found.called


async def test_a_provider_without_openid_is_found_by_rfc_8414(issuer, provider):
    provider.get(OPENID).respond(404)
    provider.get(OAUTH).respond(json=document())
    assert (await issuer.metadata()).token_endpoint == f"{ISSUER}/token"


async def test_our_credentials_do_not_go_to_the_discovery_document(issuer, provider):
    route = provider.get(OPENID).respond(json=document())
    await issuer.metadata()
    assert "Authorization" not in route.calls.last.request.headers


@pytest.mark.parametrize(
    "named",
    [
        None,
        "",
        "https://id.example/realm/",
        "https://id.example",
        "https://evil.example/realm",
        ["x"],
        ISSUER.upper(),
    ],
)
async def test_metadata_of_another_issuer_is_refused(issuer, provider, named):
    provider.get(OPENID).respond(json=document(issuer=named))
    with pytest.raises(AuthUnavailable):
        await issuer.metadata()


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://id.example/introspect",
        "ftp://id.example/",
        "/introspect",
        "",
        7,
        ["https://x"],
        "https://",
        "https://[x",
    ],
)
def test_an_endpoint_that_would_carry_our_secret_in_the_clear_is_refused(endpoint):
    assert parse_metadata(document(introspection_endpoint=endpoint), ISSUER) == "unsafe introspection_endpoint"


def test_an_endpoint_on_this_machine_may_be_plain_http():
    found = parse_metadata(document(introspection_endpoint="http://127.0.0.1:8001/introspect"), ISSUER)
    assert found.introspection_endpoint == "http://127.0.0.1:8001/introspect"


@pytest.mark.parametrize("value", [None, "true", 1, False])
def test_only_true_announces_the_issuer_parameter(value):
    name = "authorization_response_iss_parameter_supported"
    assert not parse_metadata(document(**{name: value}), ISSUER).iss_parameter
    assert parse_metadata(document(**{name: True}), ISSUER).iss_parameter


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(302, headers={"Location": "https://evil.example/"}),
        httpx.ConnectError("gone"),
        httpx.ReadTimeout("slow"),
    ],
)
async def test_a_failed_discovery_is_tried_again_when_next_needed(issuer, provider, answer):
    provider.get(OPENID).side_effect = [answer, httpx.Response(200, json=document())]
    provider.get(OAUTH).respond(404)
    with pytest.raises(AuthUnavailable):
        await issuer.metadata()
    assert await issuer.metadata()


async def test_known_metadata_serves_on_while_a_later_discovery_fails(issuer, provider, clock):
    route = provider.get(OPENID)
    route.side_effect = [
        httpx.Response(200, json=document()),
        httpx.ConnectError("gone"),
        httpx.Response(200, json=document(token_endpoint=f"{ISSUER}/moved")),
    ]
    first = await issuer.metadata()
    clock.forward(3600)
    assert await issuer.metadata() == first
    assert await issuer.metadata() == first
    assert route.call_count == 2
    clock.forward(60)
    assert (await issuer.metadata()).token_endpoint == f"{ISSUER}/moved"


async def test_everybody_shares_one_discovery(issuer, provider):
    route = provider.get(OPENID).respond(json=document())
    await asyncio.gather(*(issuer.metadata() for _ in range(20)))
    assert route.call_count == 1


async def test_a_provider_without_introspection_leaves_us_unavailable(start_introspector, provider):
    provider.get(OPENID).respond(json=document(introspection_endpoint=None))
    introspector = start_introspector(oauth_introspection_url="")
    with pytest.raises(AuthUnavailable):
        await introspector.principal("one")
    assert not await introspector.reachable()


async def test_failed_discoveries_open_the_breaker_too(start_introspector, provider):
    route = provider.get(OPENID)
    route.side_effect = httpx.ConnectError("gone")
    introspector = start_introspector(oauth_introspection_url="")
    for number in range(6):
        with pytest.raises(AuthUnavailable):
            await introspector.principal(f"token-{number}")
    assert route.call_count == 3
