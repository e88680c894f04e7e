"""The `livedocs` command. What a command needs is imported inside it: nobody waits for parts that stay unused."""

from __future__ import annotations

import importlib
import keyword
from pathlib import Path
from typing import Any

import click

from livedocs import __version__

_ELSEWHERE = {
    "audit": "livedocs.cli.audit",
    "completion": "livedocs.cli.completion",
    "sessions": "livedocs.cli.sessions",
    "tenant": "livedocs.cli.tenants",
    "grant": "livedocs.cli.grants",
    "import": "livedocs.cli.imports",
    "doctor": "livedocs.cli.doctor",
    "keys": "livedocs.cli.keys",
    "watch": "livedocs.cli.watch",
}
"""Commands and the modules that define them, under the same name."""


class _Commands(click.Group):
    """A group whose larger commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        # `import` is a word of the language: its function is `import_`.
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(importlib.import_module(_ELSEWHERE[cmd_name]), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="livedocs")
def main() -> None:
    """MongoDB documents, live in the browser, for those who may see them.

    `livedocs demo` starts everything on this machine. The other commands read their settings from LIVEDOCS_*
    environment variables.
    """


@main.command()
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Number of processes that share the port.  [env: LIVEDOCS_WORKERS; default: 1]",
)
def serve(workers: int | None) -> None:
    """Run the server until SIGTERM or SIGINT."""
    from livedocs.cli.settings import listen, load  # noqa: PLC0415

    settings = load(**({} if workers is None else {"workers": workers}))
    listen(settings)
    from livedocs.app import run  # noqa: PLC0415

    run(settings)


@main.command()
@click.option("--to", "target", metavar="NAME", help="Migrate forward or back to this migration; zero undoes all.")
@click.option("--list", "only_list", is_flag=True, help="List the migrations and whether they are applied.")
def migrate(target: str | None, only_list: bool) -> None:  # noqa: FBT001 - a flag of click
    """Bring the control database up to date."""
    from pymongo.errors import PyMongoError  # noqa: PLC0415

    from livedocs.cli.settings import load  # noqa: PLC0415
    from livedocs.store import migrate as migrations  # noqa: PLC0415

    settings = load()
    try:
        if only_list:
            for name, applied in migrations.status(settings):
                click.echo(f"{'applied' if applied else 'pending':<9}{name}")
            return
        done = migrations.run(settings, target)
    except (migrations.MigrationError, PyMongoError) as error:
        raise click.ClickException(str(error)) from None
    for name in done:
        click.echo(name)
    click.echo(f"{len(done)} migrations run" if done else "nothing to do")


@main.command()
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65532), help="Port of the server.")
@click.option(
    "--oauth-port", type=click.IntRange(1, 65535), help="Port of the OAuth provider.  [default: PORT + 1]"
)
@click.option("--mongo-port", type=click.IntRange(1, 65535), help="Port of mongod.  [default: PORT + 2]")
@click.option(
    "--data-dir",
    default=Path(".livedocs"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps the data between runs.",
)
@click.option("--fresh", is_flag=True, help="Delete the data of earlier runs first.")
@click.option("--stop-with-parent", is_flag=True, help="Exit when the parent process has ended.")
def demo(**options: Any) -> None:
    """Start everything on this machine: mongod, an OAuth provider, demo tenants and people, the server."""
    from livedocs.demo.run import demo as start  # noqa: PLC0415

    raise SystemExit(start(**options))


@main.command()
@click.option("--user", required=True, help="A user of the demo (alice, bob, ada, carol), or acme-service.")
@click.option("--tenant", required=True, help="Their tenant: acme or globex.")
@click.option("--scope", help="Scopes, separated by spaces.  [default: all that are allowed]")
@click.option("--ttl", type=click.IntRange(1), help="Seconds until the token expires.")
@click.option(
    "--oauth-port",
    type=click.IntRange(1, 65535),
    help="Port of the provider.  [default: that of the demo in .livedocs, or 8001]",
)
def token(oauth_port: int | None, **options: Any) -> None:
    """Print an access token of the development OAuth provider."""
    from livedocs.demo.token import TokenError, fetch_token, port_of  # noqa: PLC0415

    try:
        click.echo(fetch_token(oauth_port=oauth_port or port_of(Path(".livedocs")), **options))
    except TokenError as error:
        raise click.ClickException(str(error)) from None
