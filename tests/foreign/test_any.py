"""What every RFC 7662 service has to do with livedocs, against two that nobody here wrote."""

from __future__ import annotations

import secrets

import pytest

from livedocs.errors import AuthUnavailable, InvalidToken


async def test_a_services_token_is_understood(foreign, rely):
    principal = await rely(foreign).tokens.principal(foreign.service_token())
    assert (principal.tenant, principal.subject) == ("acme", "client:acme-service")
    assert principal.scopes == {"livedocs:write"}
    assert principal.is_service


async def test_a_token_that_it_never_issued_is_none(foreign, rely):
    for token in (secrets.token_urlsafe(32), "a.b.c"):
        with pytest.raises(InvalidToken):
            await rely(foreign).tokens.principal(token)


async def test_a_revoked_token_is_of_no_use_at_the_next_introspection(foreign, rely):
    parts, token = rely(foreign), foreign.service_token()
    assert await parts.tokens.principal(token)
    # Only whom a token was issued to may revoke it.
    owner = rely(foreign, oauth_client_id="acme-service")
    assert await foreign.revoke(owner.issuer, token) == 200
    with pytest.raises(InvalidToken):
        await parts.tokens.principal(token, fresh=True)


async def test_a_wrong_secret_is_our_misconfiguration_and_lets_nobody_in(foreign, rely):
    parts = rely(foreign, oauth_client_secret="wrong")
    with pytest.raises(AuthUnavailable):
        await parts.tokens.principal(foreign.service_token())
    assert not await parts.tokens.reachable()


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_it_takes_our_secret(foreign, rely, method):
    client = "livedocs-post" if foreign.name == "oidc-provider" and method.endswith("post") else "livedocs"
    parts = rely(foreign, oauth_client_auth=method, oauth_client_id=client)
    assert await parts.tokens.reachable()
    assert await parts.tokens.principal(foreign.service_token())


async def test_a_token_for_another_audience_is_refused(foreign, rely):
    with pytest.raises(InvalidToken) as refused:
        await rely(foreign, oauth_audience="another").tokens.principal(foreign.service_token())
    assert refused.value.data["reason"] == "audience"


async def test_a_service_that_does_not_say_whom_a_token_is_for_is_not_believed(django_oauth_toolkit, rely):
    # The toolkit as it comes names no audience: any of its tokens, for whatever service, would open this one.
    plain = django_oauth_toolkit.issuer + "/o/introspect/"
    parts = rely(django_oauth_toolkit, oauth_introspection_url=plain)
    with pytest.raises(InvalidToken) as refused:
        await parts.tokens.principal(django_oauth_toolkit.service_token())
    assert refused.value.data["reason"] == "audience"
