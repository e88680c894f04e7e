"""The composition root: builds every part, starts them in order, and drains them in reverse.

This is the only module that knows everyone.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from bson.timestamp import Timestamp
from quart import Quart
from structlog.contextvars import bind_contextvars

from livedocs import tracing
from livedocs.access import tokens
from livedocs.access.authenticate import Authenticator
from livedocs.access.budgets import BytesInFlight
from livedocs.access.connections import Connections, Quota
from livedocs.access.issuer import Issuer
from livedocs.access.limits import Limits
from livedocs.access.oauth import LoginClient, patience
from livedocs.access.renewals import WINDOW
from livedocs.access.snapshot_batcher import SnapshotBatcher
from livedocs.changes.cursor import Cursors
from livedocs.changes.event import InquiryMade
from livedocs.changes.feed import Feed
from livedocs.changes.history import History
from livedocs.changes.keyring import Keyring
from livedocs.changes.progress import Progress
from livedocs.changes.resolver import Resolver
from livedocs.changes.stream import Stream
from livedocs.cluster.lease import Lease
from livedocs.cluster.local_sessions import LocalSessions
from livedocs.cluster.sessions import ClusterSessions
from livedocs.config import Settings
from livedocs.errors import TooManyBytes, Unavailable
from livedocs.front import Front, serve, serve_metrics
from livedocs.http import app as http_app
from livedocs.http.admission import Admission, refusal
from livedocs.http.caller import Proxies
from livedocs.http.exchanges import Exchanges
from livedocs.http.probes import Probes
from livedocs.live.activation import Activation
from livedocs.live.audit import noting
from livedocs.live.delivery import Delivery
from livedocs.live.fanout import Fanout
from livedocs.live.join_snapshots import JoinSnapshots
from livedocs.live.joins import Joins
from livedocs.live.memberships import Memberships
from livedocs.live.resyncs import Resyncs
from livedocs.live.rooms import Rooms
from livedocs.live.sessions import Sessions
from livedocs.live.slow import SlowSockets
from livedocs.live.sockets import Sockets
from livedocs.live.tickets import Tickets
from livedocs.live.timers import TimerWheel
from livedocs.live.transport import check_version
from livedocs.model import ShownBounds
from livedocs.runtime import tasks
from livedocs.runtime.event_loop import FairEventLoop
from livedocs.runtime.garbage import collect_often, give_back_large_blocks, keep_collections_short
from livedocs.runtime.loop_lag import LoopLag
from livedocs.runtime.parts import Parts
from livedocs.runtime.workers import Place, Supervisor, share
from livedocs.store.audit_log import AuditLog
from livedocs.store.audit_writer import AuditWriter
from livedocs.store.batches import Batches
from livedocs.store.connection import connect, connect_raw
from livedocs.store.deletions import Deletions
from livedocs.store.documents import Documents
from livedocs.store.grants import Grants
from livedocs.store.idempotency import IdempotencyKeys
from livedocs.store.inquiries import Inquiries, Logout
from livedocs.store.keys import Keys
from livedocs.store.lookups import Lookups
from livedocs.store.processes import Process, Processes
from livedocs.store.renewals import SharedRenewals
from livedocs.store.snapshots import Snapshots
from livedocs.store.tenants import TenantDirectory, Tenants
from livedocs.telemetry import Metrics, configure_logging, get_logger, log_unhandled

log = get_logger(__name__)

_RETRY = 1.0
# Seconds that a stop may take, beside those that sockets get to move elsewhere.
_PATIENCE = 10.0


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        RuntimeError: on a Hypercorn that this server was not written against.
        SystemExit: of several workers, with the exit status.
    """
    check_version(version("hypercorn"))
    configure_logging(settings)
    keep_collections_short()
    give_back_large_blocks()
    # What takes long runs in a thread, and the event loop waits this long whenever it wants its turn back.
    sys.setswitchinterval(0.001)
    if settings.workers > 1:
        raise SystemExit(Supervisor(settings, partial(_work, settings)).run())
    _run(_main(settings))


def _work(settings: Settings, place: Place) -> None:
    """Be one of several workers."""
    bind_contextvars(worker=place.number)
    _run(_main(share(settings, place.number), place))


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=FairEventLoop) as runner:
        runner.run(main)


async def _main(settings: Settings, place: Place | None = None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    loop.set_exception_handler(log_unhandled)
    tracing.configure(settings)
    watching = asyncio.create_task(_watch(stop, settings.shutdown_grace + _PATIENCE))
    try:
        await Server(settings, place).run(stop.wait)
    finally:
        tracing.shutdown()
        await tasks.end([watching])


async def _watch(stop: asyncio.Event, seconds: float) -> None:
    """Say what holds up a stop, as far as that can be seen, before whoever asked for it loses patience."""
    await stop.wait()
    log.info("stopping")
    await asyncio.sleep(seconds)
    log.error("stop_overdue", running=tasks.running())


class Server:
    """Every part of one server process, wired.

    Args:
        settings: of this process.
        place: among the workers that share the port; None when there is one process.
    """

    def __init__(self, settings: Settings, place: Place | None = None) -> None:
        self._settings = settings
        self._place = place
        self.metrics = metrics = Metrics(tenants=settings.metrics_tenants)
        self._parts = Parts(metrics)
        self._client = connect(settings)
        self._stream_client = connect_raw(settings)
        self._registry = Tenants(self._client, settings.control_database)
        self._directory = TenantDirectory(self._registry)
        self._issuer = Issuer(settings, now=_now)
        self._tokens = tokens.of(settings, self._issuer, metrics, now=_now)
        renewals = SharedRenewals(
            self._client, settings.control_database, window=WINDOW, patience=patience(settings)
        )
        self._login = LoginClient(settings, self._issuer, now=_now, renewals=renewals)
        authenticator = Authenticator(self._tokens, self._directory, secure=settings.secure)
        self._bounds = ShownBounds(settings.max_shown_bytes, settings.max_shown_elements)
        self._wire_changes(metrics)
        loop = asyncio.get_running_loop()
        self._wheel = TimerWheel(clock=loop.time, failed=metrics.contained.labels("timer").inc)
        self._sessions = Sessions(
            authenticator,
            self._joins.reauthorize,
            self._tickets,
            self._wheel,
            interval=settings.introspection_interval,
            grace=settings.auth_grace,
        )
        self._slow = SlowSockets(
            self._delivery.backlogged,
            self._resyncs,
            stall_timeout=settings.socket_stall_timeout,
            clock=loop.time,
        )
        self._audit = AuditWriter(self._client, settings.control_database)
        self._limits = Limits(settings, metrics, clock=loop.time)
        self._bytes_in_flight = BytesInFlight(settings, metrics)
        self._sockets = Sockets(
            settings,
            authenticator=authenticator,
            joins=self._joins,
            memberships=self._memberships,
            backlogged=self._delivery.backlogged,
            cursors=self._cursors,
            tickets=self._tickets,
            sessions=self._sessions,
            wheel=self._wheel,
            refusal=refusal,
            limits=self._limits,
            budgets=self._bytes_in_flight,
            metrics=metrics,
            ended=noting(self._audit.note),
        )
        self._cluster = ClusterSessions(
            self._process,
            LocalSessions(self._sockets, self._memberships.rooms),
            self._processes,
            Inquiries(self._client, settings.control_database),
            log_out=partial(self._log_out, authenticator),
            metrics=metrics,
        )
        self._probes = Probes(
            {"mongodb": self._mongodb_reachable, "introspection": self._tokens.reachable},
            {"stream": self._stream_current, "parts": self._parts.running},
            clock=loop.time,
        )
        proxies = Proxies(settings.trusted_proxies)
        self._connections = Connections(settings, metrics, self._limits, proxies.trusts)
        self._unread = Quota(
            "unread bytes", metrics, per_address=settings.max_unread_bytes_per_address, error=TooManyBytes
        )
        front = Front(self._http(authenticator), self._sockets, self._connections.ended)
        admission = Admission(front, settings, self._limits, metrics, self._unread)
        self.asgi = Exchanges(admission, metrics, proxies)

    def _wire_changes(self, metrics: Metrics) -> None:
        """The change events' way, from MongoDB to the rooms."""
        settings = self._settings
        history = History(window=settings.history_window, max_bytes=settings.history_bytes)
        self._keyring = Keyring(Keys(self._client, settings.control_database).current)
        self._cursors = Cursors(self._keyring)
        stream = Stream(
            self._stream_client,
            window=settings.history_window,
            tenants=self._directory.all,
            control=settings.control_database,
            metrics=metrics,
        )
        self._progress = progress = Progress(history, stream, metrics)
        self._feed = Feed(
            stream,
            Resolver(Lookups(self._client)),
            history,
            self._wire_rooms(history, progress, metrics),
            progress=progress,
            registry=self._directory,
            control=settings.control_database,
            tenants_changed=self._tenants_changed,
            cover=self._keyring.cover,
            metrics=metrics,
            inquired=self._inquired,
            bounds=self._bounds,
        )
        self._process = process = Process(uuid4().hex, platform.node(), os.getpid(), "")
        self._processes = Processes(self._client, settings.control_database)
        self._lease = Lease(
            progress,
            lambda position: self._processes.beat(replace(process, position=position)),
            lambda: self._processes.end(process.id),
        )

    def _wire_rooms(self, history: History, progress: Progress, metrics: Metrics) -> Fanout:
        """The rooms, and whatever changes who is in them."""
        settings, cursors = self._settings, self._cursors
        snapshots = JoinSnapshots(
            SnapshotBatcher(
                Snapshots(
                    self._client,
                    settings.control_database,
                    self._bounds,
                    most_bytes=settings.max_answer_bytes,
                )
            ),
            history,
            progress,
            lag_bound=settings.stream_lag_bound,
            most_bytes=settings.max_answer_bytes,
            cover=self._keyring.cover,
        )
        # A client may resume within the window, with a ticket that was renewed once an interval.
        reach = settings.history_window + 2 * settings.introspection_interval
        self._tickets = Tickets(self._keyring, history, reach=reach)
        self._memberships = Memberships(Rooms(), metrics=metrics)
        self._delivery = Delivery(cursors, metrics=metrics)
        activation = Activation(history, self._memberships, self._delivery.prepared, self._tickets)
        self._resyncs = Resyncs(
            snapshots,
            activation,
            self._memberships,
            self._delivery,
            cursors,
            most_bytes=settings.max_answer_bytes,
            metrics=metrics,
        )
        self._joins = Joins(
            snapshots,
            history,
            activation,
            self._memberships,
            delivery=self._delivery,
            resyncs=self._resyncs,
            cursors=cursors,
            tickets=self._tickets,
            most_rooms=settings.max_rooms_per_socket,
            most_bytes=settings.max_answer_bytes,
            metrics=metrics,
        )
        return Fanout(self._memberships, self._delivery, self._resyncs, metrics=metrics)

    def _http(self, authenticator: Authenticator) -> Quart:
        settings = self._settings
        return http_app.build(
            http_app.Services(
                settings=settings,
                metrics=self.metrics,
                authenticator=authenticator,
                documents=Documents(self._client, settings.control_database, self._bounds),
                grants=Grants(self._client, settings.control_database),
                batches=Batches(self._client, settings.control_database, self._bounds),
                idempotency=IdempotencyKeys(self._client, settings.control_database),
                processes=self._processes,
                sessions=self._cluster,
                registry=self._registry,
                deletions=Deletions(self._client, settings.control_database),
                audit=AuditLog(self._client, settings.control_database),
                login=self._login,
                limits=self._limits,
                bytes_in_flight=self._bytes_in_flight,
                note=self._audit.note,
                probes=self._probes,
                on_logout=self._logged_out,
                now=_now,
            )
        )

    async def _mongodb_reachable(self) -> bool:
        reply = await self._client.admin.command("hello")
        return bool(reply.get("isWritablePrimary") or reply.get("msg") == "isdbgrid")

    def _stream_current(self) -> bool:
        return self._progress.live and self._progress.lag() <= self._settings.stream_lag_bound

    async def _refresh_tenants(self) -> bool:
        """Read the registry, and try again until it could be read."""
        while True:
            try:
                return await self._directory.refresh()
            except Unavailable as error:
                log.warning("tenants_unreadable", detail=error.detail)
                await asyncio.sleep(_RETRY)

    async def _tenants_changed(self) -> bool:
        changed = await self._refresh_tenants()
        if changed:
            self._sockets.tenants_changed(self._directory.get)
        return changed

    def _logged_out(self, token_id: str | None, login: str | None, tenant: str | None) -> list[str]:
        """Somebody has logged out here: end the sockets of that login, at the other processes too."""
        if tenant is not None and token_id is not None:
            self._cluster.tell(Logout(tenant, token_id, login))
        return self._sessions.logged_out(token_id, login)

    def _log_out(self, authenticator: Authenticator, logout: Logout) -> None:
        """Somebody has logged out at another process."""
        for ended in {logout.token_id, *self._sessions.logged_out(logout.token_id, logout.login)}:
            authenticator.forget(ended)

    def _inquired(self, made: InquiryMade) -> None:
        self._cluster.made(made)

    async def run(self, stop: Callable[[], Awaitable[object]]) -> None:
        """Serve until `stop` returns. A part that dies is started again in place; until then it is not ready."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._client.close)
            stack.push_async_callback(self._stream_client.close)
            stack.push_async_callback(self._audit.aclose)
            stack.push_async_callback(self._issuer.aclose)
            stack.push_async_callback(self._tokens.aclose)
            stack.push_async_callback(self._login.aclose)
            stack.push_async_callback(self._joins.aclose)
            stack.push_async_callback(self._resyncs.aclose)
            stack.push_async_callback(self._sessions.aclose)
            stack.push_async_callback(self._lease.end)
            stack.push_async_callback(self._parts.aclose)
            self._parts.start("changes", self._follow)
            if not await self._opened(stop):
                return
            # Nobody listens before there is an answer to whether it is ready.
            await self._probes.ask()
            self._parts.start("lease", self._lease.run)
            self._parts.start("sealing keys", self._keyring.run)
            self._parts.start("timers", self._wheel.run)
            self._parts.start("probes", self._probes.run)
            self._parts.start("slow sockets", self._slow.run)
            self._parts.start("journal", self._audit.run)
            self._parts.start("cluster", self._cluster.run)
            self._parts.start("logouts", self._cluster.announce)
            self._parts.start("loop lag", LoopLag(self.metrics).run)
            self._parts.start("garbage", collect_often)
            if settings.metrics_bind:
                listener = partial(serve_metrics, self.metrics.registry, settings.metrics_bind, self._limits)
                self._parts.start("metrics", listener)
            log.info("serving", bind=settings.bind, public_url=settings.public_url)
            await self._serve(stop)

    async def _follow(self) -> None:
        await self._refresh_tenants()
        # Before anybody comes with a cursor.
        await self._keyring.cover(Timestamp(0, 0))
        await self._feed.run()

    async def _opened(self, stop: Callable[[], Awaitable[object]]) -> bool:
        """Wait until somebody can be let in. False if it was stopped first."""
        opened = asyncio.create_task(self._ready())
        stopped = asyncio.ensure_future(stop())
        await asyncio.wait({opened, stopped}, return_when=asyncio.FIRST_COMPLETED)
        ready = opened.done()
        await tasks.end([opened, stopped])
        if ready:
            opened.result()
        return ready

    async def _ready(self) -> None:
        """The change stream is open, the other workers have come as far, and everyone can know of this process."""
        await self._progress.opened()
        if self._place is not None:
            await self._place.ready()
        await self._cluster.begin()
        await self._lease.take()

    async def _serve(self, stop: Callable[[], Awaitable[object]]) -> None:
        """Serve requests until the stop."""
        settings = self._settings

        async def stopped() -> None:
            await stop()
            # Hypercorn closes its sockets before the lifespan's shutdown: this is the last moment to say goodbye.
            await self._sockets.drain(settings.shutdown_grace)

        bind = settings.bind if self._place is None else self._place.bind()
        await serve(self.asgi, bind, settings, stopped, connections=self._connections, unread=self._unread)


def _now() -> datetime:
    return datetime.now(UTC)
