"""Signing and verifying JWTs with the provider's one key."""

from __future__ import annotations

from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

# OpenID Connect Discovery 1.0 (3) makes RS256 the algorithm every provider has.
ALGORITHM: Final = "RS256"
ACCESS_TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - RFC 9068, 2.1


class SigningKey:
    """An RSA key with its id, the thumbprint (RFC 7638)."""

    def __init__(self, jwk: dict[str, Any]) -> None:
        self.key = RSAKey.import_key(jwk)
        self.kid = self.key.thumbprint()

    @staticmethod
    def generate() -> dict[str, Any]:
        """A new private key as a JWK, to be kept."""
        return dict(RSAKey.generate_key(2048).as_dict(private=True))

    def jwks(self) -> dict[str, Any]:
        """The public key set (RFC 7517)."""
        return {"keys": [{**self.key.as_dict(private=False), "kid": self.kid, "use": "sig", "alg": ALGORITHM}]}

    def sign(self, claims: dict[str, Any], *, typ: str) -> str:
        """The claims as a signed JWT."""
        return jwt.encode({"alg": ALGORITHM, "typ": typ, "kid": self.kid}, claims, self.key, [ALGORITHM])

    def access_claims(self, token: str) -> dict[str, Any] | None:
        """The claims of an access token of ours; None for anything else, an id token among it."""
        try:
            decoded = jwt.decode(token, self.key, [ALGORITHM])
        except (JoseError, ValueError):  # foreign, altered, or no JWT at all
            return None
        return dict(decoded.claims) if decoded.header.get("typ") == ACCESS_TOKEN_TYPE else None
