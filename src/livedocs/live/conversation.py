"""What one accepted WebSocket says, from CONNECT to its end, packet by packet and never two at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from structlog.contextvars import bind_contextvars

from livedocs import exchange, tracing
from livedocs.access.principal import Principal
from livedocs.errors import LivedocsError
from livedocs.exchange import Exchange
from livedocs.live import frames
from livedocs.live.calls import refusal
from livedocs.live.client import Client
from livedocs.live.frames import Frame
from livedocs.live.heartbeat import Heartbeat
from livedocs.live.outbox import Outbox
from livedocs.live.protocol import Call, Connect, Leave, Packet, Pong, ProtocolError, parse
from livedocs.live.quotas import Arrival
from livedocs.model import Tenant
from livedocs.telemetry import get_logger

log = get_logger(__name__)

# Whoever goes on sending after as many refusals in a row does not read them.
_MOST_REFUSED = 100
# Packets ahead of CONNECT: nobody's limits count them yet, and a CONNECT to another namespace is answered. A peer
# that did not read the answers took a process from 100 to 930 MB in 4 s.
_MOST_BEFORE = 10


@dataclass(frozen=True, slots=True)
class Admitted:
    """Whose credential was good; `login` is the browser's, whichever of its tokens this is."""

    principal: Principal
    tenant: Tenant
    token: str
    login: str | None = None


class House(Protocol):
    """The endpoint, as a conversation sees it."""

    async def connect(self, conversation: Conversation, packet: Connect) -> Client:
        """Let it in, under the credential of the handshake or of CONNECT.

        Raises:
            LivedocsError: it is not let in.
        """

    async def answer(self, client: Client, call: Call) -> bool:
        """Do what an event asks for. False when there were too many."""

    def counted(self, client: Client) -> bool:
        """Count a packet that asks for nothing as an event. False when there were too many."""

    def alive(self, conversation: Conversation) -> None:
        """Its peer has answered a ping."""

    def ended(self, conversation: Conversation, reason: str | None) -> None:
        """It is over; by the server's will if there is a reason."""


class Conversation:
    """One accepted WebSocket.

    Whoever reads the socket hands over each message, waits for `take` before the next one, and calls `end` once
    the connection is gone.

    Attributes:
        made: its log lines' ids and what is said at its end.
        admitted: whose credential the handshake had; None when CONNECT has to bring one. Let go of after CONNECT.
        client: None until CONNECT.
        over: nothing more of it is looked at.
    """

    __slots__ = (
        "_before",
        "_house",
        "_reason",
        "_refused",
        "admitted",
        "arrival",
        "client",
        "heartbeat",
        "made",
        "outbox",
        "over",
    )

    def __init__(
        self,
        house: House,
        made: Exchange,
        *,
        outbox: Outbox,
        heartbeat: Heartbeat,
        admitted: Admitted | None,
        arrival: Arrival,
    ) -> None:
        self._house = house
        self.made = made
        self.outbox = outbox
        self.heartbeat = heartbeat
        self.admitted = admitted
        self.arrival = arrival
        self.client: Client | None = None
        self.over = False
        self._reason: str | None = None
        # Packets ahead of CONNECT, and behind it those in a row that came too fast.
        self._before = 0
        self._refused = 0

    def at_once(self, text: str) -> bool:
        """Take a message that nothing has to be waited for. False, and nothing done, when it is another."""
        if self.client is None or text not in {"2", "3"} or not self.heartbeat.waiting:
            return False
        self._house.alive(self)
        return True

    async def take(self, text: str | None) -> None:
        """Do what one message asks for; None is a binary one.

        Not before the peer has taken most of what it was sent: whoever asks for more and reads nothing would have
        all of it kept here.
        """
        if not self.over:
            await self.outbox.writable()
        if self.over or (self.client is not None and self.client.closed is not None):
            return
        try:
            packet = _packet(text)
            if isinstance(packet, Leave):
                self.leave(1000)
            elif self.client is None:
                await self._meet(packet)
            else:
                await self._hear(self.client, packet)
        except ProtocolError as error:
            log.info("protocol_broken", reason=str(error), address=self.made.address)
            self._reason = "protocol_error"
            self.leave(1002)

    async def _meet(self, packet: Packet) -> None:
        """Before CONNECT."""
        self._before += 1
        if self._before > _MOST_BEFORE:
            msg = "too much before CONNECT"
            raise ProtocolError(msg)
        if isinstance(packet, Call):
            msg = "an event before CONNECT"
            raise ProtocolError(msg)
        if not isinstance(packet, Connect):
            return
        if packet.namespace != "/":
            self.outbox.write(_no_namespace(packet.namespace))
            return
        try:
            with tracing.span("CONNECT", kind="server", parent=self.made.parent):
                self.client = await self._house.connect(self, packet)
        except LivedocsError as error:
            self.outbox.write(frames.connect_error(error.detail, refusal(error)))
            self.leave(1008)
        self.admitted = None

    async def _hear(self, client: Client, packet: Packet) -> None:
        """After CONNECT."""
        match packet:
            case Pong() if self.heartbeat.waiting:
                self._house.alive(self)
                return
            case Call():
                taken = await self._house.answer(client, packet)
            case Connect(namespace="/"):
                # Each CONNECT is authenticated: a second one needs a connection of its own.
                msg = "a second CONNECT"
                raise ProtocolError(msg)
            case Connect(namespace=other):
                # A client may have several on one connection; the one it has is none the worse for that.
                client.send(_no_namespace(other))
                taken = self._house.counted(client)
            case _:
                # A pong that nobody waits for, a noop, an acknowledgement: they cost what an event costs.
                taken = self._house.counted(client)
        self._refused = 0 if taken else self._refused + 1
        if self._refused > _MOST_REFUSED:
            client.close("rate_limited")

    def leave(self, code: int) -> None:
        """Close the connection behind what waits for it."""
        self.over = True
        self.outbox.close(code)

    def end(self) -> None:
        """The connection is gone, or nobody reads it any more."""
        self.over = True
        closed = None if self.client is None else self.client.closed
        self._house.ended(self, self._reason or closed or self.heartbeat.gave_up)

    def enter(self) -> None:
        """Have the present task's log lines say which socket they are about."""
        exchange.begin(self.made)
        bind_contextvars(**self.made.ids)


def _no_namespace(name: str) -> Frame:
    return frames.connect_error("Invalid namespace", {"code": "bad_request"}, name)


def _packet(text: str | None) -> Packet:
    if text is None:
        msg = "binary messages are refused"
        raise ProtocolError(msg)
    return parse(text)
