"""The keys a provider signs with: its JWK set (RFC 7517), fetched when a key is missing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from jwt import PyJWK, PyJWKSet
from jwt.exceptions import PyJWTError

from livedocs.access.flights import Flights
from livedocs.access.issuer import Answer, Issuer
from livedocs.config import ASYMMETRIC
from livedocs.errors import AuthUnavailable
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

# Between two fetches for keys we do not have: made-up key ids must not turn into calls of the provider.
_PAUSE = timedelta(seconds=30)
# The same while there is no key at all: nobody can get in, so it is tried more often.
_EMPTY_PAUSE = timedelta(seconds=1)
# A key that the provider has withdrawn is used for about that long.
_FRESH = timedelta(minutes=10)

ALGORITHMS = tuple(sorted(ASYMMETRIC))


class KeySet:
    """One provider's keys. Old ones are kept while a fetch fails.

    Args:
        issuer: whose `jwks_uri` is read.
        now: the clock, aware UTC.
        url: of the key set, where the provider's metadata does not name it.
    """

    def __init__(self, issuer: Issuer, *, now: Callable[[], datetime], url: str = "") -> None:
        self._issuer = issuer
        self._url = url
        self._now = now
        self._keys: list[PyJWK] = []
        # The last try, and the last one that succeeded.
        self._tried_at: datetime | None = None
        self._fetched_at: datetime | None = None
        self._fetches: Flights[None] = Flights()

    async def key(self, key_id: str | None) -> PyJWK | None:
        """The key of that id; without an id the only key there is. None when there is no such key.

        Raises:
            AuthUnavailable: no key could be fetched so far.
        """
        found = self._find(key_id)
        if found is None and (self._fetches.flying("") or self._may_fetch()):
            await self._fetches.share("", self._fetch)
            found = self._find(key_id)
        elif found is not None and self._stale() and self._may_fetch():
            # It may have been withdrawn; until that is known it serves.
            self._fetches.start("", self._fetch)
        if not self._keys:
            raise AuthUnavailable
        return found

    async def any(self) -> bool:
        """Whether there is any key, fetching when there is none yet."""
        if not self._keys and (self._fetches.flying("") or self._may_fetch()):
            await self._fetches.share("", self._fetch)
        return bool(self._keys)

    async def aclose(self) -> None:
        """End the fetch in the air."""
        await self._fetches.aclose()

    def _find(self, key_id: str | None) -> PyJWK | None:
        if key_id is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.key_id == key_id), None)

    def _stale(self) -> bool:
        return self._fetched_at is None or self._now() >= self._fetched_at + _FRESH

    def _may_fetch(self) -> bool:
        pause = _PAUSE if self._keys else _EMPTY_PAUSE
        return self._tried_at is None or self._now() >= self._tried_at + pause

    async def _fetch(self) -> None:
        self._tried_at = self._now()
        uri = self._url or (await self._issuer.metadata()).jwks_uri
        if not uri:
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
        self._fetched_at = self._now()
