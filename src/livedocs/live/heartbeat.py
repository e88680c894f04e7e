"""Whether a socket's peer is still there, and was ever meant well."""

from __future__ import annotations

from livedocs.live import frames
from livedocs.live.outbox import Outbox


class Heartbeat:
    """Ends a socket that does not CONNECT in time or does not answer pings; one timer wheel serves them all."""

    __slots__ = ("_interval", "_outbox", "_timeout", "connected", "gave_up", "waiting")

    def __init__(self, outbox: Outbox, *, interval: float, timeout: float) -> None:
        self._outbox = outbox
        self._interval = interval
        self._timeout = timeout
        self.connected = False
        self.waiting = False
        # Why it ended the socket, if it did.
        self.gave_up: str | None = None

    def tick(self) -> float | None:
        """Ping, or give up on the peer."""
        if not self.connected:
            self.gave_up = "connect_timeout"
            self._outbox.close(1008)
            return None
        if self.waiting:
            self.gave_up = "ping_timeout"
            self._outbox.abort()
            return None
        self.waiting = True
        self._outbox.write(frames.PING)
        return self._timeout

    def pong(self) -> float:
        """The peer is alive. Returns the seconds until the next ping."""
        self.waiting = False
        return self._interval
