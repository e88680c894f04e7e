"""One room's event to one socket, and the sockets for which something waits."""

from __future__ import annotations

from livedocs.changes.cursor import Sealing
from livedocs.changes.event import RoomKey
from livedocs.live.client import Client
from livedocs.live.frames import Frame
from livedocs.live.prepared import PreparedFrames
from livedocs.telemetry import Metrics


class Delivery:
    """Writes events and counts them.

    Args:
        cursors: makes the cursors that clients get.

    Attributes:
        prepared: the frames of changes.
        backlogged: sockets for which something waits; some of them have fallen behind.
    """

    def __init__(self, cursors: Sealing, *, metrics: Metrics) -> None:
        self.prepared = PreparedFrames(cursors)
        self.backlogged: set[Client] = set()
        self._metrics = metrics
        metrics.sockets_behind.set_function(lambda: sum(client.cut is not None for client in self.backlogged))

    def deliver(self, client: Client, frame: Frame, room: RoomKey) -> None:
        """Write one room event to one client."""
        match client.deliver(frame, room):
            case "sent":
                self._metrics.deliveries.inc()
            case "cut":
                self.fell_behind(client)

    def fell_behind(self, client: Client) -> None:
        """Note a socket whose events have begun to be dropped."""
        self._metrics.slow_sockets.inc()
        self.backlogged.add(client)
