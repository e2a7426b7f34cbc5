"""``distjob completion``: what makes a shell complete the command's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print a script that makes SHELL complete commands, options, their values, and VMs in use.

    \b
        eval "$(distjob completion bash)"                            # in ~/.bashrc
        eval "$(distjob completion zsh)"                             # in ~/.zshrc
        distjob completion fish > ~/.config/fish/completions/distjob.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise AssertionError(f"click knows no {shell}")
    top = click.get_current_context().find_root().command
    click.echo(found(top, {}, "distjob", "_DISTJOB_COMPLETE").source())
