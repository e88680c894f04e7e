"""The client against a real server, over a link that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import pytest

from livedocs.client import Client, Retries

QUICK = Retries(first=0.02)


class Link:
    """What lies between the client and the server. `opened` counts the connections over it.

    A `target` that is changed is that of new connections.
    """

    def __init__(self, url: str) -> None:
        self.target = url
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.opened = 0
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        target = urlsplit(self.target)
        there, back = await asyncio.open_connection(target.hostname, target.port)
        ends = {writer, back}
        self._writers |= ends
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            for end in ends:
                end.transport.abort()
                with contextlib.suppress(OSError):
                    await end.wait_closed()
            self._writers -= ends

    def cut(self) -> None:
        """Every connection is lost, on both sides, without a word."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        self._server.close()
        self.cut()
        async with asyncio.timeout(10):
            while self._writers:
                await asyncio.sleep(0.01)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.transport.abort()


@pytest.fixture
async def link_to() -> AsyncIterator[Callable[[str], Awaitable[Link]]]:
    """`await link_to(url)` is a link to that server."""
    links = []

    async def start(url: str) -> Link:
        link = Link(url)
        links.append(link)
        await link.start()
        return link

    yield start
    for link in links:
        await link.stop()


@pytest.fixture
async def link(livedocs_server, link_to) -> Link:
    return await link_to(livedocs_server.url)


@pytest.fixture
def orders(livedocs_server):
    """A service that may write every document."""
    return livedocs_server.oauth.service("orders")


@pytest.fixture
async def docs(livedocs_server, orders) -> AsyncIterator[Client]:
    async with livedocs_server.client(orders, retries=QUICK) as client:
        yield client


@pytest.fixture
async def admin(livedocs_server) -> AsyncIterator[Client]:
    ada = livedocs_server.oauth.person("ada", scopes=["livedocs:admin"])
    async with livedocs_server.client(ada, retries=QUICK) as client:
        yield client
