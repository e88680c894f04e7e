"""The built front end, served at `/`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from quart import Blueprint, Response, send_file
from quart.typing import ResponseTypes
from quart_schema import hide

# A build puts a hash of the contents into the name, so such a file never changes.
_HASHED = re.compile(r"-[A-Za-z0-9_-]{8,}\.[a-z0-9]+\Z")
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_FIRST = "no-cache"

# Named here, because what the machine's own table says about .js differs from machine to machine. Text gets its
# charset, UTF-8, from the framework.
_TYPES: Mapping[str, str] = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}


def blueprint(folder: Path) -> Blueprint:
    """A route for each file of the folder, `index.html` at `/`.

    The files are listed once, at start: a path of a request is looked up among them and never joined to a folder.
    """
    routes = Blueprint("static", __name__)
    for path, file in files(folder).items():
        routes.add_url_rule(path, f"page {path}".replace(".", "_"), _view(file), methods=["GET"])
    return routes


def files(folder: Path) -> dict[str, Path]:
    """The files to serve by URL path: no hidden ones, none outside the folder, none of an unknown type."""
    root = folder.resolve()
    found = {}
    for file in sorted(root.rglob("*")):
        relative = file.relative_to(root)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or not file.is_file() or file.suffix not in _TYPES or not file.resolve().is_relative_to(root):
            continue
        path = "/" if relative == Path("index.html") else f"/{relative.as_posix()}"
        found[path] = file
    return found


def _view(file: Path) -> Callable[[], Awaitable[ResponseTypes]]:
    lasting = _FOR_EVER if _HASHED.search(file.name) else _ASK_FIRST

    @hide
    async def page() -> ResponseTypes:
        response: Response = await send_file(file, mimetype=_TYPES[file.suffix], conditional=True)
        response.headers["Cache-Control"] = lasting
        return response

    return page
