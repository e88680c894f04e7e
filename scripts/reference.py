"""Write the tables of the reference pages from the code: settings, errors, metrics, reasons, commands.

    python scripts/reference.py           writes them
    python scripts/reference.py --check   only says whether they are as they would be written

A page is text with tables between `<!-- begin NAME -->` and `<!-- end NAME -->`; what stands around them is kept.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from prometheus_client import Counter, Histogram
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from livedocs import config, errors
from livedocs.cli.main import main as main_command
from livedocs.http.socket_schemas import FINAL, GOAWAY, RESYNC, REVOKED
from livedocs.telemetry import Metrics

DOCS = Path(__file__).parents[1] / "docs"


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def settings() -> str:
    """Every setting in the order of the code."""
    return table(
        ("Variable", "Default", "Allowed", "Meaning"), map(_setting, config.Settings.model_fields.items())
    )


def _setting(item: tuple[str, FieldInfo]) -> Sequence[str]:
    name, field = item
    default = "**required**" if field.is_required() else _literal(field.default)
    return f"`{config.PREFIX}{name.upper()}`", default, _allowed(field), field.description or ""


def _literal(value: Any) -> str:
    if value is None or value in ("", (), SecretStr("")):
        return "empty"
    return (
        f"`{' '.join(value) if isinstance(value, tuple) else f'{value:g}' if isinstance(value, float) else value}`"
    )


def _allowed(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if kind is SecretStr:
        return "text, kept secret"
    bounds = {
        sign: getattr(limit, name)
        for limit in field.metadata
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if hasattr(limit, name)
    }
    words = {float: "number", int: "whole number", str: "text"}.get(kind, "") if isinstance(kind, type) else ""
    if get_origin(kind) is tuple:
        words = "words, spaces or commas between"
    limits = [
        f"{sign} {bound:g}" if isinstance(bound, float) else f"{sign} {bound}" for sign, bound in bounds.items()
    ]
    return ", ".join([words or "path", *limits])


def error_codes() -> str:
    """Every code with its status, in the order of the tree."""
    return table(("Code", "HTTP", "On a socket", "Meaning"), map(_error, _tree(errors.LivedocsError)))


def _tree(kind: type[errors.LivedocsError]) -> Iterator[type[errors.LivedocsError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _tree(child)


def _error(kind: type[errors.LivedocsError]) -> Sequence[str]:
    meaning = " ".join((kind.__doc__ or "").split())
    return f"`{kind.code}`", str(kind.status), f"`{kind.on_socket()}`", meaning


def metrics() -> str:
    """Every metric as Prometheus sees it."""
    found = (value for value in vars(Metrics()).values() if hasattr(value, "describe") and hasattr(value, "_name"))
    return table(("Metric", "Type", "Labels", "Meaning"), map(_metric, found))


def _metric(metric: Any) -> Sequence[str]:
    (family,) = metric.describe()
    # Prometheus adds the ending to a counter, and three to a histogram.
    name = family.name + {Counter: "_total", Histogram: "_bucket"}.get(type(metric), "")
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - there is no public way
    return f"`{name}`", family.type, labels, family.documentation


def reasons() -> str:
    """Every reason on a socket with the event it comes with."""
    return table(("Reason", "Of", "Meaning"), _reasons())


def _reasons() -> Iterator[Sequence[str]]:
    for event, meanings in (("$revoked", REVOKED), ("$resync", RESYNC), ("$goaway", GOAWAY)):
        for reason, meaning in meanings.items():
            of = f"`{event}`, final" if event == "$goaway" and reason in FINAL else f"`{event}`"
            yield f"`{reason}`", of, meaning


def commands() -> str:
    """Every command as its own help describes it."""
    return "\n\n".join(_command(path, command) for path, command in leaves(main_command))


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The commands that do something, each with the words behind `livedocs` that call it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None:
            yield from leaves(found, (*path, name))


def _command(path: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(("livedocs", *path)))
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    paragraphs = [" ".join(text.split()) for text in (command.help or "").split("\n\n")]
    options = [
        record
        for option in command.params
        if isinstance(option, click.Option) and (record := option.get_help_record(context)) is not None
    ]
    shown = table(("Option", "Meaning"), ((f"`{name}`", meaning) for name, meaning in options))
    return "\n\n".join(
        [f"### livedocs {' '.join(path)}", *paragraphs, f"```text\n{usage}\n```", *([shown] if options else [])]
    )


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "settings": ("settings.md", settings),
    "errors": ("errors.md", error_codes),
    "metrics": ("metrics.md", metrics),
    "reasons": ("socket-protocol.md", reasons),
    "commands": ("cli.md", commands),
}


def written(name: str, text: str) -> str:
    """The page with its table as the code has it now.

    Raises:
        ValueError: the page has no place for it.
    """
    block = f"<!-- begin {name} -->\n{TABLES[name][1]()}\n<!-- end {name} -->"
    text, count = re.subn(rf"<!-- begin {name} -->.*?<!-- end {name} -->", lambda _: block, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"no single place for the table {name}")
    return text


def main() -> int:
    """Write or check, as the arguments say."""
    stale = []
    for name, (file, _) in TABLES.items():
        page = DOCS / file
        before = page.read_text(encoding="utf-8")
        after = written(name, before)
        if after == before:
            continue
        stale.append(file)
        if "--check" not in sys.argv[1:]:
            page.write_text(after, encoding="utf-8")
    print(f"changed: {', '.join(stale)}" if stale else "nothing has changed")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
