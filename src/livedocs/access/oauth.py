"""The login client: authorization code with PKCE as a confidential client, refresh, revocation.

RFC 6749 with the advice of RFC 9700; requests are built by Authlib and sent by `issuer.py`. Authlib's own sessions
are not used: they keep one token each, while here every browser keeps its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlencode

import orjson
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7009 import prepare_revoke_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from livedocs.access import id_token
from livedocs.access.credentials import MAX_TOKEN, well_formed
from livedocs.access.introspection import token_id
from livedocs.access.issuer import Answer, Issuer, Metadata
from livedocs.access.keys import KeySet
from livedocs.access.login_state import LoginState, Seal, local_path
from livedocs.access.renewals import OwnRenewals, Renewals, seal, unseal
from livedocs.access.single_flight import SingleFlight
from livedocs.access.ttl_cache import TtlCache
from livedocs.config import Settings
from livedocs.errors import AuthUnavailable, InvalidToken, LoginFailed, TokenTooLarge, Unavailable
from livedocs.telemetry import get_logger

_log = get_logger(__name__)

# RFC 6749, 4.1.2.1 and OpenID Connect Core, 3.1.2.6. Others are not repeated: whoever makes the link writes them.
_REASONS = frozenset(
    {"access_denied", "login_required", "consent_required", "interaction_required", "temporarily_unavailable"}
)
_USED_STATES = 10_000
# Seconds between two looks at what another process is about to leave.
_PAUSE = 0.05

Hint = Literal["access_token", "refresh_token"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the token endpoint gave. The strings are secrets."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)


class LoginDeclined(Exception):
    """The provider did not log anybody in; `reason` says why in its words: `access_denied` for a cancelled login.

    Attributes:
        return_to: the local path that the login was to lead to.
        reason: one of `_REASONS`, or `provider`.
    """

    def __init__(self, return_to: str, reason: str) -> None:
        self.return_to = return_to
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Begun:
    """A login that has begun.

    Attributes:
        url: of the provider, to send the browser to.
        name: of the attempt; `login_state_name` finds it again by the state that comes back.
        sealed: the attempt, for a cookie.
    """

    url: str
    name: str
    sealed: str = field(repr=False)


class _InvalidGrant(Exception):
    """The code or the refresh token is of no use any more (RFC 6749, 5.2)."""


class LoginClient:
    """Begins, finishes, renews and ends browsers' logins.

    Args:
        settings: `oauth_*` and `public_url`.
        issuer: the provider.
        now: the clock, aware UTC.
        renewals: the refresh tokens that all processes are spending; those of this one when absent.
    """

    def __init__(
        self,
        settings: Settings,
        issuer: Issuer,
        *,
        now: Callable[[], datetime],
        renewals: Renewals | None = None,
    ) -> None:
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
        self._used: TtlCache[bool] = TtlCache(_USED_STATES)
        # By the SHA-256 of the refresh token.
        self._refreshes: SingleFlight[Tokens] = SingleFlight()
        self._renewals = renewals or OwnRenewals(now=now, patience=patience(settings))
        self._patience = patience(settings).total_seconds()

    async def begin(self, return_to: str | None) -> Begun:
        """Start a login.

        Args:
            return_to: path to show afterwards; one that is not local counts as `/`.

        Returns:
            Where to send the browser, and what its cookie keeps.

        Raises:
            AuthUnavailable: the provider cannot be found.
        """
        endpoint = (await self._issuer.metadata()).authorization_endpoint
        if endpoint is None:
            _log.error("login_misconfigured", reason="the provider names no authorization endpoint")
            raise AuthUnavailable
        attempt = LoginState.begin(local_path(return_to), self._now())
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
        return Begun(url, attempt.name, self._seal.close(attempt))

    async def finish(
        self, answer: Mapping[str, str], sealed: str | None, *, address: str = ""
    ) -> tuple[Tokens, str]:
        """Complete a login.

        Args:
            answer: the query of the redirect back.
            sealed: the attempt in the browser's cookie for that state.
            address: of the browser; as long as nobody vouches for what it brings, it has its address's share of
                the connections to the provider. The same holds for `refresh` and `revoke`.

        Returns:
            The tokens, and the local path to show.

        Raises:
            LoginDeclined: the provider did not log anybody in, for instance because the user has cancelled.
            LoginFailed: the way back does not fit the way there; `reason` says where.
            TokenTooLarge: a token that no cookie can hold.
            AuthUnavailable: the provider cannot be asked.
        """
        attempt = self._seal.open(sealed, self._now()) if sealed else None
        if attempt is None:
            raise LoginFailed(
                "This browser has no such login under way: it took too long, or cookies are blocked.",
                reason="attempt",
            )
        self._claim(attempt, answer.get("state", ""))
        metadata = await self._issuer.metadata()
        _check_issuer(answer, metadata, self._issuer.name)
        if "error" in answer or not answer.get("code"):
            reason = answer.get("error", "")
            raise LoginDeclined(attempt.return_to, reason if reason in _REASONS else "provider")
        request = prepare_token_request(
            "authorization_code",
            redirect_uri=self._redirect_uri,
            code=answer["code"],
            code_verifier=attempt.verifier,
        )
        try:
            body = await self._token_call(metadata, request, address)
        except _InvalidGrant:
            raise LoginFailed("The login service did not accept its own code.", reason="code") from None
        if "openid" in self._scopes:
            await self._check_id_token(body.get("id_token"), attempt)
        return _tokens(body), attempt.return_to

    async def refresh(self, refresh_token: str, *, address: str = "") -> Tokens:
        """New tokens for a refresh token, which is spent by that.

        Callers with the same token at the same time, or within seconds, get the same new tokens, whichever process
        they have come to (`renewals`).

        Raises:
            InvalidToken: it is spent, revoked or expired, or somebody logged out meanwhile: the session is over.
            AuthUnavailable: the provider cannot be asked.
            Unavailable: it cannot be seen now whether another process is spending the token.
        """
        identifier = token_id(refresh_token)
        return await self._refreshes.share(identifier, lambda: self._refresh(refresh_token, identifier, address))

    async def check_session(self, *refresh_tokens: str | None) -> None:
        """Refuse a session that somebody has just logged out of: a refresh under way must not bring it back.

        While MongoDB cannot be read nobody can say: then it is not. The old refresh token is spent, and without
        the new one a session that is good would be lost.

        Raises:
            InvalidToken: it is over.
        """
        try:
            for token in dict.fromkeys(refresh_tokens):
                if token and (await self._renewals.get(token_id(token))).over:
                    raise _session_over()
        except Unavailable:
            _log.warning("session_end_unknown", reason="MongoDB cannot be read")

    async def end(self, refresh_token: str) -> list[Tokens]:
        """End the session of a refresh token, also where it is being renewed at this moment in another tab.

        Returns:
            The tokens that it was renewed to within the last seconds. They are to be revoked as well.
        """
        successors: list[Tokens] = []
        try:
            while (renewed := await self._successor(refresh_token)) is not None:
                successors.append(renewed)
                if renewed.refresh_token in (None, refresh_token):
                    break
                refresh_token = renewed.refresh_token
        except Unavailable:
            _log.warning("session_end_unshared", reason="the other processes cannot be told")
        return successors

    async def _successor(self, refresh_token: str) -> Tokens | None:
        """End one refresh token's session; what it was renewed to, once that is known."""
        identifier = token_id(refresh_token)
        renewal = await self._renewals.end(identifier)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                # As long as a call of the provider may take.
                while renewal.by is not None and renewal.renewed is None:
                    await asyncio.sleep(_PAUSE)
                    renewal = await self._renewals.get(identifier)
        return _unsealed(renewal.renewed, refresh_token)

    async def revoke(self, tokens: Mapping[Hint, str], *, address: str = "") -> bool:
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
                done = [
                    await self._revoke(endpoint, tokens[hint], hint, address) for hint in order if hint in tokens
                ]
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

    def _claim(self, attempt: LoginState, state: str) -> None:
        """Use the attempt up, if the state is its own."""
        if not hmac.compare_digest(state.encode(), attempt.state.encode()):
            # Somebody else's redirect: taking it would log this browser in as a stranger.
            raise LoginFailed("This is not the login that this browser began.", reason="state")
        if self._used.get(attempt.state, self._now()):
            raise LoginFailed("This login has been used already.", reason="replayed")
        self._used.put(attempt.state, value=True, until=attempt.ends_at)

    async def _check_id_token(self, token: object, attempt: LoginState) -> None:
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

    async def _refresh(self, refresh_token: str, identifier: str, address: str) -> Tokens:
        by = secrets.token_hex(8)
        try:
            async with asyncio.timeout(self._patience):
                while (renewal := await self._renewals.claim(identifier, by)).by != by:
                    if renewal.over:
                        raise _session_over()
                    renewed = _unsealed(renewal.renewed, refresh_token)
                    if renewed is not None:
                        await self.check_session(renewed.refresh_token)
                        return renewed
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            raise AuthUnavailable from None
        return await self._spend(refresh_token, identifier, by, address)

    async def _spend(self, refresh_token: str, identifier: str, by: str, address: str) -> Tokens:
        """Exchange a refresh token that was claimed, and leave for the others what came of it."""
        request = prepare_token_request("refresh_token", refresh_token=refresh_token)
        try:
            body = await self._token_call(await self._issuer.metadata(), request, address)
            renewed = _tokens(body, spent=refresh_token)
        except BaseException as error:
            with contextlib.suppress(Unavailable):
                await self._renewals.give_up(identifier, by)
            if isinstance(error, _InvalidGrant):
                raise _session_over() from None
            raise
        try:
            renewal = await self._renewals.settle(identifier, by, _sealed(renewed, refresh_token))
        except Unavailable:
            # The old token is spent: without the new ones the session would be lost.
            _log.warning("refresh_unshared", reason="the other processes cannot be told")
        else:
            if renewal.over:
                # Whoever has logged out may not have waited for these.
                await self.revoke(by_hint(renewed), address=address)
                raise _session_over()
        return renewed

    async def _token_call(self, metadata: Metadata, request: str, address: str) -> dict[str, Any]:
        """A successful answer of the token endpoint (RFC 6749, 5.1)."""
        if metadata.token_endpoint is None:
            _log.error("login_misconfigured", reason="the provider names no token endpoint")
            raise AuthUnavailable
        answer = await self._issuer.post(metadata.token_endpoint, request, address=address)
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

    async def _revoke(self, endpoint: str, token: str, hint: Hint, address: str) -> bool:
        request, _ = prepare_revoke_token_request(token, hint)
        answer = await self._issuer.post(endpoint, request, address=address)
        if isinstance(answer, Answer) and answer.status == 200:
            return True
        _log.warning("revocation_failed", status=answer.status if isinstance(answer, Answer) else answer.reason)
        return False


def patience(settings: Settings) -> timedelta:
    """How long a refresh may take: the provider's metadata, a turn at it, the call, and some time for MongoDB."""
    return timedelta(seconds=3 * settings.oauth_timeout + 2)


def _sealed(tokens: Tokens, refresh_token: str) -> bytes:
    return seal(orjson.dumps([tokens.access_token, tokens.refresh_token]), refresh_token)


def _unsealed(sealed: bytes | None, refresh_token: str) -> Tokens | None:
    text = unseal(sealed, refresh_token) if sealed is not None else None
    if text is None:
        return None
    access, refresh = orjson.loads(text)
    return Tokens(access_token=access, refresh_token=refresh)


def by_hint(tokens: Tokens) -> dict[Hint, str]:
    """The tokens for `LoginClient.revoke`."""
    refresh: dict[Hint, str] = {"refresh_token": tokens.refresh_token} if tokens.refresh_token else {}
    return {"access_token": tokens.access_token, **refresh}


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
