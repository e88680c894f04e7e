"""The settings for a command, or an end with what is wrong with them."""

from __future__ import annotations

import os

import click

from livedocs import config
from livedocs.errors import ConfigurationError


def load() -> config.Settings:
    """The settings of the environment.

    Raises:
        SystemExit: with `EX_CONFIG` of sysexits.h (78), after a line for each setting that is wrong.
    """
    try:
        return config.load()
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        raise SystemExit(os.EX_CONFIG) from None


def log_errors(settings: config.Settings) -> None:
    """Log for a person at a terminal: only what went wrong, on standard error."""
    from livedocs.telemetry import configure_logging  # noqa: PLC0415 - not needed to report a wrong setting

    configure_logging(settings.model_copy(update={"log_level": "error", "log_format": "console"}))
