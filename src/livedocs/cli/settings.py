"""The settings for a command, or an end with what is wrong with them."""

from __future__ import annotations

import os
from typing import Any

import click

from livedocs import config
from livedocs.errors import ConfigurationError


def load(**options: Any) -> config.Settings:
    """The settings of the environment, or of the command line where they are given there.

    Raises:
        SystemExit: with `EX_CONFIG` of sysexits.h (78), after a line for each setting that is wrong.
    """
    try:
        return config.load(**options)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        raise SystemExit(os.EX_CONFIG) from None


def log_errors(settings: config.Settings) -> None:
    """Log for a person at a terminal: only what went wrong, on standard error."""
    from livedocs.telemetry import configure_logging  # noqa: PLC0415 - not needed to report a wrong setting

    configure_logging(settings.model_copy(update={"log_level": "error", "log_format": "console"}))
