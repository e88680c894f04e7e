"""The settings for a command, or an end with what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from livedocs import addresses, config
from livedocs.errors import ConfigurationError


def load(**options: Any) -> config.Settings:
    """The settings of the environment, or of the command line where they are given there.

    Raises:
        SystemExit: with `EX_CONFIG` of sysexits.h (78), after a line for each setting that is wrong.
    """
    try:
        return config.load(**options)
    except ConfigurationError as error:
        _refuse(error.problems)


def listen(settings: config.Settings) -> None:
    """See whether the server can listen where it is to, before anything else is begun.

    Raises:
        SystemExit: as `load` has it.
    """
    where = {"BIND": settings.bind, "METRICS_BIND": settings.metrics_bind}
    problems = {name: addresses.taken(bind) for name, bind in where.items() if bind}
    found = [f"{config.PREFIX}{name}: {complaint}" for name, complaint in problems.items() if complaint]
    if found:
        _refuse(found)


def _refuse(problems: Sequence[str]) -> NoReturn:
    for problem in problems:
        click.echo(problem, err=True)
    raise SystemExit(os.EX_CONFIG)


def log_errors(settings: config.Settings) -> None:
    """Log for a person at a terminal: only what went wrong, on standard error."""
    from livedocs.telemetry import configure_logging  # noqa: PLC0415 - not needed to report a wrong setting

    configure_logging(settings.model_copy(update={"log_level": "error", "log_format": "console"}))
