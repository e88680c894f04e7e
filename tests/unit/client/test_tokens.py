"""Client credentials: asked for once, kept, replaced before they end."""

from __future__ import annotations

import asyncio
import base64

import pytest
import respx

from livedocs.client import ClientCredentials
from livedocs.errors import TokenUnavailable

ISSUER = "https://id.example/realm"
METADATA = {"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token"}


class Clock:
    at = 1000.0

    def __call__(self):
        return self.at


@pytest.fixture
def provider():
    with respx.mock(assert_all_called=False) as router:
        router.get(f"{ISSUER}/.well-known/openid-configuration", name="discovery").respond(json=METADATA)
        router.post(f"{ISSUER}/token", name="token").side_effect = answers()
        yield router


def answers(expires_in=300):
    number = 0
    while True:
        number += 1
        yield respx.MockResponse(json={"access_token": f"t{number}", "expires_in": expires_in})


def credentials(**options):
    return ClientCredentials(ISSUER, "orders", "s:ü cret", **{"scope": "livedocs:write", **options})


async def test_one_request_serves_everybody_who_asks_meanwhile(provider):
    async def slowly(_request):
        await asyncio.sleep(0)
        return respx.MockResponse(json=METADATA)

    provider["discovery"].side_effect = slowly
    source = credentials()
    assert set(await asyncio.gather(*(source.token() for _ in range(20)))) == {"t1"}
    assert provider["token"].call_count == 1
    assert provider["discovery"].call_count == 1


async def test_a_token_is_replaced_shortly_before_its_end_and_when_it_is_refused(provider):
    clock = Clock()
    source = credentials(clock=clock)
    assert await source.token() == "t1"
    clock.at += 239
    assert await source.token() == "t1"
    clock.at += 2
    assert await source.token() == "t2"
    assert await source.token(refused="t1") == "t2"
    assert await source.token(refused="t2") == "t3"
    assert provider["discovery"].call_count == 1


async def test_id_and_secret_are_encoded_before_they_are_joined(provider):
    await credentials(audience="docs").token()
    sent = provider["token"].calls.last.request
    assert base64.b64decode(sent.headers["Authorization"].split()[1]) == b"orders:s%3A%C3%BC+cret"
    assert sent.content == b"grant_type=client_credentials&scope=livedocs%3Awrite&audience=docs"
    await credentials(auth="client_secret_post").token()
    sent = provider["token"].calls.last.request
    assert "Authorization" not in sent.headers
    assert b"client_secret=s%3A%C3%BC+cret" in sent.content


async def test_the_other_kind_of_discovery_is_tried_and_a_given_endpoint_needs_none(provider):
    provider["discovery"].respond(404)
    other = provider.get("https://id.example/.well-known/oauth-authorization-server/realm").respond(json=METADATA)
    assert await credentials().token() == "t1"
    assert other.called
    assert await credentials(token_url=f"{ISSUER}/token").token() == "t2"
    assert provider["discovery"].call_count == 1


@pytest.mark.parametrize(
    "metadata",
    [
        {**METADATA, "issuer": "https://id.example/realm/"},
        {**METADATA, "token_endpoint": "http://id.example/token"},
        {"issuer": ISSUER},
        [],
    ],
    ids=["another issuer", "no https", "no endpoint", "no object"],
)
async def test_a_secret_is_sent_nowhere_else(provider, metadata):
    provider["discovery"].respond(json=metadata)
    with pytest.raises(TokenUnavailable):
        await credentials().token()
    assert not provider["token"].called


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status_code": 401, "json": {"error": "invalid_client"}}, "invalid_client"),
        ({"status_code": 400, "json": {"error": "x", "error_description": "no such scope"}}, "no such scope"),
        ({"status_code": 500, "text": "<html>"}, "status 500"),
        ({"status_code": 200, "json": {"token_type": "Bearer"}}, "status 200"),
    ],
    ids=["client", "scope", "server error", "no token"],
)
async def test_a_refusal_says_why(provider, answer, reason):
    provider["token"].side_effect = None
    provider["token"].respond(**answer)
    with pytest.raises(TokenUnavailable, match=reason):
        await credentials().token()


async def test_the_secret_is_in_no_repr_and_in_no_error(provider):
    source = credentials()
    assert "cret" not in repr(source)
    provider["token"].side_effect = None
    provider["token"].respond(401, json={"error": "invalid_client"})
    with pytest.raises(TokenUnavailable) as caught:
        await source.token()
    assert "cret" not in str(caught.value)
