"""One socket that a test steers by hand and asks what it has heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

from rig.deployment import Deployment, Process
from rig.recording import Answered, Connection, Delivered, Entry, Told, Who
from rig.wire import Wire

PATIENCE = 30.0


class Listener:
    """A user's socket, straight to one process; everything it heard, in order."""

    def __init__(self) -> None:
        self.heard: list[Entry] = []
        self._news = asyncio.Event()
        self._read = 0
        self.wire: Wire | None = None

    @classmethod
    async def connect(cls, deployment: Deployment, process: Process, user: str, tenant: str = "acme") -> Listener:
        """Shake hands."""
        listener = cls()
        subject = f"user:{user}"
        token = deployment.provider.token(tenant, subject)
        connection = Connection(0, Who(tenant, subject), process.label, time.monotonic())
        listener.wire = await Wire.open(process.port, token, connection, listener._hear)
        return listener

    def _hear(self, entry: Entry) -> None:
        self.heard.append(entry)
        self._news.set()

    async def join(self, uuid: str, **options: Any) -> dict[str, Any]:
        """The whole acknowledgement of JoinRoom."""
        assert self.wire is not None
        answer: dict[str, Any] | None = await self.wire.join([uuid], **options, limit=PATIENCE)
        assert answer is not None, f"the socket ended: {self.wire.connection.why}"
        return answer

    async def joined(self, uuid: str, **options: Any) -> dict[str, Any]:
        """Join, as soon as that is possible. Returns the answer for the room."""
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await self.join(uuid, **options)
                if uuid in answer["joined"]:
                    given: dict[str, Any] = answer["joined"][uuid]
                    return given
                assert answer["refused"][uuid] == {"code": "unavailable"}
                await asyncio.sleep(0.1)

    async def next(self) -> Delivered | Told:
        """The next event, document's or control."""
        async with asyncio.timeout(PATIENCE):
            while True:
                while self._read < len(self.heard):
                    entry = self.heard[self._read]
                    self._read += 1
                    if isinstance(entry, Delivered | Told):
                        return entry
                self._news.clear()
                await self._news.wait()

    async def until(self, wanted: Callable[[Entry], bool]) -> list[Delivered | Told]:
        """The next events up to the one that is wanted."""
        found: list[Delivered | Told] = []
        while not found or not wanted(found[-1]):
            found.append(await self.next())
        return found

    def answers(self) -> Iterator[Answered]:
        """Every acknowledgement so far."""
        return (entry for entry in self.heard if isinstance(entry, Answered))

    async def close(self) -> None:
        """Be gone."""
        if self.wire is not None:
            await self.wire.close()


def control(name: str) -> Callable[[Entry], bool]:
    """Whether an entry is that control event."""
    return lambda entry: isinstance(entry, Told) and entry.name == name


def field(name: str, value: Any) -> Callable[[Entry], bool]:
    """Whether an entry is a document event that says so."""
    return lambda entry: isinstance(entry, Delivered) and entry.data.get(name) == value
