"""Who is told of changes, and what stands between, so that one change's trouble is no other's."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from livedocs.changes.event import CollectionGone, DocumentChange, RoomChange, RoomKey
from livedocs.telemetry import Metrics, get_logger, log_failure

log = get_logger(__name__)

# Seconds that changes wait for large ones to be encoded, at once, and as a share of the time.
_PATIENCE, _PATIENCE_SHARE = 0.15, 0.25


class Listener(Protocol):
    """Who is told. All but `prepare` are synchronous. What a call raises is its change's alone (`Guard`)."""

    def change(self, change: RoomChange) -> None:
        """The next change, in stream order."""

    def unprepared(self, change: DocumentChange) -> bool:
        """Whether telling that heavy change would stop the event loop, for it has not been encoded yet."""

    async def prepare(self, change: DocumentChange) -> None:
        """Encode that change off the event loop; for right before it is told."""

    def unreadable(self, room: RoomKey) -> None:
        """A change of that room could not be told: its members are owed the newest state. Must not raise."""

    def gone(self, change: CollectionGone) -> None:
        """A collection, a tenant's database or all the grants vanished at once."""

    def gap(self, reason: str, tenant: str | None = None) -> None:
        """Changes were lost, of that tenant or of all: what anyone holds may be out of date."""


class Guard:
    """Stands between the feed and its listener: what is wrong with one change is no other change's problem.

    A room whose change could not be told is brought up to date as a whole. That `gap` fails is nothing that could
    be contained: then everybody has to begin anew.
    """

    def __init__(self, listener: Listener, metrics: Metrics) -> None:
        self._listener = listener
        self._failed = metrics.contained.labels("change")
        self._patience = _Patience(most=_PATIENCE, share=_PATIENCE_SHARE)

    def change(self, change: RoomChange) -> None:
        """Tell the change."""
        try:
            self._listener.change(change)
        except Exception as error:  # noqa: BLE001 - one change's, whatever it is
            self._failed.inc()
            log_failure(log, "change_untold", error, tenant=change.room.tenant, room=str(change.room.uuid))
            self._listener.unreadable(change.room)

    def gone(self, change: CollectionGone) -> None:
        """Tell that a collection has gone."""
        try:
            self._listener.gone(change)
        except Exception as error:  # noqa: BLE001 - the tenant's, whatever it is
            self._failed.inc()
            log_failure(log, "change_untold", error, tenant=change.tenant, collection=change.collection)
            self._listener.gap("event_unreadable", change.tenant)

    async def prepared(self, change: DocumentChange) -> DocumentChange:
        """The change, which can be told at once from now on; as long as nothing else is awaited.

        Everybody waits meanwhile, so there is a bound to it: past that the room is sent the newest state, which
        is encoded beside the stream.
        """
        try:
            while self._listener.unprepared(change):
                begun = time.perf_counter()
                async with asyncio.timeout(self._patience.left(begun)):
                    await self._listener.prepare(change)
                self._patience.spend(begun, time.perf_counter())
        except TimeoutError:
            self._patience.spend(begun, time.perf_counter())
            return change._replace(withheld="document_too_large", raw=b"", whole=None, heavy=False)
        except Exception as error:  # noqa: BLE001 - one change's, whatever it is
            self._failed.inc()
            log_failure(log, "change_untold", error, tenant=change.room.tenant, room=str(change.room.uuid))
            return change._replace(withheld="event_unreadable", raw=b"", whole=None, heavy=False)
        return change


class _Patience:
    """How long all changes may wait for large ones: so many seconds at once, and that share of the time."""

    def __init__(self, *, most: float, share: float) -> None:
        self._most = most
        self._share = share
        self._left = most
        self._at = 0.0

    def left(self, now: float) -> float:
        """Seconds that may be waited now."""
        self._left = min(self._most, self._left + (now - self._at) * self._share)
        self._at = now
        return max(0.0, self._left)

    def spend(self, begun: float, now: float) -> None:
        """Count what has been waited."""
        self._left -= now - begun
        self._at = now
