from __future__ import annotations

import pytest

from livedocs.http.caller import client_address

PROXIES = ("10.0.0.0/8", "127.0.0.1", "fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7", "10.0.0.2"], "203.0.113.7"),
        ("fd00::1", ["2001:db8::5"], "2001:db8::5"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
    ],
)
def test_the_client_is_the_first_address_behind_the_trusted_proxies(peer, forwarded, address):
    assert client_address(peer, forwarded, PROXIES) == address


def test_an_address_that_the_client_wrote_itself_is_not_believed():
    assert client_address("10.0.0.1", ["1.2.3.4, 203.0.113.7"], PROXIES) == "203.0.113.7"
    assert client_address("203.0.113.7", ["1.2.3.4"], PROXIES) == "203.0.113.7"
    assert client_address("10.0.0.1", ["1.2.3.4"], ()) == "10.0.0.1"


@pytest.mark.parametrize("forwarded", ["", "unknown", "1.2.3.4:80", "<script>", "1.2.3.4, nonsense"])
def test_what_is_no_address_ends_the_search(forwarded):
    assert client_address("10.0.0.1", [forwarded], PROXIES) == "10.0.0.1"


@pytest.mark.parametrize("peer", ["", "unix:", "<local>"])
def test_a_peer_without_an_address_is_kept_as_it_is(peer):
    assert client_address(peer, ["1.2.3.4"], PROXIES) == peer
