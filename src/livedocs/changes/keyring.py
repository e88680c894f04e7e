"""The keys that cursors and tickets are sealed with, each for the cluster times from its beginning on.

Two processes must never use different keys for one position, or their cursors would differ. So a key begins in the
future: it is committed `KEY_LEAD` seconds, in cluster time, before it counts. Whoever has read the keys as of a
cluster time T knows every key that counts up to T + KEY_LEAD. Beyond that it uses none, and reads again first.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bson.timestamp import Timestamp
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from livedocs.errors import Unavailable
from livedocs.model import KEY_LEAD, SealingKey, SealingKeys
from livedocs.telemetry import get_logger

log = get_logger(__name__)

# Seconds between readings; many of them fit into the lead, so that an outage of minutes holds nobody up.
_INTERVAL = 60.0
_RETRY = 1.0


@dataclass(frozen=True, slots=True)
class Key:
    """What is made of one stored secret, one key for each use (RFC 5869).

    Attributes:
        begins: the cluster time, in seconds, from which on it counts.
        cursors: AES-SIV of cursors.
        tickets: AES-SIV of tickets.
        names: for keyed hashes of the names in tickets.
    """

    begins: int
    cursors: AESSIV = field(repr=False)
    tickets: AESSIV = field(repr=False)
    names: bytes = field(repr=False)

    @classmethod
    def of(cls, stored: SealingKey) -> Key:
        """The keys of a stored secret."""

        def derived(use: bytes, length: int) -> bytes:
            return HKDF(SHA256(), length, salt=None, info=b"livedocs " + use).derive(stored.secret)

        return cls(
            stored.begins, AESSIV(derived(b"cursor", 64)), AESSIV(derived(b"ticket", 64)), derived(b"name", 32)
        )


class Keyring:
    """The deployment's keys, as far as this process knows them.

    Args:
        load: reads them, and makes the first one where there is none; raises Unavailable.
    """

    def __init__(self, load: Callable[[], Awaitable[SealingKeys]]) -> None:
        self._load = load
        self._stored: dict[int, SealingKey] = {}
        # Invariant: both in the order of the beginnings.
        self._begins: list[int] = []
        self._keys: list[Key] = []
        # No key that begins up to this cluster time is unknown here.
        self._until = -1
        self._reading = asyncio.Lock()

    def at(self, second: int) -> Key:
        """The key that counts at that cluster time.

        Raises:
            Unavailable: a key may have begun by then that this process has not read yet.
        """
        key = self.claimed(second) if second <= self._until else None
        if key is None:
            detail = "The keys that cursors are sealed with have not been read for too long."
            raise Unavailable(detail)
        return key

    def claimed(self, second: int) -> Key | None:
        """The key of something that claims to have been sealed at that cluster time; None when it is gone."""
        place = bisect_right(self._begins, second)
        return self._keys[place - 1] if place else None

    async def cover(self, at: Timestamp) -> None:
        """Wait until every key is known that may count at that cluster time."""
        while at.time > self._until:
            async with self._reading:
                if at.time <= self._until or await self._refresh():
                    continue
            await asyncio.sleep(_RETRY)

    async def run(self) -> None:
        """Keep up with the keys until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            async with self._reading:
                await self._refresh()

    async def _refresh(self) -> bool:
        """Read the keys. False when nothing was learned."""
        try:
            read = await self._load()
        except Unavailable as error:
            log.warning("sealing_keys_unreadable", detail=error.detail)
            return False
        return self.learn(read)

    def learn(self, read: SealingKeys) -> bool:
        """Take what was read; nothing of it when a key is another than it was, since cursors would fork."""
        if any(self._stored.get(key.number, key) != key for key in read.keys) or (
            self._stored and max(self._stored) not in {key.number for key in read.keys}
        ):
            log.error("sealing_keys_replaced", advice="Restart every server: cursors given out count no longer.")
            return False
        stored = {key.number: key for key in read.keys}
        if stored != self._stored:
            keys = sorted((Key.of(key) for key in read.keys), key=lambda key: key.begins)
            self._stored, self._keys, self._begins = stored, keys, [key.begins for key in keys]
        self._until = max(self._until, read.at.time + KEY_LEAD)
        return True
