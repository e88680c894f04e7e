"""The parent of several workers: whom it starts again, when it gives up, what each worker has a part of."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from livedocs.config import PREFIX, Settings, load
from livedocs.errors import ConfigurationError
from livedocs.runtime.workers import Deaths, reserve, share

GIVEN = {
    "public_url": "https://docs.example.com",
    "mongodb_uri": "mongodb://db",
    "oauth_issuer": "https://login.example.com",
    "oauth_client_id": "us",
    "oauth_client_secret": "s",
    "oauth_audience": "us",
}


def settings(**changes):
    return Settings(**{**GIVEN, **changes})


# -- when a worker is started again --


def test_a_worker_that_dies_again_and_again_waits_longer_each_time_and_then_is_given_up():
    deaths = Deaths()
    assert [deaths.after(now) for now in range(5)] == [0.25, 0.5, 1.0, 2.0, None]


def test_deaths_of_long_ago_do_not_count():
    deaths = Deaths()
    for round_ in range(10):
        assert deaths.after(1000.0 * round_) == 0.25


# -- what each has a part of --


def test_the_limits_of_a_server_are_divided_among_its_workers():
    whole = settings(workers=4, max_sockets=1000, max_sockets_per_user=50, limit_events_per_user=100)
    parts = [share(whole, number) for number in range(4)]
    assert {part.max_sockets for part in parts} == {250}
    # Rounded up: nobody's share is nothing.
    assert {part.max_sockets_per_user for part in parts} == {13}
    assert sum(part.limit_events_per_user for part in parts) == 100


def test_every_limit_of_users_tenants_and_addresses_is_divided():
    # Named one by one, so that a new one has to be thought about.
    alone = {"max_document_bytes", "max_message_bytes", "max_rooms_per_socket", "limit_burst"}
    alone |= {"max_shown_bytes", "max_shown_elements", "max_answer_bytes"}
    alone |= {"max_grants_per_uuid", "max_groups"}
    limits = {name for name in Settings.model_fields if name.startswith(("max_", "limit_"))}
    whole = settings(workers=2)
    part = share(whole, 0)
    divided = {name for name in limits if getattr(part, name) < getattr(whole, name)}
    assert divided == limits - alone


def test_no_limit_stays_no_limit():
    assert share(settings(workers=2, limit_requests_per_user=0), 1).limit_requests_per_user == 0


def test_each_worker_has_its_metrics_on_a_port_of_its_own():
    whole = settings(workers=3, metrics_bind="127.0.0.1:9464")
    assert [share(whole, number).metrics_bind for number in range(3)] == [
        "127.0.0.1:9464",
        "127.0.0.1:9465",
        "127.0.0.1:9466",
    ]
    assert share(settings(workers=3, metrics_bind=""), 2).metrics_bind == ""


# -- settings that do not go with workers --


def problems(**changes):
    try:
        load({PREFIX + name.upper(): str(value) for name, value in {**GIVEN, **changes}.items()})
    except ConfigurationError as error:
        return error.problems
    return []


@pytest.mark.parametrize(
    "changes",
    [
        {"bind": "unix:/run/livedocs"},
        {"bind": "fd://3"},
        {"bind": "127.0.0.1"},
        {"metrics_bind": "127.0.0.1:65535"},
        {"metrics_bind": "unix:/run/metrics"},
        {"bind": "127.0.0.1:8001", "metrics_bind": "127.0.0.1:8000"},
    ],
    ids=["a path", "a descriptor", "no port", "too few ports", "a path for metrics", "the public port"],
)
def test_settings_that_do_not_go_with_several_workers_stop_the_start(changes):
    [problem] = problems(workers=2, **changes)
    assert problem.startswith(("LIVEDOCS_BIND: ", "LIVEDOCS_METRICS_BIND: "))


@pytest.mark.parametrize("bind", ["127.0.0.1:8000", "[::1]:8000", "0.0.0.0:0", "localhost:443"])
def test_an_address_with_a_port_goes_with_several_workers(bind):
    assert problems(workers=2, bind=bind) == []
    assert problems(workers=2, bind=bind, metrics_bind="") == []


def test_where_the_kernel_does_not_spread_connections_there_is_one_worker(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    [problem] = problems(workers=2)
    assert problem.startswith("LIVEDOCS_WORKERS: ")
    assert problems(workers=1) == []


# -- the port --


def test_two_servers_with_workers_do_not_share_a_port_by_mistake(free_ports):
    bind = f"127.0.0.1:{free_ports(1)[0]}"
    with reserve(bind), pytest.raises(OSError, match="in use"):
        reserve(bind)
    reserve(bind).close()


def test_a_port_on_which_somebody_listens_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        reserve(f"127.0.0.1:{other.getsockname()[1]}")


def test_the_last_connections_of_an_earlier_server_do_not_keep_its_port():
    with socket.create_server(("127.0.0.1", 0)) as earlier:
        address = earlier.getsockname()
        with socket.create_connection(address) as client:
            accepted, _ = earlier.accept()
            # Who closes first keeps the port of the connection for a minute (TIME_WAIT).
            accepted.close()
            client.recv(1)
    reserve(f"127.0.0.1:{address[1]}").close()


def test_nobody_is_connected_to_a_port_that_is_only_held():
    with reserve("127.0.0.1:0") as held, socket.socket() as client:
        assert client.connect_ex(held.getsockname()) != 0


# -- the parent; in a process of its own, as it forks and takes the signals --

SCRIPT = """
import asyncio, os, pathlib, signal, sys, time
from livedocs.config import Settings
from livedocs.runtime.workers import Supervisor
settings = Settings.model_construct(workers=2, bind="127.0.0.1:0", shutdown_grace={grace})
folder = pathlib.Path({folder!r})
def until(name):
    while not (folder / name).exists():
        time.sleep(0.01)
def tell(name, text=""):
    (folder / (name + "~")).write_text(text)
    (folder / (name + "~")).rename(folder / name)
def wait_for_stop():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.sigwait([signal.SIGTERM])
def work(place):
{work}
sys.exit(Supervisor(settings, work).run())
"""


@pytest.fixture
def supervise(tmp_path):
    """`supervise(work)` runs a parent whose two workers do that, as lines of Python."""
    started = []

    def start(work, grace=0):
        lines = textwrap.indent(textwrap.dedent(work), "    ")
        code = SCRIPT.format(work=lines, folder=str(tmp_path), grace=grace)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process):
    """What the parent has logged, once it has ended, and its exit status."""
    output, _ = process.communicate(timeout=30)
    return output, process.returncode


def test_a_worker_that_cannot_live_is_given_up_and_the_others_are_ended(supervise, tmp_path):
    output, status = said(
        supervise("""
            if place.number == 1:
                raise RuntimeError("no life")
            wait_for_stop()
            tell("drained")
        """)
    )
    assert status == 1
    assert output.count("worker_died") == 4
    assert "worker_given_up" in output
    assert (tmp_path / "drained").exists()


def test_a_worker_that_has_died_is_started_again_under_its_number(supervise, tmp_path):
    process = supervise("""
        tell(f"{place.number}-{os.getpid()}")
        if place.number == 0 and not (folder / "once").exists():
            tell("once")
            os.kill(os.getpid(), signal.SIGKILL)
        if (folder / "once").exists() and place.number == 0:
            tell("again")
        wait_for_stop()
    """)
    wait_for(tmp_path / "again", process)
    process.send_signal(signal.SIGTERM)
    output, status = said(process)
    assert status == 0
    assert output.count("worker_died") == 1
    assert len(list(tmp_path.glob("0-*"))) == 2
    assert len(list(tmp_path.glob("1-*"))) == 1


def wait_for(path, process):
    deadline = time.monotonic() + 20
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def test_nobody_listens_until_all_are_ready(supervise, tmp_path):
    process = supervise("""
        if place.number == 1:
            until("late")
            # Slow, so that the other one would be seen to be ahead.
            time.sleep(0.3)
            tell("ready too")
        asyncio.run(place.ready())
        assert (folder / "ready too").exists()
        tell(f"released-{place.number}")
        wait_for_stop()
    """)
    while "worker_ready" not in process.stdout.readline():
        assert process.poll() is None
    (tmp_path / "late").touch()
    for number in (0, 1):
        wait_for(tmp_path / f"released-{number}", process)
    process.send_signal(signal.SIGINT)
    output, status = said(process)
    assert (status, "worker_died" in output) == (0, False)


def test_a_worker_that_does_not_end_in_its_time_is_killed_and_the_status_says_so(supervise, tmp_path):
    process = supervise(
        """
        if place.number == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            tell("deaf")
            time.sleep(600)
        wait_for_stop()
        """,
        grace=-14.5,
    )
    wait_for(tmp_path / "deaf", process)
    process.send_signal(signal.SIGTERM)
    output, status = said(process)
    assert status == 1
    assert "worker_not_ended_in_order" in output


def test_a_stop_while_the_workers_are_still_starting_is_in_order(supervise, tmp_path):
    process = supervise("""
        tell(f"starting-{place.number}")
        time.sleep(600)
    """)
    for number in (0, 1):
        wait_for(tmp_path / f"starting-{number}", process)
    process.send_signal(signal.SIGTERM)
    assert said(process)[1] == 0


def test_nothing_is_left_of_a_parent_that_is_killed(supervise, tmp_path):
    process = supervise("""
        tell(f"pid-{place.number}", str(os.getpid()))
        time.sleep(600)
    """)
    for number in (0, 1):
        wait_for(tmp_path / f"pid-{number}", process)
    pids = [int((tmp_path / f"pid-{number}").read_text()) for number in (0, 1)]
    process.kill()
    # Their end of the pipe is closed when the last of them has ended.
    assert said(process)[1] == -signal.SIGKILL
    assert not any(Path(f"/proc/{pid}/fd/1").exists() for pid in pids)
