"""Which way tokens are understood: by introspection, by signature, or by both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from livedocs.access.claims import Refused
from livedocs.access.introspection import Introspector, token_id
from livedocs.access.issuer import Issuer
from livedocs.access.jwt_tokens import SignedTokens
from livedocs.access.keys import KeySet
from livedocs.access.principal import Principal
from livedocs.access.single_flight import SingleFlight
from livedocs.access.ttl_cache import TtlCache
from livedocs.config import Settings
from livedocs.errors import AuthUnavailable, InvalidToken
from livedocs.telemetry import Metrics

_REMEMBERED = 10_000


class Tokens(Protocol):
    """Understands tokens; owns what it needs for that."""

    async def principal(self, token: str, *, fresh: bool = False, address: str = "") -> Principal:
        """Who a token speaks for; raises InvalidToken or AuthUnavailable."""

    async def reachable(self) -> bool:
        """Whether tokens can be understood now; for readiness."""

    def forget(self, token_id: str) -> None:
        """A token's owner has logged out."""

    async def aclose(self) -> None:
        """End the calls in the air."""


class SignedAndIntrospected:
    """The signature decides at once, and the issuer is asked meanwhile: its no counts from the next request on.

    A token that it has said no to waits for its word from then on; its signature alone is worth nothing any more.
    So does one that it has said nothing of for longer than the grace: whoever keeps the issuer from answering
    keeps no revoked token alive.

    Args:
        signed: checks signatures.
        introspector: asks the issuer.
        grace: seconds for which a signature is enough while the issuer does not answer.
        now: the clock, aware UTC.
    """

    def __init__(
        self, signed: SignedTokens, introspector: Introspector, *, grace: float, now: Callable[[], datetime]
    ) -> None:
        self._signed = signed
        self._introspector = introspector
        self._now = now
        self._asking: SingleFlight[None] = SingleFlight()
        # Tokens the issuer has said no to, until their end.
        self._doubted: TtlCache[bool] = TtlCache(_REMEMBERED)
        self._grace = timedelta(seconds=grace)
        # Tokens whose signature was enough, and the first time since the issuer's last word.
        self._unheard: TtlCache[datetime] = TtlCache(_REMEMBERED)

    async def principal(self, token: str, *, fresh: bool = False, address: str = "") -> Principal:
        """Who a token speaks for.

        Args:
            token: as the client sent it.
            fresh: wait for the issuer's word, as live sockets do once per interval.
            address: as for `Introspector.principal`.

        Raises:
            InvalidToken: by its signature or by the issuer's word.
            AuthUnavailable: the keys, or the issuer where its word is waited for, cannot be had.
        """
        identifier = token_id(token)
        local = await self._signed.principal(token)
        known = self._introspector.known(identifier)
        if fresh or isinstance(known, Refused) or self._doubted.get(identifier, self._now()):
            return await self._ask(token, local, fresh=fresh, address=address)
        if isinstance(known, Principal) and _same_caller(known, local):
            return known
        now = self._now()
        since = self._unheard.get(identifier, now)
        if since is None:
            self._unheard.put(identifier, now, until=local.expires_at)
        elif now - since >= self._grace:
            return await self._ask(token, local, address=address)
        self._asking.start(identifier, lambda: self._ask_quietly(token, local, address))
        return local

    async def reachable(self) -> bool:
        """Whether there are keys, and the issuer answers."""
        return await self._signed.reachable() and await self._introspector.reachable()

    def forget(self, token_id: str) -> None:
        """Take a token for ended, as its owner has logged out."""
        self._signed.forget(token_id)
        self._introspector.forget(token_id)

    async def aclose(self) -> None:
        """End the calls in the air."""
        await self._asking.aclose()
        await self._signed.aclose()
        await self._introspector.aclose()

    async def _ask(self, token: str, local: Principal, *, fresh: bool = False, address: str = "") -> Principal:
        try:
            found = await self._introspector.principal(token, fresh=fresh, address=address)
        except InvalidToken:
            self._doubted.put(local.token_id, value=True, until=local.expires_at)
            raise
        if not _same_caller(found, local):
            # The two words contradict each other: neither is believed.
            self._doubted.put(local.token_id, value=True, until=local.expires_at)
            raise InvalidToken(reason="subject")
        self._doubted.drop(local.token_id)
        self._unheard.drop(local.token_id)
        return found

    async def _ask_quietly(self, token: str, local: Principal, address: str) -> None:
        try:
            await self._ask(token, local, address=address)
        except (InvalidToken, AuthUnavailable):
            # The no is remembered; without an answer the next request asks again.
            return


def _same_caller(one: Principal, other: Principal) -> bool:
    return (one.tenant, one.subject) == (other.tenant, other.subject)


def of(settings: Settings, issuer: Issuer, metrics: Metrics, *, now: Callable[[], datetime]) -> Tokens:
    """The way that the settings ask for."""
    if settings.oauth_mode == "introspect":
        return Introspector(settings, issuer, metrics, now=now)
    signed = SignedTokens(settings, KeySet(issuer, now=now, url=settings.oauth_jwks_url), metrics, now=now)
    if settings.oauth_mode == "jwt":
        return signed
    introspector = Introspector(settings, issuer, metrics, now=now)
    return SignedAndIntrospected(signed, introspector, grace=settings.auth_grace, now=now)
