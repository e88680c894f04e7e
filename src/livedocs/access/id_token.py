"""ID tokens (OpenID Connect Core 1.0, 3.1.3.7): the provider's word that this login is the one we began."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from livedocs.access.keys import ALGORITHMS, KeySet

_LEEWAY = timedelta(seconds=10)
# The signature is PyJWT's business. The claims are checked below, against the injected clock.
_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    "enforce_minimum_key_length": True,
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub"), False),
}


async def problem(
    token: str, keys: KeySet, *, issuer: str, client_id: str, nonce: str, now: datetime
) -> str | None:
    """What is wrong with an ID token, or None.

    Raises:
        AuthUnavailable: the provider's keys cannot be had.
    """
    try:
        header = jwt.get_unverified_header(token)
        fitting = await keys.key(header.get("kid"))
        if fitting is None:
            return "unknown key"
        key = fitting.get(str(header.get("alg")))
        if key is None:
            return "algorithm"
        claims = jwt.decode(token, key, algorithms=ALGORITHMS, options=_SIGNATURE_ONLY)
    except PyJWTError as error:
        return f"signature: {type(error).__name__}"
    return claims_problem(claims, issuer=issuer, client_id=client_id, nonce=nonce, now=now)


def claims_problem(
    claims: Mapping[str, Any], *, issuer: str, client_id: str, nonce: str, now: datetime
) -> str | None:
    """What is wrong with the claims of a signed ID token, or None. Pure."""
    if claims.get("iss") != issuer:
        return "issuer"
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences:
        return "audience"
    # With several audiences, or when it is named, the authorized party must be us.
    if claims.get("azp", client_id if len(audiences) == 1 else None) != client_id:
        return "authorized party"
    given = claims.get("nonce")
    # The nonce ties the token to this browser's attempt: a stolen code brings a token of another one.
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(errors="replace"), nonce.encode()):
        return "nonce"
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        return "subject"
    return _time_problem(claims, now)


def _time_problem(claims: Mapping[str, Any], now: datetime) -> str | None:
    for name in ("exp", "iat"):
        if isinstance(claims.get(name), bool) or not isinstance(claims.get(name), int | float):
            return name
    try:
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        issued_at = datetime.fromtimestamp(claims["iat"], UTC)
    except (OverflowError, ValueError, OSError):
        return "exp"
    if now >= expires_at + _LEEWAY:
        return "expired"
    return "iat" if issued_at > now + _LEEWAY else None
