"""Log events are names with fields, not sentences: they can be searched for, counted and alerted on."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "livedocs"
# The client logs through `logging`, as libraries do, and the demo's provider writes an access log.
OTHERS = ("_client", "client.py", "demo")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def events(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node:
            case ast.Call(
                func=ast.Attribute(ast.Name("log" | "_log"), level), args=[ast.Constant(str() as name), *_]
            ):
                if level in LEVELS:
                    yield name
            case ast.Call(func=ast.Name("log_failure"), args=[_, ast.Constant(str() as name), *_]):
                yield name


def test_every_log_event_has_a_name():
    found = {
        name: path
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] not in OTHERS
        for name in events(ast.parse(path.read_text()))
    }
    assert len(found) > 50
    assert {name: path for name, path in found.items() if not re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", name)} == {}


def test_a_sentence_would_be_noticed():
    assert list(events(ast.parse('log.info("the stream has ended", n=1)'))) == ["the stream has ended"]
