"""The route table, from the code, and the worst requests that can be made up from the description."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

from livedocs import config
from livedocs.http import app as http_app
from livedocs.http.app import Services
from livedocs.telemetry import Metrics
from stall.worst import MIB, SHAPES, bodies, header_values, queries

_VARIABLE = re.compile(r"<(?:[^:<>]*:)?([^<>]+)>")
# What the server takes of a request line and its headers, or nearly.
_HEAD = 14 * 1024
_SETTINGS = {
    "LIVEDOCS_PUBLIC_URL": "http://localhost:1",
    "LIVEDOCS_MONGODB_URI": "mongodb://localhost:1",
    "LIVEDOCS_OAUTH_ISSUER": "http://localhost:1",
    "LIVEDOCS_OAUTH_CLIENT_ID": "x",
    "LIVEDOCS_OAUTH_CLIENT_SECRET": "x",
    "LIVEDOCS_OAUTH_AUDIENCE": "x",
}


def table() -> list[str]:
    """Every method and path of the application, as the description writes them."""
    services = {name: Mock() for name in Services.__dataclass_fields__}
    services |= {"settings": config.load(_SETTINGS), "metrics": Metrics()}
    app = http_app.build(Services(**services))
    return sorted(
        " ".join((method, _VARIABLE.sub(r"{\1}", rule.rule)))
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in {"HEAD", "OPTIONS"} and not rule.websocket
    )


@dataclass(frozen=True, slots=True)
class Made:
    """A request that was made up."""

    method: str
    path: str
    body: bytes | None = None
    kind: str = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)


def requests(label: str, description: Mapping[str, Any], values: Mapping[str, str]) -> Iterator[Made]:
    """The worst requests of a route.

    Args:
        label: its method and path.
        description: the server's OpenAPI document.
        values: of the parameters in paths.
    """
    method, _, pattern = label.partition(" ")
    operation = description["paths"].get(pattern, {}).get(method.lower(), {})
    path = re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], str(uuid4())), pattern)
    named: dict[str, list[str]] = {"query": [], "header": [], "path": []}
    for parameter in operation.get("parameters", ()):
        named[parameter["in"]].append(parameter["name"])
    yield from _heads(method, path, named)
    yield from _paths(method, pattern, named["path"])
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield from (Made(method, path, body, kind) for body in _bodies(kind, content.get("example")))


def _heads(method: str, path: str, named: Mapping[str, list[str]]) -> Iterator[Made]:
    for query in queries(named["query"], _HEAD - 1000):
        yield Made(method, f"{path}?{query}")
    for name in (*named["header"], "Cookie"):
        for value in header_values(_HEAD - 1000):
            yield Made(method, path, headers=[(name, value)])
    many = [(f"X-{number:x}", "") for number in range(_HEAD // 9)]
    yield Made(method, path, headers=many)
    yield Made(method, path, headers=[(name, '"x"') for name in (*named["header"], "X") for _ in range(300)])
    # More than is taken.
    yield Made(method, f"{path}?{'a' * 200_000}")


def _paths(method: str, pattern: str, names: list[str]) -> Iterator[Made]:
    for name in names:
        for value in ("%F0%9F%98%80" * 1000, ":" * 12_000):
            path = pattern.replace(f"{{{name}}}", value)
            yield Made(method, re.sub(r"\{\w+\}", "notes", path))


def _bodies(kind: str, example: Any) -> Iterator[bytes]:
    is_lines = isinstance(example, str)
    if is_lines:
        example = json.loads(example.split("\n")[0])
    for name in ("empty_lists", "names"):
        yield SHAPES[name](16 * MIB).encode()
    if is_lines:
        # A line each. More of them take longer, and are the same again and again.
        for line in (b"[]", b"{}", b"", b"x", b'{"document":{}}'):
            yield (line + b"\n") * (MIB // 16 // (len(line) + 1))
    for _, body in bodies(example, 3 * MIB):
        yield body
