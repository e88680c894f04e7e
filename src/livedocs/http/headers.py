"""Headers that every answer has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from livedocs.config import is_loopback

# Two years, as the preload lists ask for.
_HSTS = "max-age=63072000; includeSubDomains"


def security_headers(public_url: str) -> Mapping[str, str]:
    """What a browser is told about every answer: nothing from other hosts, no framing, no guessing of types.

    Args:
        public_url: where browsers reach the server; also where the page's WebSocket goes.
    """
    url = urlsplit(public_url)
    # Older Safari does not take 'self' for ws: and wss:.
    socket = f"{'wss' if url.scheme == 'https' else 'ws'}://{url.netloc}"
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self'",
        "connect-src": f"'self' {socket}",
        "manifest-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        # Unless a view says otherwise, nothing here is for a cache: it is somebody's, or changes at any time.
        "Cache-Control": "no-store",
    }
    # On this machine it would force https on every other port of localhost as well.
    if url.scheme == "https" and not is_loopback(url.hostname or ""):
        headers["Strict-Transport-Security"] = _HSTS
    return headers
