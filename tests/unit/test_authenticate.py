from __future__ import annotations

from datetime import UTC, datetime

import pytest

from livedocs.access.authenticate import Authenticator
from livedocs.access.principal import Principal
from livedocs.errors import InvalidToken, MultipleCredentials, TenantSuspended, TenantUnknown
from livedocs.model import Tenant

ACME = Tenant(
    "acme", "livedocs_acme", {}, aliases=frozenset({"org_2x9", "7", "0f8b0c1e-7d3a-4b8e-9a5e-0c1d2e3f4a5b"})
)
UMBRELLA = Tenant("umbrella", "livedocs_umbrella", {})


class Tenants:
    """Those that are registered."""

    def __init__(self, *tenants):
        self.tenants = tenants

    def named(self, name):
        return next((one for one in self.tenants if name == one.slug or name in one.aliases), None)


class KnownTokens:
    """Understands the tokens it was given."""

    def __init__(self, **tenants):
        self.tenants = tenants
        self.asked = []
        self.forgotten = []

    async def principal(self, token, *, fresh=False, address=""):
        self.asked.append((token, fresh))
        if token not in self.tenants:
            raise InvalidToken
        return Principal(
            self.tenants[token],
            "user:alice",
            "Alice",
            frozenset(),
            frozenset(),
            datetime.max.replace(tzinfo=UTC),
            "",
            "",
        )

    def forget(self, token_id):
        self.forgotten.append(token_id)


@pytest.fixture
def tokens():
    return KnownTokens(good="acme", other="umbrella", stranger="initech", late="globex", org="org_2x9", number="7")


@pytest.fixture
def authenticator(tokens):
    late = Tenant("globex", "livedocs_globex", {}, status="suspended")
    return Authenticator(tokens, Tenants(ACME, UMBRELLA, late), secure=False)


async def test_a_request_is_its_tokens_principal_and_that_tokens_tenant(authenticator):
    principal, tenant, credential = await authenticator.request([(b"cookie", b"livedocs_token=good")])
    assert (principal.subject, tenant, credential.source) == ("user:alice", ACME, "cookie")


async def test_a_request_without_a_credential_is_nobodys(authenticator, tokens):
    assert await authenticator.request([(b"host", b"localhost")]) is None
    assert not tokens.asked


async def test_the_tenant_comes_from_the_token_whatever_the_request_says(authenticator):
    for token, own, another in ((b"good", ACME, b"umbrella"), (b"other", UMBRELLA, b"acme")):
        headers = [
            (b"authorization", b"Bearer " + token),
            (b"x-tenant", another),
            (b"host", another + b".localhost"),
        ]
        _, tenant, _ = await authenticator.request(headers)
        assert tenant is own


@pytest.mark.parametrize("token", ["org", "number"])
async def test_a_tenant_may_have_another_name_in_tokens_and_has_its_own_from_there_on(authenticator, token):
    principal, tenant = await authenticator.token(token)
    assert (principal.tenant, tenant) == ("acme", ACME)


async def test_a_tenant_that_is_not_registered_or_is_suspended_gets_nobody_in(authenticator):
    with pytest.raises(TenantUnknown):
        await authenticator.token("stranger")
    with pytest.raises(TenantSuspended):
        await authenticator.token("late")


async def test_a_bad_token_or_two_credentials_are_refused(authenticator, tokens):
    with pytest.raises(InvalidToken):
        await authenticator.token("bad")
    with pytest.raises(MultipleCredentials):
        await authenticator.request([(b"cookie", b"livedocs_token=good"), (b"authorization", b"Bearer good")])


async def test_fresh_and_forget_reach_whoever_understands_tokens(authenticator, tokens):
    await authenticator.token("good", fresh=True)
    authenticator.forget("id")
    assert tokens.asked == [("good", True)]
    assert tokens.forgotten == ["id"]
