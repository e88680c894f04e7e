"""How this server proves to the OAuth service who it is: with its secret, or with a key that never leaves it.

Pure: a request's form in, the form and the headers that prove it out.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol
from urllib.parse import quote_plus, urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from livedocs.config import Settings

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# Long enough for the way there, too short to be worth stealing.
_ASSERTION_LIFE = timedelta(seconds=60)
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class ClientAuth(Protocol):
    """One way to authenticate a client (RFC 6749, 2.3)."""

    def apply(self, form: str) -> tuple[str, dict[str, str]]:
        """The form to send, and the headers to send with it."""


class SecretBasic:
    """`client_secret_basic` (RFC 6749, 2.3.1).

    Both parts are form-urlencoded first, so that a colon or an umlaut survives; Authlib and httpx leave that out.
    """

    def __init__(self, client_id: str, secret: str) -> None:
        pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
        self._headers = {"Authorization": "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")}

    def apply(self, form: str) -> tuple[str, dict[str, str]]:
        """The form as it is, with the secret in a header."""
        return form, self._headers


class SecretPost:
    """`client_secret_post` (RFC 6749, 2.3.1): for services that do not take the header."""

    def __init__(self, client_id: str, secret: str) -> None:
        self._members = urlencode({"client_id": client_id, "client_secret": secret})

    def apply(self, form: str) -> tuple[str, dict[str, str]]:
        """The form with the secret in it."""
        return f"{form}&{self._members}", {}


class PrivateKeyJwt:
    """`private_key_jwt` (RFC 7523, 2.2; OpenID Connect Core, 9): a signed statement, new for every request.

    Its audience is the issuer, not the endpoint: an endpoint that another provider talked us into would otherwise
    get a statement that it can use at ours.

    Args:
        client_id: who signs.
        key: PEM, unencrypted; RSA, P-256, P-384, P-521 or Ed25519.
        key_id: the `kid` under which the service knows the public key; empty for none.
        issuer: for whom.
        now: the clock, aware UTC.
    """

    def __init__(
        self, client_id: str, key: bytes, *, key_id: str, issuer: str, now: Callable[[], datetime]
    ) -> None:
        self._client_id = client_id
        loaded = load_pem_private_key(key, password=None)
        match loaded:
            case RSAPrivateKey():
                self._algorithm = "RS256"
            case EllipticCurvePrivateKey():
                self._algorithm = _CURVES[loaded.curve.name]
            case Ed25519PrivateKey():
                self._algorithm = "EdDSA"
            case _:
                msg = "a key of another kind"
                raise ValueError(msg)
        self._key = loaded
        self._headers = {"kid": key_id} if key_id else None
        self._issuer = issuer
        self._now = now

    def apply(self, form: str) -> tuple[str, dict[str, str]]:
        """The form with a statement that no later request can use again."""
        now = self._now()
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._issuer,
            "jti": secrets.token_urlsafe(16),
            "iat": int(now.timestamp()),
            "exp": int((now + _ASSERTION_LIFE).timestamp()),
        }
        assertion = jwt.encode(claims, self._key, self._algorithm, self._headers)
        proof = {
            "client_id": self._client_id,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": assertion,
        }
        return f"{form}&{urlencode(proof)}", {}


def of(settings: Settings, *, now: Callable[[], datetime]) -> ClientAuth:
    """The way that the settings ask for."""
    client_id, secret = settings.oauth_client_id, settings.oauth_client_secret.get_secret_value()
    match settings.oauth_client_auth:
        case "client_secret_post":
            return SecretPost(client_id, secret)
        case "private_key_jwt":
            return PrivateKeyJwt(
                client_id,
                settings.oauth_client_key,
                key_id=settings.oauth_client_key_id,
                issuer=settings.oauth_issuer,
                now=now,
            )
        case _:
            return SecretBasic(client_id, secret)
