"""One HTTP request or one WebSocket while it lasts: how its log lines are known, what is said at its end.

Whoever finds something out about it, such as its route or its caller, notes it here; `http/exchanges.py` opens it
and writes the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from uuid import uuid4

from livedocs.tracing import Parent

HEADER = "X-Request-Id"
# Nothing that could end a line or a field of a log, and no longer than what proxies make.
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{8,128}\Z")


def _unsaid(_: Exchange) -> None:
    """Nobody asked for it."""


def _uncounted() -> None:
    """Nobody counts those that are not known."""


@dataclass(slots=True)
class Exchange:
    """What is known so far.

    Attributes:
        id: of the request, as answered in `X-Request-Id`.
        parent: the span it came with, if whoever sent it is believed.
        began: `perf_counter` at its beginning.
        route: the pattern of its path, empty when there is no such path.
        status: of the answer; None while there is none.
        tenant: of its caller.
        socket: the id of the socket that it became.
        reason: why the server ended that socket, if it did.
        address: of its peer.
        finish: says what became of it.
        identified: called when it is known who asks, or else when the answer begins; may be called again.
        goes_on: it does not end when its application returns; whoever has set this calls `finish`.
    """

    id: str
    parent: Parent | None = None
    began: float = field(default_factory=perf_counter)
    route: str = ""
    status: int | None = None
    tenant: str | None = None
    socket: str | None = None
    reason: str | None = None
    address: str = ""
    finish: Callable[[Exchange], None] = _unsaid
    identified: Callable[[], None] = _uncounted
    goes_on: bool = False

    @property
    def ids(self) -> dict[str, str]:
        """What every log line about it has."""
        ids = {"request_id": self.id}
        if self.parent is not None:
            ids["trace_id"] = self.parent.trace_id
        if self.socket is not None:
            ids["socket"] = self.socket
        return ids

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer to it has."""
        return [(HEADER.lower().encode(), self.id.encode())]


_current: ContextVar[Exchange | None] = ContextVar("livedocs_exchange", default=None)


def current() -> Exchange:
    """The present exchange; outside of one, a new one that nobody looks at."""
    return _current.get() or Exchange(new_id())


def begin(exchange: Exchange) -> None:
    """Make it that of the present task and of those it starts."""
    _current.set(exchange)


def new_id() -> str:
    """An id for a request that came without one."""
    return uuid4().hex


def id_from(text: str | None) -> str:
    """The id that a request came with, if it is well-formed, else a new one."""
    return text if text is not None and _WELL_FORMED.match(text) else new_id()
