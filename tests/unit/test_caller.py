from __future__ import annotations

import pytest

from livedocs.http.caller import Proxies

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
    assert Proxies(PROXIES).client(peer, forwarded) == address


def test_an_address_that_the_client_wrote_itself_is_not_believed():
    assert Proxies(PROXIES).client("10.0.0.1", ["1.2.3.4, 203.0.113.7"]) == "203.0.113.7"
    assert Proxies(PROXIES).client("203.0.113.7", ["1.2.3.4"]) == "203.0.113.7"
    assert Proxies(()).client("10.0.0.1", ["1.2.3.4"]) == "10.0.0.1"


@pytest.mark.parametrize("forwarded", ["", "unknown", "1.2.3.4:80", "<script>", "1.2.3.4, nonsense"])
def test_what_is_no_address_ends_the_search(forwarded):
    assert Proxies(PROXIES).client("10.0.0.1", [forwarded]) == "10.0.0.1"


@pytest.mark.parametrize("peer", ["", "unix:", "<local>"])
def test_a_peer_without_an_address_is_kept_as_it_is(peer):
    assert Proxies(PROXIES).client(peer, ["1.2.3.4"]) == peer


def test_a_chain_of_thousands_of_made_up_proxies_is_looked_at_for_some_of_its_length_only():
    asked = []

    class Counting(Proxies):
        def trusts(self, address):
            asked.append(address)
            return super().trusts(address)

    chain = ", ".join(["10.0.0.2"] * 20_000)
    assert Counting(PROXIES).client("10.0.0.1", [f"1.2.3.4, {chain}"]) == "10.0.0.2"
    assert len(asked) < 50


def test_a_proxy_over_ipv4_is_known_at_a_socket_for_both():
    assert Proxies(PROXIES).client("::ffff:10.0.0.1", ["203.0.113.7"]) == "203.0.113.7"
