"""Asking the OAuth service what a token is worth (RFC 7662), and remembering the answer for a moment.

It fails closed: whatever is not a clear yes is no. What is remembered never outlives the token's `exp`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from livedocs import tracing
from livedocs.access.breaker import Breaker
from livedocs.access.claims import Expectations, Refused, is_answer, judge
from livedocs.access.credentials import well_formed
from livedocs.access.issuer import Answer, Issuer
from livedocs.access.principal import Principal
from livedocs.access.single_flight import SingleFlight
from livedocs.access.ttl_cache import ALWAYS, TtlCache
from livedocs.config import Settings
from livedocs.errors import AuthUnavailable, InvalidToken
from livedocs.telemetry import Metrics, get_logger

_log = get_logger(__name__)

_REMEMBERED = 10_000
# A provider that replicates may say no to a token it has just issued: do not repeat that for long.
_LONGEST_NO = timedelta(seconds=10)
_READINESS = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Nothing was learned about the token. `retry_after` is in seconds."""

    reason: str
    retry_after: float = 1.0
    # Whether it says anything about the provider's health.
    counts: bool = True


Verdict = Principal | Refused | Unreachable


def token_id(token: str) -> str:
    """The token's SHA-256, hexadecimal: what stands for it in caches, logs and metrics."""
    return hashlib.sha256(token.encode()).hexdigest()


class Introspector:
    """Tokens to principals, by introspection.

    Args:
        settings: `oauth_*` and `introspection_cache`.
        issuer: the service asked.
        metrics: `introspections` and `introspection_seconds`.
        now: the clock, aware UTC.
        breaker: decides when a failing service is left alone.
    """

    def __init__(
        self,
        settings: Settings,
        issuer: Issuer,
        metrics: Metrics,
        *,
        now: Callable[[], datetime],
        breaker: Breaker | None = None,
    ) -> None:
        self._expected = Expectations.of(settings)
        self._endpoint = settings.oauth_introspection_url
        self._yes_for = timedelta(seconds=settings.introspection_cache)
        self._no_for = min(self._yes_for, _LONGEST_NO)
        self._issuer = issuer
        self._metrics = metrics
        self._now = now
        self._breaker = breaker or Breaker()
        self._calls: SingleFlight[Verdict] = SingleFlight()
        self._probes: SingleFlight[bool] = SingleFlight()
        # Two memories, so that a flood of made-up tokens pushes out no good one.
        self._principals: TtlCache[Principal] = TtlCache(_REMEMBERED)
        self._refusals: TtlCache[Refused] = TtlCache(_REMEMBERED)
        # Logged out here: whether the service could be told so or not.
        self._ended: TtlCache[bool] = TtlCache(_REMEMBERED)
        self._readiness: TtlCache[bool] = TtlCache(1)

    async def principal(self, token: str, *, fresh: bool = False, address: str = "") -> Principal:
        """Who a token speaks for.

        Args:
            token: as the client sent it.
            fresh: ask the service, whatever is remembered.
            address: of whoever has brought the token: its share of the connections to the service is used. Empty,
                and fresh, for tokens that the service has given to us or vouched for.

        Raises:
            InvalidToken: inactive, expired, malformed, or not meant for this server; `reason` says which.
            AuthUnavailable: the service could not be asked, or gave no answer one could use.
        """
        if not well_formed(token):
            raise InvalidToken
        identifier = token_id(token)
        verdict = self._refused_here(identifier) or (None if fresh else self._remembered(identifier))
        if verdict is None:
            vouched = fresh and not address
            verdict = await self._calls.share(
                identifier, lambda: self._look(token, identifier, vouched=vouched, address=address)
            )
            # Its owner may have logged out while it was asked about.
            verdict = self._refused_here(identifier) or verdict
        match verdict:
            case Principal():
                return verdict
            case Refused(reason):
                raise InvalidToken(reason=reason)
            case Unreachable(retry_after=retry_after):
                raise AuthUnavailable(retry_after=retry_after)

    def known(self, token_id: str) -> Principal | Refused | None:
        """What is remembered of a token, without asking."""
        return self._remembered(token_id)

    async def reachable(self) -> bool:
        """Whether the service can be asked, with our own credentials, now; remembered for a few seconds."""
        known = self._readiness.get("", self._now())
        return known if known is not None else await self._probes.share("", self._probe)

    def forget(self, token_id: str) -> None:
        """Take a token for ended, as its owner has logged out; not made-up ones, they would push out others.

        Not even the answer that is on its way counts, nor any later one: the service may have been out of reach.
        """
        self._principals.drop(token_id)
        self._refusals.drop(token_id)
        self._calls.detach(token_id)
        self._ended.put(token_id, value=True, until=ALWAYS)

    async def aclose(self) -> None:
        """End the calls in the air. The issuer is closed by its owner."""
        await self._calls.aclose()
        await self._probes.aclose()

    def _refused_here(self, identifier: str) -> Verdict | None:
        return Refused("ended") if self._ended.get(identifier, self._now()) else None

    def _remembered(self, identifier: str) -> Principal | Refused | None:
        now = self._now()
        return self._principals.get(identifier, now) or self._refusals.get(identifier, now)

    async def _look(self, token: str, identifier: str, *, vouched: bool, address: str) -> Verdict:
        # Counted from here: a revocation while the answer is on its way must not be hidden for longer than stated.
        asked_at = self._now()
        verdict = await self._ask(token, identifier, vouched=vouched, address=address)
        # Else its owner has logged out meanwhile: nothing of it is to be remembered.
        if self._calls.is_current(identifier):
            self._remember(identifier, verdict, asked_at)
        return verdict

    def _remember(self, identifier: str, verdict: Verdict, asked_at: datetime) -> None:
        if isinstance(verdict, Principal):
            self._refusals.drop(identifier)
            self._principals.put(identifier, verdict, min(asked_at + self._yes_for, verdict.expires_at))
        elif isinstance(verdict, Refused):
            self._principals.drop(identifier)
            self._refusals.put(identifier, verdict, asked_at + self._no_for)

    async def _ask(self, token: str, identifier: str, *, vouched: bool, address: str) -> Verdict:
        now = self._now()
        if not self._breaker.allows(now):
            self._metrics.introspections.labels(result="not_asked").inc()
            return Unreachable("breaker", retry_after=self._breaker.wait(now))
        body = await self._call(token, vouched=vouched, address=address)
        if isinstance(body, Unreachable):
            self._metrics.introspections.labels(result=body.reason).inc()
            return body
        verdict = judge(body, self._expected, token_id=identifier, now=self._now())
        result = "active" if isinstance(verdict, Principal) else verdict.reason
        self._metrics.introspections.labels(result=result).inc()
        if isinstance(verdict, Refused) and verdict.reason not in {"inactive", "expired"}:
            # The provider vouches for it and we do not: worth a line for whoever sets the two up.
            _log.info(
                "token_refused", token_id=identifier, reason=verdict.reason, claim=verdict.claim(self._expected)
            )
        return verdict

    async def _probe(self) -> bool:
        # A token that nobody has: a provider that knows us says `active: false`.
        body = await self._call(secrets.token_urlsafe(24), vouched=True)
        reachable = not isinstance(body, Unreachable)
        self._readiness.put("", reachable, self._now() + _READINESS)
        return reachable

    async def _call(self, token: str, *, vouched: bool, address: str = "") -> dict[str, Any] | Unreachable:
        """One call of the service; the breaker learns how it went."""
        with self._metrics.introspection_seconds.time(), tracing.span("introspection", kind="client") as span:
            outcome = await self._exchange(token, vouched=vouched, address=address)
            if isinstance(outcome, Unreachable):
                span.fail(outcome.reason)
        if not isinstance(outcome, Unreachable):
            self._breaker.succeeded()
        elif outcome.counts:
            self._breaker.failed(self._now())
        return outcome

    async def _exchange(self, token: str, *, vouched: bool, address: str) -> dict[str, Any] | Unreachable:
        try:
            endpoint = self._endpoint or (await self._issuer.metadata()).introspection_endpoint
        except AuthUnavailable:
            return Unreachable("discovery")
        if not endpoint:
            _log.error("introspection_misconfigured", reason="the provider names no introspection endpoint")
            return Unreachable("misconfigured")
        form = urlencode({"token": token, "token_type_hint": "access_token"})
        answer = await self._issuer.post(endpoint, form, vouched=vouched, address=address)
        if not isinstance(answer, Answer):
            # Of a crowd one line each would be a flood in the log as well; they are counted.
            crowded = answer.reason == "crowded"
            if not crowded:
                _log.warning("introspection_failed", reason=answer.reason)
            return Unreachable(answer.reason, counts=not crowded)
        return _usable(answer)


def _usable(answer: Answer) -> dict[str, Any] | Unreachable:
    if answer.status in {401, 403}:
        # It does not know us: our client id or secret is wrong, and no token of a user is to blame.
        _log.error("introspection_misconfigured", status=answer.status)
        return Unreachable("misconfigured")
    if answer.status != 200:
        _log.warning("introspection_failed", status=answer.status)
        # 400 is about the token sent. Whoever sends odd ones must not be able to open the breaker for all.
        return Unreachable("status", counts=answer.status != 400)
    if not is_answer(answer.body):
        _log.error("introspection_failed", reason="not an introspection answer")
        return Unreachable("shape")
    body: dict[str, Any] = answer.body
    return body
