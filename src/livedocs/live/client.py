"""One connected socket: who it is, how it is written to, and when it has fallen behind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from livedocs.access.budgets import Hold
from livedocs.access.principal import Principal
from livedocs.changes.event import RoomKey
from livedocs.live import frames
from livedocs.live.frames import Frame
from livedocs.live.outbox import Outbox
from livedocs.model import Tenant

# Reasons that end a socket for good: the same credential would be refused again.
FINAL = frozenset({"expired", "token_revoked", "tenant_suspended", "logout", "reauth_refused", "disconnected"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait for one socket before it counts as slow."""

    bytes: int
    messages: int


class Client:
    """A socket after CONNECT.

    Attributes:
        sid: the session id the client was told.
        principal: who it is, as last introspected.
        cut: the rooms whose deltas were dropped because the socket is slow; None while it keeps up.
        busy: held while its memberships are being looked up, so that joins and refreshes of one socket take turns.
        unread: of its user's bytes in flight, those of answers that this socket has not taken yet.
    """

    __slots__ = (
        "__weakref__",
        "_allowed",
        "_backlogged",
        "_bounds",
        "_held",
        "address",
        "busy",
        "closed",
        "cut",
        "outbox",
        "principal",
        "session",
        "sid",
        "since",
        "standing",
        "tenant",
        "unread",
    )

    def __init__(
        self,
        sid: str,
        principal: Principal,
        tenant: Tenant,
        outbox: Outbox,
        bounds: Bounds,
        *,
        address: str,
        since: float,
        backlogged: set[Client],
        unread: Hold,
    ) -> None:
        self.sid = sid
        self.principal = principal
        self.tenant = tenant
        self.outbox = outbox
        self._bounds = bounds
        # Every socket for which something waits; one is in it from the first such byte on (slow.py).
        self._backlogged = backlogged
        self.unread = unread
        # Bytes that may wait before it counts as slow: the bound, or one message that is larger.
        self._allowed = bounds.bytes
        # Events that were due while others of their room were written; ahead of everything else that is written.
        self._held: list[Frame] | None = None
        self.address = address
        self.since = since
        self.cut: set[RoomKey] | None = None
        self.closed: str | None = None
        self.busy = asyncio.Lock()
        # The token's session (sessions.py), which also knows this client.
        self.session: Any = None
        # Since when it has been seen in its groups (tickets.py).
        self.standing: Any = None

    def send(self, frame: Frame) -> None:
        """Write a control message or an answer; these are never dropped, the socket is instead."""
        if self.closed is not None:
            return
        if self._held is not None:
            self.release()
        waiting = self.outbox.offer(frame)
        if waiting == 0:
            return
        if waiting > 0:
            self._let_wait(frame)
            return
        waiting, messages = self.outbox.backlog()
        if waiting > self._allowed + 4 * self._bounds.bytes or messages > 4 * self._bounds.messages:
            self.abort("slow")
        else:
            self._write(frame, waiting)

    def deliver(self, frame: Frame, room: RoomKey) -> Literal["sent", "dropped", "cut"]:
        """Write a room's event, or drop it when the socket does not keep up; `cut`: it fell behind just now."""
        if self.cut is None and self._held is None:
            waiting = self.outbox.offer(frame)
            if waiting == 0:
                return "sent"
            if waiting > 0:
                self._let_wait(frame)
                return "sent"
        elif self._held is not None:
            self.release()
        return self._deliver(frame, room, hold=False)

    def hold(self, frame: Frame, room: RoomKey) -> Literal["sent", "dropped", "cut"]:
        """The same, but write it at `release`, or ahead of whatever else is written to the socket before that."""
        if self.cut is None and self._held is None and not self.outbox.backlog()[0]:
            self._held = [frame]
            return "sent"
        return self._deliver(frame, room, hold=True)

    def _deliver(self, frame: Frame, room: RoomKey, *, hold: bool) -> Literal["sent", "dropped", "cut"]:
        if self.cut is not None:
            self.cut.add(room)
            return "dropped"
        waiting, messages = self.outbox.backlog()
        if self._held is not None:
            waiting += sum(len(held.wire) for held in self._held)
            messages += len(self._held)
        if waiting <= self._allowed and messages < self._bounds.messages:
            if not hold:
                self._write(frame, waiting)
            elif self._held is None:
                self._held = [frame]
                if not waiting:
                    self._let_wait(frame)
            else:
                self._held.append(frame)
            return "sent"
        # What is in the transport's hands still arrives, in order; nothing of any room is added to it.
        self.cut = {room}
        return "cut"

    def release(self) -> None:
        """Write what is held."""
        held, self._held = self._held, None
        if held is None or self.closed is not None:
            return
        for frame in held:
            waiting = self.outbox.offer(frame)
            if waiting < 0:
                self._write(frame, self.outbox.backlog()[0])
            elif waiting:
                self._let_wait(frame)

    def _write(self, frame: Frame, waiting: int) -> None:
        if not waiting:
            self._let_wait(frame)
        self.outbox.write(frame)

    def _let_wait(self, frame: Frame) -> None:
        """The first to wait: one that is larger than the bound is no sign of a slow peer while it is alone."""
        self._allowed = max(self._bounds.bytes, len(frame.wire))
        self._backlogged.add(self)

    def owe(self, room: RoomKey) -> None:
        """Remember that events of that room were dropped, if any are being dropped."""
        if self.cut is not None:
            self.cut.add(room)

    def owe_nothing(self, room: RoomKey) -> None:
        """Forget that any were: the room has been left."""
        if self.cut is not None:
            self.cut.discard(room)

    def take_owed(self) -> set[RoomKey]:
        """The rooms whose events were dropped, now that the socket has drained; from here on it keeps up."""
        owed, self.cut = self.cut, None
        return owed or set()

    def settle_unread(self) -> None:
        """Give back of its user's bytes in flight what the peer has taken."""
        self.unread.shrink(self.unread.bytes - self.outbox.backlog()[0])

    def close(self, reason: str) -> None:
        """Say why and close. A final reason also tells Socket.IO's clients not to come back by themselves."""
        if self.closed is not None:
            return
        self.send(frames.event("$goaway", {"reason": reason, "within_ms": 0}))
        if reason in FINAL:
            self.send(frames.DISCONNECT)
        self.closed = self.closed or reason
        self.outbox.close(1008 if reason in FINAL else 1001)

    def abort(self, reason: str) -> None:
        """Cut off without a word: the peer does not listen."""
        if self.closed is None:
            self.closed = reason
            self.outbox.abort()
