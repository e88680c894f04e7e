"""The keys a provider signs with: its JWK set (RFC 7517), fetched when a key is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from livedocs.access.issuer import Answer, Issuer
from livedocs.access.single_flight import SingleFlight
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

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
# By kty and crv (RFC 7518, 6; RFC 8037, 2). No symmetric key: whoever reads the set could sign with it.
_FITTING: Mapping[tuple[object, object], frozenset[str]] = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
    ("OKP", "Ed448"): frozenset({"EdDSA"}),
}


@dataclass(frozen=True, slots=True)
class _Held:
    """A key of the set: as each of the algorithms whose signatures it may check, by their names."""

    id: object
    fitting: Mapping[str, PyJWK]


def fitting(jwk: Mapping[str, Any]) -> Mapping[str, PyJWK]:
    """By algorithm, the key with which a JWK (RFC 7517, 4) checks signatures; empty when it checks none. Pure.

    `alg` is optional: without it a key fits what its type and curve allow, with it that one algorithm. The token's
    header chooses among these, so it cannot have a key used as one of another kind (RFC 8725, 3.1).
    """
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return {}
    kind = (jwk.get("kty"), jwk.get("crv"))
    if not all(part is None or isinstance(part, str) for part in kind) or "d" in jwk:
        # A private key that is there for all to read: whoever has read it could have signed.
        return {}
    allowed = _FITTING.get(kind, frozenset())
    stated = jwk.get("alg")
    names = allowed if stated is None else [name for name in allowed if name == stated]
    try:
        return {name: PyJWK(dict(jwk), algorithm=name) for name in names}
    except PyJWTError:
        return {}


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
        self._keys: list[_Held] = []
        # The last try, and the last one that succeeded.
        self._tried_at: datetime | None = None
        self._fetched_at: datetime | None = None
        self._fetches: SingleFlight[None] = SingleFlight()

    async def key(self, key_id: str | None) -> Mapping[str, PyJWK] | None:
        """The key of that id, by the algorithms it fits; without an id the only key there is. None without either.

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

    def _find(self, key_id: str | None) -> Mapping[str, PyJWK] | None:
        # Keys of different types may share an id (RFC 7517, 4.5).
        found = self._keys if key_id is None else [key for key in self._keys if key.id == key_id]
        if not found or (key_id is None and len(found) > 1):
            return None
        return {name: fitting for key in reversed(found) for name, fitting in key.fitting.items()}

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
        listed = answer.body.get("keys")
        stated = [key for key in listed if isinstance(key, dict)] if isinstance(listed, list) else []
        usable = [held for key in stated if (held := _Held(key.get("kid"), fitting(key))).fitting]
        if not usable:
            _log.error("keys_failed", reason="no usable key")
            return
        self._keys = usable
        self._fetched_at = self._now()
