"""A running server, asked over HTTP by a command."""

from __future__ import annotations

import os
from typing import Any

import click
import httpx

from livedocs.cli.repositories import Unreachable

_SECONDS = 60.0

url = click.option("--url", default="http://localhost:8000", show_default=True, help="The server.")
token = click.option(
    "--token", envvar="LIVEDOCS_TOKEN", required=True, help="An access token.  [env: LIVEDOCS_TOKEN]"
)


class NotPermitted(click.ClickException):
    """The token is not one with which this can be done."""

    exit_code = os.EX_NOPERM


def ask(client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    """The JSON of the server's answer, None where it has none.

    Raises:
        ClickException: why the server refuses; `NotPermitted` for the token's sake, `Unreachable` when it does not
            answer or cannot at present.
    """
    try:
        answer = client.request(method, path, **options)
    except httpx.HTTPError as error:
        raise Unreachable(f"{client.base_url}: {error or type(error).__name__}") from None
    if answer.is_success:
        return answer.json() if answer.content else None
    try:
        problem = answer.json()
        told = f"{problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        told = f"status {answer.status_code}"
    if answer.status_code in {401, 403}:
        raise NotPermitted(told)
    if answer.status_code >= 500:
        raise Unreachable(told)
    raise click.ClickException(told)


def connect(url: str, token: str) -> httpx.Client:
    """A client for the server, which speaks with that token."""
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=_SECONDS)
