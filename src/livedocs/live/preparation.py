"""What a join answers with, made ahead of it: in slices, the large in a thread, as much as an answer holds.

From the activation of a membership to its answer nothing may wait, so whatever takes time has to be done before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import perf_counter
from uuid import UUID

import orjson

from livedocs.access.budgets import Hold
from livedocs.changes.event import DocumentChange
from livedocs.errors import AnswerTooLarge
from livedocs.live.frames import Frame
from livedocs.live.prepared import PreparedFrames
from livedocs.model import Snapshot, Tenant
from livedocs.presentation import encoded_all, is_heavy

# Seconds of work after which whatever else is waiting gets its turn.
_SLICE = 0.003

Wanted = frozenset[str] | None
"""The names of the only collections wanted, None for all."""


class Space:
    """What one answer may still have of bytes and of time at once. Its bytes are held as its user's from here on.

    Args:
        most: bytes of an answer. What comes first may be larger by itself.
        unread: counts them.
    """

    def __init__(self, most: int, unread: Hold) -> None:
        self._most = most
        self._taken = 0
        self._unread = unread
        self._deadline = perf_counter() + _SLICE

    @property
    def full(self) -> bool:
        """Whether nothing more fits."""
        return self._taken >= self._most

    def check(self) -> None:
        """Refuse to make anything more once the answer is full.

        Raises:
            AnswerTooLarge: it is.
        """
        if self.full:
            raise AnswerTooLarge(f"The answer has its {self._most} bytes; ask for the rest in another call.")

    def take(self, count: int) -> None:
        """Put so many bytes into the answer.

        Raises:
            AnswerTooLarge: they do not fit, and there is something in it already.
            TooManyBytes: the user, or the tenant, has too many in flight.
        """
        if self._taken and self._taken + count > self._most:
            raise AnswerTooLarge(f"The answer would exceed {self._most} bytes; ask for the rest in another call.")
        self._unread.grow(count)
        self._taken += count

    async def breathe(self) -> None:
        """Let others have their turn when this has taken long enough."""
        if perf_counter() > self._deadline:
            await asyncio.sleep(0)
            self._deadline = perf_counter() + _SLICE


class Preparation:
    """Makes the parts of answers.

    Args:
        prepared: makes the frames of changes, and keeps the large ones.
    """

    def __init__(self, prepared: PreparedFrames) -> None:
        self._prepared = prepared

    async def documents(
        self, snapshot: Snapshot, uuid: UUID, wanted: Wanted, tenant: Tenant, space: Space
    ) -> None:
        """Encode the documents of a room, for `documents_of` to find.

        Raises:
            AnswerTooLarge, TooManyBytes: as `Space` has them.
        """
        space.check()
        found = snapshot.documents.get(uuid)
        if found is None:
            return
        await space.breathe()
        made = snapshot.shared.get((uuid, wanted))
        if made is None or made[0] is not tenant:
            arguments = (found, tenant.collections, wanted, uuid)
            if any(isinstance(one, bytes) and is_heavy(one) for some in found.values() for one in some):
                # Others of the same round of reads may want the same: once for all of them.
                making = snapshot.shared.get((uuid, wanted, id(tenant)))
                if making is None:
                    making = asyncio.ensure_future(asyncio.to_thread(encoded_all, *arguments))
                    snapshot.shared[uuid, wanted, id(tenant)] = making
                encoded = await asyncio.shield(making)
            else:
                encoded = encoded_all(*arguments)
            made = snapshot.shared.get((uuid, wanted))
            if made is None or made[0] is not tenant:
                made = snapshot.shared[uuid, wanted] = (tenant, orjson.Fragment(encoded), len(encoded))
        space.take(made[2])

    async def frames(self, changes: Iterable[DocumentChange], space: Space, frames: dict[str, Frame]) -> None:
        """Encode changes that are to be replayed, by their tokens.

        Raises:
            AnswerTooLarge, TooManyBytes: as `Space` has them.
        """
        for change in changes:
            space.check()
            if change.withheld is not None:
                # The room is sent its newest state in place of this one and what follows it.
                return
            if change.heavy:
                frame = await self._prepared.prepare(change)
            else:
                await space.breathe()
                frame = self._prepared.frame(change)
            space.take(len(frame.wire))
            frames[change.token] = frame


def documents_of(snapshot: Snapshot, uuid: UUID, wanted: Wanted, tenant: Tenant) -> orjson.Fragment:
    """A room's documents as a client gets them, by collection; encoded once for everyone of one round of reads."""
    documents = snapshot.documents.get(uuid)
    if documents is None:
        return orjson.Fragment(b"{}")
    made = snapshot.shared.get((uuid, wanted))
    # Between two who join, other collections may have been registered.
    if made is None or made[0] is not tenant:
        encoded = encoded_all(documents, tenant.collections, wanted, uuid)
        made = snapshot.shared[uuid, wanted] = (tenant, orjson.Fragment(encoded), len(encoded))
    fragment: orjson.Fragment = made[1]
    return fragment
