"""Where the server listens: an address and a port, a Unix socket (`unix:PATH`) or a descriptor (`fd:NUMBER`)."""

from __future__ import annotations

import re
import socket

_TCP = re.compile(r"(?!unix:|fd:)(\[[0-9A-Fa-f:.%a-z]+\]|[^:\[\]]+):([0-9]{1,5})")
_OTHER = re.compile(r"unix:.+|fd://?[0-9]+|fd:[0-9]+")


def host_and_port(bind: str) -> tuple[str, int] | None:
    """The address and the port; None of whatever else can be listened on."""
    found = _TCP.fullmatch(bind)
    return (found[1].strip("[]"), int(found[2])) if found else None


def problem(bind: str) -> str | None:
    """What is wrong with where to listen, and what to write; None when nothing is."""
    tcp = host_and_port(bind)
    if tcp is None:
        if _OTHER.fullmatch(bind):
            return None
        return "is an address and a port, as 127.0.0.1:8000 or [::1]:8000 (or unix:PATH)"
    return None if tcp[1] <= 65535 else "has a port past 65535"


def taken(bind: str) -> str | None:
    """Why nobody can listen there now; None when somebody can, or where that cannot be tried."""
    tcp = host_and_port(bind)
    if tcp is None:
        return None
    family = socket.AF_INET6 if ":" in tcp[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(tcp)
    except OSError as error:
        # Without the number and the repeated address that some of them carry.
        return f"nobody can listen on {bind}: {(error.strerror or str(error)).lower()}"
    return None
