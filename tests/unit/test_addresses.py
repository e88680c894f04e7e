"""Where a server may be told to listen, and whether it can."""

from __future__ import annotations

import socket

import pytest

from livedocs import addresses, config

NEEDED = {
    "LIVEDOCS_MONGODB_URI": "mongodb://127.0.0.1:1",
    "LIVEDOCS_PUBLIC_URL": "http://localhost:8000",
    "LIVEDOCS_OAUTH_ISSUER": "http://localhost:8001",
    "LIVEDOCS_OAUTH_CLIENT_ID": "x",
    "LIVEDOCS_OAUTH_CLIENT_SECRET": "x",
    "LIVEDOCS_OAUTH_AUDIENCE": "x",
}


@pytest.mark.parametrize(
    "bind", ["127.0.0.1:8000", "0.0.0.0:0", "localhost:8000", "[::1]:8000", "[::]:65535", "unix:/run/x", "fd://3"]
)
def test_an_address_and_a_port_or_what_stands_for_them(bind):
    assert addresses.problem(bind) is None


@pytest.mark.parametrize(
    "bind", ["8000", "localhost", ":8000", "127.0.0.1:", "a:b", "::1:8000", "h:65536", "unix:", ""]
)
@pytest.mark.parametrize("name", ["LIVEDOCS_BIND", "LIVEDOCS_METRICS_BIND"])
def test_anything_else_is_refused_by_the_settings_name(bind, name):
    if not bind and name == "LIVEDOCS_METRICS_BIND":
        return
    with pytest.raises(config.ConfigurationError) as caught:
        config.load({**NEEDED, name: bind})
    assert any(problem.startswith(f"{name}: ") for problem in caught.value.problems)


def test_a_port_that_somebody_has_is_named_and_a_free_one_is_not():
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        assert addresses.taken(bind) == f"nobody can listen on {bind}: address already in use"
    assert addresses.taken(bind) is None
    assert addresses.taken("unix:/run/livedocs.sock") is None
    assert addresses.taken("192.0.2.1:8000") is not None
