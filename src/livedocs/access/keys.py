"""The keys a provider signs with: its JWK set (RFC 7517), fetched when a key is missing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from jwt import PyJWK, PyJWKSet
from jwt.exceptions import PyJWTError

from livedocs.access.flights import Flights
from livedocs.access.issuer import Answer, Issuer
from livedocs.errors import AuthUnavailable
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

# Between two fetches for keys we do not have: made-up key ids must not turn into calls of the provider.
_PAUSE = timedelta(seconds=30)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric only: with HMAC, whoever knows the public key could sign (RFC 8725, 2.1)."""


class KeySet:
    """One provider's keys. Old ones are kept while a fetch fails.

    Args:
        issuer: whose `jwks_uri` is read.
        now: the clock, aware UTC.
    """

    def __init__(self, issuer: Issuer, *, now: Callable[[], datetime]) -> None:
        self._issuer = issuer
        self._now = now
        self._keys: list[PyJWK] = []
        self._fetched_at: datetime | None = None
        self._fetches: Flights[None] = Flights()

    async def key(self, key_id: str | None) -> PyJWK | None:
        """The key of that id; without an id the only key there is. None when there is no such key.

        Raises:
            AuthUnavailable: no key could be fetched so far.
        """
        found = self._find(key_id)
        if found is None and self._may_fetch():
            await self._fetches.share("", self._fetch)
            found = self._find(key_id)
        if not self._keys:
            raise AuthUnavailable
        return found

    async def aclose(self) -> None:
        """End the fetch in the air."""
        await self._fetches.aclose()

    def _find(self, key_id: str | None) -> PyJWK | None:
        if key_id is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.key_id == key_id), None)

    def _may_fetch(self) -> bool:
        return not self._keys or self._fetched_at is None or self._now() >= self._fetched_at + _PAUSE

    async def _fetch(self) -> None:
        self._fetched_at = self._now()
        uri = (await self._issuer.metadata()).jwks_uri
        if uri is None:
            _log.error("keys_failed", reason="the provider names no key set")
            return
        answer = await self._issuer.get(uri)
        if not isinstance(answer, Answer) or answer.status != 200 or not isinstance(answer.body, dict):
            reason = f"status {answer.status}" if isinstance(answer, Answer) else answer.reason
            _log.warning("keys_failed", reason=reason)
            return
        try:
            found = PyJWKSet.from_dict(answer.body)
        except PyJWTError:
            _log.error("keys_failed", reason="no usable key")
            return
        self._keys = [
            key for key in found.keys if key.algorithm_name in ALGORITHMS and key.public_key_use in {None, "sig"}
        ]
