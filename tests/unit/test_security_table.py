"""docs/security.md: every line has a place and tests, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"
LINES = range(1, 53)

ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
NAMED = re.compile(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/.]+)\)")


def rows() -> dict[int, tuple[str, str]]:
    return {int(number): (place, tests) for number, _, place, tests in ROW.findall(PAGE.read_text())}


def collected(path: Path) -> set[str]:
    """The tests that pytest would collect from a file."""
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_line_of_the_list_is_in_the_table_once_and_in_order():
    assert [int(number) for number, *_ in ROW.findall(PAGE.read_text())] == list(LINES)


def test_every_line_names_a_test_and_every_test_it_names_exists():
    for number, (_, tests) in rows().items():
        named = NAMED.findall(tests)
        assert named, f"line {number} names no test"
        assert not NAMED.sub("", tests).strip(), f"line {number} has more than links to tests"
        for name, path in named:
            assert name in collected(ROOT / path), f"line {number}: {path} has no {name}"


def test_every_test_that_the_page_names_elsewhere_exists_too():
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > len(LINES)
    for name, path in named:
        assert name in collected(ROOT / path), f"{path} has no {name}"


def test_every_line_names_where_it_is_handled_and_that_exists():
    for number, (place, _) in rows().items():
        files = re.findall(r"`([\w/]+\.py)`", place)
        assert files, f"line {number} names no module"
        for file in files:
            assert (ROOT / "src" / "livedocs" / file).is_file(), f"line {number}: there is no {file}"


def test_a_test_named_after_a_line_is_in_that_line():
    table = rows()
    for path in sorted((ROOT / "tests" / "security").rglob("test_*.py")):
        for name in collected(path):
            found = re.match(r"test_lines?_((?:\d\d_and_)*\d\d)_", name)
            for number in map(int, found.group(1).split("_and_") if found else ()):
                assert name in table[number][1], f"{name} is missing from line {number}"
