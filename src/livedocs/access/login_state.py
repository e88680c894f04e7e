"""A login under way: what must come back from the provider, sealed into a cookie of the browser that began it.

Every process can open the seal, because its key comes from the client's secret that they share, and nobody else
can: the cookie tells a thief nothing and cannot be made up.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import posixpath
import re
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlsplit

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

LIFETIME = timedelta(minutes=10)
"""How long a login may take; the cookie lives as long."""

_PURPOSE = b"livedocs login attempt v1"
_NONCE_BYTES = 12
# Printable ASCII without the backslash, which browsers read as a slash; tabs and line ends they leave out, so that
# "/\t/evil.example" would be "//evil.example".
_LOCAL_PATH = re.compile(r"/(?!/)[\x21-\x5b\x5d-\x7e]{0,511}\Z")


@dataclass(frozen=True, slots=True)
class LoginState:
    """One attempt to log in.

    Attributes:
        state: comes back in the redirect (RFC 6749, 10.12).
        nonce: comes back inside the ID token (OpenID Connect Core, 15.5.2).
        verifier: proves to the token endpoint that we began it (RFC 7636).
        return_to: local path to show afterwards.
        started_at: seconds since the epoch.
    """

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    return_to: str
    started_at: int

    @classmethod
    def begin(cls, return_to: str, now: datetime) -> LoginState:
        """A new one, with fresh secrets of 256 bits each."""
        return cls(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(32),
            return_to=return_to,
            started_at=int(now.timestamp()),
        )

    @property
    def name(self) -> str:
        """What its cookie is found by: several may be under way in one browser, each with a cookie of its own."""
        return login_state_name(self.state)

    @property
    def ends_at(self) -> datetime:
        """When it is too late to come back."""
        return datetime.fromtimestamp(self.started_at, UTC) + LIFETIME


def login_state_name(state: str) -> str:
    """The name of the attempt with that state; it does not tell the state."""
    return hashlib.sha256(state.encode()).hexdigest()[:16]


def local_path(text: str | None) -> str:
    """The path if it leads to a page of this server, else `/`.

    Nobody is sent to another site after a login (RFC 9700, 4.11), nor to `/auth/...`, which would begin the next.
    """
    if text is None or not _LOCAL_PATH.match(text):
        return "/"
    # As a browser reads it: without dot segments, and whatever is percent-encoded (RFC 3986, 6.2.2).
    path = posixpath.normpath(unquote(urlsplit(text).path))
    return "/" if path == "/auth" or path.startswith("/auth/") else text


class Seal:
    """Encrypts and authenticates attempts: AES-256-GCM, the key from the client's secret by scrypt (RFC 7914).

    Everybody can have an attempt sealed, and try at home which secret opens it. So a guess is made to cost memory
    and time, for the sake of a secret that somebody has thought up.
    """

    def __init__(self, secret: bytes) -> None:
        key = Scrypt(salt=_PURPOSE, length=32, n=2**14, r=8, p=1).derive(secret)
        self._cipher = AESGCM(key)

    def close(self, attempt: LoginState) -> str:
        """The attempt as a cookie value."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, orjson.dumps(asdict(attempt)), _PURPOSE)
        return base64.urlsafe_b64encode(nonce + sealed).decode("ascii")

    def open(self, text: str, now: datetime) -> LoginState | None:
        """The attempt in a cookie value; None when we did not seal it, or too long ago."""
        try:
            sealed = base64.urlsafe_b64decode(text.encode("ascii"))
            plain = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _PURPOSE)
        except (InvalidTag, ValueError, binascii.Error):
            return None
        attempt = LoginState(**orjson.loads(plain))
        return attempt if now < attempt.ends_at else None
