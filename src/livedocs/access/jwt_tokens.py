"""Access tokens that say themselves what they are worth: signed JWTs (RFC 9068), checked without asking anybody.

A signature cannot be taken back: whoever uses this mode alone relies on short lifetimes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jwt
from jwt.exceptions import InvalidAlgorithmError, PyJWTError

from livedocs.access.claims import SKEW, Expectations, Refused, client_of, instant, judge
from livedocs.access.credentials import well_formed
from livedocs.access.introspection import token_id
from livedocs.access.keys import KeySet
from livedocs.access.principal import Principal
from livedocs.access.ttl_cache import ALWAYS, TtlCache
from livedocs.config import Settings
from livedocs.errors import AuthUnavailable, InvalidToken
from livedocs.telemetry import Metrics, get_logger

_log = get_logger(__name__)

_REMEMBERED = 10_000
# The signature is PyJWT's business. The claims are checked below, against the injected clock.
_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    "enforce_minimum_key_length": True,
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub"), False),
}


def read_header(
    token: str, algorithms: frozenset[str], types: frozenset[str] = frozenset({"at+jwt"})
) -> Mapping[str, Any] | Refused:
    """The header of a token that may be believed so far, or why there is none. Pure.

    Nothing in it chooses the key's origin: `jku`, `x5u` and `jwk` are not looked at (RFC 8725, 3.10).
    """
    try:
        header = jwt.get_unverified_header(token)
    except (PyJWTError, RecursionError):
        # 4,000 octets have room for more brackets than Python's parser has stack.
        return Refused("malformed")
    # An ID token of the same issuer, signed with the same key, is no access token (RFC 9068, 5).
    # `application/` may be left away, or not (RFC 7515, 4.1.9; RFC 9068, 4).
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in types:
        return Refused("type")
    # `none`, and HMAC with the public key as the secret, are not on the list.
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        return Refused("algorithm")
    # Extensions that must be understood (RFC 7515, 4.1.11): none is.
    if "crit" in header or "b64" in header:
        return Refused("malformed")
    return header


def judge_claims(
    claims: Mapping[str, Any], expected: Expectations, *, token_id: str, now: datetime
) -> Principal | Refused:
    """What the claims of a token with a good signature say (RFC 9068, 2.2 and 4). Pure."""
    if claims.get("iss") != expected.issuer:
        return Refused("issuer")
    if not isinstance(claims.get("sub"), str) or not claims["sub"] or client_of(claims) is None:
        return Refused("claims")
    issued_at = instant(claims.get("iat"))
    if issued_at is None or issued_at > now + SKEW:
        return Refused("iat")
    # What introspection says of a token, the issuer has signed here.
    return judge({**claims, "active": True}, expected, token_id=token_id, now=now)


class SignedTokens:
    """Tokens to principals, by signature.

    Args:
        settings: `oauth_*`.
        keys: of the issuer.
        metrics: `token_checks`.
        now: the clock, aware UTC.
    """

    def __init__(self, settings: Settings, keys: KeySet, metrics: Metrics, *, now: Callable[[], datetime]) -> None:
        self._expected = Expectations.of(settings)
        self._algorithms = frozenset(settings.oauth_algorithms)
        self._types = frozenset(kind.lower() for kind in settings.oauth_token_types)
        self._keys = keys
        self._metrics = metrics
        self._now = now
        # Logged out here: the signature stays good, the token does not. One that lived for longer than it is
        # remembered would be good again.
        self._ended: TtlCache[bool] = TtlCache(_REMEMBERED)

    async def principal(self, token: str, *, fresh: bool = False, address: str = "") -> Principal:  # noqa: ARG002 - nobody is asked
        """Who a token speaks for.

        Raises:
            InvalidToken: not signed by the issuer, expired, or not meant for this server; `reason` says which.
            AuthUnavailable: the issuer's keys cannot be had.
        """
        identifier = token_id(token)
        if self._ended.get(identifier, self._now()):
            verdict: Principal | Refused = Refused("ended")
        else:
            verdict = await self._check(token, identifier)
        result = "active" if isinstance(verdict, Principal) else verdict.reason
        self._metrics.token_checks.labels(result=result).inc()
        if isinstance(verdict, Refused):
            raise InvalidToken(reason=verdict.reason)
        return verdict

    async def reachable(self) -> bool:
        """Whether there are keys to check tokens with."""
        try:
            return await self._keys.any()
        except AuthUnavailable:
            return False

    def forget(self, token_id: str) -> None:
        """Take a token for ended, as its owner has logged out; not made-up ones, they would push out others."""
        self._ended.put(token_id, value=True, until=ALWAYS)

    async def aclose(self) -> None:
        """End the fetch in the air."""
        await self._keys.aclose()

    async def _check(self, token: str, identifier: str) -> Principal | Refused:
        header = read_header(token, self._algorithms, self._types) if well_formed(token) else Refused("malformed")
        if isinstance(header, Refused):
            return header
        fitting = await self._keys.key(header.get("kid"))
        if fitting is None:
            return Refused("key")
        key = fitting.get(header["alg"])
        if key is None:
            # The public key as an HMAC secret, an RSA key under the name of a curve, ... (RFC 8725, 3.1).
            return Refused("algorithm")
        try:
            claims = jwt.decode(token, key, algorithms=[header["alg"]], options=_SIGNATURE_ONLY)
        except InvalidAlgorithmError:
            return Refused("algorithm")
        except PyJWTError:
            return Refused("signature")
        verdict = judge_claims(claims, self._expected, token_id=identifier, now=self._now())
        if isinstance(verdict, Refused) and verdict.reason != "expired":
            # The issuer vouches for it and we do not: worth a line for whoever sets the two up.
            _log.info(
                "token_refused", token_id=identifier, reason=verdict.reason, claim=verdict.claim(self._expected)
            )
        return verdict
