"""Several server processes on one port: a parent that starts them, starts again what dies, and ends them all.

Every worker is a whole server with a change stream of its own. Each has a listening socket of its own as well, and
the kernel spreads connections over those by their addresses (socket(7), `SO_REUSEPORT`). One socket that all
workers share would leave that to haste: asyncio takes everything that waits in the queue at once, so after a
disconnection of many the first worker awake would get all of them, and a WebSocket stays where it is. And a worker
that is dead, or not ready yet, has no socket: nobody is sent to it.

The parent serves nothing. It has no threads and no event loop, so that it can fork at any time.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from livedocs.config import Settings
from livedocs.telemetry import get_logger

log = get_logger(__name__)

_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
# As many deaths of one worker in so many seconds are no accident: somebody has to look.
_MOST_DEATHS = 5
_DEATHS_SECONDS = 120.0
_BACKOFF_FIRST, _BACKOFF_MOST = 0.25, 8.0
# Seconds that a worker may take for its end beyond `LIVEDOCS_SHUTDOWN_GRACE`.
_LAST_SECONDS = 15.0

_READY, _GO = b"r", b"g"


class Deaths:
    """When a worker is started again, and when that is no use any more. Pure; the clock is passed in."""

    def __init__(self) -> None:
        # At most `_MOST_DEATHS` of them.
        self._times: deque[float] = deque()

    def after(self, now: float) -> float | None:
        """The seconds to wait after a death; None when there were too many."""
        while self._times and self._times[0] <= now - _DEATHS_SECONDS:
            self._times.popleft()
        self._times.append(now)
        if len(self._times) >= _MOST_DEATHS:
            return None
        return float(min(_BACKOFF_MOST, _BACKOFF_FIRST * 2 ** (len(self._times) - 1)))


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker knows of its place among the others.

    Attributes:
        number: from 0 on; a worker that takes the place of a dead one has its number.
        address: the address and port that all share.
        parent: the way to the parent, non-blocking.
    """

    number: int
    address: tuple[str, int]
    parent: socket.socket

    async def ready(self) -> None:
        """Say so, and wait for the others: at the start all of them begin to listen together.

        Else the first one would get everybody who is waiting for the server.
        """
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.parent, _READY)
        await loop.sock_recv(self.parent, 1)

    def bind(self) -> str:
        """A listening socket of its own on the shared port, as Hypercorn takes it."""
        listening = _socket(self.address[0])
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(self.address)
        return f"fd://{listening.detach()}"


@dataclass(slots=True)
class _Worker:
    """One of the processes, as its parent sees it."""

    number: int
    pid: int = 0
    channel: socket.socket | None = None
    ready: bool = False
    deaths: Deaths = field(default_factory=Deaths)
    # When it is to be started again; None while it lives.
    due: float | None = 0.0


class Supervisor:
    """Keeps so many workers alive until SIGTERM or SIGINT.

    Args:
        settings: of the server; `bind` and `workers` count here.
        work: what a worker does, in a process of its own; it returns when the worker has been stopped.
    """

    def __init__(self, settings: Settings, work: Callable[[Place], None]) -> None:
        self._settings = settings
        self._work = work
        self._workers = [_Worker(number) for number in range(settings.workers)]
        self._stack = ExitStack()
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        self._address = ("", 0)
        # Whether all have been ready once: from then on each listens as soon as it can.
        self._open = False
        self._stopping = False
        self._status = 0

    def run(self) -> int:
        """Supervise to the end.

        Returns:
            The exit status: 0 after a stop in order, 1 when a worker could not be kept alive or did not end well.

        Raises:
            OSError: the port is taken, or the address is not one of this machine.
        """
        with self._stack:
            reserved = self._stack.enter_context(reserve(self._settings.bind))
            self._address = reserved.getsockname()[:2]
            wakeup = self._catch_signals()
            log.info("supervising", workers=len(self._workers), bind=self._settings.bind)
            deadline = math.inf
            while not (self._stopping and not any(worker.pid for worker in self._workers)):
                if self._stopping and deadline == math.inf:
                    deadline = time.monotonic() + self._settings.shutdown_grace + _LAST_SECONDS
                if time.monotonic() >= deadline:
                    self._kill(signal.SIGKILL)
                    deadline = time.monotonic() + _LAST_SECONDS
                self._start_due()
                for key, _ in self._selector.select(self._patience(deadline)):
                    if key.fileobj is wakeup:
                        self._signalled(wakeup)
                    else:
                        self._heard(key.data)
                self._reap()
        return self._status

    # -- signals --

    def _catch_signals(self) -> socket.socket:
        """Have signals arrive as bytes, between two steps and not in the middle of one."""
        wakeup, written = socket.socketpair()
        for end in (wakeup, written):
            end.settimeout(0)
            self._stack.enter_context(end)
        # A handler of ours has to be there, or the signal does what it does by default.
        before = [(name, signal.signal(name, lambda *_: None)) for name in _SIGNALS]
        previous = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        self._stack.callback(lambda: [signal.signal(name, handler) for name, handler in before])
        self._stack.callback(signal.set_wakeup_fd, previous)
        self._selector.register(wakeup, selectors.EVENT_READ)
        return wakeup

    def _signalled(self, wakeup: socket.socket) -> None:
        if {signal.SIGTERM, signal.SIGINT}.intersection(wakeup.recv(4096)) and not self._stopping:
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        log.info("stopping", workers=sum(bool(worker.pid) for worker in self._workers))
        for worker in self._workers:
            worker.due = None
        self._kill(signal.SIGTERM)

    def _kill(self, name: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                # It is not reaped yet, so the number is still its own.
                os.kill(worker.pid, name)

    def _patience(self, deadline: float) -> float | None:
        """Seconds until something is due by itself."""
        due = min((worker.due for worker in self._workers if worker.due is not None), default=math.inf)
        until = min(due, deadline)
        return None if until == math.inf else max(0.0, until - time.monotonic())

    # -- workers --

    def _start_due(self) -> None:
        for worker in self._workers:
            if worker.due is not None and worker.due <= time.monotonic():
                worker.due = None
                self._start(worker)

    def _start(self, worker: _Worker) -> None:
        ours, theirs = socket.socketpair()
        # Until the worker has its own handlers no signal may reach it: ours would take it for the parent's.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._become(Place(worker.number, self._address, theirs), parent)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            theirs.close()
        ours.settimeout(0)
        worker.pid, worker.channel, worker.ready = pid, ours, False
        self._selector.register(ours, selectors.EVENT_READ, worker)
        log.info("worker_started", worker=worker.number, pid=pid)

    def _become(self, place: Place, parent: int) -> None:
        """Be the worker, and end with it. Never returns."""
        status = 1
        try:
            # Nothing outlives the parent, not even if that is killed: it would keep the port, and nobody ends it.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                return
            signal.set_wakeup_fd(-1)
            for name in _SIGNALS:
                signal.signal(name, signal.SIG_DFL)
            for worker in self._workers:
                if worker.channel is not None:
                    worker.channel.close()
            self._stack.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            place.parent.settimeout(0)
            self._work(place)
            status = 0
        except BaseException:
            log.exception("worker_failed", worker=place.number)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not by an exception: what the parent has yet to do on its way out is not the worker's to do.
            os._exit(status)

    def _heard(self, worker: _Worker) -> None:
        """A worker is ready; or its end of the channel is closed, which its death will explain."""
        if worker.channel is None:
            return
        try:
            said = worker.channel.recv(1)
        except OSError:
            said = b""
        if said != _READY:
            self._selector.unregister(worker.channel)
            worker.channel.close()
            worker.channel = None
            return
        worker.ready = True
        log.info("worker_ready", worker=worker.number, pid=worker.pid)
        if self._open:
            _release(worker)
        elif all(other.ready for other in self._workers):
            self._open = True
            for other in self._workers:
                _release(other)

    def _reap(self) -> None:
        for worker in self._workers:
            if not worker.pid:
                continue
            pid, encoded = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._ended(worker, os.waitstatus_to_exitcode(encoded))

    def _ended(self, worker: _Worker, status: int) -> None:
        """A worker is dead: as it was told, or to be started again."""
        told = {"worker": worker.number, "pid": worker.pid, "status": status}
        # One that was still starting may not have been able to end in order yet.
        in_order = status == 0 or (status == -signal.SIGTERM and not worker.ready)
        worker.pid, worker.ready = 0, False
        if worker.channel is not None:
            self._selector.unregister(worker.channel)
            worker.channel.close()
            worker.channel = None
        if self._stopping:
            if not in_order:
                self._status = 1
                log.error("worker_not_ended_in_order", **told)
            return
        wait = worker.deaths.after(time.monotonic())
        if wait is None:
            log.error("worker_given_up", **told, deaths=_MOST_DEATHS)
            self._status = 1
            self._stop()
            return
        if in_order:
            # Somebody has told this one to end: a new one takes its place.
            log.info("worker_ended", **told, starting_again_in=wait)
        else:
            log.error("worker_died", **told, starting_again_in=wait)
        worker.due = time.monotonic() + wait


def _release(worker: _Worker) -> None:
    if worker.channel is not None:
        # One that has died in the meantime is not told; its death is dealt with where it is noticed.
        with suppress(OSError):
            worker.channel.send(_GO)


def reserve(bind: str) -> socket.socket:
    """Hold a port for this server's workers, without listening on it.

    Raises:
        OSError: somebody else has it, another server with workers included; else two servers could share a port by
            mistake, and each would get half of the connections.
    """
    address = _address(bind)
    if address[1]:
        with _socket(address[0]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    held = _socket(address[0])
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind(address)
        except OSError:
            # What is left of the connections of an earlier server of one process. Not tried at first: another
            # server's probe is not turned away from a port that is held so, until somebody listens.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(address)
    except OSError:
        held.close()
        raise
    return held


def _address(bind: str) -> tuple[str, int]:
    """Host and port, read as Hypercorn reads them."""
    host, _, port = bind.replace("[", "").replace("]", "").rpartition(":")
    return host, int(port)


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


# -- what each has a part of --


# The beginnings of the names of the settings that bound a whole server.
_DIVIDED = ("max_sockets", "max_waiting", "max_connections", "max_unread", "max_bytes_in_flight", "max_imports")


def share(settings: Settings, number: int) -> Settings:
    """The settings of one worker.

    What limits a server is divided among its workers, so that more workers never mean more for one user or
    address; rounded up, so that nobody's share is nothing. Its metrics are on a port of its own.
    """
    parts = settings.workers
    changed: dict[str, object] = {}
    for name in type(settings).model_fields:
        whole = getattr(settings, name)
        if name.startswith(_DIVIDED):
            changed[name] = math.ceil(whole / parts)
        elif name.startswith("limit_") and "_per_" in name:
            changed[name] = whole / parts
    if settings.metrics_bind:
        host, _, port = settings.metrics_bind.rpartition(":")
        changed["metrics_bind"] = f"{host}:{int(port) + number}"
    return settings.model_copy(update=changed)
