"""Logging in, renewing, JWTs and key proofs against npm's oidc-provider."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx
import jwt
import pytest

from livedocs.access.introspection import token_id
from livedocs.errors import AuthUnavailable, InvalidToken, LoginFailed


async def log_in(parts, user="alice"):
    """What a browser does: there, through the provider's own forms, and back. The query and the sealed attempt."""
    begun = await parts.login.begin("/")
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(begun.url)
        for _ in range(12):
            if answer.is_redirect:
                target = urljoin(str(answer.url), answer.headers["Location"])
                if urlsplit(target).path == "/auth/callback":
                    return dict(parse_qsl(urlsplit(target).query)), begun.sealed
                answer = await browser.get(target)
            else:
                assert answer.status_code == 200, answer.text
                action = re.search(r'action="([^"]+)"', answer.text).group(1)
                prompt = re.search(r'name="prompt" value="(\w+)"', answer.text).group(1)
                form = {"prompt": prompt, **({"login": user, "password": "x"} if prompt == "login" else {})}
                answer = await browser.post(urljoin(str(answer.url), action), data=form)
    raise AssertionError(answer.url)


async def test_a_login_gives_tokens_that_name_the_user(oidc_provider, rely):
    parts = rely(oidc_provider)
    tokens, home = await parts.login.finish(*await log_in(parts))
    assert home == "/"
    principal = await parts.tokens.principal(tokens.access_token)
    assert (principal.tenant, principal.subject, principal.groups) == ("acme", "user:alice", {"staff"})
    assert tokens.refresh_token is not None


async def test_the_way_back_is_good_once_and_for_its_own_browser_only(oidc_provider, rely):
    parts = rely(oidc_provider)
    query, sealed = await log_in(parts)
    assert query["iss"] == oidc_provider.issuer
    other = (await parts.login.begin("/")).sealed
    for answer, attempt in ((query, other), ({**query, "iss": "http://evil.example"}, sealed)):
        with pytest.raises(LoginFailed):
            await parts.login.finish(answer, attempt)
    query, sealed = await log_in(parts)
    assert await parts.login.finish(query, sealed)
    with pytest.raises(LoginFailed) as refused:
        await parts.login.finish(query, sealed)
    assert refused.value.data["reason"] == "replayed"
    # Nor does the provider take the code from another process that has not seen it.
    with pytest.raises(LoginFailed) as refused:
        await rely(oidc_provider).login.finish(query, sealed)
    assert refused.value.data["reason"] == "code"


async def test_a_refresh_rotates_and_a_spent_refresh_token_ends_the_session(oidc_provider, rely):
    parts = rely(oidc_provider)
    first, _ = await parts.login.finish(*await log_in(parts))
    # Two tabs at once: one call, the same tokens.
    one, two = await asyncio.gather(*(parts.login.refresh(first.refresh_token) for _ in range(2)))
    assert one == two
    assert one.refresh_token != first.refresh_token
    assert one.access_token != first.access_token
    assert await parts.tokens.principal(one.access_token)
    # A thief, elsewhere, with the token that is spent.
    with pytest.raises(InvalidToken):
        await rely(oidc_provider).login.refresh(first.refresh_token)
    with pytest.raises(InvalidToken):
        await parts.login.refresh(one.refresh_token)
    with pytest.raises(InvalidToken):
        await parts.tokens.principal(one.access_token, fresh=True)


async def test_a_logout_ends_both_tokens_at_the_provider(oidc_provider, rely):
    parts = rely(oidc_provider)
    tokens, _ = await parts.login.finish(*await log_in(parts))
    assert await parts.login.revoke({"access_token": tokens.access_token, "refresh_token": tokens.refresh_token})
    with pytest.raises(InvalidToken):
        await parts.tokens.principal(tokens.access_token, fresh=True)
    with pytest.raises(InvalidToken):
        await parts.login.refresh(tokens.refresh_token)
    assert (await parts.login.post_logout_redirect()).startswith(f"{oidc_provider.issuer}/session/end?")


async def test_a_key_proves_who_we_are_for_introspection_login_and_refresh(oidc_provider, rely):
    changes = {
        "oauth_client_id": "livedocs-key",
        "oauth_client_auth": "private_key_jwt",
        "oauth_client_secret": "",
        "oauth_client_key_file": oidc_provider.key_file,
        "oauth_client_key_id": "k1",
    }
    parts = rely(oidc_provider, **changes)
    assert await parts.tokens.reachable()
    assert await parts.tokens.principal(oidc_provider.service_token())
    tokens, _ = await parts.login.finish(*await log_in(parts, "carol"))
    renewed = await parts.login.refresh(tokens.refresh_token)
    assert (await parts.tokens.principal(renewed.access_token)).tenant == "globex"
    stranger = rely(oidc_provider, **{**changes, "oauth_client_id": "livedocs"})
    with pytest.raises(AuthUnavailable):
        await stranger.tokens.principal(oidc_provider.service_token())


async def test_jwt_access_tokens_are_checked_here_by_the_providers_own_keys(oidc_provider, rely):
    parts = rely(oidc_provider, oauth_mode="jwt")
    token = oidc_provider.service_token("acme-service-jwt")
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    principal = await parts.tokens.principal(token)
    assert (principal.tenant, principal.subject) == ("acme", "client:acme-service-jwt")
    assert await parts.tokens.reachable()
    head, body, _ = token.split(".")
    for other in (f"{head}.{body}.", oidc_provider.service_token()):
        with pytest.raises(InvalidToken):
            await parts.tokens.principal(other)
    parts.tokens.forget(token_id(token))
    with pytest.raises(InvalidToken):
        await parts.tokens.principal(token)


async def test_an_id_token_of_the_same_provider_and_keys_is_no_access_token(oidc_provider, rely, monkeypatch):
    parts = rely(oidc_provider, oauth_mode="jwt", oauth_client_id="livedocs-jwt")
    seen = {}

    async def keep(token, attempt):
        seen["id_token"] = token

    monkeypatch.setattr(parts.login, "_check_id_token", keep)
    tokens, _ = await parts.login.finish(*await log_in(parts))
    assert (await parts.tokens.principal(tokens.access_token)).subject == "user:alice"
    with pytest.raises(InvalidToken) as refused:
        await parts.tokens.principal(seen["id_token"])
    assert refused.value.data["reason"] == "type"
