"""Access tokens: one that is given, one that is asked for each time, or client credentials (RFC 6749, 4.4)."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import quote_plus, urlsplit

import httpx

from livedocs.config import is_loopback
from livedocs.errors import TokenUnavailable

_SECONDS = 10.0
# A token is replaced when less than this, or than a fifth of its life, is left of it.
_MARGIN = 60.0


class TokenSource(Protocol):
    """Where access tokens come from."""

    async def token(self, *, refused: str | None = None) -> str:
        """An access token that is good now.

        Args:
            refused: a token that the server does not take, or not for much longer. Where there is no other
                one, the same one comes back.

        Raises:
            TokenUnavailable: there is none to be had.
        """


Token = str | Callable[[], str | Awaitable[str]] | TokenSource
"""What a client takes for a token: one that never changes, a function that is asked for each request, a source."""


def source_of(token: Token) -> TokenSource:
    """The source that is meant."""
    if isinstance(token, str):
        return _Asked(lambda: token)
    return token if hasattr(token, "token") else _Asked(token)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A function of the caller's, which keeps the token as long as it likes."""

    ask: Callable[[], str | Awaitable[str]] = field(repr=False)

    async def token(self, *, refused: str | None = None) -> str:
        del refused
        try:
            found = self.ask()
            return await found if inspect.isawaitable(found) else found
        except Exception as error:
            raise TokenUnavailable(f"the token could not be had: {error}") from error


class ClientCredentials:
    """A service's own token, kept until shortly before its end. Whoever asks meanwhile waits for the same request.

    Args:
        issuer: its discovery document (OpenID Connect Discovery 1.0 or RFC 8414) names the token endpoint.
        client_id: the service's, at the issuer.
        client_secret: the service's.
        scope: scopes separated by spaces; without it, what the issuer gives by default.
        audience: sent as `audience`, for issuers that want one.
        token_url: the token endpoint; discovery is left out.
        auth: how the service proves itself at the token endpoint.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str = "",
        audience: str = "",
        token_url: str = "",
        auth: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._secret = client_secret
        self._asked = {"scope": scope, "audience": audience}
        self._token_url = token_url
        self._auth = auth
        self._clock = clock
        self._token = ""
        # When the token is to be replaced, by the clock.
        self._good_until = 0.0
        self._asking = asyncio.Lock()

    def __repr__(self) -> str:
        return f"ClientCredentials({self._issuer!r}, {self._client_id!r})"

    async def token(self, *, refused: str | None = None) -> str:
        """The token, a new one when the present one is refused or about to end.

        Raises:
            TokenUnavailable: the issuer refuses, or is out of reach.
        """
        async with self._asking:
            if not self._token or self._token == refused or self._clock() >= self._good_until:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        asked_at = self._clock()
        # No proxy of the environment reaches an issuer on this machine.
        trust_env = not is_loopback(urlsplit(self._issuer or self._token_url).hostname or "")
        try:
            async with httpx.AsyncClient(timeout=_SECONDS, trust_env=trust_env) as http:
                url = self._token_url or await self._discover(http)
                answer = await http.post(url, **self._request())
        except httpx.HTTPError as error:
            raise TokenUnavailable(f"{self._issuer}: {error or type(error).__name__}") from error
        told = _object(answer)
        token = told.get("access_token")
        if answer.status_code != 200 or not isinstance(token, str) or not token:
            # The standard members of RFC 6749, 5.2; a body of another shape is not repeated.
            reason = told.get("error_description") or told.get("error") or f"status {answer.status_code}"
            raise TokenUnavailable(f"{self._issuer}: {reason}")
        life = told.get("expires_in")
        life = float(life) if isinstance(life, int | float) else _MARGIN
        self._token, self._good_until = token, asked_at + life - min(_MARGIN, life / 5)

    def _request(self) -> dict[str, Any]:
        form = {
            "grant_type": "client_credentials",
            **{name: value for name, value in self._asked.items() if value},
        }
        if self._auth == "client_secret_post":
            return {"data": {**form, "client_id": self._client_id, "client_secret": self._secret}}
        # Both are form-encoded before they are joined (RFC 6749, 2.3.1).
        return {"data": form, "auth": (quote_plus(self._client_id), quote_plus(self._secret))}

    async def _discover(self, http: httpx.AsyncClient) -> str:
        """The token endpoint; kept.

        Raises:
            TokenUnavailable: the issuer names none that a secret may be sent to.
        """
        for url in _well_known(self._issuer):
            answer = await http.get(url)
            if answer.status_code != 200:
                continue
            told = _object(answer)
            found = told.get("token_endpoint")
            # Octet for octet (RFC 8414, 3.3): else another issuer could pass its endpoint off as this one's.
            if told.get("issuer") != self._issuer or not isinstance(found, str) or not _safe(found):
                raise TokenUnavailable(f"{url}: not the metadata of {self._issuer}")
            self._token_url = found
            return found
        raise TokenUnavailable(f"{self._issuer}: it has no discovery document")


def _well_known(issuer: str) -> tuple[str, str]:
    """Where a discovery document may be: OpenID Connect Discovery 1.0, 4; RFC 8414, 3."""
    url = urlsplit(issuer)
    path = url.path.rstrip("/")
    return (
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        f"{url.scheme}://{url.netloc}/.well-known/oauth-authorization-server{path}",
    )


def _safe(endpoint: str) -> bool:
    url = urlsplit(endpoint)
    return url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or ""))


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
