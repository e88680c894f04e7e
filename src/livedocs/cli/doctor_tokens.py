"""What `livedocs doctor` learns from a token: whether the settings expect what the OAuth service issues.

Neither the provider's metadata nor the answer about a made-up token says which audience and claims real ones have.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import urlencode

from livedocs.access import tokens as ways
from livedocs.access.claims import Expectations, Refused
from livedocs.access.issuer import Answer, Issuer, Metadata
from livedocs.access.principal import Principal
from livedocs.cli.findings import Finding
from livedocs.config import Settings
from livedocs.errors import AuthUnavailable, InvalidToken
from livedocs.model import Tenant
from livedocs.names import escaped
from livedocs.telemetry import Metrics

_ADVICE = {
    "audience": "set LIVEDOCS_OAUTH_AUDIENCE to a name in the tokens' `aud`, or have the OAuth service add it",
    "issuer": "check LIVEDOCS_OAUTH_ISSUER, letter for letter",
    "tenant": "check LIVEDOCS_OAUTH_TENANT_CLAIM, and that the OAuth service puts the claim into access tokens",
    "subject": "check LIVEDOCS_OAUTH_SUBJECT_CLAIM and LIVEDOCS_OAUTH_SERVICE_CLAIMS",
    "groups": "check LIVEDOCS_OAUTH_GROUPS_CLAIM and LIVEDOCS_MAX_GROUPS",
    "type": "check LIVEDOCS_OAUTH_TOKEN_TYPES, and that this is an access token",
    "algorithm": "check LIVEDOCS_OAUTH_ALGORITHMS",
    "key": "check LIVEDOCS_OAUTH_JWKS_URL",
}
_OTHER_ADVICE = "docs/settings.md says what the reason means; give an access token that has just been issued"
# Only claims behind the audience are wrong: a client's own token often has no tenant, and no person.
_BEHIND_AUDIENCE = frozenset({"tenant", "subject", "groups", "scope"})
_ADDRESSEE = frozenset({"audience", "issuer"})


async def given_token(
    settings: Settings, issuer: Issuer, token: str, tenants: Iterable[Tenant] | None
) -> list[Finding]:
    """What to say of a token that is to count here, verified as the server does it.

    Args:
        settings: of the server.
        issuer: the OAuth service.
        token: an access token.
        tenants: the registered ones; None when they cannot be read.
    """
    try:
        verdict = await _verdict(settings, issuer, token)
    except AuthUnavailable:
        return [Finding("the token cannot be checked: the OAuth service does not answer", "see above")]
    if isinstance(verdict, Refused):
        return [_refused(settings, verdict, "the token is refused")]
    scopes = " ".join(sorted(verdict.scopes)) or "none"
    counts = Finding(
        f"the token counts: {verdict.subject}, scopes {scopes}, until {verdict.expires_at:%H:%M:%S} UTC"
    )
    return [counts] if tenants is None else [counts, tenant_finding(verdict.tenant, tenants)]


def tenant_finding(name: str, tenants: Iterable[Tenant]) -> Finding:
    """What to say of the name that a token has for its tenant."""
    shown = escaped(name)
    found = next((tenant for tenant in tenants if name == tenant.slug or name in tenant.aliases), None)
    if found is None:
        return Finding(
            f"the token's tenant {shown} is no tenant's slug or alias (reason tenant_unknown)",
            f"run: livedocs tenant alias SLUG {shown}, with all aliases of the tenant; or livedocs tenant create",
        )
    if not found.active:
        return Finding(
            f"the token's tenant {found.slug} is suspended", f"run: livedocs tenant resume {found.slug}"
        )
    return Finding(f"the token's tenant {shown} is {found.slug}")


async def own_token(settings: Settings, issuer: Issuer, metadata: Metadata) -> Finding | None:
    """What a token tells that the OAuth service issues to the server's own client; None when there is none.

    Many services issue none to a client for logins. Only the addressee is judged; the token is revoked afterwards.
    """
    if metadata.token_endpoint is None:
        return None
    answer = await issuer.post(
        metadata.token_endpoint, urlencode({"grant_type": "client_credentials"}), vouched=True
    )
    match answer:
        case Answer(200, {"access_token": str(token)}):
            pass
        case _:
            return None
    try:
        verdict = await _verdict(settings, issuer, token)
    except AuthUnavailable:
        return None
    finally:
        if metadata.revocation_endpoint is not None:
            await issuer.post(metadata.revocation_endpoint, urlencode({"token": token}), vouched=True)
    if isinstance(verdict, Refused) and verdict.reason in _ADDRESSEE:
        return _refused(
            settings, verdict, "a token that the OAuth service issues to LIVEDOCS_OAUTH_CLIENT_ID is refused"
        )
    if isinstance(verdict, Principal) or verdict.reason in _BEHIND_AUDIENCE:
        return Finding("tokens of the OAuth service are meant for LIVEDOCS_OAUTH_AUDIENCE")
    return None


async def _verdict(settings: Settings, issuer: Issuer, token: str) -> Principal | Refused:
    """What the server would make of the token.

    Raises:
        AuthUnavailable: the OAuth service gives no answer.
    """
    async with _tokens(settings, issuer) as tokens:
        try:
            return await tokens.principal(token, fresh=True)
        except InvalidToken as error:
            return Refused(error.data.get("reason", "malformed"))


@asynccontextmanager
async def _tokens(settings: Settings, issuer: Issuer) -> AsyncIterator[ways.Tokens]:
    tokens = ways.of(settings, issuer, Metrics(), now=lambda: datetime.now(UTC))
    try:
        yield tokens
    finally:
        await tokens.aclose()


def _refused(settings: Settings, refused: Refused, what: str) -> Finding:
    claim = refused.claim(Expectations.of(settings))
    named = f"reason {refused.reason}" + (f", claim {claim}" if claim else "")
    return Finding(f"{what} ({named})", _ADVICE.get(refused.reason, _OTHER_ADVICE))
