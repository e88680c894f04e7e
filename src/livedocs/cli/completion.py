"""`livedocs completion`: what a shell needs to complete the command's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    In ~/.bashrc (bash 4.4 or newer): eval "$(livedocs completion bash)"

    In ~/.zshrc, behind compinit: eval "$(livedocs completion zsh)"

    In ~/.config/fish/config.fish: livedocs completion fish | source
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"There is no completion for {shell}.")
    # The name is that of the installed command, however this one was called: the script is for that.
    click.echo(kind(context.find_root().command, {}, "livedocs", "_LIVEDOCS_COMPLETE").source())
