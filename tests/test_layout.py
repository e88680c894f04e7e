"""Imports run one way (the design, part 2): an upward arrow or a cycle is a failure here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

IMPORTS: dict[str, str] = {
    # Values, errors and settings.
    "livedocs": "",
    "names": "",
    "addresses": "",
    "mongodb_uri": "",
    "errors": "names",
    "model": "errors names",
    "config": "addresses errors mongodb_uri",
    # What is said of a running process.
    "tracing": "config otel",
    "otel": "errors livedocs tracing",
    "telemetry": "config tracing",
    "exchange": "tracing",
    "runtime": "config telemetry",
    # BSON and JSON, and documents as clients get them.
    "codec": "errors runtime",
    "presentation": "codec model telemetry",
    # None of these three knows the others beyond a Protocol of its own.
    "access": "config errors model names runtime telemetry tracing",
    "changes": "codec errors model presentation runtime telemetry tracing",
    "store": "codec config errors model mongodb_uri names presentation runtime telemetry tracing",
    # The two ways in, which do not know each other.
    "http": "access changes codec config errors exchange livedocs model presentation runtime store telemetry "
    "tracing",
    "live": "access changes codec config errors exchange model presentation runtime store telemetry tracing",
    "cluster": "access changes errors live model store telemetry",
    # What stands at the listening socket tells them apart, and what puts everything together.
    "front": "access config errors exchange http live telemetry",
    "app": "access changes cluster config errors front http live model runtime store telemetry tracing",
    # Commands and the demo put things together from outside; the server knows neither.
    "demo": "config model store telemetry",
    "cli": "access addresses app client codec config demo errors livedocs model mongodb_uri names store telemetry",
    "__main__": "cli",
    # What others import: the client's small face and the core behind it; the plugin of tests.
    "client": "_client model",
    "_client": "codec config errors model runtime",
    "testing": "_client client config demo errors model store",
}
"""What each part of the package imports of the others: all of it, and nothing that it does not."""


def modules(source: Path = SOURCE) -> dict[str, Path]:
    found = {}
    for path in sorted((source / "livedocs").rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def part(module: str) -> str:
    """The part of the design that a module belongs to: a folder, or a file beside them."""
    _, _, rest = module.partition(".")
    return rest.partition(".")[0] or "livedocs"


def imports(module: str, path: Path, known: dict[str, Path], *, lazy: bool = True) -> Iterator[str]:
    """The modules of ours that a file imports; without those inside functions unless `lazy`."""
    tree = ast.parse(path.read_text())
    inside = (
        set() if lazy else {id(node) for node in ast.walk(tree) if _is_deferred(node) for node in ast.walk(node)}
    )
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            # `from livedocs.store import migrate` names a module, `from livedocs.errors import Conflict` does not.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in names]
        else:
            continue
        yield from (name for name in names if name in known)


def _is_deferred(node: ast.AST) -> bool:
    is_for_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return is_for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def upward(source: Path) -> list[str]:
    known = modules(source)
    return [
        f"{module} imports {imported}"
        for module, path in known.items()
        for imported in imports(module, path, known)
        if part(imported) not in {part(module), *IMPORTS[part(module)].split()}
    ]


def cycle(source: Path) -> list[str] | None:
    """Modules that import each other in a ring while they are being imported, or None."""
    known = modules(source)
    arrows = {module: set(imports(module, path, known, lazy=False)) - {module} for module, path in known.items()}
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str] | None:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return None
        for imported in sorted(arrows[module]):
            if ring := visit(imported, [*way, module]):
                return ring
        done.add(module)
        return None

    return next((ring for module in sorted(known) if (ring := visit(module, []))), None)


def test_every_part_of_the_package_has_its_place_in_the_order():
    assert {part(module) for module in modules()} == IMPORTS.keys()


def test_nothing_may_be_imported_that_is_not():
    known = modules()
    found: dict[str, set[str]] = {name: set() for name in IMPORTS}
    for module, path in known.items():
        found[part(module)] |= {part(imported) for imported in imports(module, path, known)} - {part(module)}
    assert found == {name: set(imported.split()) for name, imported in IMPORTS.items()}


def test_no_import_points_upward():
    assert upward(SOURCE) == []


def test_no_modules_import_each_other_in_a_ring():
    assert cycle(SOURCE) is None


def test_only_the_commands_and_the_tests_plugin_know_the_demo():
    known = modules()
    users = {
        part(module)
        for module, path in known.items()
        if any(part(imported) == "demo" for imported in imports(module, path, known))
    }
    assert users <= {"demo", "cli", "testing"}


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("store/rogue.py", "from livedocs.access import acl"),
        ("access/rogue.py", "from livedocs.store.tenants import Tenants"),
        ("changes/rogue.py", "import livedocs.live.rooms"),
        ("http/rogue.py", "def later():\n    from livedocs.demo import people"),
        ("model.py", "from livedocs.app import run"),
    ],
)
def test_an_upward_import_would_be_noticed(tmp_path, where, line):
    for name in ("access/acl", "store/tenants", "live/rooms", "demo/people", "app", Path(where).with_suffix("")):
        path = tmp_path / "livedocs" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "livedocs" / where).write_text(line)
    assert len(upward(tmp_path)) == 1


def test_a_ring_would_be_noticed(tmp_path):
    package = tmp_path / "livedocs"
    package.mkdir()
    (package / "model.py").write_text("from livedocs import errors")
    (package / "errors.py").write_text("from livedocs.config import load")
    (package / "config.py").write_text("import livedocs.model")
    assert cycle(tmp_path) == ["livedocs.config", "livedocs.model", "livedocs.errors", "livedocs.config"]


def test_the_packages_init_files_hold_no_code():
    for path in (SOURCE / "livedocs").rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        allowed = (ast.Expr, ast.Assign)  # a docstring, the version
        assert all(isinstance(node, allowed) for node in body), path
