"""Which refresh tokens are being spent, were spent just now, or are of a session that somebody has logged out of.

A refresh token is good once: a provider that sees it twice takes that for theft and ends the session (RFC 9700,
4.14.2). But a browser sends it twice by itself, from two tabs or again when an answer was lost, maybe each time to
another process. So one of them spends it, and for a moment the others get what came of that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from livedocs.access.ttl_cache import TtlCache
from livedocs.model import Renewal

WINDOW = timedelta(seconds=10)
"""How long what came of a refresh is there for the others."""

_REMEMBERED = 10_000
_PURPOSE = b"livedocs renewal v1"
_NONCE_BYTES = 12


class Renewals(Protocol):
    """Refresh tokens by the SHA-256 of each. Every method may raise `Unavailable`."""

    async def claim(self, token: str, by: str) -> Renewal:
        """Have it spent by that caller, if by nobody else; says who is to."""

    async def settle(self, token: str, by: str, renewed: bytes) -> Renewal:
        """Leave for the others what came of it."""

    async def give_up(self, token: str, by: str) -> None:
        """Nothing came of it: somebody else may try."""

    async def end(self, token: str) -> Renewal:
        """Its session is over; says what is still to come of it, or has come."""

    async def get(self, token: str) -> Renewal:
        """How it stands."""


class OwnRenewals:
    """Those of one process. Satisfies `Renewals`.

    Args:
        now: the clock, aware UTC.
        patience: after so long nothing more will come of a claim.
    """

    def __init__(self, *, now: Callable[[], datetime], patience: timedelta) -> None:
        self._now = now
        self._patience = patience
        self._known: TtlCache[Renewal] = TtlCache(_REMEMBERED)

    async def claim(self, token: str, by: str) -> Renewal:
        """See `Renewals`."""
        known = await self.get(token)
        if known.over or known.by is not None:
            return known
        return self._put(token, Renewal(by), self._patience)

    async def settle(self, token: str, by: str, renewed: bytes) -> Renewal:
        """See `Renewals`."""
        known = await self.get(token)
        if known.by != by:
            return known
        return self._put(token, replace(known, renewed=renewed), WINDOW)

    async def give_up(self, token: str, by: str) -> None:
        """See `Renewals`."""
        known = await self.get(token)
        if known.by == by:
            self._put(token, replace(known, by=None), WINDOW)

    async def end(self, token: str) -> Renewal:
        """See `Renewals`."""
        return self._put(token, replace(await self.get(token), over=True), self._patience + WINDOW)

    async def get(self, token: str) -> Renewal:
        """See `Renewals`."""
        return self._known.get(token, self._now()) or Renewal()

    def _put(self, token: str, renewal: Renewal, lasts: timedelta) -> Renewal:
        self._known.put(token, renewal, self._now() + lasts)
        return renewal


def seal(text: bytes, refresh_token: str) -> bytes:
    """The text for whoever has the refresh token, and nobody else: AES-256-GCM, its key by HKDF (RFC 5869)."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(refresh_token).encrypt(nonce, text, _PURPOSE)


def unseal(sealed: bytes, refresh_token: str) -> bytes | None:
    """The text again; None when it was sealed for another token."""
    try:
        return _cipher(refresh_token).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _PURPOSE)
    except InvalidTag:
        return None


def _cipher(refresh_token: str) -> AESGCM:
    return AESGCM(HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive(refresh_token.encode()))
