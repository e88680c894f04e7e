"""Which routes and events have a worst case of their own, beside those that are made up from the description."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., object])

WORST: dict[str, list[str]] = {}
"""The tests by the route or event that they are the worst of."""

PLAIN = frozenset(
    {
        *("GET /healthz", "GET /readyz", "GET /openapi.json", "GET /asyncapi.json", "GET /docs", "GET /docs.css"),
        *("GET /docs/socket", "GET /auth/login", "GET /auth/callback", "POST /auth/refresh", "POST /auth/logout"),
        *("GET /auth/session", "GET /v1/me", "GET /v1/admin/tenants", "POST /v1/admin/tenants"),
        *("GET /v1/admin/tenants/{slug}", "DELETE /v1/admin/tenants/{slug}"),
        *("PUT /v1/admin/tenants/{slug}/limits", "POST /v1/admin/tenants/{slug}:suspend"),
        *("POST /v1/admin/tenants/{slug}:resume", "DELETE /v1/admin/tenants/{slug}/services/{client_id}"),
        "GET /v1/docs/{collection}:import",
        "connect",
    }
)
"""Of these the worst is what is made up: what a caller sends and what they answer with are both short."""


def worst(*_labels: str) -> Callable[[Test], Test]:
    """Say of which routes or events a test has the worst input; `load` reads it."""
    return lambda test: test


def load() -> None:
    """Read the marks of all tests, whether or not they are part of this run."""
    for path in Path(__file__).parents[1].glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for label in _labels(node):
                    WORST.setdefault(label, []).append(node.name)


def _labels(test: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [
        str(argument.value)
        for mark in test.decorator_list
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "worst"
        for argument in mark.args
        if isinstance(argument, ast.Constant)
    ]
