"""The composition root: builds every part, starts them in order, and drains them in reverse.

This is the only module that knows everyone.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import platform
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework
from prometheus_client import make_asgi_app
from quart import Quart

from livedocs.access import tokens
from livedocs.access.authenticate import Authenticator
from livedocs.access.gate import Gate
from livedocs.access.issuer import Issuer
from livedocs.access.limits import Limits
from livedocs.access.oauth import LoginClient
from livedocs.changes.feed import Feed
from livedocs.changes.history import History
from livedocs.changes.lease import Lease
from livedocs.changes.resolver import Resolver
from livedocs.changes.stream import Stream
from livedocs.config import Settings
from livedocs.errors import LivedocsError, NotFound, Unavailable
from livedocs.http import app as http_app
from livedocs.http.caller import client_address
from livedocs.http.problems import problem
from livedocs.live.ends import noting
from livedocs.live.fanout import Fanout
from livedocs.live.joins import Joins
from livedocs.live.looks import Looks
from livedocs.live.rooms import Rooms
from livedocs.live.roster import Roster
from livedocs.live.sessions import Sessions
from livedocs.live.slow import SlowSockets
from livedocs.live.sockets import Receive, Scope, Send, Sockets
from livedocs.live.timers import TimerWheel
from livedocs.store.batches import Batches
from livedocs.store.connection import connect, connect_raw
from livedocs.store.deletions import Deletions
from livedocs.store.documents import Documents
from livedocs.store.grants import Grants
from livedocs.store.journal import Journal
from livedocs.store.lookups import Lookups
from livedocs.store.processes import Process, Processes
from livedocs.store.replays import Replays
from livedocs.store.snapshots import Snapshots
from livedocs.store.tenants import TenantDirectory, Tenants
from livedocs.store.trail import Trail
from livedocs.telemetry import Metrics, configure_logging, get_logger

log = get_logger(__name__)

_SOCKET_PATHS = frozenset({"/socket.io", "/socket.io/"})
_RETRY = 1.0


def _now() -> datetime:
    return datetime.now(UTC)


class Edge:
    """What the socket endpoint shares with the HTTP side: how a refusal looks, and whose address counts."""

    def __init__(self, trusted_proxies: tuple[str, ...]) -> None:
        self._trusted = trusted_proxies

    def refusal(self, error: LivedocsError) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The answer for a refused handshake: status, headers, body."""
        answer = problem(error)
        headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Cache-Control": "no-store"}
        return (
            answer.status,
            [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            answer.body,
        )

    def address(self, scope: Scope) -> str:
        """The peer's address; forwarded headers are believed only from configured proxies."""
        peer = scope["client"][0] if scope.get("client") else ""
        forwarded = [
            value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"x-forwarded-for"
        ]
        return client_address(peer, forwarded, self._trusted)


class Front:
    """The one ASGI application: `/socket.io` to the sockets, everything else to Quart."""

    def __init__(self, quart: Quart, sockets: Sockets, edge: Edge) -> None:
        self._quart = quart
        self._sockets = sockets
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "lifespan" and scope["path"] in _SOCKET_PATHS:
            await self._sockets(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            status, headers, body = self._edge.refusal(NotFound())
            await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": body})
        else:
            await self._quart(cast("Any", scope), cast("Any", receive), cast("Any", send))


class Server:
    """Every part of one server process, wired.

    Args:
        settings: of this process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.metrics = metrics = Metrics()
        self._client = connect(settings)
        self._stream_client = connect_raw(settings)
        self._registry = Tenants(self._client, settings.control_database)
        self._directory = TenantDirectory(self._registry)
        self._issuer = Issuer(settings, now=_now)
        self._tokens = tokens.of(settings, self._issuer, metrics, now=_now)
        self._login = LoginClient(settings, self._issuer, now=_now)
        authenticator = Authenticator(self._tokens, self._directory, secure=settings.secure)
        self._wire_changes(metrics)
        self._sessions = Sessions(
            authenticator,
            self._joins.reauthorize,
            interval=settings.introspection_interval,
            grace=settings.auth_grace,
            metrics=metrics,
        )
        loop = asyncio.get_running_loop()
        self._wheel = TimerWheel(clock=loop.time)
        self._slow = SlowSockets(
            self._fanout.slow,
            self._joins,
            stall_timeout=settings.socket_stall_timeout,
            metrics=metrics,
            clock=loop.time,
        )
        edge = Edge(settings.trusted_proxies)
        self._journal = Journal(self._client, settings.control_database)
        self._limits = Limits(settings, metrics, clock=loop.time)
        self._sockets = Sockets(
            settings,
            authenticator=authenticator,
            joins=self._joins,
            fanout=self._fanout,
            sessions=self._sessions,
            wheel=self._wheel,
            edge=edge,
            limits=self._limits,
            metrics=metrics,
            ended=noting(self._journal.note),
        )
        self.asgi = Front(self._http(authenticator), self._sockets, edge)

    def _wire_changes(self, metrics: Metrics) -> None:
        """The change events' way, from MongoDB to the rooms."""
        settings = self._settings
        history = History(window=settings.history_window, max_bytes=settings.history_bytes)
        self._fanout = Fanout(Rooms(), metrics=metrics)
        stream = Stream(
            self._stream_client,
            window=settings.history_window,
            tenants=self._directory.all,
            control=settings.control_database,
            metrics=metrics,
        )
        self._feed = Feed(
            stream,
            Resolver(Lookups(self._client)),
            history,
            self._fanout,
            registry=self._directory,
            control=settings.control_database,
            tenants_changed=self._tenants_changed,
            metrics=metrics,
        )
        self._process = process = Process(uuid4().hex, platform.node(), os.getpid(), "")
        self._processes = Processes(self._client, settings.control_database)
        self._lease = Lease(
            self._feed,
            lambda position: self._processes.beat(replace(process, position=position)),
            lambda: self._processes.end(process.id),
        )
        looks = Looks(
            Gate(Snapshots(self._client, settings.control_database)),
            history,
            self._feed,
            lag_bound=settings.stream_lag_bound,
        )
        self._joins = Joins(
            looks, history, self._fanout, most_rooms=settings.max_rooms_per_socket, metrics=metrics
        )
        self._fanout.attach(self._joins)

    def _http(self, authenticator: Authenticator) -> Quart:
        settings = self._settings
        return http_app.build(
            http_app.Services(
                settings=settings,
                metrics=self.metrics,
                authenticator=authenticator,
                tenants=self._directory,
                documents=Documents(self._client, settings.control_database),
                grants=Grants(self._client, settings.control_database),
                batches=Batches(self._client, settings.control_database),
                replays=Replays(self._client, settings.control_database),
                processes=self._processes,
                roster=Roster(self._process, self._sockets, self._fanout.rooms, self.metrics),
                registry=self._registry,
                deletions=Deletions(self._client, settings.control_database),
                trail=Trail(self._client, settings.control_database),
                login=self._login,
                limits=self._limits,
                note=self._journal.note,
                probes={
                    "mongodb": self._mongodb_reachable,
                    "stream": self._stream_current,
                    "introspection": self._tokens.reachable,
                },
                on_logout=lambda token_id: self._sessions.close(token_id, "logout"),
                now=_now,
            )
        )

    async def _mongodb_reachable(self) -> bool:
        reply = await self._client.admin.command("hello")
        return bool(reply.get("isWritablePrimary") or reply.get("msg") == "isdbgrid")

    async def _stream_current(self) -> bool:
        return self._feed.live and self._feed.lag() <= self._settings.stream_lag_bound

    async def _refresh_tenants(self) -> bool:
        """Read the registry, and try again until it could be read."""
        while True:
            try:
                return await self._directory.refresh()
            except Unavailable as error:
                log.warning("the tenants cannot be read yet", detail=error.detail)
                await asyncio.sleep(_RETRY)

    async def _tenants_changed(self) -> bool:
        changed = await self._refresh_tenants()
        if changed:
            self._sockets.tenants_changed(self._directory.get)
        return changed

    async def run(self, stop: Callable[[], Awaitable[object]]) -> None:
        """Serve until `stop` returns.

        Raises:
            RuntimeError: a part that has to run for as long as the server does has ended.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._client.close)
            stack.push_async_callback(self._stream_client.close)
            stack.push_async_callback(self._journal.aclose)
            stack.push_async_callback(self._issuer.aclose)
            stack.push_async_callback(self._tokens.aclose)
            stack.push_async_callback(self._login.aclose)
            stack.push_async_callback(self._joins.aclose)
            stack.push_async_callback(self._sessions.aclose)
            stack.push_async_callback(self._lease.end)
            parts = [asyncio.create_task(self._follow(), name="changes")]
            stack.push_async_callback(_cancel, parts)
            if not await self._opened(parts[0], stop):
                return
            await self._lease.take()
            parts += [
                asyncio.create_task(self._lease.run(), name="lease"),
                asyncio.create_task(self._wheel.run(), name="timers"),
                asyncio.create_task(self._slow.run(), name="slow sockets"),
                asyncio.create_task(self._journal.run(), name="journal"),
            ]
            if settings.metrics_bind:
                metrics_app = _http_only(make_asgi_app(self.metrics.registry))
                parts.append(
                    asyncio.create_task(
                        serve(
                            cast("ASGIFramework", metrics_app),
                            _listener(settings.metrics_bind),
                            shutdown_trigger=asyncio.Event().wait,
                        ),
                        name="metrics",
                    )
                )
            log.info("serving", bind=settings.bind, public_url=settings.public_url)
            failed = await self._serve(parts, stop)
        if failed:
            msg = f"ended unexpectedly: {', '.join(failed)}"
            raise RuntimeError(msg)

    async def _follow(self) -> None:
        await self._refresh_tenants()
        await self._feed.run()

    async def _opened(self, follow: asyncio.Task[None], stop: Callable[[], Awaitable[object]]) -> bool:
        """Wait until the change stream is open: nobody is let in before. False if it was stopped first."""
        opened = asyncio.create_task(self._feed.opened())
        stopped = asyncio.ensure_future(stop())
        await asyncio.wait({opened, stopped, follow}, return_when=asyncio.FIRST_COMPLETED)
        ready = opened.done()
        await _cancel([opened, stopped])
        if follow.done():
            follow.result()
        return ready

    async def _serve(self, parts: list[asyncio.Task[None]], stop: Callable[[], Awaitable[object]]) -> list[str]:
        """Serve requests until the stop, or until a part has ended. Returns the parts that have."""
        settings = self._settings
        failed: list[str] = []

        async def stopped() -> None:
            waiting = asyncio.ensure_future(stop())
            await asyncio.wait({waiting, *parts}, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    failed.append(part.get_name())
                    log.error("a part has ended", part=part.get_name(), exc_info=part.exception())
            await _cancel([waiting])
            # Hypercorn closes its sockets before the lifespan's shutdown: this is the last moment to say goodbye.
            await self._sockets.drain(0.0 if failed else settings.shutdown_grace)

        await serve(cast("ASGIFramework", self.asgi), _listener(settings.bind, settings), shutdown_trigger=stopped)
        return failed


def _listener(bind: str, settings: Settings | None = None) -> Config:
    """Hypercorn's configuration; what it leaves open by default is set here."""
    config = Config()
    config.bind = [bind]
    config.backlog = 4096
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.keep_alive_timeout = 30
    config.read_timeout = 60
    config.graceful_timeout = 3
    if settings is not None:
        config.websocket_max_message_size = settings.max_message_bytes
        # A live socket is heard from once per ping, so this ends only what is dead or was never meant well.
        config.read_timeout = int(settings.ping_interval + settings.ping_timeout) + 5
    return config


def _http_only(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """An ASGI application that serves HTTP and nothing else, told so in a way that is not logged as an error."""

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)
        elif scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
        else:
            await receive()
            await send({"type": "websocket.close"})

    return front


async def _cancel(tasks: list[asyncio.Task[Any]] | list[asyncio.Future[Any]]) -> None:
    """End tasks and wait for their end, whatever it is."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    configure_logging(settings)
    # Sockets and the history are many objects that stay: looking through all of them again and again took half of
    # the CPU at a high rate of events, and stopped everything for as long as it lasted.
    gc.freeze()
    gc.set_threshold(20_000, 5, 100)
    asyncio.run(_main(settings))


async def _main(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    await Server(settings).run(stop.wait)
