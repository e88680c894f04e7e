"""The login client: authorization code with PKCE as a confidential client, refresh, revocation.

RFC 6749 with the advice of RFC 9700; requests are built by Authlib and sent by `issuer.py`. Authlib's own sessions
are not used: they keep one token each, while here every browser keeps its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlencode

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7009 import prepare_revoke_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from livedocs.access import id_token
from livedocs.access.attempt import Attempt, Seal, local_path
from livedocs.access.credentials import MAX_TOKEN, well_formed
from livedocs.access.flights import Flights
from livedocs.access.introspection import token_id
from livedocs.access.issuer import Answer, Issuer, Metadata
from livedocs.access.keys import KeySet
from livedocs.access.memory import Memory
from livedocs.config import Settings
from livedocs.errors import AuthUnavailable, InvalidToken, LoginFailed, TokenTooLarge
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

# RFC 6749, 4.1.2.1 and OpenID Connect Core, 3.1.2.6. Others are not repeated: whoever makes the link writes them.
_REASONS = frozenset(
    {"access_denied", "login_required", "consent_required", "interaction_required", "temporarily_unavailable"}
)
_REMEMBERED = 1_000
_USED_STATES = 10_000
# Long enough for a second tab that sent the same refresh token at the same moment.
_RACE = timedelta(seconds=10)

Hint = Literal["access_token", "refresh_token"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the token endpoint gave. The strings are secrets."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)


class _InvalidGrant(Exception):
    """The code or the refresh token is of no use any more (RFC 6749, 5.2)."""


class LoginClient:
    """Begins, finishes, renews and ends browsers' logins.

    Args:
        settings: `oauth_*` and `public_url`.
        issuer: the provider.
        now: the clock, aware UTC.
    """

    def __init__(self, settings: Settings, issuer: Issuer, *, now: Callable[[], datetime]) -> None:
        self._client_id = settings.oauth_client_id
        self._scopes = settings.oauth_scopes
        self._home = settings.public_origin + "/"
        # Exactly this string is registered at the provider (RFC 9700, 2.1).
        self._redirect_uri = settings.public_origin + "/auth/callback"
        self._timeout = settings.oauth_timeout
        self._issuer = issuer
        self._now = now
        self._seal = Seal(settings.login_secret)
        self._keys = KeySet(issuer, now=now)
        # States that have come back. The browser deletes its cookie; this is for whoever kept a copy.
        self._used: Memory[bool] = Memory(_USED_STATES)
        self._refreshes: Flights[Tokens] = Flights()
        # By the SHA-256 of the refresh token that was spent.
        self._renewed: Memory[Tokens] = Memory(_REMEMBERED)
        # By the same, the sessions that somebody has logged out of.
        self._over: Memory[bool] = Memory(_USED_STATES)

    async def begin(self, return_to: str | None) -> tuple[str, str]:
        """Start a login.

        Args:
            return_to: path to show afterwards; one that is not local counts as `/`.

        Returns:
            The provider's URL to send the browser to, and the sealed attempt for its cookie.

        Raises:
            AuthUnavailable: the provider cannot be found.
        """
        endpoint = (await self._issuer.metadata()).authorization_endpoint
        if endpoint is None:
            _log.error("login_misconfigured", reason="the provider names no authorization endpoint")
            raise AuthUnavailable
        attempt = Attempt.begin(local_path(return_to), self._now())
        url: str = prepare_grant_uri(
            endpoint,
            client_id=self._client_id,
            response_type="code",
            redirect_uri=self._redirect_uri,
            scope=" ".join(self._scopes),
            state=attempt.state,
            nonce=attempt.nonce,
            code_challenge=create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
        )
        return url, self._seal.close(attempt)

    async def finish(self, answer: Mapping[str, str], sealed: str | None) -> tuple[Tokens, str]:
        """Complete a login.

        Args:
            answer: the query of the redirect back.
            sealed: the attempt in the browser's cookie.

        Returns:
            The tokens, and the local path to show.

        Raises:
            LoginFailed: the way back does not fit the way there; `reason` says where.
            TokenTooLarge: a token that no cookie can hold.
            AuthUnavailable: the provider cannot be asked.
        """
        attempt = self._seal.open(sealed, self._now()) if sealed else None
        if attempt is None:
            raise LoginFailed(
                "This browser has no login under way: it took too long, or cookies are blocked.", reason="attempt"
            )
        self._claim(attempt, answer.get("state", ""))
        metadata = await self._issuer.metadata()
        _check_issuer(answer, metadata, self._issuer.name)
        if "error" in answer or not answer.get("code"):
            reason = answer.get("error", "")
            raise LoginFailed(
                "The login service did not log you in.", reason=reason if reason in _REASONS else "provider"
            )
        request = prepare_token_request(
            "authorization_code",
            redirect_uri=self._redirect_uri,
            code=answer["code"],
            code_verifier=attempt.verifier,
        )
        try:
            body = await self._token_call(metadata, request)
        except _InvalidGrant:
            raise LoginFailed("The login service did not accept its own code.", reason="code") from None
        if "openid" in self._scopes:
            await self._check_id_token(body.get("id_token"), attempt)
        return _tokens(body), attempt.return_to

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens for a refresh token, which is spent by that.

        Callers with the same token at the same time, or within seconds, get the same new tokens: spending it twice
        would look like theft to the provider, which then ends the session (RFC 9700, 4.14.2).

        Raises:
            InvalidToken: it is spent, revoked or expired, or somebody logged out meanwhile: the session is over.
            AuthUnavailable: the provider cannot be asked.
        """
        identifier = token_id(refresh_token)
        self.check_session(refresh_token)
        renewed = self._renewed.get(identifier, self._now())
        if renewed is None:
            renewed = await self._refreshes.share(identifier, lambda: self._refresh(refresh_token, identifier))
        self.check_session(refresh_token, renewed.refresh_token)
        return renewed

    def check_session(self, *refresh_tokens: str | None) -> None:
        """Refuse a session that somebody has just logged out of: a refresh under way must not bring it back.

        Raises:
            InvalidToken: it is over.
        """
        if any(token and self._over.get(token_id(token), self._now()) for token in refresh_tokens):
            raise _session_over()

    async def end(self, refresh_token: str) -> list[Tokens]:
        """End the session of a refresh token, also where it is being renewed at this moment in another tab.

        Returns:
            The tokens that it was renewed to within the last seconds. They are to be revoked as well.
        """
        successors: list[Tokens] = []
        while True:
            identifier = token_id(refresh_token)
            self._over.put(identifier, value=True, until=self._now() + _RACE)
            await self._landed(refresh_token, identifier)
            renewed = self._renewed.get(identifier, self._now())
            self._renewed.drop(identifier)
            if renewed is None:
                return successors
            successors.append(renewed)
            if renewed.refresh_token in (None, refresh_token):
                return successors
            refresh_token = renewed.refresh_token

    async def _landed(self, refresh_token: str, identifier: str) -> None:
        """Wait for the refresh under way, if there is one, as long as a call of the provider may take."""
        if not self._refreshes.flying(identifier):
            return
        with contextlib.suppress(InvalidToken, AuthUnavailable, TokenTooLarge, TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._refreshes.share(identifier, lambda: self._refresh(refresh_token, identifier))

    async def revoke(self, tokens: Mapping[Hint, str]) -> bool:
        """Have the provider end these tokens (RFC 7009), as far as it can be reached in time.

        Returns:
            Whether it confirmed that all of them are of no use now.
        """
        try:
            async with asyncio.timeout(self._timeout):
                endpoint = (await self._issuer.metadata()).revocation_endpoint
                if endpoint is None:
                    _log.warning("revocation_failed", reason="the provider names no revocation endpoint")
                    return False
                # The refresh token first: with it most providers end what was issued from it.
                order: tuple[Hint, Hint] = ("refresh_token", "access_token")
                done = [await self._revoke(endpoint, tokens[hint], hint) for hint in order if hint in tokens]
        except (TimeoutError, AuthUnavailable):
            _log.warning("revocation_failed", reason="the provider is out of reach")
            return False
        return all(done)

    async def post_logout_redirect(self) -> str | None:
        """Where the page should go to end the provider's own session too, or None when it offers no such place.

        Source: OpenID Connect RP-Initiated Logout 1.0, 2.
        """
        try:
            endpoint = (await self._issuer.metadata()).end_session_endpoint
        except AuthUnavailable:
            return None
        if endpoint is None:
            return None
        separator = "&" if "?" in endpoint else "?"
        query = urlencode({"client_id": self._client_id, "post_logout_redirect_uri": self._home})
        return f"{endpoint}{separator}{query}"

    async def aclose(self) -> None:
        """End the calls in the air. The issuer is closed by its owner."""
        await self._refreshes.aclose()
        await self._keys.aclose()

    def _claim(self, attempt: Attempt, state: str) -> None:
        """Use the attempt up, if the state is its own."""
        if not hmac.compare_digest(state.encode(), attempt.state.encode()):
            # Somebody else's redirect, or one of another tab: taking it would log this browser in as a stranger.
            raise LoginFailed("This is not the login that this browser began last.", reason="state")
        if self._used.get(attempt.state, self._now()):
            raise LoginFailed("This login has been used already.", reason="replayed")
        self._used.put(attempt.state, value=True, until=attempt.ends_at)

    async def _check_id_token(self, token: object, attempt: Attempt) -> None:
        if not isinstance(token, str):
            found: str | None = "missing"
        else:
            found = await id_token.problem(
                token,
                self._keys,
                issuer=self._issuer.name,
                client_id=self._client_id,
                nonce=attempt.nonce,
                now=self._now(),
            )
        if found is not None:
            _log.error("id_token_refused", reason=found)
            raise LoginFailed("The login service's answer could not be verified.", reason="id_token")

    async def _refresh(self, refresh_token: str, identifier: str) -> Tokens:
        metadata = await self._issuer.metadata()
        request = prepare_token_request("refresh_token", refresh_token=refresh_token)
        try:
            body = await self._token_call(metadata, request)
        except _InvalidGrant:
            raise _session_over() from None
        renewed = _tokens(body, spent=refresh_token)
        self._renewed.put(identifier, renewed, self._now() + _RACE)
        return renewed

    async def _token_call(self, metadata: Metadata, request: str) -> dict[str, Any]:
        """A successful answer of the token endpoint (RFC 6749, 5.1)."""
        if metadata.token_endpoint is None:
            _log.error("login_misconfigured", reason="the provider names no token endpoint")
            raise AuthUnavailable
        answer = await self._issuer.post(metadata.token_endpoint, request)
        if not isinstance(answer, Answer):
            _log.warning("token_endpoint_failed", reason=answer.reason)
            raise AuthUnavailable
        body = answer.body if isinstance(answer.body, dict) else {}
        if answer.status == 400 and body.get("error") == "invalid_grant":
            raise _InvalidGrant
        if answer.status != 200 or not _is_token_answer(body):
            # Whatever else it says is about this client or about the provider, not about the user.
            _log.error("token_endpoint_failed", status=answer.status)
            raise AuthUnavailable
        return body

    async def _revoke(self, endpoint: str, token: str, hint: Hint) -> bool:
        request, _ = prepare_revoke_token_request(token, hint)
        answer = await self._issuer.post(endpoint, request)
        if isinstance(answer, Answer) and answer.status == 200:
            return True
        _log.warning("revocation_failed", status=answer.status if isinstance(answer, Answer) else answer.reason)
        return False


def _session_over() -> InvalidToken:
    return InvalidToken("The session is over; log in again.")


def _check_issuer(answer: Mapping[str, str], metadata: Metadata, issuer: str) -> None:
    """Refuse an answer of another provider, which would have us send it this one's code (RFC 9207, 2.4)."""
    given = answer.get("iss")
    if (given is None and metadata.iss_parameter) or (given is not None and given != issuer):
        raise LoginFailed("The answer did not come from our login service.", reason="issuer")


def _is_token_answer(body: Mapping[str, Any]) -> bool:
    access, refresh, kind = body.get("access_token"), body.get("refresh_token"), body.get("token_type")
    return (
        isinstance(access, str)
        and (len(access) > MAX_TOKEN or well_formed(access))
        and (refresh is None or (isinstance(refresh, str) and refresh != ""))
        and isinstance(kind, str)
        and kind.lower() == "bearer"
    )


def _tokens(body: Mapping[str, Any], *, spent: str | None = None) -> Tokens:
    """The tokens of an answer. A provider that does not rotate leaves the refresh token out: the old one stays."""
    if len(body["access_token"]) > MAX_TOKEN:
        raise TokenTooLarge
    return Tokens(access_token=body["access_token"], refresh_token=body.get("refresh_token") or spent)
