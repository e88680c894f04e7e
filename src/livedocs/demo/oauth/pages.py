"""Pages for people: self-contained, in nobody's frame."""

from __future__ import annotations

import secrets
from typing import Any

from flask import Response, g, make_response, render_template


def page(template: str, status: int, **values: Any) -> Response:
    """A page from a template."""
    g.nonce = secrets.token_urlsafe(12)
    return make_response(render_template(template, nonce=g.nonce, **values), status)


def message(title: str, text: str, status: int) -> Response:
    """A page that says one thing."""
    return page("message.html", status, title=title, text=text)


def secure(response: Response) -> Response:
    """No other site may frame a page, and no page may load anything from anywhere."""
    style = f"'nonce-{g.nonce}'" if "nonce" in g else "'none'"
    # No form-action: browsers apply it to the redirects after a form as well, and those are the application's.
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src {style}; base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault("Cache-Control", "no-store")
    return response
